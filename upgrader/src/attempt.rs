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
    module::image::Engine,
    patch::act::{PatchAct, Purpose},
    paths::NodePaths,
    run::event::ErrorReport,
};

/// The version of the document's format.
pub const SCHEMA: u32 = 1;

/// How its id ends: when it began, to the millisecond.
pub const BEGAN: &str = "%Y%m%dT%H%M%S%3f";

/// An upgrade that is not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, by its name in the document"
)]
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
    /// Whether such a step has begun in this very upgrade. One that follows another on one way has begun before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
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
    /// What is done with a patch, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<PatchAct>,
    /// Whether an operator takes a node that is not healthy as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tolerant: bool,
    /// Whether the node was not healthy before anything was changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_unhealthy: bool,
    /// The container runtime that it settled on, when one of its releases has images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// An upgrade that was downloaded and not begun when this began; it takes its place again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_aside: Option<Box<Self>>,
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
        let patch = release.patch.as_ref().map(PatchAct::install);
        let of_patch = patch.as_ref().map(|act| format!("-{}", act.name));
        Self {
            schema: SCHEMA,
            id: format!(
                "{source}-to-{}{}-{}",
                release.version,
                of_patch.unwrap_or_default(),
                now.strftime(BEGAN)
            ),
            from,
            started: now,
            release_digest,
            release,
            staged: false,
            begun: false,
            changed: false,
            point_passed: None,
            failures: BTreeMap::new(),
            then: Vec::new(),
            rollback: None,
            patch,
            tolerant: false,
            was_unhealthy: false,
            engine: None,
            put_aside: None,
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
        let Some((first, rest)) = self.then.split_first() else {
            return self.put_aside.as_deref().cloned();
        };
        let from = Some(self.release.version.clone());
        let mut next = Self::new(from, first.release.clone(), first.digest, now).then(rest);
        next.begun = true;
        next.staged = self.staged;
        next.tolerant = self.tolerant;
        next.engine.clone_from(&self.engine);
        next.put_aside.clone_from(&self.put_aside);
        if let (Some(next), Some(own)) = (&mut next.patch, &self.patch) {
            next.no_restart = own.no_restart;
        }
        Some(next)
    }

    /// Whether it ends with a patch, and so at the release that is installed.
    pub fn is_of_patches(&self) -> bool {
        let last = self.then.last().map_or(&self.release, |last| &last.release);
        last.patch.is_some()
    }

    /// Whether an operator asked for the way back that it is on.
    pub fn is_taking_back(&self) -> bool {
        let purpose = self.patch.as_ref().map(|act| act.purpose);
        purpose == Some(Purpose::TakeBack)
    }

    /// The command that goes on with it.
    pub fn command(&self) -> String {
        match &self.patch {
            Some(act) if self.is_of_patches() => act.command(),
            _ => "kato node upgrade".into(),
        }
    }

    /// Where it leads, in words for people and as a version: that of the release, with the patch behind it.
    pub fn aim(&self) -> String {
        match &self.patch {
            Some(act) => format!("{}+{}", self.release.version, act.name),
            None => self.release.version.to_string(),
        }
    }

    /// The version at the end of the way.
    pub fn ends_at(&self) -> &Version {
        self.then
            .last()
            .map_or(&self.release.version, |last| &last.release.version)
    }

    /// The same upgrade in the place of `before`, when that has begun: half of the node is new already, what cannot be undone stays so,
    /// and the way back leads to how the node was before it.
    #[must_use]
    pub fn after(mut self, before: Option<&Self>) -> Self {
        if let Some(before) = before.filter(|before| before.begun) {
            self.begun = true;
            self.was_unhealthy = before.was_unhealthy;
            self.point_passed.clone_from(&before.point_passed);
        }
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

    /// The version that is to run at this moment on a node that is in the middle of `attempt`, with the release `installed`: from the
    /// first change on the one that the way leads to. `None` on a node that has none yet.
    pub fn version_to_run<'a>(
        attempt: Option<&'a Self>,
        installed: Option<&'a Version>,
    ) -> Option<&'a Version> {
        match attempt {
            Some(attempt) if attempt.changed || attempt.rollback.is_some() => Some(attempt.leads_to()),
            _ => installed,
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
