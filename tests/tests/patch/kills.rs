//! SIGKILL at every durable step of an installation and of a way back; the same command again comes to the same end.

use std::{fs, os::unix::process::ExitStatusExt as _, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{command, node::TestNode};
use kato_upgrader::module::tree::Entry;

use crate::{
    revert::broad,
    site::{LONG, Site, ends},
};

/// What is killed, and how the node is afterwards.
struct Way<'a> {
    site: &'a Site,
    /// What is done on each node before; notes of the undo journal are about the place where a node is.
    before: &'static [&'static str],
    words: &'static [&'static str],
    expected: Vec<Entry>,
}

impl<'a> Way<'a> {
    /// The way of `words` after `before`, undisturbed; gives every place that it passes.
    fn undisturbed(
        site: &'a Site,
        before: &'static [&'static str],
        words: &'static [&'static str],
    ) -> Result<(Self, Vec<String>)> {
        let mut way = Self {
            site,
            before,
            words,
            expected: Vec::new(),
        };
        let trace = site.folder.path().join("trace");
        let node = way.node()?;
        let output = run(&node, words, "KATO_KILL_TRACE", &trace.display().to_string())?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let visits =
            fs::read_to_string(&trace).context("`kato` must be built with the feature `test-util`")?;
        way.expected = node.product()?;
        way.away()?;
        Ok((way, visits.lines().map(ToOwned::to_owned).collect()))
    }

    fn folder(&self) -> PathBuf {
        self.site.folder.path().join("killed")
    }

    fn node(&self) -> Result<TestNode> {
        let node = self.site.node.copy_to(&self.folder())?;
        if !self.before.is_empty() {
            ends(&node, 0, self.before)?;
        }
        Ok(node)
    }

    fn away(&self) -> Result<()> {
        Ok(fs::remove_dir_all(self.folder())?)
    }

    fn killed_at(&self, visit: &str) -> Result<()> {
        let node = self.node()?;
        let output = run(&node, self.words, "KATO_KILL_AT", visit)?;
        ensure!(
            output.status.signal() == Some(9),
            "expected a kill: {}",
            output.status
        );
        again(&node, self.words)?;
        ensure!(node.product()? == self.expected, "the tree differs");
        let left = node.leftovers()?;
        ensure!(left == Vec::<PathBuf>::new(), "left over: {left:?}");
        self.away()
    }
}

/// The same command; one that was killed after its record has nothing left to take back.
fn again(node: &TestNode, words: &[&str]) -> Result<()> {
    let output = run(node, words, "LANG", "C")?;
    let is_over = output.status.code() == Some(20) && words[0] == "revert";
    ensure!(
        output.status.success() || is_over,
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn run(node: &TestNode, words: &[&str], name: &str, value: &str) -> Result<std::process::Output> {
    let mut kato = node.kato(&["patch"])?;
    kato.args(words).arg("--local").env(name, value);
    command::run(kato, LONG, &[])
}

/// Kills at the first visit of every place, and at every visit of those that patches have alone or that change files.
fn kill_everywhere(
    site: &Site,
    before: &'static [&'static str],
    words: &'static [&'static str],
    places: &[&str],
) -> Result<()> {
    let (way, visits) = Way::undisturbed(site, before, words)?;
    for place in places {
        let passes = visits.iter().any(|visit| visit.split(':').next() == Some(*place));
        ensure!(passes, "no way comes by `{place}`, so nothing is tested there");
    }
    let is_ours = |visit: &&String| {
        let ours = ["patch.", "undo.", "module.", "overlay."];
        visit.ends_with(":1") || ours.iter().any(|start| visit.starts_with(start))
    };
    for visit in visits.iter().filter(is_ours) {
        way.killed_at(visit)
            .with_context(|| format!("killed at {visit}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_killed_anywhere_while_a_patch_is_installed() -> Result<()> {
    let site = Site::with(&[], &[broad(1, "broad")]).await?;
    let places = ["patch.recorded", "patch.kept", "patch.settled"];
    kill_everywhere(&site, &[], &["install", "broad"], &places)
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_killed_anywhere_while_a_patch_is_taken_back() -> Result<()> {
    let site = Site::with(&[], &[broad(1, "broad")]).await?;
    let places = ["patch.taken_out", "undo.back", "patch.recorded", "patch.settled"];
    kill_everywhere(&site, &["install"], &["revert", "broad"], &places)
}
