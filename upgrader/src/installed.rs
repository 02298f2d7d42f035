//! What is installed on a node: the commit point of an upgrade, and the pristine state of every installed file.
//!
//! The file lists are the base of the next upgrade's three-way decisions: what differs from them was changed on this node.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use kato_shared::{
    Digest,
    release::{Check, Install, Version},
};
use serde::{Deserialize, Serialize};

use crate::{
    document::{self, DocumentError},
    module::tree::Entry,
    paths::NodePaths,
};

/// The version of the record's format.
pub const SCHEMA: u32 = 1;

/// The release that a node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// The release.
    pub version: Version,
    /// The digest of its release document.
    pub release_digest: Digest,
    /// The upgrade that installed it; see [`crate::attempt::Attempt::id`].
    pub attempt: String,
    /// When the upgrade to it was complete.
    pub time: Timestamp,
    /// Its modules on this node, by name.
    pub modules: BTreeMap<String, InstalledModule>,
    /// Glob patterns of paths that no module touches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub safe_paths: Vec<String>,
    /// User and group that the files belong to as they were installed; `None` in records of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    /// How a node shows that it runs the release; asked again when a later upgrade is rolled back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

/// A module as it was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledModule {
    /// Its own version.
    pub version: Option<String>,
    /// The digest of its artifact.
    pub sha256: Digest,
    /// Where it was installed; absent where its policy has no folder of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest: Option<PathBuf>,
    /// How it was installed; `None` in records of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<Install>,
    /// Everything that it installed, as it was in the artifact.
    pub entries: Vec<Entry>,
}

impl Installed {
    /// The record of the node; `None` on one that never had a release.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn load(paths: &NodePaths) -> Result<Option<Self>, DocumentError> {
        document::read(&paths.installed(), "the record of the installed release")
    }
}
