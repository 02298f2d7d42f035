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

/// What reaches the disk, and where it may: a test learns the places where a program can be killed from the one owner.
const DISK: &[&str] = &[
    ".sync_all(",
    ".sync_data(",
    "fs::rename(",
    "renameat",
    ".persist(",
    ".persist_noclobber(",
];
const DISK_OWNER: &str = "shared/src/durable.rs";
/// Where that is so. The proxy's store has its own harness (`tests/tests/store/kills.rs`).
const DISK_FOLDERS: &[&str] = &["shared/src/", "upgrader/src/"];

/// Files flushed and renamed outside their owner.
pub(crate) fn disk(source: &Source) -> Vec<Violation> {
    let is_theirs = DISK_FOLDERS.iter().any(|folder| source.path.starts_with(folder));
    if !source.is_rust() || !is_theirs || source.path == DISK_OWNER {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (number, line) in source.numbered().filter(|(_, line)| !line.test) {
        if let Some(name) = DISK.iter().find(|name| line.code.contains(**name)) {
            let name = name.trim_matches(['.', '(']);
            let what = format!(
                "`{name}`: only {DISK_OWNER} flushes and renames, so that no crash test misses it; ask it"
            );
            found.push(Violation::new(source, number, "owner", what));
        }
    }
    found
}

/// Names outside their owner's folder.
pub(crate) fn check(source: &Source) -> Vec<Violation> {
    // A crate's integration tests stand outside it, as `tests/` does: they are its clients.
    let is_test = source.path.starts_with("tests/") || source.path.split('/').nth(1) == Some("tests");
    if !source.is_rust() || is_test || source.path.starts_with("xtask/") {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut in_group = false;
    for (number, line) in source.numbered() {
        let code = line.code.trim();
        if in_group {
            // The rest of `use some::path::{…};`: names of that path, not of crates.
            in_group = !code.ends_with("};");
            continue;
        }
        in_group = imported(code).is_some_and(|path| path.ends_with('{') && path != "{");
        for owner in OWNERS {
            let at_home = owner.allowed.iter().any(|home| source.path.starts_with(home));
            for name in owner
                .names
                .iter()
                .filter(|name| !at_home && names_crate(code, name))
            {
                let what = format!("names `{name}`: {}", owner.why);
                found.push(Violation::new(source, number, "owner", what));
            }
        }
        if !source.path.starts_with(SSH) && line.code.contains("new(\"") && starts_ssh(&line.raw) {
            let what = format!("starts ssh: only {SSH} does; ask it");
            found.push(Violation::new(source, number, "owner", what));
        }
    }
    found
}

/// What stands behind `use` when the line begins an import.
fn imported(code: &str) -> Option<&str> {
    let (visibility, path) = code.split_once("use ")?;
    (visibility.is_empty() || visibility.starts_with("pub")).then_some(path)
}

/// Whether `code` uses the crate: as the first part of an import or of a path.
fn names_crate(code: &str, name: &str) -> bool {
    if let Some(path) = imported(code) {
        let rest = path.trim_start_matches([':', '{', ' ']).strip_prefix(name);
        return rest.is_some_and(|rest| rest.starts_with([':', ';', ' ', ',']));
    }
    code.match_indices(name).any(|(at, _)| {
        let before = &code[..at];
        let part = before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.'));
        let absolute = before.ends_with(" ::") || before == "::";
        (!part || absolute) && code[at + name.len()..].starts_with("::")
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
    fn a_module_of_ours_with_the_name_of_a_crate_is_not_that_crate() {
        let nested =
            "use crate::{\n    ssh::{\n        openssh::{SshHost},\n    },\n};\nfn f() { openssh::g(); }\n";
        assert_eq!(
            at("upgrader/src/cluster/connect.rs", nested),
            1,
            "only the call behind the import"
        );
        assert_eq!(
            at(
                "upgrader/src/cluster/connect.rs",
                "use crate::ssh::{openssh::SshHost, Host};\n"
            ),
            0
        );
        assert_eq!(
            at(
                "upgrader/src/cluster/connect.rs",
                "pub(crate) use openssh as shell;\n"
            ),
            1
        );
        assert_eq!(
            at(
                "upgrader/src/cluster/connect.rs",
                "use {\n    openssh::Session,\n};\n"
            ),
            1
        );
    }

    #[test]
    fn only_the_owner_flushes_and_renames() {
        let at = |path, text| disk(&Source::new(path, text)).len();
        assert_eq!(at("upgrader/src/lock.rs", "fn f() { file.sync_all()?; }\n"), 1);
        assert_eq!(
            at("shared/src/trust/mod.rs", "fn f() { fs::rename(a, b)?; }\n"),
            1
        );
        assert_eq!(at("shared/src/durable.rs", "fn f() { file.sync_all()?; }\n"), 0);
        assert_eq!(
            at("proxy/src/store/batch.rs", "fn f() { file.sync_all()?; }\n"),
            0
        );
        assert_eq!(at("upgrader/src/lock.rs", "// file.sync_all()\n"), 0);
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
