//! What a rollout tells while it works. With `--json` each is one line on stdout, between the events of the nodes themselves,
//! which are passed on unchanged and carry their node's name.

use jiff::Timestamp;
use kato_shared::{api::Stats, release::Version};
use serde::{Deserialize, Serialize};

use super::next::Goal;
use crate::{
    exit::Exit,
    plan::cluster::ClusterPlan,
    run::event::{ErrorReport, Event},
};

/// The version of the format of the lines.
pub const SCHEMA: u32 = 1;

/// One line of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Line {
    /// Of a node's run.
    Node(Event),
    /// Of the rollout itself.
    Cluster {
        /// See [`SCHEMA`].
        schema: u32,
        /// What happened.
        #[serde(flatten)]
        event: ClusterEvent,
    },
}

/// What happened in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ClusterEvent {
    /// The plan is followed from here on.
    ClusterStarted {
        /// The plan.
        plan: Box<ClusterPlan>,
        /// Whether it was begun by an earlier call.
        continued: bool,
    },
    /// Nothing is begun, because of these.
    ClusterRefused {
        /// Everything that is in the way.
        findings: Vec<Finding>,
    },
    /// These nodes are upgraded together from here on.
    BatchStarted {
        /// Their ids.
        nodes: Vec<String>,
    },
    /// No further node is begun until the operator says so.
    ClusterPaused {
        /// Since when.
        since: Timestamp,
        /// Why, in the operator's words.
        reason: Option<String>,
    },
    /// The rollout goes on after a pause.
    ClusterResumed,
    /// Upgraded nodes are given time to show that they are fine.
    SoakStarted {
        /// The nodes.
        nodes: Vec<String>,
        /// How long, in seconds.
        seconds: u64,
    },
    /// A node of a batch could not be taken out of service together with the others; its own run does it.
    NodeNotCordoned {
        /// The node.
        node: String,
        /// Why.
        detail: String,
    },
    /// A node is at the target already.
    NodeSkipped {
        /// The node.
        node: String,
        /// Its version.
        version: Version,
    },
    /// A node's run was started.
    NodeStarted {
        /// The node.
        node: String,
        /// The run.
        run: String,
        /// What it is to reach.
        goal: Goal,
    },
    /// A run that was at work already is followed.
    NodeAttached {
        /// The node.
        node: String,
        /// The run.
        run: String,
    },
    /// A node does not answer; its work goes on.
    NodeLost {
        /// The node.
        node: String,
        /// Why.
        detail: String,
    },
    /// A lost node answers again.
    NodeBack {
        /// The node.
        node: String,
    },
    /// A node's run was killed; the same upgrade is started once more.
    NodeInterrupted {
        /// The node.
        node: String,
        /// The run.
        run: String,
    },
    /// A node runs the target.
    NodeFinished {
        /// The node.
        node: String,
        /// What became of it.
        result: NodeResult,
    },
    /// A node's upgrade failed.
    NodeFailed {
        /// The node.
        node: String,
        /// Its exit code.
        exit: Exit,
        /// What failed.
        error: ErrorReport,
    },
    /// The rollout ended.
    ClusterFinished {
        /// How.
        exit: Exit,
        /// The nodes in order.
        nodes: Vec<NodeResult>,
        /// What the cache has saved, where that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        traffic: Option<Traffic>,
        /// When.
        time: Timestamp,
    },
}

/// Something that is in the way of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The node.
    pub node: String,
    /// What is in the way.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// What the nodes got from the cache, and what crossed the line to the upgrade hosts for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Bytes that the cache sent to the nodes.
    pub to_nodes: u64,
    /// Bytes that it fetched, before and while they asked.
    pub from_upstream: u64,
    /// Bytes that did not have to be fetched again: the difference, 0 where more was fetched than asked for.
    pub saved: u64,
}

impl Traffic {
    /// By the counters of the cache when the nodes began and now; `fetched` bytes were brought into it before. `None` when a counter went back,
    /// because the cache was started anew.
    pub fn between(fetched: u64, before: &Stats, after: &Stats) -> Option<Self> {
        let to_nodes = after.lan_bytes.checked_sub(before.lan_bytes)?;
        let from_upstream = fetched.saturating_add(after.wan_bytes.checked_sub(before.wan_bytes)?);
        Some(Self {
            to_nodes,
            from_upstream,
            saved: to_nodes.saturating_sub(from_upstream),
        })
    }
}

/// What became of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeResult {
    /// Its id.
    pub node: String,
    /// Its version before.
    pub from: Option<Version>,
    /// Its version now, read back from it; the last known one when it does not answer.
    pub to: Option<Version>,
    /// How long its upgrade took in milliseconds, as Core saw it; 0 for a node that was not touched.
    pub millis: u64,
    /// How it went.
    pub outcome: Outcome,
}

/// How it went with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was upgraded by this call.
    Upgraded,
    /// It was at the target already.
    AlreadyThere,
    /// Its upgrade failed.
    Failed,
    /// The rollout stopped before it.
    NotReached,
    /// It stays as it is because the operator wants it so.
    LeftOut,
}

/// Watches a rollout: a terminal, a program that reads JSON, a test.
pub trait Watcher: Send + Sync + std::fmt::Debug {
    /// Something happened.
    fn on(&self, line: &Line);
}

impl From<ClusterEvent> for Line {
    fn from(event: ClusterEvent) -> Self {
        Self::Cluster {
            schema: SCHEMA,
            event,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r14_what_the_cache_saves_is_what_the_nodes_got_and_nobody_fetched() {
        let stats = |lan_bytes, wan_bytes| Stats {
            lan_bytes,
            wan_bytes,
            ..Stats::default()
        };
        let traffic = |before: (u64, u64), after: (u64, u64)| {
            Traffic::between(100, &stats(before.0, before.1), &stats(after.0, after.1))
        };
        let three_nodes = traffic((1_000, 900), (1_300, 900)).unwrap();
        assert_eq!(
            (three_nodes.to_nodes, three_nodes.from_upstream, three_nodes.saved),
            (300, 100, 200)
        );
        assert_eq!(traffic((0, 0), (50, 10)).unwrap().saved, 0);
        assert_eq!(traffic((1_000, 900), (10, 10)), None, "it was started anew");
    }
}
