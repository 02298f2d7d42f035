//! Rules for every text file: blanks, and names of public hosts.

use super::{Violation, source::Source};

/// Public package registries and mirrors, in two halves so that this file may stand in the workspace itself. Tests and examples that named one
/// would sooner or later ask it.
const HOSTS: &[(&str, &str)] = &[
    ("crates", ".io"),
    ("docs", ".rs"),
    ("pypi", ".org"),
    ("pythonhosted", ".org"),
    ("npmjs", ".org"),
    ("npmjs", ".com"),
    ("deb.debian", ".org"),
    ("ftp.debian", ".org"),
    ("security.debian", ".org"),
    ("archive.ubuntu", ".com"),
];

/// No byte order mark, tab, carriage return or trailing blank; one newline at the end.
pub(crate) fn whitespace(source: &Source) -> Vec<Violation> {
    let rule = "whitespace";
    let mut found = Vec::new();
    if source.text.starts_with('\u{feff}') {
        found.push(Violation::new(source, 1, rule, "byte order mark; remove it"));
    }
    // `lines()` swallows the carriage return of CRLF.
    for (number, line) in (1..).zip(source.text.split('\n')) {
        if line.contains('\r') {
            found.push(Violation::new(
                source,
                number,
                rule,
                "carriage return; end lines with a newline alone",
            ));
        } else if line.ends_with(' ') {
            found.push(Violation::new(source, number, rule, "trailing blank; remove it"));
        }
        if line.contains('\t') {
            found.push(Violation::new(
                source,
                number,
                rule,
                "tab; use spaces, or `\\t` in a string",
            ));
        }
    }
    if !source.text.is_empty() && (!source.text.ends_with('\n') || source.text.ends_with("\n\n")) {
        let last = source.lines.len().max(1);
        found.push(Violation::new(
            source,
            last,
            rule,
            "end the file with exactly one newline",
        ));
    }
    found
}

/// No public package registry is named.
pub(crate) fn hosts(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, line) in source.numbered() {
        for (first, second) in HOSTS {
            let host = format!("{first}{second}");
            if names(&line.raw.to_ascii_lowercase(), &host) {
                let what = format!("`{host}` is a public registry; use a name under `.example`");
                found.push(Violation::new(source, number, "host", what));
            }
        }
    }
    found
}

/// Whether `line` holds `host` as a whole name, so that `notcrates.io.example` stays free.
fn names(line: &str, host: &str) -> bool {
    line.match_indices(host).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let mut after = line[at + host.len()..].chars();
        let next = after.next();
        let goes_on = match next {
            Some('.') => after.next().is_some_and(|c| c.is_ascii_alphanumeric()),
            Some(c) => c.is_ascii_alphanumeric() || c == '-',
            None => false,
        };
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '-') && !goes_on
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whitespace_of(text: &str) -> Vec<usize> {
        whitespace(&Source::new("a.md", text))
            .iter()
            .map(|violation| violation.line)
            .collect()
    }

    #[test]
    fn each_kind_of_blank_is_caught_on_its_line() {
        assert_eq!(whitespace_of("fine\n"), [0; 0]);
        assert_eq!(whitespace_of("\u{feff}mark\n"), [1]);
        assert_eq!(whitespace_of("a\nb \n"), [2]);
        assert_eq!(whitespace_of("a\r\nb\n"), [1]);
        assert_eq!(whitespace_of("a\n\tb\n"), [2]);
        assert_eq!(whitespace_of("a\nb"), [2]);
        assert_eq!(whitespace_of("a\n\n"), [2]);
    }

    #[test]
    fn public_registries_are_caught_and_longer_names_are_not() {
        for (first, second) in HOSTS {
            let text = format!("url = \"https://static.{first}{second}/x\"\n");
            assert_eq!(hosts(&Source::new("config/a.toml", &text)).len(), 1, "{text}");
            let free = format!("url = \"https://{first}{second}.example/ and my{first}{second}\"\n");
            assert_eq!(hosts(&Source::new("config/a.toml", &free)), [], "{free}");
        }
    }
}
