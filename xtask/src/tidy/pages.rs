//! Pages against what they speak of: links lead somewhere, and README's table of exit codes is that of the code.

use std::collections::BTreeSet;

use super::{Violation, source::Source};

/// Where the exit codes are decided, and where users read them.
const REGISTRY: &str = "upgrader/src/exit.rs";
const README: &str = "README.md";

/// Relative links of Markdown pages whose file does not exist; `exists` is asked with a path relative to the workspace.
pub(crate) fn links(sources: &[Source], exists: impl Fn(&str) -> bool) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in sources
        .iter()
        .filter(|source| extension(&source.path) == Some("md"))
    {
        let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in source.numbered() {
            for target in targets(&line.raw).filter(|target| !exists(&join(folder, target))) {
                let what =
                    format!("links to `{target}`, which does not exist; mend the link or write the page");
                found.push(Violation::new(source, number, "link", what));
            }
        }
    }
    found
}

/// Codes that stand in one of the two places only.
pub(crate) fn exit_codes(sources: &[Source]) -> Vec<Violation> {
    let page = |path: &str| sources.iter().find(|source| source.path == path);
    let (Some(registry), Some(readme)) = (page(REGISTRY), page(README)) else {
        return Vec::new();
    };
    let decided: BTreeSet<u8> = registry
        .lines
        .iter()
        .filter_map(|line| discriminant(&line.code))
        .collect();
    let told: BTreeSet<u8> = readme
        .lines
        .iter()
        .filter_map(|line| first_cell(&line.raw))
        .collect();
    decided
        .symmetric_difference(&told)
        .map(|code| {
            let (here, there) = if told.contains(code) {
                (README, REGISTRY)
            } else {
                (REGISTRY, README)
            };
            let what = format!("exit code {code} stands in {here} and not in {there}; both say the same");
            Violation::new(readme, 1, "exit-codes", what)
        })
        .collect()
}

/// The relative targets of `[text](target)`, without fragments.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains(':'))
}

fn join(folder: &str, target: &str) -> String {
    if folder.is_empty() {
        target.to_owned()
    } else {
        format!("{folder}/{target}")
    }
}

/// `Done = 0,` of an enum.
fn discriminant(code: &str) -> Option<u8> {
    let (name, value) = code.trim().strip_suffix(',')?.split_once(" = ")?;
    name.chars()
        .all(char::is_alphanumeric)
        .then(|| value.parse().ok())?
}

/// `| 0 | …` of a table.
fn first_cell(raw: &str) -> Option<u8> {
    raw.strip_prefix("| ")?.split(" | ").next()?.parse().ok()
}

fn extension(path: &str) -> Option<&str> {
    std::path::Path::new(path).extension()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_nothing_is_caught_and_other_hosts_are_not_asked() {
        let page = "see [a](there.md#part), [b](../gone.md)\nand [c](https://else.example/x), [d](#here)\n";
        let found = links(&[Source::new("docs/page.md", page)], |path| {
            path == "docs/there.md"
        });
        assert_eq!(
            found.iter().map(|violation| violation.line).collect::<Vec<_>>(),
            [1]
        );
        assert!(found[0].what.contains("../gone.md"), "{found:?}");
    }

    #[test]
    fn a_code_in_one_place_only_is_caught_on_both_sides() {
        let registry = "pub enum Exit {\n    /// Fine.\n    Done = 0,\n    Bug = 1,\n}\n";
        let of = |readme: &str| exit_codes(&[Source::new(REGISTRY, registry), Source::new(README, readme)]);
        assert_eq!(of("| 0 | done |\n| 1 | a bug |\n"), []);
        assert_eq!(of("| 0 | done |\n").len(), 1);
        assert_eq!(of("| 0 | done |\n| 1 | a bug |\n| 2 | usage |\n").len(), 1);
    }
}
