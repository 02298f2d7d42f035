//! Which folder may name which crate: one owner each, so that a replacement touches one folder.

use super::{Violation, source::Source};

/// A crate (or a program) and the places that may name it. `tests/` may name everything.
struct Owner {
    names: &'static [&'static str],
    allowed: &'static [&'static str],
    why: &'static str,
}

const OWNERS: &[Owner] = &[
    Owner {
        names: &["cacache", "redb"],
        allowed: &["proxy/src/store/", "proxy/src/store.rs"],
        why: "only proxy/src/store knows how bytes and metadata are kept; ask it",
    },
    Owner {
        names: &["reqwest"],
        allowed: &[
            "proxy/src/origin/",
            "proxy/src/origin.rs",
            "upgrader/src/fetch/",
            "upgrader/src/fetch.rs",
        ],
        why: "only proxy/src/origin and upgrader/src/fetch speak HTTP to others; ask them",
    },
    Owner {
        names: &["openssh"],
        allowed: &["upgrader/src/ssh/", "upgrader/src/ssh.rs"],
        why: "only upgrader/src/ssh reaches other nodes; ask it",
    },
];

/// Programs that only [`SSH`] may start.
const SSH_PROGRAMS: &[&str] = &["ssh", "scp", "sftp", "/usr/bin/ssh"];
const SSH: &str = "upgrader/src/ssh";

/// Names outside their owner's folder.
pub(crate) fn check(source: &Source) -> Vec<Violation> {
    // A crate's integration tests stand outside it, as `tests/` does: they are its clients.
    let is_test = source.path.starts_with("tests/") || source.path.split('/').nth(1) == Some("tests");
    if !source.is_rust() || is_test || source.path.starts_with("xtask/") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (number, line) in source.numbered() {
        for owner in OWNERS {
            let at_home = owner.allowed.iter().any(|home| source.path.starts_with(home));
            for name in owner
                .names
                .iter()
                .filter(|name| !at_home && names_crate(&line.code, name))
            {
                found.push(Violation::new(
                    source,
                    number,
                    "owner",
                    format!("names `{name}`: {}", owner.why),
                ));
            }
        }
        if !source.path.starts_with(SSH) && line.code.contains("new(\"") && starts_ssh(&line.raw) {
            found.push(Violation::new(
                source,
                number,
                "owner",
                format!("starts ssh: only {SSH} does; ask it"),
            ));
        }
    }
    found
}

/// Whether `code` uses the crate: `name::…`, `use name;`, `use name as …`.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = &code[..at];
        let after = &code[at + name.len()..];
        let whole = !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.'))
            || before.ends_with(" ::")
            || before == "::";
        let imported = before.trim_end().ends_with("use") && after.starts_with([';', ' ', '{']);
        whole && (after.starts_with("::") || imported)
    })
}

fn starts_ssh(raw: &str) -> bool {
    SSH_PROGRAMS
        .iter()
        .any(|program| raw.contains(&format!("new(\"{program}\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn a_crate_outside_its_folder_is_caught() {
        assert_eq!(at("proxy/src/fill.rs", "use cacache::WriteOpts;\n"), 1);
        assert_eq!(at("proxy/src/fill.rs", "let db = redb::Database::open(p)?;\n"), 1);
        assert_eq!(at("proxy/src/app.rs", "use reqwest;\n"), 1);
        assert_eq!(at("proxy/tests/component/main.rs", "use reqwest::Client;\n"), 0);
        assert_eq!(
            at("upgrader/src/cluster/mod.rs", "fn f(s: &openssh::Session) {}\n"),
            1
        );
    }

    #[test]
    fn owners_tests_words_and_comments_are_free() {
        assert_eq!(at("proxy/src/store/content.rs", "use cacache::WriteOpts;\n"), 0);
        assert_eq!(at("upgrader/src/fetch/http.rs", "use reqwest::Client;\n"), 0);
        assert_eq!(at("tests/tests/cache/main.rs", "use cacache::WriteOpts;\n"), 0);
        assert_eq!(
            at(
                "proxy/src/fill.rs",
                "// cacache::x\nlet a = \"redb::x\"; my_redb::f(); store::redb::f();\n"
            ),
            0
        );
    }

    #[test]
    fn only_the_ssh_folder_starts_ssh() {
        assert_eq!(
            at("upgrader/src/cluster/mod.rs", "let c = Command::new(\"ssh\");\n"),
            1
        );
        assert_eq!(
            at("upgrader/src/ssh/mod.rs", "let c = Command::new(\"ssh\");\n"),
            0
        );
        assert_eq!(at("upgrader/src/cluster/mod.rs", "let transport = \"ssh\";\n"), 0);
    }
}
