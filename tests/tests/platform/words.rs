//! What the platform's commands are told: `{version}` is the version that is to run on the node at that moment, for every verb.

use std::fs;

use anyhow::{Result, ensure};
use integration_tests::{
    command,
    node::{TestNode, names},
    releases::{Repository, TestRelease},
    static_server::StaticServer,
};

use crate::LONG;

/// Runs `kato`, which must end with `code`, and gives what the platform was asked for meanwhile: verbs with versions.
fn asked(node: &TestNode, code: i32, arguments: &[&str]) -> Result<Vec<(String, String)>> {
    node.put("platform/words", "")?;
    let output = command::run(node.kato(arguments)?, LONG, &[])?;
    ensure!(output.status.code() == Some(code), "{arguments:?}: {output:?}");
    let words = node.text("platform/words").unwrap_or_default();
    let words = words.lines().filter_map(|line| line.split_once(' '));
    Ok(words
        .map(|(verb, version)| (verb.into(), version.into()))
        .collect())
}

/// Every call before the first of `verb` is told `before`, that one and every later one `after`.
fn changes_at(verb: &str, asked: &[(String, String)], before: &str, after: &str) {
    let at = asked.iter().position(|(one, _)| one == verb);
    assert!(at.is_some(), "nobody asked for `{verb}`: {asked:?}");
    let at = at.unwrap_or_default();
    for (nth, (one, version)) in asked.iter().enumerate() {
        let expected = if nth < at { before } else { after };
        assert_eq!(version, expected, "call {nth}, `{one}`, of {asked:?}");
    }
}

fn verbs(asked: &[(String, String)]) -> Vec<&str> {
    let mut verbs: Vec<_> = asked.iter().map(|(verb, _)| verb.as_str()).collect();
    verbs.sort_unstable();
    verbs.dedup();
    verbs
}

#[tokio::test(flavor = "multi_thread")]
async fn c11_every_verb_is_told_the_version_that_is_to_run_at_that_moment() -> Result<()> {
    const UPGRADE: &[&str] = &["node", "upgrade", "--skip-confirmation"];
    let folder = tempfile::tempdir()?;
    let repository = Repository::empty(folder.path()).await?;
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        let mut release = TestRelease::standard(version);
        release.head = "restart = \"services\"\nbackup = [\"/s/state\"]\n".into();
        repository.publish(&release).await?;
    }
    let host = StaticServer::start(&repository.dir()).await?;
    let node = TestNode::new(
        &folder.path().join("node"),
        &["controller", "dea"],
        &host.url(),
        &repository.root(),
    )?;
    node.put("s/state/db", "one")?;
    let upgrade = |version| [UPGRADE, &["--version", version]].concat();
    let first = asked(&node, 0, &upgrade("1.0.0"))?;
    changes_at("restart", &first, "", "1.0.0");

    let second = asked(&node, 0, &upgrade("2.0.0"))?;
    changes_at("restart", &second, "1.0.0", "2.0.0");
    let all = [
        "backup", "health", "rejoin", "resident", "restart", "retire", "version",
    ];
    assert_eq!(verbs(&second), all);

    let by_hand = asked(&node, 0, &["node", "retire"])?;
    changes_at("retire", &by_hand, "2.0.0", "2.0.0");
    let by_hand = asked(&node, 0, &["node", "rejoin"])?;
    changes_at("rejoin", &by_hand, "2.0.0", "2.0.0");

    // The new release is restarted, cannot be, and from then on the old one is to run; the next run leads back.
    node.put("platform/fail-restart", "")?;
    let third = asked(&node, 23, &upgrade("3.0.0"))?;
    let at = third.iter().position(|(verb, _)| verb == "restart");
    let (forward, back) = third.split_at(at.unwrap_or_default() + 1);
    changes_at("restart", forward, "2.0.0", "3.0.0");
    changes_at("restart", back, "2.0.0", "2.0.0");
    fs::remove_file(node.path("platform/fail-restart"))?;
    let back = asked(&node, 22, UPGRADE)?;
    changes_at("rejoin", &back, "2.0.0", "2.0.0");

    let backups = names(&node.state("backup"));
    let old = backups.iter().find(|name| name.starts_with("1.0.0-to-2.0.0"));
    let old = old.map(String::as_str).unwrap_or_default();
    let restored = asked(&node, 0, &["node", "restore", "--skip-confirmation", old])?;
    changes_at("restore", &restored, "2.0.0", "1.0.0");
    let undone = asked(&node, 0, &["node", "restore", "--skip-confirmation", "--undo"])?;
    changes_at("restart", &undone, "2.0.0", "2.0.0");
    Ok(())
}
