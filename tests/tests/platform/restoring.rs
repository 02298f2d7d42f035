//! Backups brought back: an upgrade, a change, a restoration, and the node is what it was.

use std::{collections::BTreeSet, fs, os::unix::process::ExitStatusExt as _, path::Path, process::Output};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{
    command,
    node::{TestNode, names},
    releases::{Repository, TestRelease},
    static_server::StaticServer,
};
use kato_upgrader::module::tree::Entry;
use serde_json::Value;

use crate::LONG;

/// A node that went from 1.0.0 to 2.0.0 and was worked on since, and what it was before.
struct Site {
    folder: tempfile::TempDir,
    _host: StaticServer,
    node: TestNode,
    before: Vec<Entry>,
    after: Vec<Entry>,
}

impl Site {
    async fn upgraded() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let repository = Repository::empty(folder.path()).await?;
        for version in ["1.0.0", "2.0.0"] {
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
        node.put("platform/database", "one")?;
        node.upgrade_ends(0, &["--version", "1.0.0"])?;
        node.put("s/etc/local.conf", "only here")?;
        let before = node.product()?;
        node.upgrade_ends(0, &[])?;
        node.put("s/state/db", "two")?;
        node.put("s/state/more", "two")?;
        node.put("platform/database", "two")?;
        fs::remove_file(node.path("s/etc/local.conf"))?;
        let after = node.product()?;
        Ok(Self {
            folder,
            _host: host,
            node,
            before,
            after,
        })
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        command::run(self.node.kato(arguments)?, LONG, &[])
    }

    fn restore(&self, arguments: &[&str], code: i32) -> Result<String> {
        let all = [&["node", "restore", "--skip-confirmation"], arguments].concat();
        let output = self.run(&all)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code() == Some(code),
            "{all:?} ended with {}, expected {code}: {said}",
            output.status
        );
        Ok(said)
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.run(arguments)?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
    }

    /// The newest backup's id.
    fn backup(&self) -> Result<String> {
        let list = self.json(&["node", "backup", "list", "--json"])?;
        let id = list["backups"][0]["id"].as_str().context("a backup")?;
        Ok(id.to_owned())
    }

    /// Everything that was there before is again, and nothing but unused versions beside it.
    fn is_as_before(&self) -> Result<()> {
        is_as(&self.node, &self.before)
    }
}

fn is_as(node: &TestNode, expected: &[Entry]) -> Result<()> {
    let is_version = |entry: &&Entry| {
        let of = |dest: &str| {
            entry
                .path
                .strip_prefix(dest)
                .is_ok_and(Versioned::starts_with_version)
        };
        of("s/code/app") || of("s/code/runner")
    };
    let found: BTreeSet<Entry> = node.product()?.into_iter().collect();
    let wanted: BTreeSet<Entry> = expected.iter().cloned().collect();
    let missing: Vec<_> = wanted.difference(&found).collect();
    let more: Vec<_> = found
        .difference(&wanted)
        .filter(|entry| !is_version(entry))
        .collect();
    ensure!(
        missing.is_empty() && more.is_empty(),
        "missing: {missing:#?}\nmore: {more:#?}"
    );
    Ok(())
}

trait Versioned {
    fn starts_with_version(&self) -> bool;
}

impl Versioned for Path {
    /// `<version>-<digest>` is the folder of a version that nothing leads to.
    fn starts_with_version(&self) -> bool {
        self.components()
            .next()
            .and_then(|first| first.as_os_str().to_str())
            .is_some_and(|name| name.starts_with("2.0.0-") || name.starts_with("1.0.0-"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r39_a_restored_node_is_what_it_was_and_says_so() -> Result<()> {
    let site = Site::upgraded().await?;
    let id = site.backup()?;
    let plan = site.json(&["node", "restore", &id, "--plan", "--json"])?;
    assert_eq!(
        (&plan["version"], &plan["whole"]),
        (&"1.0.0".into(), &true.into())
    );
    assert_eq!(site.node.product()?, site.after, "a plan changes nothing");

    site.restore(&[&id], 0)?;
    // Nothing of the restoration is beside what it restored; the originals are where no product looks.
    site.is_as_before()?;
    assert!(!names(&site.node.state("restored")).is_empty());
    assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    assert_eq!(site.node.text("platform/database").as_deref(), Some("one"));
    assert_eq!(site.node.text("platform/running").as_deref(), Some("1.0.0\n"));
    assert!(!site.node.path("platform/retired").exists());
    // The record is true: the upgrade is possible again, and forgets what the restoration has kept.
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert!(!site.node.state("state/restore.json").exists());
    assert_eq!(names(&site.node.state("restored")), Vec::<String>::new());
    let left: Vec<_> = site
        .node
        .product()?
        .into_iter()
        .filter(|entry| entry.path.to_string_lossy().contains(".kato-restore-"))
        .collect();
    assert_eq!(left, []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r39_what_a_module_writes_behind_a_link_is_saved_and_comes_back() -> Result<()> {
    let site = Site::upgraded().await?;
    // The folder was moved to another disk, and a link stands in its place.
    let (place, moved) = (site.node.path("s/etc"), site.node.path("data/etc"));
    kato_shared::durable::create_folder(&site.node.path("data"))?;
    kato_shared::durable::rename(&place, &moved)?;
    kato_shared::durable::symlink(Path::new("../data/etc"), &place)?;
    site.node.put("data/etc/mine", "local")?;
    site.node.upgrade_ends(0, &["--force"])?;
    fs::remove_file(moved.join("mine"))?;
    site.restore(&["latest"], 0)?;
    assert_eq!(site.node.text("s/etc/mine").as_deref(), Some("local"));
    assert!(place.is_symlink());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r39_a_restoration_can_be_taken_back() -> Result<()> {
    let site = Site::upgraded().await?;
    site.restore(&["latest"], 0)?;
    site.restore(&["--undo"], 0)?;
    assert_eq!(site.node.product()?, site.after);
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    let said = site.restore(&["--undo"], 2)?;
    assert!(said.contains("there is no restoration to take back"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r39_single_paths_come_back_and_the_record_says_what_is_there() -> Result<()> {
    let site = Site::upgraded().await?;
    site.restore(&["latest", "/s/etc"], 0)?;
    assert_eq!(site.node.text("s/etc/local.conf").as_deref(), Some("only here"));
    assert_eq!(
        site.node.text("s/etc/app.conf").as_deref(),
        Some("version 1.0.0\n")
    );
    assert_eq!(site.node.text("s/state/db").as_deref(), Some("two"));
    assert_eq!(site.node.text("platform/database").as_deref(), Some("two"));
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    let said = site.restore(&["latest", "/s/none"], 2)?;
    assert!(
        said.contains("`/s/none` is not in the backup") && said.contains("/s/state"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r39_a_backup_that_was_altered_or_is_of_another_node_is_refused() -> Result<()> {
    let site = Site::upgraded().await?;
    let id = site.backup()?;
    let folder = site.node.state("backup").join(&id);
    let manifest = folder.join("manifest.json");
    let text = fs::read_to_string(&manifest)?;
    let other = text.replace("\"node\": \"n1\"", "\"node\": \"n2\"");
    kato_shared::durable::write(&manifest, other.as_bytes(), 0o600)?;
    let said = site.restore(&[&id], 20)?;
    assert!(
        said.contains("was taken on the node `n2`, and this is `n1`"),
        "{said}"
    );

    kato_shared::durable::write(&manifest, text.as_bytes(), 0o600)?;
    let archive = folder.join("files.tar.zst");
    let mut bytes = fs::read(&archive)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    kato_shared::durable::write(&archive, &bytes, 0o600)?;
    let said = site.restore(&[&id], 26)?;
    assert!(said.contains("was altered: expected sha256:"), "{said}");
    let verified = site.run(&["node", "backup", "verify", &id])?;
    assert_eq!(verified.status.code(), Some(26));
    assert_eq!(site.node.product()?, site.after, "nothing was changed");
    let said = site.restore(&["no-such"], 2)?;
    assert!(said.contains("there is no whole backup `no-such`"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_a_restoration_that_was_killed_goes_on_or_is_taken_back() -> Result<()> {
    let site = Site::upgraded().await?;
    let places = [
        "restore.noted",
        "restore.staged",
        "restore.exchanged",
        "restore.exchanged:2",
        "restore.exchanged:3",
        "restore.recorded",
    ];
    for place in places {
        for undo in [false, true] {
            let name = format!("{place}-{undo}");
            let node = site.node.copy_to(&site.folder.path().join(&name))?;
            killed(&node, place).with_context(|| name.clone())?;
            node.upgrade_ends(20, &[]).with_context(|| name.clone())?;
            let last = if undo { "--undo" } else { "latest" };
            let arguments = ["node", "restore", "--skip-confirmation", last];
            let output = command::run(node.kato(&arguments)?, LONG, &[])?;
            ensure!(
                output.status.success(),
                "{name}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            let (tree, version) = if undo {
                (&site.after, "2.0.0")
            } else {
                (&site.before, "1.0.0")
            };
            is_as(&node, tree).with_context(|| name.clone())?;
            assert_eq!(node.installed().as_deref(), Some(version), "{name}");
            assert!(!node.path("platform/retired").exists(), "{name}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_a_restoration_that_was_killed_goes_on_with_the_same_words_alone() -> Result<()> {
    let site = Site::upgraded().await?;
    killed(&site.node, "restore.staged")?;
    for other in [&["latest", "/s/etc/app.conf"][..], &["latest", "/s/none"]] {
        let said = site.restore(other, 20)?;
        assert!(
            said.contains("is not complete") && said.contains("kato node restore --undo"),
            "{said}"
        );
        assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    }
    site.restore(&["--undo"], 0)?;
    is_as(&site.node, &site.after)?;

    // Single paths: neither others nor everything, and the hint is the command that goes on.
    let mut kato = site
        .node
        .kato(&["node", "restore", "--skip-confirmation", "latest", "/s/etc"])?;
    kato.env("KATO_KILL_AT", "restore.staged");
    let output = command::run(kato, LONG, &[])?;
    ensure!(output.status.signal() == Some(9), "it was not killed");
    let goes_on = format!("`kato node restore {} /s/etc`", site.backup()?);
    for other in [
        &["latest"][..],
        &["latest", "/s/state"],
        &["latest", "/s/etc", "/s/state"],
    ] {
        let said = site.restore(other, 20)?;
        assert!(said.contains(&goes_on), "{said}");
    }
    site.restore(&["latest", "s/etc/"], 0)?;
    assert_eq!(site.node.text("s/etc/local.conf").as_deref(), Some("only here"));
    assert_eq!(site.node.text("s/state/db").as_deref(), Some("two"));
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_what_a_killed_restoration_left_beside_the_product_the_next_command_puts_away() -> Result<()> {
    let site = Site::upgraded().await?;
    for place in [
        "restore.done",
        "restore.kept",
        "restore.kept:2",
        "restore.cleared",
    ] {
        let node = site.node.copy_to(&site.folder.path().join(place))?;
        killed(&node, place)?;
        // Any command that changes something; here the smallest there is.
        let rejoin = command::run(node.kato(&["node", "rejoin"])?, LONG, &[])?;
        ensure!(rejoin.status.success(), "{place}");
        is_as(&node, &site.before).with_context(|| format!("{place}, put away"))?;
        let undo = ["node", "restore", "--skip-confirmation", "--undo"];
        let undone = command::run(node.kato(&undo)?, LONG, &[])?;
        ensure!(
            undone.status.success(),
            "{place}: {}",
            String::from_utf8_lossy(&undone.stderr)
        );
        is_as(&node, &site.after).with_context(|| format!("{place}, taken back"))?;
        assert_eq!(names(&node.state("restored")), Vec::<String>::new(), "{place}");
    }
    Ok(())
}

fn killed(node: &TestNode, place: &str) -> Result<()> {
    let mut kato = node.kato(&["node", "restore", "--skip-confirmation", "latest"])?;
    kato.env("KATO_KILL_AT", place);
    let output = command::run(kato, LONG, &[])?;
    ensure!(
        output.status.signal() == Some(9),
        "it was not killed at {place}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
