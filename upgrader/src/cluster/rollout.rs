//! Follows a plan: batch after batch as the rules of the roles allow, Core last, and nothing begun after too many failures.
//!
//! ```text
//!   next turn ──begin──▶ who is in service now? ──▶ cordon all (when several) ──▶ each node's run ──▶ soak ──▶ still fine? ──▶ next turn
//!      ├─through──▶ table          ▲ pause: wait here; abort: no further one
//!      └─stop─────▶ table with the reason
//! ```
//!
//! Which nodes come next is decided in [`crate::plan::batch`]. Core is a node like the others: its run is a detached process of its
//! own, so that it may replace `kato` on Core while this one, which only watches, keeps running from the program file that it was
//! started from.
//!
//! Deliberately absent: any record of progress. Nodes know what they have; a rollout that was killed is started again.

mod batch;
mod result;
mod service;

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use kato_shared::release::Version;

use self::{batch::Rollout, result::node_missing};
pub use self::{
    batch::admitted,
    result::{Reason, Rolled},
};
use super::{
    control::Control,
    drive::Drive,
    errand::{Errand, NodeFailure},
    event::Watcher,
    next::Goal,
    remote::RemoteNode,
};
use crate::plan::cluster::{ClusterPlan, PlannedNode};

/// How many nodes fetch at a time: they fetch from the cache on Core, whose disk and line they share.
const STAGE_AT_ONCE: usize = 8;

/// Puts everything that the nodes need on them, verified, before the first of them is changed. A node whose upgrade was begun
/// earlier has it already and finds that out by itself.
///
/// Gives the nodes that failed, in the plan's order, and why; nothing was changed on any node.
///
/// # Cancel safety
/// As [`roll_out`].
pub async fn stage(
    plan: &ClusterPlan,
    nodes: &BTreeMap<String, RemoteNode>,
    errand: &Errand,
    watcher: &dyn Watcher,
) -> Vec<(String, NodeFailure)> {
    let staging = plan.upgrades().map(|planned| async move {
        let staged = drive(planned, Goal::Stage, nodes, errand, watcher).await;
        Some((planned.id.clone(), staged.err()?))
    });
    // In order, and each has its try: what is in the way is wanted whole.
    stream::iter(staging.collect::<Vec<_>>())
        .buffered(STAGE_AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await
}

/// Brings every node of `plan` to the target. `nodes` has every node of the plan; `control` is asked before every batch.
///
/// # Cancel safety
/// Dropping it leaves runs that were started at work; the next rollout finds them.
pub async fn roll_out(
    plan: &ClusterPlan,
    nodes: &BTreeMap<String, RemoteNode>,
    errand: &Errand,
    control: &Control,
    watcher: &dyn Watcher,
) -> Rolled {
    Rollout::new(plan, nodes, errand, control, watcher).run().await
}

async fn drive(
    planned: &PlannedNode,
    goal: Goal,
    nodes: &BTreeMap<String, RemoteNode>,
    errand: &Errand,
    watcher: &dyn Watcher,
) -> Result<Option<Version>, NodeFailure> {
    match nodes.get(&planned.id) {
        Some(node) => Drive::new(node, goal, errand, watcher).run().await,
        None => Err(node_missing(planned)),
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
#[path = "rollout/tests/scale.rs"]
mod scale;
