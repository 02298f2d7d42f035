//! Rules for the shape of a Rust file.

use super::{
    Violation,
    source::{Line, Source},
};

/// Above this many non-test lines a file is questioned.
const QUESTIONED: usize = 350;
/// Above this many it is refused.
const REFUSED: usize = 500;

/// Where tests may sleep, and why.
const SLEEPERS: &[(&str, &str)] = &[
    (
        "tests/src/wait.rs",
        "the one poll loop: it waits for a state, with a deadline",
    ),
    (
        "upgrader/src/cluster/rollout/batch/tests.rs",
        "its clock is paused: nothing happens for a minute, and no minute passes",
    ),
];

/// Words that begin a statement or an item, for [`commented_code`].
const CODE_STARTS: &[&str] = &[
    "let ",
    "use ",
    "pub ",
    "fn ",
    "async fn ",
    "if ",
    "for ",
    "while ",
    "match ",
    "return ",
    "impl ",
    "mod ",
    "struct ",
    "enum ",
    "#[",
    "} else",
];

/// File length, test modules not counted.
pub(crate) fn size(source: &Source) -> Vec<Violation> {
    // Scenarios read better in one piece; `tests/src` is code like any other.
    if !source.is_rust() || source.path.starts_with("tests/tests/") || source.path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let shared_code = source.path.starts_with("tests/src/");
    let count = source
        .lines
        .iter()
        .filter(|line| shared_code || !line.test)
        .count();
    if count <= QUESTIONED {
        return Vec::new();
    }
    let what = format!(
        "{count} non-test lines (aim at 150, at most {QUESTIONED}); split it by what its parts are about"
    );
    let mut violation = Violation::new(source, 1, "size", what);
    violation.warning = count <= REFUSED;
    vec![violation]
}

/// The first line is `//!`. A module's `tests.rs` is about its parent, which says so.
pub(crate) fn module_doc(source: &Source) -> Vec<Violation> {
    let first = source.lines.first().map_or("", |line| line.raw.as_str());
    let of_parent = source.path.ends_with("/tests.rs");
    if !source.is_rust() || of_parent || (first.starts_with("//!") && first.len() > 4) {
        return Vec::new();
    }
    let what = "no `//!` at the top; say what the module is for, what it leaves out, what always holds";
    vec![Violation::new(source, 1, "module-doc", what)]
}

/// TODO, FIXME and XXX carry a reference.
pub(crate) fn todo(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, line) in source.numbered().filter(|_| source.is_rust()) {
        for word in ["TODO", "FIXME", "XXX"] {
            let bare = line.comment.match_indices(word).any(|(at, _)| {
                let rest = &line.comment[at + word.len()..];
                let quoted = line.comment[..at].matches('`').count() % 2 == 1;
                let referenced = rest
                    .strip_prefix("(#")
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
                // Words of a list that speaks about the marks, such as this rule's own documentation, are followed by a comma or an `and`.
                let mentioned =
                    rest.starts_with(',') || rest.starts_with(" and ") || rest.starts_with(" carry");
                !quoted && !referenced && !mentioned
            });
            if bare {
                found.push(Violation::new(
                    source,
                    number,
                    "todo",
                    format!("{word} without a reference; write {word}(#12)"),
                ));
            }
        }
    }
    found
}

/// Code is deleted, not commented out.
pub(crate) fn commented_code(source: &Source) -> Vec<Violation> {
    source
        .numbered()
        .filter(|(_, line)| source.is_rust() && is_commented_code(line))
        .map(|(number, _)| Violation::new(source, number, "commented-code", "delete it; git remembers"))
        .collect()
}

fn is_commented_code(line: &Line) -> bool {
    let Some(text) = line.comment.strip_prefix("//") else {
        return false;
    };
    if text.starts_with(['/', '!']) || !line.code.trim().is_empty() {
        return false;
    }
    let text = text.trim();
    let starts = CODE_STARTS.iter().any(|start| text.starts_with(start));
    (starts && text.ends_with([';', '{', ']'])) || text.ends_with(");") || text == "}" || text == "});"
}

/// Tests wait for a state, not for a time.
pub(crate) fn waiting(source: &Source) -> Vec<Violation> {
    if !source.is_rust() || SLEEPERS.iter().any(|(path, _)| *path == source.path) {
        return Vec::new();
    }
    source
        .numbered()
        .filter(|(_, line)| line.test && line.code.contains("sleep("))
        .map(|(number, _)| {
            let what = "a test that sleeps is slow or flaky, mostly both; wait for the state with a deadline";
            Violation::new(source, number, "sleep", what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(text: &str) -> Source {
        Source::new("proxy/src/probe.rs", text)
    }

    #[test]
    fn long_files_are_questioned_then_refused_and_tests_do_not_count() {
        let of = |code: usize, tests: usize| {
            rust(&format!(
                "{}#[cfg(test)]\nmod tests {{\n{}}}\n",
                "a();\n".repeat(code),
                "b();\n".repeat(tests)
            ))
        };
        assert_eq!(size(&of(350, 900)), []);
        let questioned = size(&of(351, 0));
        assert!(questioned[0].warning, "{questioned:?}");
        let refused = size(&of(501, 0));
        assert!(!refused[0].warning, "{refused:?}");
        assert_eq!(
            size(&Source::new("tests/tests/cache/main.rs", &"a();\n".repeat(900))),
            []
        );
        assert_eq!(
            size(&Source::new("tests/src/lab.rs", &"a();\n".repeat(900))).len(),
            1
        );
    }

    #[test]
    fn a_module_without_an_opening_comment_is_caught() {
        assert_eq!(module_doc(&rust("use std::fs;\n")).len(), 1);
        assert_eq!(module_doc(&rust("//!\n//! Late.\n")).len(), 1);
        assert_eq!(module_doc(&rust("//! Purpose.\n")), []);
        assert_eq!(
            module_doc(&Source::new("proxy/src/range/tests.rs", "use super::*;\n")),
            []
        );
    }

    #[test]
    fn only_a_todo_with_a_reference_passes() {
        assert_eq!(todo(&rust("a(); // TODO later\n")).len(), 1);
        assert_eq!(todo(&rust("// FIXME(bob): no\n")).len(), 1);
        assert_eq!(
            todo(&rust(
                "// TODO(#12): yes\n/// A `TODO` in code.\nlet a = \"TODO\";\n"
            )),
            []
        );
    }

    #[test]
    fn code_in_comments_is_caught_and_prose_is_not() {
        for code in [
            "// let a = 1;",
            "    // return None;",
            "// fn old() {",
            "// self.close();",
            "// }",
        ] {
            assert_eq!(commented_code(&rust(code)).len(), 1, "{code}");
        }
        for prose in [
            "// If the disk is full;",
            "// for each node, in order.",
            "/// let a = 1;",
            "a(); // let it go;",
            "// use it, then (maybe) stop",
        ] {
            assert_eq!(commented_code(&rust(prose)), [], "{prose}");
        }
    }

    #[test]
    fn sleeping_tests_are_caught_and_sleeping_code_is_not_our_business() {
        let text = "fn a() { sleep(1); }\n#[cfg(test)]\nmod tests {\n    fn b() { tokio::time::sleep(x).await; }\n}\n";
        assert_eq!(
            waiting(&rust(text)).iter().map(|v| v.line).collect::<Vec<_>>(),
            [4]
        );
        assert_eq!(
            waiting(&Source::new("tests/tests/cache/main.rs", "thread::sleep(x);\n")).len(),
            1
        );
        assert_eq!(
            waiting(&Source::new("tests/src/wait.rs", "thread::sleep(x);\n")),
            []
        );
    }
}
