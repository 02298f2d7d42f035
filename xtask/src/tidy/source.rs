//! One file, with code, comments, strings and test modules told apart.
//!
//! The scanner knows nested block comments, raw strings, escapes, and lifetimes from character literals. It is no parser: what it
//! cannot tell, a rule must not ask.

/// A text file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the workspace, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
    /// Line by line. For files that are not Rust, everything is `code`.
    pub(crate) lines: Vec<Line>,
}

/// One line of a file.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// As written.
    pub(crate) raw: String,
    /// Without comments, and with the contents of strings blanked.
    pub(crate) code: String,
    /// The text of its comments, `//` and doc marks included.
    pub(crate) comment: String,
    /// Inside `#[cfg(test)]`, or in a file that holds nothing but tests.
    pub(crate) test: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    BlockComment { depth: u32 },
    Text,
    RawText { hashes: usize },
}

impl Source {
    /// Scans `text`.
    pub(crate) fn new(path: impl Into<String>, text: &str) -> Self {
        let path = path.into();
        let mut lines = if is_rust(&path) { scan(text) } else { plain(text) };
        let all_tests = path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/");
        if all_tests {
            for line in &mut lines {
                line.test = true;
            }
        } else {
            mark_tests(&mut lines);
        }
        Self {
            path,
            text: text.to_owned(),
            lines,
        }
    }

    /// Whether the file is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        is_rust(&self.path)
    }

    /// The lines, numbered from 1.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        (1..).zip(&self.lines)
    }
}

fn is_rust(path: &str) -> bool {
    std::path::Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "rs")
}

fn plain(text: &str) -> Vec<Line> {
    text.lines()
        .map(|raw| Line {
            raw: raw.to_owned(),
            code: raw.to_owned(),
            ..Line::default()
        })
        .collect()
}

fn scan(text: &str) -> Vec<Line> {
    let mut state = State::Code;
    text.lines()
        .map(|raw| {
            let mut line = Line {
                raw: raw.to_owned(),
                ..Line::default()
            };
            let chars: Vec<char> = raw.chars().collect();
            let mut at = 0;
            while at < chars.len() {
                at += step(&mut state, &chars[at..], &mut line);
            }
            if state == State::LineComment {
                state = State::Code;
            }
            line
        })
        .collect()
}

/// Consumes at least one character of `rest`, and returns how many.
fn step(state: &mut State, rest: &[char], line: &mut Line) -> usize {
    match *state {
        State::Code => code(state, rest, line),
        State::LineComment => {
            line.comment.extend(rest);
            rest.len()
        }
        State::BlockComment { depth } => block_comment(state, depth, rest, line),
        State::Text => match rest {
            ['\\', _, ..] => blank(line, 2),
            ['"', ..] => close(state, line, 1),
            _ => blank(line, 1),
        },
        State::RawText { hashes } => {
            let ends = rest[0] == '"' && rest.len() > hashes && rest[1..=hashes].iter().all(|&c| c == '#');
            if ends {
                close(state, line, 1 + hashes)
            } else {
                blank(line, 1)
            }
        }
    }
}

fn code(state: &mut State, rest: &[char], line: &mut Line) -> usize {
    let previous = line.code.chars().next_back().unwrap_or(' ');
    let inside_word = previous.is_alphanumeric() || previous == '_';
    match rest {
        ['/', '/', ..] => *state = State::LineComment,
        ['/', '*', ..] => {
            *state = State::BlockComment { depth: 1 };
            line.comment.push_str("/*");
            return 2;
        }
        ['"', ..] => {
            *state = State::Text;
            line.code.push('"');
            return 1;
        }
        ['r', after @ ..] if !inside_word || previous == 'b' => {
            let hashes = after.iter().take_while(|&&c| c == '#').count();
            if after.get(hashes) == Some(&'"') {
                *state = State::RawText { hashes };
                line.code.push('"');
                return hashes + 2;
            }
            line.code.push('r');
            return 1;
        }
        // A character literal; anything else behind the quote is a lifetime.
        ['\'', '\\', _, after @ ..] => {
            let more = after
                .iter()
                .position(|&c| c == '\'')
                .map_or(after.len(), |end| end + 1);
            return blank(line, 3 + more);
        }
        ['\'', _, '\'', ..] => return blank(line, 3),
        [first, ..] => {
            line.code.push(*first);
            return 1;
        }
        [] => return 1,
    }
    line.comment.extend(rest);
    rest.len()
}

fn block_comment(state: &mut State, depth: u32, rest: &[char], line: &mut Line) -> usize {
    match rest {
        ['*', '/', ..] => {
            *state = if depth == 1 {
                State::Code
            } else {
                State::BlockComment { depth: depth - 1 }
            };
            line.comment.push_str("*/");
            2
        }
        ['/', '*', ..] => {
            *state = State::BlockComment { depth: depth + 1 };
            line.comment.push_str("/*");
            2
        }
        _ => {
            line.comment.push(rest[0]);
            1
        }
    }
}

fn blank(line: &mut Line, count: usize) -> usize {
    line.code.extend(std::iter::repeat_n(' ', count));
    count
}

fn close(state: &mut State, line: &mut Line, count: usize) -> usize {
    *state = State::Code;
    line.code.push('"');
    count
}

/// Marks what stands in the braces behind each `#[cfg(test)]`, the attribute included.
fn mark_tests(lines: &mut [Line]) {
    let mut depth: Option<i64> = None;
    for line in lines {
        if depth.is_none() && line.code.trim_start().starts_with("#[cfg(test)]") {
            depth = Some(0);
        }
        let Some(open) = depth.as_mut() else { continue };
        line.test = true;
        let before = *open;
        for c in line.code.chars() {
            *open += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
        }
        // `#[cfg(test)] mod tests;` ends without braces.
        let bodiless = before == 0 && *open == 0 && line.code.trim_end().ends_with([';', '}']);
        if bodiless || (before > 0 && *open == 0) {
            depth = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("shared/src/probe.rs", text)
    }

    #[test]
    fn strings_and_comments_are_not_code() {
        let found =
            source("let a = \"// no; \\\" {\"; // yes {\nlet b = r#\"x\" {\"#; /* one /* two */ } */ c();");
        assert_eq!(
            found.lines[0].code.trim_end(),
            format!("let a = \"{}\";", " ".repeat(11))
        );
        assert_eq!(found.lines[0].comment, "// yes {");
        assert!(found.lines[1].code.ends_with("c();") && !found.lines[1].code.contains('{'));
        assert_eq!(found.lines[1].comment, "/* one /* two */ } */");
    }

    #[test]
    fn a_string_goes_on_over_lines_and_a_line_comment_does_not() {
        let found = source("let a = \"one\n// two\"; b();\n// three\nc();");
        assert_eq!(found.lines[1].comment, "");
        assert!(found.lines[1].code.ends_with("b();"));
        assert_eq!(found.lines[3].code, "c();");
    }

    #[test]
    fn lifetimes_are_code_and_character_literals_are_not() {
        let found = source("fn f<'a>(x: &'a str) { g('{', '\\'', '\"'); }");
        assert!(found.lines[0].code.contains("<'a>(x: &'a str)"));
        assert_eq!(found.lines[0].code.matches('{').count(), 1);
        assert!(found.lines[0].code.ends_with("); }"));
    }

    #[test]
    fn test_modules_are_marked_to_their_closing_brace() {
        let found = source(
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}",
        );
        let marks: Vec<bool> = found.lines.iter().map(|line| line.test).collect();
        assert_eq!(marks, [false, true, true, true, true, false, true, true, false]);
    }
}
