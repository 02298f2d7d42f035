//! What a rollout tells while it works. With `--json` each is one line on stdout, between the events of the nodes themselves,
//! which are passed on unchanged and carry their node's name.

use jiff::Timestamp;
use kato_shared::release::Version;
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
        plan: ClusterPlan,
        /// Whether it was begun by an earlier call.
        continued: bool,
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
        /// When.
        time: Timestamp,
    },
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
