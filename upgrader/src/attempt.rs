//! The upgrade that a node is in the middle of: from its first durable act until it is recorded as complete.
//!
//! It outlives runs. A run that finds one continues it, with the release document that was verified when it began, so
//! that an upgrade whose files are all staged can be finished without the network.

use std::collections::BTreeMap;

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
    run::event::ErrorReport,
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
    /// The step after which there is no way back, once it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point_passed: Option<String>,
    /// How often each module failed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, u32>,
    /// The releases that come after it on the way to the one that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<Target>,
    /// There once the upgrade was given up: from then on every run leads back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
}

/// A release to install, as it was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The release.
    pub release: Release,
    /// The digest of its document.
    pub digest: Digest,
}

/// The decision to go back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// When it was made.
    pub since: Timestamp,
    /// The run that made it.
    pub run: String,
    /// Why.
    pub error: ErrorReport,
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
            point_passed: None,
            failures: BTreeMap::new(),
            then: Vec::new(),
            rollback: None,
        }
    }

    /// The same upgrade with the releases that come after it.
    #[must_use]
    pub fn then(mut self, then: &[Target]) -> Self {
        self.then = then.to_vec();
        self
    }

    /// The upgrade that follows when this one is recorded. It has begun: the way is one.
    pub fn next(&self, now: Timestamp) -> Option<Self> {
        let (first, rest) = self.then.split_first()?;
        let from = Some(self.release.version.clone());
        let mut next = Self::new(from, first.release.clone(), first.digest, now).then(rest);
        next.begun = true;
        next.staged = self.staged;
        Some(next)
    }

    /// The version at the end of the way.
    pub fn ends_at(&self) -> &Version {
        self.then
            .last()
            .map_or(&self.release.version, |last| &last.release.version)
    }

    /// The same upgrade in the place of `before`, which was begun and not finished: what cannot be undone stays so.
    #[must_use]
    pub fn after(mut self, before: Option<&Self>) -> Self {
        self.point_passed = before.and_then(|before| before.point_passed.clone());
        self
    }

    /// The name under which the journal knows the restart of the machine on the way that the upgrade is on.
    pub fn restart_id(&self) -> String {
        match &self.rollback {
            Some(_) => format!("{}-back", self.id),
            None => self.id.clone(),
        }
    }

    /// The version that the node has at the end of the way that the upgrade is on.
    pub fn leads_to(&self) -> &Version {
        match (&self.rollback, &self.from) {
            (Some(_), Some(from)) => from,
            _ => &self.release.version,
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
