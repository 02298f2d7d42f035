//! SIGKILL on the way back: a node whose upgrade fails is again exactly as it was, wherever the way back was cut off.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{command, node::TestNode};
use kato_upgrader::module::tree::Entry;

use crate::{
    drive::{self, LONG},
    site::Site,
};

/// How a node is when nobody disturbs its way back.
struct Undisturbed {
    product: Vec<Entry>,
    saved: Vec<String>,
    /// Every visit from the decision on.
    visits: Vec<String>,
}

fn undisturbed(site: &Site) -> Result<Undisturbed> {
    let node = site.copy("undisturbed")?;
    let product = node.product()?;
    let trace = site.place("trace");
    let output = command::run(
        drive::run(&node, &[("KATO_KILL_TRACE", &trace.display().to_string())])?,
        LONG,
        &[],
    )?;
    ensure!(
        output.status.code() == Some(22),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let visits = fs::read_to_string(&trace).context("no trace was written")?;
    let visits = visits.lines().skip_while(|visit| *visit != "rollback.decided:1");
    let expected = Undisturbed {
        product,
        saved: drive::saved(&node)?,
        visits: visits.map(ToOwned::to_owned).collect(),
    };
    is_back(&node, &expected)?;
    Ok(expected)
}

/// The old release is installed, in service and running; nothing is left over; the new one is in quarantine.
fn is_back(node: &TestNode, expected: &Undisturbed) -> Result<()> {
    drive::in_service_with(node, "1.0.0")?;
    ensure!(
        node.text("platform/running").as_deref() == Some("1.0.0\n"),
        "running: {:?}",
        node.text("platform/running")
    );
    let left = node.leftovers()?;
    ensure!(left.is_empty(), "left over: {left:?}");
    let found = node.product()?;
    let difference: Vec<_> = found
        .iter()
        .filter(|entry| !expected.product.contains(entry))
        .chain(expected.product.iter().filter(|entry| !found.contains(entry)))
        .collect();
    ensure!(difference.is_empty(), "the tree differs: {difference:#?}");
    ensure!(
        drive::saved(node)? == expected.saved,
        "saved: {:?}, expected {:?}",
        drive::saved(node)?,
        expected.saved
    );
    let quarantine = fs::read_to_string(node.state("state/quarantine.json"))?;
    ensure!(quarantine.contains("\"2.0.0\""), "{quarantine}");
    Ok(())
}

fn one(site: &Site, expected: &Undisturbed, visit: &str) -> Result<()> {
    let node = site.copy("killed")?;
    drive::killed(&node, visit)?;
    let output = node.upgrade(&[])?;
    // Killed after the way back was complete, the run finds nothing but a release that is not tried again.
    ensure!(
        matches!(output.status.code(), Some(22 | 20)),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    is_back(&node, expected)?;
    Ok(fs::remove_dir_all(site.place("killed"))?)
}

/// Kills at every visit of the `part`-th of `parts` parts.
async fn killed_on_the_way_back(part: usize, parts: usize) -> Result<()> {
    let site = Site::failing().await?;
    let expected = undisturbed(&site)?;
    let places: BTreeSet<&str> = expected
        .visits
        .iter()
        .filter_map(|visit| visit.split(':').next())
        .collect();
    for place in crate::BACK {
        ensure!(
            places.contains(place),
            "no way back comes by `{place}`, so nothing is tested there"
        );
    }
    for visit in expected.visits.iter().skip(part).step_by(parts) {
        one(&site, &expected, visit).with_context(|| format!("killed at {visit}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_killed_on_the_way_back_first_third() -> Result<()> {
    killed_on_the_way_back(0, 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_killed_on_the_way_back_second_third() -> Result<()> {
    killed_on_the_way_back(1, 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_killed_on_the_way_back_last_third() -> Result<()> {
    killed_on_the_way_back(2, 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_killed_again_and_again_on_the_way_back() -> Result<()> {
    let site = Site::failing().await?;
    let expected = undisturbed(&site)?;
    let node = site.copy("battered")?;
    let mut kills = 0;
    for visit in expected.visits.iter().filter(|visit| visit.ends_with(":1")) {
        let output = command::run(drive::run(&node, &[("KATO_KILL_AT", visit)])?, LONG, &[])?;
        kills += u32::from(output.status.code().is_none());
    }
    ensure!(kills > 5, "only {kills} runs were killed");
    node.upgrade(&[])?;
    is_back(&node, &expected)
}
