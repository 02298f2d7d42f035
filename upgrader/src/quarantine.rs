//! Releases that were rolled back on this node: they are not tried again for ever.
//!
//! An entry is about one release document. It is lifted by `--force`, by a release that is published anew, and by any later
//! success; a newer release has none. The entry is also the commit point of a rollback.

use jiff::Timestamp;
use kato_shared::{
    Digest,
    durable::{self, DurableError},
    release::Version,
};
use serde::{Deserialize, Serialize};

use crate::{
    document::{self, DocumentError},
    exit::{Exit, Failure},
    failpoint,
    paths::NodePaths,
    run::event::ErrorReport,
};

/// The version of the document's format.
pub const SCHEMA: u32 = 1;

/// All releases that were rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// The releases.
    pub releases: Vec<Quarantined>,
}

/// A release that was rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Its version.
    pub version: Version,
    /// The digest of its document.
    pub release_digest: Digest,
    /// The upgrade that was rolled back; see [`crate::attempt::Attempt::id`].
    pub attempt: String,
    /// The release that it was to be upgraded from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Version>,
    /// The digests of the documents of the releases that were to come after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<Digest>,
    /// When.
    pub since: Timestamp,
    /// Why.
    pub error: ErrorReport,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            releases: Vec::new(),
        }
    }
}

impl Quarantine {
    /// The quarantine of the node.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn load(paths: &NodePaths) -> Result<Self, DocumentError> {
        let found = document::read(&paths.quarantine(), "the releases that were rolled back")?;
        Ok(found.unwrap_or_default())
    }

    /// Whether the upgrade `attempt` was rolled back.
    pub fn has_attempt(&self, attempt: &str) -> bool {
        self.releases.iter().any(|release| release.attempt == attempt)
    }

    /// Refuses a release that was rolled back.
    ///
    /// # Errors
    /// [`Exit::Preflight`] with when and why.
    pub fn admit(&self, release_digest: &Digest) -> Result<(), Failure> {
        let Some(found) = self
            .releases
            .iter()
            .find(|release| release.release_digest == *release_digest)
        else {
            return Ok(());
        };
        let problem = anyhow::anyhow!(
            "release {} was rolled back on this node at {}: {}: {}",
            found.version,
            found.since.strftime("%Y-%m-%d %H:%M:%S UTC"),
            found.error.step,
            found.error.message
        );
        Err(Failure::new(Exit::Preflight, problem)
            .hint("nothing was changed; when the cause is gone, add `--force`; a newer release needs none"))
    }

    /// Adds `release`, in the place of an earlier entry of the same document.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn add(mut self, paths: &NodePaths, release: Quarantined) -> Result<(), DurableError> {
        self.releases
            .retain(|other| other.release_digest != release.release_digest);
        self.releases.push(release);
        durable::write_json(&paths.quarantine(), &self, 0o644)?;
        failpoint::hit("rollback.recorded");
        Ok(())
    }

    /// Removes every entry up to `installed`, which the node now has.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn lift(paths: &NodePaths, installed: &Version) -> Result<(), Failure> {
        let mut found = Self::load(paths)?;
        let before = found.releases.len();
        found.releases.retain(|release| release.version > *installed);
        if found.releases.is_empty() {
            durable::remove(&paths.quarantine())?;
        } else if found.releases.len() < before {
            durable::write_json(&paths.quarantine(), &found, 0o644)?;
        }
        Ok(())
    }
}
