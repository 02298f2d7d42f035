//! What one node is to become in a rollout, and what it means that it did not.

use std::time::Duration;

use kato_shared::release::Version;
use url::Url;

use crate::{exit::Exit, run::event::ErrorReport};

/// What a node is to become, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// The plan's id; runs are named after it.
    pub plan: String,
    /// The version.
    pub target: Version,
    /// Install it even where it is installed.
    pub force: bool,
    /// Take nodes that are not healthy as they are.
    pub tolerant: bool,
    /// Install all outstanding patches first.
    pub apply_patches: bool,
    /// The cache to download through.
    pub cache_url: Option<Url>,
    /// How long a lost node is called again.
    pub patience: Duration,
    /// The role that says nothing about a node.
    pub implicit_role: String,
}

/// Why a node is not at the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFailure {
    /// The exit code of the node's run, or of what kept it from running.
    pub exit: Exit,
    /// What failed.
    pub error: ErrorReport,
    /// The version that the node had when it was last asked.
    pub version: Option<Version>,
    /// Whether it stopped answering: what it is doing is not known.
    pub is_lost: bool,
    /// Whether it was out of service when it was last asked.
    pub is_out: bool,
}
