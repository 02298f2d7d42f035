//! No space left on the device: at every write of a run the disk is full from there on, until the end of the run.
//!
//! Then the run has to say that the disk is full and where, leave the node in service, and the same command has to reach the
//! same end when there is room again. The disk of these tests is full because `kato` is told so at that place; what a small
//! disk really does is in the area `lab`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use integration_tests::{command, node::TestNode};

use crate::{
    report::Report,
    scenario,
    stage::{LONG, Stage, Visit, said},
};

/// Places that need room, which is where the disk is full.
fn writes(visits: &[Visit]) -> Vec<&Visit> {
    let needs_room = |visit: &&Visit| {
        [
            "create.before ",
            "write.before ",
            "make-folder.before ",
            "rename.before ",
        ]
        .iter()
        .any(|operation| visit.name.starts_with(operation))
    };
    let mut known = BTreeSet::new();
    visits
        .iter()
        .filter(needs_room)
        .filter(|visit| known.insert((visit.call, visit.place().to_owned())))
        .collect()
}

/// Whether the run failed; and what is wrong with how it ended, and with the node that it left.
fn one(stage: &Stage, visit: &Visit) -> Result<(bool, Vec<String>)> {
    let node = stage.node_before(visit.call, "full")?;
    let mut kato = stage.call(&node, visit.call)?;
    kato.env("KATO_FULL_AT", &visit.name);
    let output = command::run(kato, LONG, &[])?;
    let mut found = Vec::new();
    let said = said(&output);
    let mut has_failed = true;
    match output.status.code() {
        // A note that is only for people may be lost: the run then ends as ever.
        Some(code) if stage.scenario.calls[visit.call].ends.contains(&code) => has_failed = false,
        Some(20 | 21) if names_the_disk(&said) => {}
        _ => found.push(format!("ended with {}: {said}", output.status)),
    }
    if is_out_of_service(&node) {
        found.push(format!("the node is out of service: {said}"));
    }
    found.extend(stage.again(&node, visit.call)?);
    stage.done_with("full")?;
    Ok((has_failed, found))
}

/// The message says what an operator needs: that the disk is full, and which one.
fn names_the_disk(said: &str) -> bool {
    said.contains("no room for ") && said.contains(" on /") && said.contains("free space on /")
}

fn is_out_of_service(node: &TestNode) -> bool {
    node.path("platform/retired").exists()
}

async fn full(name: &str, part: usize, parts: usize) -> Result<()> {
    let stage = Stage::set(scenario::named(name)?).await?;
    let mut failed = 0;
    let mut report = Report::new(name, "full", part, &stage.visits);
    for visit in writes(&stage.visits).into_iter().skip(part).step_by(parts) {
        let (has_failed, found) = one(&stage, visit).with_context(|| format!("{name}, full at {visit:?}"))?;
        failed += u32::from(has_failed);
        report.took(visit, found);
    }
    ensure!(failed > 5, "only {failed} runs failed, so nothing is tested");
    report.close()
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_a_full_disk_at_every_write_of_an_upgrade_1() -> Result<()> {
    full("upgrade", 0, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_a_full_disk_at_every_write_of_an_upgrade_2() -> Result<()> {
    full("upgrade", 1, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_a_full_disk_while_kato_is_replaced() -> Result<()> {
    full("kato-alone", 0, 1).await
}
