//! What became of a rollout, and its exit code.

use kato_shared::release::Version;
use tokio::time::Instant;

use crate::{
    cluster::{
        errand::NodeFailure,
        event::{NodeResult, Outcome},
        next::report,
    },
    exit::Exit,
    plan::{batch::Halt, cluster::PlannedNode},
};

/// What became of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rolled {
    /// The nodes in the plan's order.
    pub nodes: Vec<NodeResult>,
    /// The nodes that failed, in the order in which they did, and why.
    pub failures: Vec<(String, NodeFailure)>,
    /// Why nodes did not have their turn, if some did not.
    pub reason: Option<Reason>,
}

/// Why a rollout ended before all nodes had their turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The rules of a role.
    Rules(Halt),
    /// An operator gave it up.
    Aborted {
        /// Why, in the operator's words.
        reason: Option<String>,
    },
}

impl Rolled {
    /// The exit code: 0 when every node had its turn and is fine; 24 when some nodes are at the target and others are not, though
    /// they were to be; else that of the first node that failed.
    pub fn exit(&self) -> Exit {
        if self.failures.is_empty() && self.reason.is_none() {
            return Exit::Done;
        }
        let there = |result: &NodeResult| matches!(result.outcome, Outcome::Upgraded | Outcome::AlreadyThere);
        if self.nodes.iter().any(there) {
            return Exit::Partial;
        }
        match (self.failures.first(), &self.reason) {
            (Some((_, failure)), _) => failure.exit,
            (None, Some(Reason::Aborted { .. })) => Exit::Declined,
            (None, _) => Exit::Preflight,
        }
    }
}

/// The result of a node that had its turn.
pub(super) fn of_turn(
    planned: &PlannedNode,
    to: Option<Version>,
    began: Instant,
    outcome: Outcome,
) -> NodeResult {
    NodeResult {
        millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        ..untouched(planned, to, outcome)
    }
}

/// The result of a node that had none.
pub(super) fn untouched(planned: &PlannedNode, to: Option<Version>, outcome: Outcome) -> NodeResult {
    NodeResult {
        node: planned.id.clone(),
        from: planned.from.clone(),
        to,
        millis: 0,
        outcome,
    }
}

/// A plan with a node that the inventory does not have.
pub(super) fn node_missing(planned: &PlannedNode) -> NodeFailure {
    let text = format!(
        "the plan names `{}`, which the inventory does not have",
        planned.id
    );
    NodeFailure {
        exit: Exit::Bug,
        error: report("start", &text, None),
        version: planned.from.clone(),
        is_lost: false,
        is_out: false,
    }
}
