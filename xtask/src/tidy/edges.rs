//! Which member of the workspace may depend on which.

use serde_json::Value;

use super::{Violation, source::Source};

/// A member, the members it may depend on, and the crates that it must not know.
struct Member {
    name: &'static str,
    folder: &'static str,
    may: &'static [&'static str],
    never: &'static [&'static str],
}

const MEMBERS: &[Member] = &[
    Member {
        name: "kato-shared",
        folder: "shared",
        may: &[],
        never: &["hyper", "hyper-util", "reqwest", "cacache", "redb"],
    },
    Member {
        name: "kato-proxy",
        folder: "proxy",
        may: &["kato-shared"],
        never: &["openssh"],
    },
    Member {
        name: "kato-upgrader",
        folder: "upgrader",
        may: &["kato-shared"],
        never: &["cacache", "redb"],
    },
    Member {
        name: "integration-tests",
        folder: "tests",
        may: &["kato-shared", "kato-proxy", "kato-upgrader"],
        never: &[],
    },
    Member {
        name: "lg",
        folder: "bench/lg",
        may: &[],
        never: &["hyper", "reqwest", "tokio"],
    },
    Member {
        name: "fuzz-targets",
        folder: "tests/fuzz",
        may: &["kato-shared", "kato-proxy"],
        never: &[],
    },
    Member {
        name: "xtask",
        folder: "xtask",
        may: &[],
        never: &[],
    },
];

/// Forbidden edges in the output of `cargo metadata --no-deps`, and members without a rule.
pub(crate) fn check(metadata: &Value, sources: &[Source]) -> Vec<Violation> {
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(member) = MEMBERS.iter().find(|member| member.name == name) else {
            found.push(violation(
                "Cargo.toml",
                1,
                format!("member `{name}` has no rule; add one to xtask/src/tidy/edges.rs"),
            ));
            continue;
        };
        let manifest = format!("{}/Cargo.toml", member.folder);
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            if let Some(what) = forbidden(member, to) {
                found.push(violation(&manifest, line_of(sources, &manifest, to), what));
            }
        }
    }
    found
}

fn forbidden(member: &Member, to: &str) -> Option<String> {
    let is_member = MEMBERS.iter().any(|member| member.name == to);
    if is_member && !member.may.contains(&to) {
        return Some(format!(
            "`{}` must not depend on `{to}`; what both need belongs in `shared`",
            member.folder
        ));
    }
    member.never.contains(&to).then(|| {
        format!(
            "`{}` must not know `{to}`; leave it to the program that needs it",
            member.folder
        )
    })
}

fn line_of(sources: &[Source], manifest: &str, dependency: &str) -> usize {
    sources
        .iter()
        .filter(|source| source.path == manifest)
        .flat_map(Source::numbered)
        .find(|(_, line)| line.raw.starts_with(dependency))
        .map_or(1, |(number, _)| number)
}

fn violation(file: &str, line: usize, what: String) -> Violation {
    Violation {
        file: file.to_owned(),
        line,
        rule: "edge",
        what,
        warning: false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edges(from: &str, to: &str) -> Vec<Violation> {
        let metadata = json!({"packages": [{"name": from, "dependencies": [{"name": to}]}]});
        check(
            &metadata,
            &[Source::new(
                "proxy/Cargo.toml",
                "[dependencies]\nkato-upgrader.workspace = true\n",
            )],
        )
    }

    #[test]
    fn the_two_programs_never_meet_but_over_http() {
        let found = edges("kato-proxy", "kato-upgrader");
        assert_eq!((found[0].file.as_str(), found[0].line), ("proxy/Cargo.toml", 2));
        assert_eq!(edges("kato-upgrader", "kato-proxy").len(), 1);
        assert_eq!(edges("kato-shared", "kato-proxy").len(), 1);
        assert_eq!(edges("xtask", "kato-shared").len(), 1);
    }

    #[test]
    fn shared_knows_no_http_and_no_store() {
        for name in ["hyper", "reqwest", "cacache", "redb"] {
            assert_eq!(edges("kato-shared", name).len(), 1, "{name}");
        }
        assert_eq!(edges("kato-proxy", "kato-shared"), []);
        assert_eq!(edges("kato-proxy", "hyper"), []);
        assert_eq!(edges("integration-tests", "kato-upgrader"), []);
    }

    #[test]
    fn a_new_member_needs_a_rule() {
        assert_eq!(edges("newcomer", "serde").len(), 1);
    }
}
