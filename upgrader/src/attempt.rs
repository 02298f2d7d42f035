//! The upgrade that a node is in the middle of: from its first durable act until it is recorded as complete.
//!
//! It outlives runs. A run that finds one continues it, with the release document that was verified when it began, so
//! that an upgrade whose files are all staged can be finished without the network.

use jiff::Timestamp;
use kato_shared::{
    Digest,
    durable::{self, DurableError},
    release::{Release, Version},
};
use serde::{Deserialize, Serialize};

use crate::{
    document::{self, DocumentError},
    failpoint,
    paths::NodePaths,
};

/// The version of the document's format.
pub const SCHEMA: u32 = 1;

/// An upgrade that is not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// Names its backup and everything it sets aside, e.g. `1.0.0-to-2.0.0-20261120T101500`.
    pub id: String,
    /// The release that was installed when it began.
    pub from: Option<Version>,
    /// When it began.
    pub started: Timestamp,
    /// The digest of the release document.
    pub release_digest: Digest,
    /// The release document, as it was verified.
    pub release: Release,
    /// Whether everything that it needs was on this node, verified.
    pub staged: bool,
    /// Whether a step that changes the node has begun; until then it may be given up without a trace.
    pub begun: bool,
}

impl Attempt {
    /// A new upgrade.
    pub fn new(from: Option<Version>, release: Release, release_digest: Digest, now: Timestamp) -> Self {
        let source = from.as_ref().map_or_else(|| "none".into(), Version::to_string);
        Self {
            schema: SCHEMA,
            id: format!(
                "{source}-to-{}-{}",
                release.version,
                now.strftime("%Y%m%dT%H%M%S%3f")
            ),
            from,
            started: now,
            release_digest,
            release,
            staged: false,
            begun: false,
        }
    }

    /// Whether this is an upgrade to the same release document.
    pub fn is_to(&self, release_digest: &Digest) -> bool {
        self.release_digest == *release_digest
    }

    /// The upgrade that the node is in the middle of.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn load(paths: &NodePaths) -> Result<Option<Self>, DocumentError> {
        document::read(&paths.attempt(), "the upgrade in progress")
    }

    /// Writes it to the node.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn save(&self, paths: &NodePaths) -> Result<(), DurableError> {
        durable::write_json(&paths.attempt(), self, 0o644)?;
        failpoint::hit("attempt.written");
        Ok(())
    }
}
