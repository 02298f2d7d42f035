//! What packages say of others: `Depends: a (>= 1) | b, c:any` and `Provides: d (= 2)` ([deb-control(5)], [Debian policy §7.1]).
//!
//! Deliberately absent: build profiles that are active. There are none where packages are installed.
//!
//! [deb-control(5)]: https://manpages.debian.org/bookworm/dpkg-dev/deb-control.5.en.html
//! [Debian policy §7.1]: https://www.debian.org/doc/debian-policy/ch-relationships.html

use std::cmp::Ordering;

use super::version;

/// Alternatives, one of which is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group<'t> {
    /// As it stands in the field.
    pub(crate) text: &'t str,
    /// In order: the first that can be had is taken.
    pub(crate) alternatives: Vec<Relation<'t>>,
}

/// One package that is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation<'t> {
    /// Its name.
    pub(crate) name: &'t str,
    /// What stands behind a colon: `any`, `native` or an architecture.
    pub(crate) qualifier: Option<&'t str>,
    /// Which versions.
    pub(crate) bound: Option<Bound<'t>>,
}

/// Which versions are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound<'t> {
    relation: &'t str,
    version: &'t str,
}

impl<'t> Bound<'t> {
    /// The version that it names.
    pub(crate) fn version(self) -> &'t str {
        self.version
    }

    /// Whether `version` is meant. A relation that nobody knows means none.
    pub(crate) fn admits(self, version: &str) -> bool {
        let ordering = version::compare(version, self.version);
        match self.relation {
            "=" => ordering == Ordering::Equal,
            "<<" => ordering == Ordering::Less,
            ">>" => ordering == Ordering::Greater,
            // "The < and > … mean less/greater or equal" in old packages.
            "<=" | "<" => ordering != Ordering::Greater,
            ">=" | ">" => ordering != Ordering::Less,
            _ => false,
        }
    }
}

impl Relation<'_> {
    /// Whether `version` fits; one that is not known fits only where any does.
    pub(crate) fn admits(&self, version: Option<&str>) -> bool {
        match (&self.bound, version) {
            (None, _) => true,
            (Some(bound), Some(version)) => bound.admits(version),
            (Some(_), None) => false,
        }
    }
}

/// The groups of a field, as they count on `architecture`. Groups all of whose alternatives are for others are none.
pub(crate) fn groups<'t>(field: &'t str, architecture: &str) -> Vec<Group<'t>> {
    let groups = field.split(',').map(str::trim).filter(|text| !text.is_empty());
    groups
        .map(|text| Group {
            text,
            alternatives: text
                .split('|')
                .filter_map(|word| relation(word.trim(), architecture))
                .collect(),
        })
        .filter(|group| !group.alternatives.is_empty())
        .collect()
}

/// `name[:qualifier] [(relation version)] [[architectures]] [<profiles>…]`; none where it is for other architectures or profiles.
fn relation<'t>(text: &'t str, architecture: &str) -> Option<Relation<'t>> {
    let end = text
        .find(|letter: char| letter.is_whitespace() || "([<".contains(letter))
        .unwrap_or(text.len());
    let (name, mut rest) = (&text[..end], text[end..].trim_start());
    let (name, qualifier) = name
        .split_once(':')
        .map_or((name, None), |(name, qualifier)| (name, Some(qualifier)));
    if name.is_empty() {
        return None;
    }
    let mut bound = None;
    let mut is_meant = true;
    let mut profiles = Vec::new();
    while let Some((open, inner)) = rest.chars().next().zip(rest.get(1..)) {
        let close = match open {
            '(' => ')',
            '[' => ']',
            '<' => '>',
            _ => break,
        };
        let (inside, behind) = inner.split_once(close).unwrap_or((inner, ""));
        match open {
            '(' => bound = Some(of_versions(inside.trim())),
            '[' => is_meant &= is_among(inside, architecture),
            _ => profiles.push(inside.split_whitespace().all(|word| word.starts_with('!'))),
        }
        rest = behind.trim_start();
    }
    // "a disjunction of restriction lists", each of which holds when all of its terms do.
    let is_meant = is_meant && (profiles.is_empty() || profiles.contains(&true));
    is_meant.then_some(Relation {
        name,
        qualifier,
        bound,
    })
}

fn of_versions(text: &str) -> Bound<'_> {
    let end = text
        .find(|letter: char| !"<>=".contains(letter))
        .unwrap_or(text.len());
    Bound {
        relation: &text[..end],
        version: text[end..].trim(),
    }
}

/// Whether a list such as `amd64 arm64` or `!i386` means `architecture`.
fn is_among(list: &str, architecture: &str) -> bool {
    let is_it = |word: &str| {
        word == architecture
            || matches!(word, "any" | "linux-any")
            || word.strip_prefix("any-") == Some(architecture)
            || word.strip_prefix("linux-") == Some(architecture)
    };
    let mut words = list.split_whitespace().peekable();
    let is_negative = words.peek().is_some_and(|word| word.starts_with('!'));
    let is_named = words.any(|word| is_it(word.trim_start_matches('!')));
    is_named != is_negative
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(field: &str) -> Vec<Vec<&str>> {
        let groups = groups(field, "amd64").into_iter();
        groups
            .map(|group| {
                let alternatives = group.alternatives.into_iter();
                alternatives.map(|relation| relation.name).collect()
            })
            .collect()
    }

    #[test]
    fn fields_are_read_as_the_policy_says() {
        assert_eq!(
            names("a, b (>= 1:2.0-1) | c:any (<<3) ,\n d [!i386], e[i386 linux-any], f <!nocheck> ,"),
            [vec!["a"], vec!["b", "c"], vec!["d"], vec!["e"], vec!["f"]]
        );
        assert_eq!(
            names("a [arm64], b [!amd64] | c, d <stage1>, e <stage1> <!x>"),
            [["c"], ["e"]]
        );
        assert_eq!(names(""), Vec::<Vec<&str>>::new());
        let read = groups("c:any (<< 3)", "amd64");
        assert_eq!(read[0].text, "c:any (<< 3)");
        assert_eq!(read[0].alternatives[0].qualifier, Some("any"));
    }

    #[test]
    fn bounds_admit_the_versions_that_they_say() {
        for (relation, admitted) in [
            ("=", [false, true, false]),
            ("<<", [true, false, false]),
            ("<=", [true, true, false]),
            ("<", [true, true, false]),
            (">=", [false, true, true]),
            (">", [false, true, true]),
            (">>", [false, false, true]),
            ("=>", [false, false, false]),
        ] {
            let field = format!("a ({relation} 1:2-1)");
            let read = &groups(&field, "amd64")[0].alternatives[0];
            for (version, expected) in ["2-1", "1:2-1", "1:2-2"].into_iter().zip(admitted) {
                assert_eq!(read.admits(Some(version)), expected, "{relation} {version}");
            }
            assert!(!read.admits(None), "{relation}");
        }
        assert!(groups("a", "amd64")[0].alternatives[0].admits(None));
    }
}
