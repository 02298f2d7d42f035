//! What a node says about itself: the document of `kato node upgrade --status --json`, schema 1.
//!
//! The node may run another version of `kato` than Core, so unknown keys are ignored and later additions have defaults.

use std::collections::BTreeMap;

use kato_shared::release::Version;
use serde::{Deserialize, Serialize};

use crate::{ownership::By, run::event::ErrorReport};

/// The state of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The version of this document.
    pub schema: u32,
    /// The node's id by its own settings.
    pub node: String,
    /// Its roles by its own settings.
    pub roles: Vec<String>,
    /// The installed version; `None` on a node that never had a release.
    pub version: Option<Version>,
    /// The version of its `kato`.
    pub kato: String,
    /// What its upgrade is doing.
    pub state: RunState,
    /// The last run.
    #[serde(default)]
    pub run: Option<String>,
    /// The version that the last run leads to.
    #[serde(default)]
    pub to: Option<Version>,
    /// The step of the last run.
    #[serde(default)]
    pub step: Option<String>,
    /// The number of the newest event.
    #[serde(default)]
    pub last_seq: u64,
    /// Whether the node was taken out of service, by an upgrade or by hand, and not put back yet.
    #[serde(default)]
    pub out_of_service: bool,
    /// Who wants it out of service, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_by: Option<By>,
    /// Why the last run failed.
    #[serde(default)]
    pub error: Option<ErrorReport>,
    /// What the step of a run that is at work does or waits for.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// Whether the upgrade stands at the restart of the machine that it asked for.
    #[serde(default)]
    pub restarting: bool,
    /// Releases that it went back from and does not try again, with the reason.
    #[serde(default)]
    pub rolled_back: BTreeMap<String, ErrorReport>,
}

/// What a step said last of its progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The step.
    pub step: String,
    /// What it works on or waits for.
    pub subject: String,
    /// What is done; bytes for downloads, else a count.
    pub done: u64,
    /// What there is to do, in the same unit; 0 when unknown.
    pub total: u64,
}

/// What a node's upgrade is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Nothing; the last run, if any, ended well.
    Idle,
    /// A run is at work.
    Running,
    /// The last run ended with an error.
    Failed,
    /// The last run was killed, or the machine went down under it; or an upgrade has begun and nobody is at work on it.
    Interrupted,
}

impl NodeStatus {
    /// Whether the node runs `version` and has nothing left to do for it.
    pub fn is_settled_at(&self, version: &Version) -> bool {
        self.state == RunState::Idle && self.version.as_ref() == Some(version)
    }

    /// Whether an operator took it out of service: an upgrade leaves it so.
    pub fn is_retired_by_hand(&self) -> bool {
        self.out_of_service && self.retired_by == Some(By::Hand)
    }
}
