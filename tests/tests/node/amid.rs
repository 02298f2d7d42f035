//! Commands beside an upgrade that has begun: it keeps its record, and the node its service, until somebody goes on with it.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{command, node::TestNode, releases::TestRelease};
use kato_shared::durable;
use serde_json::Value;

use crate::setup::Site;

const LONG: Duration = Duration::from_secs(60);

/// How the upgrade to 2.0.0 stands.
#[derive(Debug, Clone, Copy)]
enum Begun {
    /// It has asked for the restart of the machine.
    Awaited,
    /// The machine was restarted.
    Restarted,
    /// It was killed after its first module.
    Killed,
}

/// A node at 1.0.0 in the middle of an upgrade to 2.0.0, beside releases that it can be upgraded to as well: 3.0.0, and a 4.0.0 that is
/// not what was signed.
async fn amid(begun: Begun) -> Result<Site> {
    let mut two = TestRelease::standard("2.0.0");
    if !matches!(begun, Begun::Killed) {
        two.head = "restart = \"reboot\"\n".into();
    }
    let [one, three, four] = ["1.0.0", "3.0.0", "4.0.0"].map(TestRelease::standard);
    let site = Site::with(&[one, two, three, four]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node
        .put("proc/sys/kernel/random/boot_id", "the first boot")?;
    let mut kato = site
        .node
        .kato(&["node", "upgrade", "--skip-confirmation", "--version", "2.0.0"])?;
    match begun {
        Begun::Awaited => site.node.put("platform/reboot-fails", "")?,
        Begun::Restarted => {}
        Begun::Killed => {
            kato.env("KATO_KILL_AT", "latch.written");
        }
    }
    let ended = command::run(kato, LONG, &[])?;
    let expected = match begun {
        Begun::Awaited | Begun::Restarted => Some(75),
        Begun::Killed => None,
    };
    ensure!(ended.status.code() == expected, "{ended:?}");
    let archive = site.repository.target("console-4.0.0.tar.zst")?;
    let mut bytes = fs::read(&archive)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    durable::write(&archive, &bytes, 0o644)?;
    Ok(site)
}

/// Commands that do not go on with it, and how they end.
const BESIDE: [(&[&str], i32); 13] = [
    (&["node", "upgrade", "--plan", "--version", "3.0.0"], 0),
    (&["node", "upgrade", "--download-only", "--version", "3.0.0"], 0),
    (&["node", "upgrade", "--download-only"], 0),
    (
        &[
            "node",
            "upgrade",
            "--update-kato",
            "--skip-confirmation",
            "--version",
            "3.0.0",
        ],
        0,
    ),
    (
        &["node", "upgrade", "--skip-confirmation", "--version", "9.9.9"],
        20,
    ),
    (
        &["node", "upgrade", "--skip-confirmation", "--version", "1.0.0"],
        20,
    ),
    (&["node", "upgrade", "--download-only", "--version", "1.0.0"], 20),
    // Refused in its first steps.
    (&["node", "upgrade", "--download-only", "--version", "4.0.0"], 26),
    (
        &["node", "upgrade", "--skip-confirmation", "--version", "4.0.0"],
        26,
    ),
    (&["patch", "install", "--local", "--skip-confirmation"], 20),
    (&["patch", "revert", "--local", "--skip-confirmation"], 20),
    (
        &["patch", "reinstall", "dea-fix", "--local", "--skip-confirmation"],
        20,
    ),
    (
        &[
            "patch",
            "install",
            "--local",
            "--download-only",
            "--skip-confirmation",
        ],
        20,
    ),
];

fn run(node: &TestNode, words: &[&str]) -> Result<(Option<i32>, String)> {
    let ended = command::run(node.kato(words)?, LONG, &[])?;
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    Ok((ended.status.code(), said))
}

fn state(node: &TestNode) -> Result<String> {
    let (_, said) = run(node, &["node", "upgrade", "--status", "--json"])?;
    let status: Value = serde_json::from_str(&said).with_context(|| said)?;
    Ok(status["state"].as_str().unwrap_or_default().to_owned())
}

fn record(node: &TestNode) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(
        node.state("state/upgrade.json"),
    )?)?)
}

fn is_out(node: &TestNode) -> bool {
    node.path("platform/retired").exists() && node.state("state/out-of-service.json").exists()
}

/// The end of the upgrade to `version`.
fn is_complete(node: &TestNode, version: &str) -> Result<()> {
    assert_eq!(node.installed().as_deref(), Some(version));
    assert!(!node.path("platform/retired").exists());
    assert_eq!(node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r38_r56_what_does_not_go_on_with_an_upgrade_that_has_begun_leaves_its_record_and_the_service()
-> Result<()> {
    for begun in [Begun::Awaited, Begun::Restarted, Begun::Killed] {
        let site = amid(begun).await?;
        let node = &site.node;
        let before = (record(node)?, node.product()?, node.calls("rejoin"));
        assert!(is_out(node), "{begun:?}");
        for (words, code) in BESIDE {
            let (ended, said) = run(node, words)?;
            ensure!(
                ended == Some(code),
                "{begun:?}: {words:?} ended with {ended:?}: {said}"
            );
            assert_eq!(record(node)?, before.0, "{begun:?}: {words:?}");
            assert_eq!(node.calls("rejoin"), before.2, "{begun:?}: {words:?}");
            assert!(is_out(node), "{begun:?}: {words:?}");
            assert_ne!(state(node)?, "idle", "{begun:?}: {words:?}");
        }
        assert_eq!(node.product()?, before.1, "{begun:?}");
        node.put("proc/sys/kernel/random/boot_id", "the next boot")?;
        node.upgrade_ends(0, &["--resume"])?;
        is_complete(node, "2.0.0")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_a_node_that_is_half_new_is_not_called_done_and_the_way_back_is_named() -> Result<()> {
    for begun in [Begun::Restarted, Begun::Killed] {
        let site = amid(begun).await?;
        let marker = site.node.state("tmp/upgrade-failed");
        site.node.put("var/stackato/upgrade/tmp/upgrade-failed", "")?;
        let said = site.node.upgrade_ends(20, &["--version", "1.0.0"])?;
        assert!(
            said.contains("the upgrade to 2.0.0 is half done on this node")
                && said.contains("the same command without `--version` goes on with it")
                && !said.contains("already at"),
            "{said}"
        );
        assert!(marker.exists(), "the failure is not forgotten");
        // What is named works.
        let (_, way) = said.split_once("`kato node restore ").context("a way back")?;
        let (backup, _) = way.split_once('`').context("its backup")?;
        let (code, said) = run(&site.node, &["node", "restore", backup, "--skip-confirmation"])?;
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(state(&site.node)?, "idle");
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        is_complete(&site.node, "1.0.0")?;
    }
    Ok(())
}

/// Before it has shown that it is well, whatever its resumed run is refused for.
#[tokio::test(flavor = "multi_thread")]
async fn r38_a_resumed_run_that_fails_before_it_does_anything_leaves_the_node_out_of_service() -> Result<()> {
    let site = amid(Begun::Restarted).await?;
    let node = &site.node;
    let before = record(node)?;
    // Before its first step.
    node.put("var/stackato/upgrade/state/quarantine.json", "{")?;
    node.upgrade_ends(27, &["--resume"])?;
    assert!(is_out(node));
    fs::remove_file(node.state("state/quarantine.json"))?;
    // In its first steps.
    let staged = node.state("staging");
    let mut altered = Vec::new();
    for name in integration_tests::node::names(&staged) {
        let file = staged.join(&name);
        if name.len() == 64 && file.metadata()?.len() > 0 && !fs::read(&file)?.starts_with(b"{") {
            altered.push((file.clone(), fs::read(&file)?));
            durable::write(&file, b"x", 0o644)?;
        }
    }
    assert!(!altered.is_empty());
    for _again in 0..2 {
        node.upgrade_ends(26, &["--resume", "--offline"])?;
        assert!(is_out(node));
        assert_ne!(state(node)?, "idle");
        assert_eq!(record(node)?, before);
    }
    for (file, bytes) in altered {
        durable::write(&file, &bytes, 0o644)?;
    }
    node.upgrade_ends(0, &["--resume"])?;
    is_complete(node, "2.0.0")
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_another_release_takes_the_place_of_one_that_has_begun_with_its_own_first_change() -> Result<()> {
    let words = ["node", "upgrade", "--skip-confirmation", "--version", "3.0.0"];
    for (place, holder) in [
        ("stage.file", "2.0.0"),
        ("backup.committed", "2.0.0"),
        ("latch.written", "3.0.0"),
    ] {
        let site = amid(Begun::Killed).await?;
        let node = &site.node;
        let mut kato = node.kato(&words)?;
        kato.env("KATO_KILL_AT", place);
        let ended = command::run(kato, LONG, &[])?;
        ensure!(ended.status.code().is_none(), "{place}: {ended:?}");
        let record = record(node)?;
        assert_eq!(
            (&record["release"]["version"], &record["begun"]),
            (&holder.into(), &true.into()),
            "{place}"
        );
        assert!(is_out(node), "{place}");
        assert_eq!(state(node)?, "interrupted", "{place}");
        node.upgrade_ends(0, &["--resume"])?;
        is_complete(node, holder)?;
        node.upgrade_ends(0, &["--version", "3.0.0"])?;
        is_complete(node, "3.0.0")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_a_download_beside_an_upgrade_whose_record_is_lost_does_not_take_its_place() -> Result<()> {
    let site = amid(Begun::Killed).await?;
    let node = &site.node;
    fs::remove_file(node.state("state/upgrade.json"))?;
    node.upgrade_ends(0, &["--download-only", "--version", "3.0.0"])?;
    assert!(!node.state("state/upgrade.json").exists());
    let said = node.upgrade_ends(20, &["--version", "1.0.0"])?;
    assert!(said.contains("the upgrade to 2.0.0 is half done"), "{said}");
    assert!(is_out(node));
    node.upgrade_ends(0, &["--resume"])?;
    is_complete(node, "2.0.0")
}
