//! Follows a plan: one node after the other, Core last, and not one step further after the first failure.
//!
//! Core is a node like the others: its run is a detached process of its own, so that it may replace `kato` on Core while this
//! one, which only watches, keeps running from the program file that it was started from.
//!
//! Deliberately absent: any record of progress. Nodes know what they have; a rollout that was killed is started again.

use std::collections::BTreeMap;

use futures_util::{TryStreamExt as _, stream};
use kato_shared::release::Version;
use tokio::time::Instant;

use super::{
    drive::Drive,
    errand::{Errand, NodeFailure},
    event::{ClusterEvent, NodeResult, Outcome, Watcher},
    next::Goal,
    remote::RemoteNode,
};
use crate::{
    exit::Exit,
    plan::cluster::{Action, ClusterPlan, PlannedNode},
    run::event::ErrorReport,
};

/// What became of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rolled {
    /// The nodes in the plan's order.
    pub nodes: Vec<NodeResult>,
    /// The node that failed, and why.
    pub failure: Option<(String, NodeFailure)>,
}

impl Rolled {
    /// The exit code: 24 when some nodes are at the target and one failed, else that node's own.
    pub fn exit(&self) -> Exit {
        let Some((_, failure)) = &self.failure else {
            return Exit::Done;
        };
        let there = |result: &NodeResult| matches!(result.outcome, Outcome::Upgraded | Outcome::AlreadyThere);
        if self.nodes.iter().any(there) {
            Exit::Partial
        } else {
            failure.exit
        }
    }
}

/// How many nodes fetch at a time: they fetch from the cache on Core, whose disk and line they share.
const STAGE_AT_ONCE: usize = 8;

/// Puts everything that the nodes need on them, verified, before the first of them is changed. A node whose upgrade was begun
/// earlier has it already and finds that out by itself.
///
/// # Errors
/// The first node that failed, and why; nothing was changed on any node.
///
/// # Cancel safety
/// As [`roll_out`].
pub async fn stage(
    plan: &ClusterPlan,
    nodes: &BTreeMap<String, RemoteNode>,
    errand: &Errand,
    watcher: &dyn Watcher,
) -> Result<(), (String, NodeFailure)> {
    stream::iter(plan.upgrades().map(Ok))
        .try_for_each_concurrent(STAGE_AT_ONCE, |planned| async move {
            let staged = drive(planned, Goal::Stage, nodes, errand, watcher).await;
            staged.map(drop).map_err(|failure| (planned.id.clone(), failure))
        })
        .await
}

/// Brings every node of `plan` to the target. `nodes` has every node of the plan.
///
/// # Cancel safety
/// Dropping it leaves a run that was started at work; the next rollout finds it.
pub async fn roll_out(
    plan: &ClusterPlan,
    nodes: &BTreeMap<String, RemoteNode>,
    errand: &Errand,
    watcher: &dyn Watcher,
) -> Rolled {
    let mut results = Vec::new();
    let mut failure: Option<(String, NodeFailure)> = None;
    for planned in &plan.nodes {
        if failure.is_some() {
            results.push(untouched(planned, planned.from.clone(), Outcome::NotReached));
            continue;
        }
        if planned.action == Action::None {
            watcher.on(&skipped(planned, &plan.target).into());
            results.push(untouched(
                planned,
                Some(plan.target.clone()),
                Outcome::AlreadyThere,
            ));
            continue;
        }
        let began = Instant::now();
        let (result, failed) = match drive(planned, Goal::Upgrade, nodes, errand, watcher).await {
            Ok(version) => (result(planned, version, began, Outcome::Upgraded), None),
            Err(failed) => (
                result(planned, failed.version.clone(), began, Outcome::Failed),
                Some(failed),
            ),
        };
        watcher.on(&finished(&result, failed.as_ref()).into());
        results.push(result);
        failure = failed.map(|failed| (planned.id.clone(), failed));
    }
    Rolled {
        nodes: results,
        failure,
    }
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
        None => Err(NodeFailure {
            exit: Exit::Bug,
            error: ErrorReport {
                step: "start".into(),
                message: format!(
                    "the plan names `{}`, which the inventory does not have",
                    planned.id
                ),
                hint: None,
            },
            version: planned.from.clone(),
        }),
    }
}

fn result(planned: &PlannedNode, to: Option<Version>, began: Instant, outcome: Outcome) -> NodeResult {
    NodeResult {
        node: planned.id.clone(),
        from: planned.from.clone(),
        to,
        millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        outcome,
    }
}

fn untouched(planned: &PlannedNode, to: Option<Version>, outcome: Outcome) -> NodeResult {
    NodeResult {
        node: planned.id.clone(),
        from: planned.from.clone(),
        to,
        millis: 0,
        outcome,
    }
}

fn skipped(planned: &PlannedNode, target: &Version) -> ClusterEvent {
    ClusterEvent::NodeSkipped {
        node: planned.id.clone(),
        version: target.clone(),
    }
}

fn finished(result: &NodeResult, failed: Option<&NodeFailure>) -> ClusterEvent {
    let node = result.node.clone();
    match failed {
        None => ClusterEvent::NodeFinished {
            node,
            result: result.clone(),
        },
        Some(failed) => ClusterEvent::NodeFailed {
            node,
            exit: failed.exit,
            error: failed.error.clone(),
        },
    }
}

#[cfg(test)]
mod tests;
