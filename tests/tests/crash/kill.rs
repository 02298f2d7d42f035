//! SIGKILL at the moments of a scenario, each on a fresh node, then the same call again.
//!
//! A moment is a visit of a place. What is after one durable operation and what is before the next one of the same call is
//! one moment: nothing happens between them. Every place is killed at on its first visit; of the later visits, which are the
//! same code again, and of what another scenario was killed at before, a sample that is always the same.

use std::{collections::BTreeSet, os::unix::process::ExitStatusExt as _};

use anyhow::{Context as _, Result, ensure};
use integration_tests::command;
use kato_shared::Digest;

use crate::{
    report::Report,
    scenario,
    stage::{LONG, Stage, Visit, said},
};

/// What of a scenario one test does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) part: usize,
    pub(crate) parts: usize,
    /// How many more moments are killed at, all parts together: of places that were killed at before, here or in [`COMMON`].
    pub(crate) more: usize,
}

/// The scenario that has the ways which all have in common: the places that it passes are killed at there.
pub(crate) const COMMON: &str = "upgrade";

/// At how many different places an upgrade is killed at least, all parts together.
const LEAST: usize = 60;

/// Kills the scenario `name` at its share of moments.
pub(crate) async fn share(name: &str, share: Share) -> Result<()> {
    let stage = Stage::set(scenario::named(name)?).await?;
    let known = if name == COMMON {
        BTreeSet::new()
    } else {
        let common = Stage::set(scenario::named(COMMON)?).await?;
        let places = common.visits.iter().map(|visit| visit.place().to_owned());
        places.collect()
    };
    let moments = moments(&stage.visits, known, share.more);
    if name == COMMON {
        let places: BTreeSet<_> = moments.iter().map(|visit| visit.place()).collect();
        ensure!(
            places.len() >= LEAST,
            "only {} places are killed at, expected at least {LEAST}: {places:#?}",
            places.len()
        );
    }
    let mut report = Report::new(name, "killed", share.part, &stage.visits);
    for visit in moments.into_iter().skip(share.part).step_by(share.parts) {
        let found = one(&stage, visit).with_context(|| format!("{name}, killed at {visit:?}"))?;
        report.took(visit, found);
    }
    report.close()
}

/// The first moment of each place that is not in `known`, and `more` of the others.
fn moments(visits: &[Visit], mut known: BTreeSet<String>, more: usize) -> Vec<&Visit> {
    let mut distinct: Vec<&Visit> = visits
        .windows(2)
        .filter(|pair| !are_one(&pair[0], &pair[1]))
        .map(|pair| &pair[0])
        .collect();
    distinct.extend(visits.last());
    let (first, later): (Vec<_>, Vec<_>) = distinct
        .into_iter()
        .partition(|visit| known.insert(visit.place().to_owned()));
    first.into_iter().chain(sampled(later, more)).collect()
}

/// `count` of `visits`, by a number that has nothing to do with the order, and is the same in every run of the test.
pub(crate) fn sampled(mut visits: Vec<&Visit>, count: usize) -> Vec<&Visit> {
    // What asks until something is so asks as often as the machine is slow; `commands` kills beside each kind.
    visits.retain(|visit| !visit.name.starts_with("child."));
    visits.sort_by_key(|visit| Digest::of(visit.name.as_bytes()).hex());
    visits.truncate(count);
    visits
}

/// Whether nothing can happen between the two: they are the end of an operation and the beginning of the next one of the same
/// durable call.
fn are_one(one: &Visit, next: &Visit) -> bool {
    const ORDERS: &[(&str, &[&str])] = &[
        ("create.after", &["write.before", "rename.before"]),
        ("write.after", &["flush.before"]),
        ("flush.after", &["rename.before", "flush-folder.before"]),
        ("rename.after", &["flush-folder.before"]),
        ("make-folder.after", &["flush-folder.before"]),
        ("remove.after", &["flush-folder.before"]),
        ("flush-folder.after", &["flush-folder.before"]),
    ];
    let (Some((operation, caller)), Some((next_operation, next_caller))) =
        (one.place().split_once(' '), next.place().split_once(' '))
    else {
        return false;
    };
    let follows = |(before, after): &(&str, &[&str])| *before == operation && after.contains(&next_operation);
    one.call == next.call && caller == next_caller && ORDERS.iter().any(follows)
}

/// Where the node differs after it was killed at `visit` and the calls were made again.
fn one(stage: &Stage, visit: &Visit) -> Result<Vec<String>> {
    let node = stage.node_before(visit.call, "killed")?;
    let mut kato = stage.call(&node, visit.call)?;
    kato.env("KATO_KILL_AT", &visit.name);
    let output = command::run(kato, LONG, &[])?;
    ensure!(
        output.status.signal() == Some(9),
        "expected a kill, the run ended with {}: {}",
        output.status,
        said(&output)
    );
    let found = stage.again(&node, visit.call)?;
    stage.done_with("killed")?;
    Ok(found)
}
