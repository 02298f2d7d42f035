//! `docs/behaviour.md` against the tests that exist.
//!
//! A row holds the number, the behaviour, its state and its tests, each test in backticks. The state is `done`, `partly` or
//! `planned`; a row that is done or partly done names at least one test, and every test that is named exists as a function.
//! The numbers R1 to [`LAST`] stand there once each.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, source::Source};

const FILE: &str = "docs/behaviour.md";
/// The last number.
const LAST: u32 = 70;

/// Rows that are missing, twice there, or say more than the tests do.
pub(crate) fn check(sources: &[Source]) -> Vec<Violation> {
    let Some(page) = sources.iter().find(|source| source.path == FILE) else {
        return vec![violation(1, format!("{FILE} does not exist"))];
    };
    let tests = test_names(sources);
    let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for (line, raw) in page.numbered().map(|(number, line)| (number, line.raw.as_str())) {
        let Some((number, cells)) = row(raw) else { continue };
        if let Some(first) = seen.insert(number, line) {
            found.push(violation(
                line,
                format!("R{number} stands in line {first} already"),
            ));
        }
        found.extend(
            check_row(number, &cells, &tests)
                .into_iter()
                .map(|what| violation(line, what)),
        );
    }
    let missing = (1..=LAST).filter(|number| !seen.contains_key(number));
    found.extend(missing.map(|number| violation(1, format!("R{number} is missing"))));
    found
}

fn check_row(number: u32, cells: &[&str], tests: &BTreeSet<&str>) -> Option<String> {
    let [_, state, list] = cells else {
        return Some(format!(
            "R{number} has not the four cells number, behaviour, state, tests"
        ));
    };
    let named: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    match *state {
        "done" | "partly" if named.is_empty() => {
            return Some(format!("R{number} is {state} and names no test"));
        }
        "done" | "partly" | "planned" => {}
        other => {
            return Some(format!(
                "R{number} is `{other}`: expected done, partly or planned"
            ));
        }
    }
    let unknown = named
        .iter()
        .find(|name| !tests.contains(name.rsplit("::").next().unwrap_or(name)))?;
    Some(format!(
        "R{number} names the test `{unknown}`, which does not exist"
    ))
}

/// The number and the cells behind it.
fn row(raw: &str) -> Option<(u32, Vec<&str>)> {
    let mut cells = raw
        .strip_prefix("| R")?
        .strip_suffix('|')?
        .split('|')
        .map(str::trim);
    let number = cells.next()?.parse().ok()?;
    Some((number, cells.collect()))
}

/// The names of all functions in test code.
fn test_names(sources: &[Source]) -> BTreeSet<&str> {
    sources
        .iter()
        .filter(|source| source.is_rust())
        .flat_map(|source| &source.lines)
        .filter(|line| line.test)
        .filter_map(|line| {
            line.code
                .trim_start()
                .trim_start_matches("pub ")
                .trim_start_matches("async ")
                .strip_prefix("fn ")
        })
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect()
}

fn violation(line: usize, what: String) -> Violation {
    Violation {
        file: FILE.to_owned(),
        line,
        rule: "behaviour",
        what,
        warning: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(replaced: u32, row: &str) -> Vec<Violation> {
        let rows: String = (1..=LAST)
            .map(|n| {
                if n == replaced {
                    format!("{row}\n")
                } else {
                    format!("| R{n} | x | planned | |\n")
                }
            })
            .collect();
        let tests = "#[tokio::test]\nasync fn r28_order() {}\n";
        check(&[
            Source::new(FILE, &rows),
            Source::new("tests/tests/node/main.rs", tests),
        ])
    }

    #[test]
    fn done_needs_a_test_that_exists() {
        assert_eq!(page(28, "| R28 | order | done | `r28_order` |"), []);
        assert_eq!(page(28, "| R28 | order | done | `cluster::r28_order` |"), []);
        assert_eq!(page(28, "| R28 | order | done | `r28_gone` |").len(), 1);
        assert_eq!(page(28, "| R28 | order | done | |").len(), 1);
        assert_eq!(page(28, "| R28 | order | partly | |").len(), 1);
        assert_eq!(page(28, "| R28 | order | finished | |").len(), 1);
    }

    #[test]
    fn each_number_stands_there_once() {
        assert!(page(28, "").iter().any(|v| v.what == "R28 is missing"));
        let twice = page(28, "| R27 | x | planned | |");
        assert!(
            twice.iter().any(|v| v.line == 28 && v.what.contains("line 27")),
            "{twice:?}"
        );
    }

    /// The page is where people look who have nothing but the shell's message.
    #[test]
    fn r60_both_messages_of_a_missing_kato_lead_to_the_script() {
        let page = std::fs::read_to_string(crate::workspace().join(FILE)).unwrap();
        let section = page
            .split("\n## ")
            .find(|section| section.starts_with("When kato is not found"))
            .unwrap();
        for words in [
            "-bash: /home/stackato/bin/kato: No such file or directory",
            "-bash: kato: command not found",
            "sh /var/stackato/upgrade/fix-kato.sh",
        ] {
            assert!(section.contains(words), "{words}");
        }
    }
}
