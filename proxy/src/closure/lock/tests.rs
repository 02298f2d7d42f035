use kato_shared::Digest;

use crate::{
    closure::{
        Declaration,
        tests::{Held, locked},
    },
    prefetch::{LockKind, NPM_ACCEPTS, PIP_ACCEPT},
};

const OCTETS: &str = "application/octet-stream";
const ABBREVIATED: &str = "application/vnd.npm.install-v1+json";
const PACKUMENT: &str = r#"{"versions":{"1.0.0":{}}}"#;

/// A lock file of npm with one package, which was made at this registry.
fn npm(registry: &str) -> Declaration {
    let text = format!(
        r#"{{"packages":{{"node_modules/a":{{"version":"1.0.0","resolved":"{registry}/a/-/a-1.0.0.tgz"}}}}}}"#
    );
    locked(LockKind::Npm, &text)
}

fn pip(wheel: Digest) -> Declaration {
    locked(LockKind::Pip, &format!("a==1 --hash=sha256:{}\n", wheel.hex()))
}

/// Who chose a file, of which an origin says `Vary: Accept`, and whether curl, pip, npm and cargo get it.
#[test]
fn a_file_is_there_where_clients_of_files_get_it() {
    for (chosen_by, is_there) in [
        (None, true),
        (Some("*/*"), true),
        (Some("text/html, */*;q=0.8"), true),
        (Some("application/octet-stream"), false),
    ] {
        let mut held = Held::default();
        held.put("https://files.example/tool", "tool");
        held.chosen_by(chosen_by, OCTETS);
        let declared = Declaration {
            files: vec![("https://files.example/tool".into(), None)],
            ..Declaration::default()
        };
        let said = held.gaps(&declared, "");
        assert_eq!(said.is_empty(), is_there, "{chosen_by:?}: {said:?}");
        assert!(is_there || said[0].contains("(Vary)"), "{said:?}");

        let mut held = Held::default();
        held.put(
            "https://pypi.example/simple/a/",
            "<a href='https://files.example/a-1.whl'>a</a>",
        );
        let wheel = held.put("https://files.example/a-1.whl", "wheel");
        held.chosen_by(chosen_by, OCTETS);
        assert_eq!(held.gaps(&pip(wheel), "").is_empty(), is_there, "{chosen_by:?}");

        let mut held = Held::default();
        held.put("https://npm.example/a", PACKUMENT);
        held.put("https://npm.example/a/-/a-1.0.0.tgz", "tarball");
        held.chosen_by(chosen_by, OCTETS);
        let said = held.gaps(&npm("https://npm.example"), "");
        assert_eq!(said.is_empty(), is_there, "{chosen_by:?}: {said:?}");
    }
}

/// A page in HTML, which an older pip has chosen, is one that pip takes today, too; a page in JSON is none for the older one.
#[test]
fn a_page_is_there_in_a_form_that_pip_accepts() {
    for (chosen_by, media_type, is_there) in [
        (PIP_ACCEPT, "application/vnd.pypi.simple.v1+json", true),
        ("text/html", "text/html", true),
        ("text/plain", "text/plain", false),
    ] {
        let mut held = Held::default();
        let wheel = held.put("https://files.example/a-1.whl", "wheel");
        held.put(
            "https://pypi.example/simple/a/",
            "<a href='https://files.example/a-1.whl'>a</a>",
        );
        held.chosen_by(Some(chosen_by), media_type);
        let said = held.gaps(&pip(wheel), "");
        assert_eq!(said.is_empty(), is_there, "{media_type}: {said:?}");
        assert!(is_there || said[0].contains("another form"), "{said:?}");
    }
}

/// The whole packument answers both ways of asking; the abbreviated one is none for who asks for `application/json`.
#[test]
fn a_packument_is_there_for_every_npm() {
    let [whole, abbreviated] = NPM_ACCEPTS;
    for (forms, expected) in [
        (&[(whole, "application/json")][..], 0),
        (&[(whole, "application/json"), (abbreviated, ABBREVIATED)], 0),
        (&[(abbreviated, ABBREVIATED)], 1),
        // A registry that has one form for all.
        (&[(abbreviated, "application/json")], 0),
        (&[], 1),
    ] {
        let mut held = Held::default();
        held.put("https://npm.example/a/-/a-1.0.0.tgz", "tarball");
        for (chosen_by, media_type) in forms {
            held.put("https://npm.example/a", PACKUMENT);
            held.chosen_by(Some(chosen_by), media_type);
        }
        let said = held.gaps(&npm("https://npm.example"), "");
        assert_eq!(said.len(), expected, "{forms:?}: {said:?}");
    }
}

/// npm asks the index for the path in the lock file, whatever host that names: what is held at another host is not asked for.
#[test]
fn a_tarball_is_there_only_where_npm_asks_for_it() {
    for (registry, held_at, is_there) in [
        ("https://npm.example", "https://npm.example", true),
        ("https://other.example", "https://npm.example", true),
        ("http://cache.example/npm", "https://npm.example", true),
        ("https://npm.example", "https://other.example", false),
        ("https://other.example", "https://other.example", false),
        ("https://npm.example", "https://npm.example/deeper", false),
    ] {
        let mut held = Held::default();
        held.put("https://npm.example/a", PACKUMENT);
        held.put(&format!("{held_at}/a/-/a-1.0.0.tgz"), "tarball");
        let said = held.gaps(&npm(registry), "");
        let expected: &[&str] = if is_there {
            &[]
        } else {
            &["https://npm.example/a/-/a-1.0.0.tgz"]
        };
        assert_eq!(said, expected, "{registry}, held at {held_at}");
    }
}

#[test]
fn a_lock_file_without_a_package_is_said_and_what_it_leaves_out_is_missing() {
    let held = Held::default();
    let report = held.report(&locked(LockKind::Pip, "# nothing\n"));
    assert!(report.is_closed(), "{report:?}");
    assert_eq!(report.notes, ["lock file l: it names no package of an index"]);
    let report = held.report(&locked(LockKind::Pip, "-e ./here\n"));
    assert_eq!(report.gaps[0].missing, "left out: l: -e ./here");
}
