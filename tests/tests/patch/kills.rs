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
    from: TestNode,
    words: &'static [&'static str],
    expected: Vec<Entry>,
}

impl<'a> Way<'a> {
    /// The way of `words` from the node as it is, undisturbed; gives every place that it passes.
    fn undisturbed(site: &'a Site, words: &'static [&'static str]) -> Result<(Self, Vec<String>)> {
        let place = |name: &str| site.folder.path().join(name);
        let from = site.node.copy_to(&place(words[0]))?;
        let node = from.copy_to(&place("undisturbed"))?;
        let trace = place("trace");
        let output = run(&node, words, "KATO_KILL_TRACE", &trace.display().to_string())?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let visits =
            fs::read_to_string(&trace).context("`kato` must be built with the feature `test-util`")?;
        let expected = node.product()?;
        fs::remove_dir_all(place("undisturbed"))?;
        fs::remove_file(&trace)?;
        let way = Self {
            site,
            from,
            words,
            expected,
        };
        Ok((way, visits.lines().map(ToOwned::to_owned).collect()))
    }

    fn killed_at(&self, visit: &str) -> Result<()> {
        let folder = self.site.folder.path().join("killed");
        let node = self.from.copy_to(&folder)?;
        let output = run(&node, self.words, "KATO_KILL_AT", visit)?;
        ensure!(
            output.status.signal() == Some(9),
            "expected a kill: {}",
            output.status
        );
        ends(&node, 0, self.words)?;
        ensure!(node.product()? == self.expected, "the tree differs");
        let left = node.leftovers()?;
        ensure!(left == Vec::<PathBuf>::new(), "left over: {left:?}");
        Ok(fs::remove_dir_all(&folder)?)
    }
}

fn run(node: &TestNode, words: &[&str], name: &str, value: &str) -> Result<std::process::Output> {
    let mut kato = node.kato(&["patch"])?;
    kato.args(words).arg("--local").env(name, value);
    command::run(kato, LONG, &[])
}

fn kill_everywhere(site: &Site, words: &'static [&'static str], places: &[&str]) -> Result<()> {
    let (way, visits) = Way::undisturbed(site, words)?;
    for place in places {
        let passes = visits.iter().any(|visit| visit.split(':').next() == Some(*place));
        ensure!(passes, "no way comes by `{place}`, so nothing is tested there");
    }
    for visit in &visits {
        way.killed_at(visit)
            .with_context(|| format!("killed at {visit}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_killed_anywhere_while_a_patch_is_installed() -> Result<()> {
    let site = Site::with(&[], &[broad(1, "broad")]).await?;
    kill_everywhere(
        &site,
        &["install", "broad"],
        &["patch.recorded", "patch.kept", "patch.settled"],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_killed_anywhere_while_a_patch_is_taken_back() -> Result<()> {
    let site = Site::with(&[], &[broad(1, "broad")]).await?;
    let before = site.node.product()?;
    site.ends(0, &["install"])?;
    kill_everywhere(
        &site,
        &["revert", "broad"],
        &["patch.taken_out", "undo.back", "patch.recorded", "patch.settled"],
    )?;
    site.ends(0, &["revert", "broad"])?;
    ensure!(site.node.product()? == before, "the tree differs");
    Ok(())
}
