//! No space left on the device: at every write of a run the disk is full from there on, until the end of the run.
//!
//! Then the run has to say that the disk is full and where, leave the node in service where it was, and the same command has to reach the
//! same end when there is room again. The disk of these tests is full because `kato` is told so at that place; what a small
//! disk really does is in the area `lab`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use integration_tests::{command, node::TestNode};

use crate::{
    kill::{COMMON, Share, sampled},
    report::Report,
    scenario,
    stage::{LONG, Stage, Visit, said},
};

/// Whether the disk can be full at `place`.
pub(crate) fn needs_room(place: &str) -> bool {
    [
        "create.before ",
        "write.before ",
        "make-folder.before ",
        "rename.before ",
    ]
    .iter()
    .any(|operation| place.starts_with(operation))
}

/// Where the disk is full: the first visit of each place that needs room and is not in `known`, and `more` of the others.
fn writes(visits: &[Visit], known: &BTreeSet<(usize, String)>, more: usize) -> Vec<Visit> {
    let mut seen = BTreeSet::new();
    let first = visits
        .iter()
        .filter(|visit| needs_room(&visit.name))
        .filter(|visit| seen.insert((visit.call, visit.place())));
    let is_new = |visit: &&Visit| !known.iter().any(|(_, place)| place == visit.place());
    let (new, others): (Vec<_>, Vec<_>) = first.partition(is_new);
    new.into_iter().chain(sampled(others, more)).cloned().collect()
}

/// Whether the run failed; and what is wrong with how it ended, and with the node that it left.
fn one(stage: &Stage, visit: &Visit) -> Result<(bool, Vec<String>)> {
    let node = stage.node_before(visit.call, "full")?;
    let was_out = is_out_of_service(&node);
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
        Some(23) if leads_back(stage.scenario.name) && names_the_disk(&said) => {}
        Some(20 | 21)
            if is_told_by_the_file(stage.scenario.name) && said.contains("No space left on device") => {}
        _ => found.push(format!("ended with {}: {said}", output.status)),
    }
    // One that waits out of service in the middle of its upgrade, after its restart, waits on until its run has shown that it is well.
    if is_out_of_service(&node) && !was_out {
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

/// Whether a run of the scenario goes back, which a full disk may keep it from.
fn leads_back(scenario: &str) -> bool {
    scenario.ends_with("back")
}

/// Whether a full disk may be told with the file alone: where a run has failed for another reason before and only its notes find no
/// room.
fn is_told_by_the_file(scenario: &str) -> bool {
    leads_back(scenario)
}

fn is_out_of_service(node: &TestNode) -> bool {
    node.path("platform/retired").exists()
}

/// Has the disk full at the share's part of the writes of the scenario `name`.
pub(crate) async fn share(name: &str, share: Share) -> Result<()> {
    let stage = Stage::set(scenario::named(name)?).await?;
    let mut known = BTreeSet::new();
    if name != COMMON {
        let common = Stage::set(scenario::named(COMMON)?).await?;
        known.extend(
            common
                .visits
                .iter()
                .map(|visit| (visit.call, visit.place().to_owned())),
        );
    }
    let mut failed = 0;
    let mut report = Report::new(name, "full", share.part, &stage.visits);
    let writes = writes(&stage.visits, &known, share.more);
    for visit in writes.iter().skip(share.part).step_by(share.parts) {
        let (has_failed, found) = one(&stage, visit).with_context(|| format!("{name}, full at {visit:?}"))?;
        failed += u32::from(has_failed);
        report.took(visit, found);
    }
    ensure!(failed > 0, "no run failed, so nothing is tested");
    report.close()
}
