//! Kills a run at a place, runs the same command again, and compares.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{command, node::TestNode, wait};
use kato_upgrader::module::tree::Entry;
use tokio::time::Instant;

use crate::site::Site;

pub(crate) const LONG: Duration = Duration::from_secs(120);

/// What a test kills.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Group {
    /// Every visit of each of these places, each on a fresh node.
    Visits(&'static [&'static str]),
    /// The first visit of every place, one after the other on the same node.
    EveryPlaceOnOneNode,
    /// Whatever it does after a while, longer each time: also in the middle of a write.
    AnyTime,
}

/// How many runs are killed by the clock.
const TIMES: u32 = 16;

/// How a node is when nobody disturbs it.
struct Undisturbed {
    product: Vec<Entry>,
    saved: Vec<String>,
    visits: Vec<String>,
    took: Duration,
}

pub(crate) async fn kill_everywhere(group: Group) -> Result<()> {
    let site = Site::new().await?;
    let expected = undisturbed(&site)?;
    match group {
        Group::Visits(places) => {
            for place in places {
                let of_place = |visit: &&String| visit.split(':').next() == Some(*place);
                let visits: Vec<_> = expected.visits.iter().filter(of_place).collect();
                ensure!(
                    !visits.is_empty(),
                    "no run comes by `{place}`, so nothing is tested there"
                );
                for visit in visits {
                    one(&site, &expected, visit).with_context(|| format!("killed at {visit}"))?;
                }
            }
            Ok(())
        }
        Group::EveryPlaceOnOneNode => again_and_again(&site, &expected),
        Group::AnyTime => any_time(&site, &expected),
    }
}

fn undisturbed(site: &Site) -> Result<Undisturbed> {
    let node = site.copy("undisturbed")?;
    let trace = site.place("trace");
    let began = Instant::now();
    let output = command::run(
        run(&node, &[("KATO_KILL_TRACE", &trace.display().to_string())])?,
        LONG,
        &[],
    )?;
    let took = began.elapsed();
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let visits = fs::read_to_string(&trace).context(
        "no trace was written: `kato` must be built with its feature `test-util` (cargo build --workspace --all-features)",
    )?;
    settled(&node)?;
    Ok(Undisturbed {
        product: node.product()?,
        saved: saved(&node)?,
        visits: visits.lines().map(ToOwned::to_owned).collect(),
        took,
    })
}

fn one(site: &Site, expected: &Undisturbed, visit: &str) -> Result<()> {
    let node = site.copy("killed")?;
    killed(&node, visit)?;
    node.upgrade_ends(0, &[])?;
    compare(&node, expected)?;
    Ok(fs::remove_dir_all(site.place("killed"))?)
}

/// One node, killed at the first visit of every place in turn; then it is left alone.
fn again_and_again(site: &Site, expected: &Undisturbed) -> Result<()> {
    let node = site.copy("battered")?;
    let first = expected.visits.iter().filter(|visit| visit.ends_with(":1"));
    let mut kills = 0;
    for visit in first {
        let output = command::run(run(&node, &[("KATO_KILL_AT", visit)])?, LONG, &[])?;
        // A place that the run needs to pass no more lets it come to its end.
        kills += u32::from(output.status.signal() == Some(9));
        ensure!(
            output.status.signal() == Some(9) || output.status.success(),
            "{visit}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    ensure!(kills > 10, "only {kills} runs were killed");
    node.upgrade_ends(0, &[])?;
    compare(&node, expected)
}

/// Fresh nodes, each killed a little later than the one before, over the time that an undisturbed run takes.
fn any_time(site: &Site, expected: &Undisturbed) -> Result<()> {
    let slice = expected.took / TIMES;
    for time in 0..TIMES {
        let node = site.copy("killed")?;
        let mut child = run(&node, &[])?.stderr(Stdio::null()).spawn()?;
        // Not a wait for a state: the point is to hit it anywhere.
        wait::until("the end", slice * time, || child.try_wait().ok().flatten()).ok();
        // It may have ended already.
        child.kill().ok();
        command::end(&mut child, "kato node upgrade", LONG)?;
        node.upgrade_ends(0, &[])?;
        compare(&node, expected).with_context(|| format!("killed after {:?}", slice * time))?;
        fs::remove_dir_all(site.place("killed"))?;
    }
    Ok(())
}

pub(crate) fn run(node: &TestNode, variables: &[(&str, &str)]) -> Result<std::process::Command> {
    let mut kato = node.kato(&["node", "upgrade", "--skip-confirmation"])?;
    kato.envs(variables.iter().copied());
    Ok(kato)
}

/// A run that is killed at `visit`.
pub(crate) fn killed(node: &TestNode, visit: &str) -> Result<()> {
    let output = command::run(run(node, &[("KATO_KILL_AT", visit)])?, LONG, &[])?;
    ensure!(
        output.status.signal() == Some(9),
        "expected a kill, the run ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn compare(node: &TestNode, expected: &Undisturbed) -> Result<()> {
    settled(node)?;
    let found = node.product()?;
    let difference: Vec<_> = found
        .iter()
        .filter(|entry| !expected.product.contains(entry))
        .chain(expected.product.iter().filter(|entry| !found.contains(entry)))
        .collect();
    ensure!(difference.is_empty(), "the tree differs: {difference:#?}");
    let saved = saved(node)?;
    ensure!(
        saved == expected.saved,
        "saved: {saved:?}, expected {:?}",
        expected.saved
    );
    Ok(())
}

/// The upgrade is recorded, the node is in service, and nothing is left over.
fn settled(node: &TestNode) -> Result<()> {
    in_service_with(node, "2.0.0")?;
    let left = node.leftovers()?;
    ensure!(left.is_empty(), "left over: {left:?}");
    Ok(())
}

/// This version is recorded, and the node is in service.
pub(crate) fn in_service_with(node: &TestNode, version: &str) -> Result<()> {
    ensure!(
        node.installed().as_deref() == Some(version),
        "installed: {:?}",
        node.installed()
    );
    ensure!(
        !node.path("platform/retired").exists(),
        "the node is out of service"
    );
    Ok(())
}

/// What was saved, without the name of the backup, which has the time in it.
pub(crate) fn saved(node: &TestNode) -> Result<Vec<String>> {
    let below = |path: &PathBuf| {
        let names: Vec<_> = path.components().skip(1).collect();
        let below: PathBuf = names.iter().collect();
        let content = fs::read_to_string(node.state("backup").join(path)).unwrap_or_default();
        format!("{}: {content}", Path::new(&below).display())
    };
    Ok(node.saved()?.iter().map(below).collect())
}
