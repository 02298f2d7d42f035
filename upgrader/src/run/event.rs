//! What a run tells while it works: one JSON object a line, numbered, in a file that outlives the run.
//!
//! The person in front of the terminal, `kato status` and the orchestrator on Core all read the same stream. An
//! orchestrator that was cut off asks for everything after the last number it saw.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;

/// The version of the event format.
pub const SCHEMA: u32 = 1;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// Counts up by one on a node, across runs.
    pub seq: u64,
    /// When it happened.
    pub time: Timestamp,
    /// The node's id.
    pub node: String,
    /// The run that it belongs to.
    pub run: String,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A run began.
    RunStarted {
        /// The installed version; `None` on a node that never had a release.
        from: Option<String>,
        /// The wanted version.
        to: String,
    },
    /// A step began.
    StepStarted {
        /// The step, e.g. `stage`; for modules `module:<name>`.
        step: String,
    },
    /// A step is not needed.
    StepSkipped {
        /// The step.
        step: String,
        /// Why.
        reason: String,
    },
    /// A step is done and verified.
    StepFinished {
        /// The step.
        step: String,
        /// How long it took, in milliseconds.
        millis: u64,
    },
    /// A step that takes long is still at work.
    Progress {
        /// The step.
        step: String,
        /// What it works on or waits for, e.g. an artifact's name.
        subject: String,
        /// What is done; bytes for downloads, else a count.
        done: u64,
        /// What there is to do, in the same unit; 0 when unknown.
        total: u64,
    },
    /// Something the operator should read.
    Warning {
        /// The text.
        text: String,
    },
    /// A text of the release for the operator.
    Notice {
        /// The text.
        text: String,
    },
    /// A run ended; the last event of every run that was not killed.
    RunFinished {
        /// How it ended.
        exit: Exit,
        /// The version that was read back from the node.
        version: Option<String>,
        /// What failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorReport>,
    },
}

/// A failure as an operator needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// The step that failed.
    pub step: String,
    /// What failed, with its causes.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
