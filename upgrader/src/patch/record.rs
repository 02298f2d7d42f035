//! Which patches a node has: one durable document, part of every backup, and the commit point of every act with a patch.
//!
//! It is about the installed release: when another release is installed, [`Patches::after`] drops what that one contains or
//! has replaced. [`Patches::ended`] names the last attempt that is complete, whichever way it went; a run that finds that
//! attempt has only to clean up.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::{
    Digest,
    durable::{self, DurableError},
    release::{PatchEntry, PatchList, Release, Version},
};
use serde::{Deserialize, Serialize};

use super::places;
use crate::{
    document::{self, DocumentError},
    module::tree::Entry,
    paths::NodePaths,
    run::event::ErrorReport,
};

/// The version of the document's format.
pub const SCHEMA: u32 = 1;

/// The patches of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patches {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// Those that are installed, in the order of their installation.
    #[serde(default)]
    pub installed: Vec<InstalledPatch>,
    /// Those that the installed release, or one before it, contains, with the release that brought them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub superseded: BTreeMap<String, Version>,
    /// Those whose installation failed and was led back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rolled_back: Vec<RolledBack>,
    /// The last attempt that is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// A patch that a node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledPatch {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The digest of its document.
    pub sha256: Digest,
    /// The release that it was installed on.
    pub release: Version,
    /// When.
    pub time: Timestamp,
    /// By whom.
    #[serde(flatten)]
    pub by: By,
    /// Patches that it builds on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// The paths that it changes, as the release names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<PathBuf>,
    /// What it installed, by module.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<String, PatchedModule>,
    /// What must still be restarted, when that was left to the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<PendingRestart>,
}

/// Who says that a patch is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub enum By {
    /// A run installed it.
    Run {
        /// The run.
        run: String,
        /// The attempt; see [`crate::attempt::Attempt::id`].
        attempt: String,
    },
    /// An operator, with `kato patch mark`.
    Hand,
}

/// What a module of a patch installed, as the pristine state of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchedModule {
    /// Where, as the release names it.
    pub dest: PathBuf,
    /// Whether the folder is the module's alone.
    pub whole: bool,
    /// Everything that it installed.
    pub entries: Vec<Entry>,
}

/// A restart that was left to the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRestart {
    /// The services, comma separated; empty for all of `roles`.
    pub services: String,
    /// The roles whose services it is, comma separated; empty for all of the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub roles: String,
    /// Whether it is the machine.
    pub machine: bool,
    /// The boot in which the patch was installed: another boot has restarted everything.
    pub boot_id: String,
}

/// A patch whose installation failed and was led back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// Its name.
    pub name: String,
    /// The digest of its document.
    pub sha256: Digest,
    /// When.
    pub since: Timestamp,
    /// Why.
    pub error: ErrorReport,
}

impl Default for Patches {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            installed: Vec::new(),
            superseded: BTreeMap::new(),
            rolled_back: Vec::new(),
            ended: None,
        }
    }
}

impl InstalledPatch {
    /// The word of an operator that the patch `entry` is installed on `release`.
    pub fn by_hand(entry: &PatchEntry, release: &Version, now: Timestamp) -> Self {
        Self {
            id: entry.id,
            name: entry.name.clone(),
            sha256: entry.sha256,
            release: release.clone(),
            time: now,
            by: By::Hand,
            requires: entry.requires.clone(),
            places: Vec::new(),
            modules: BTreeMap::new(),
            restart: None,
        }
    }

    /// Whether a path of both is the same, or one is below the other.
    pub fn overlaps(&self, paths: &[PathBuf]) -> Option<&Path> {
        places::overlap(&self.places, paths)
    }
}

impl Patches {
    /// The record of the node.
    ///
    /// # Errors
    /// [`DocumentError`]; a node without one has no patches.
    pub fn load(paths: &NodePaths) -> Result<Self, DocumentError> {
        let found = document::read(&paths.patches(), "the record of installed patches")?;
        Ok(found.unwrap_or_default())
    }

    /// Writes it to the node.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn save(&self, paths: &NodePaths) -> Result<(), DurableError> {
        let path = paths.patches();
        if let Some(folder) = path.parent() {
            durable::create_folder(folder)?;
        }
        durable::write_json(&path, self, 0o644)
    }

    /// The installed patch `name`.
    pub fn installed(&self, name: &str) -> Option<&InstalledPatch> {
        self.installed.iter().find(|patch| patch.name == name)
    }

    /// Whether the node has what the patch `name` brings: installed, or in its release.
    pub fn has(&self, name: &str) -> bool {
        self.installed(name).is_some() || self.superseded.contains_key(name)
    }

    /// Adds an installed patch, in the place of an earlier entry of the same name.
    pub fn put(&mut self, patch: InstalledPatch) {
        self.rolled_back.retain(|other| other.name != patch.name);
        match self.installed.iter_mut().find(|other| other.name == patch.name) {
            // Installed again, it stays where it was in the order.
            Some(other) => *other = patch,
            None => self.installed.push(patch),
        }
    }

    /// Removes the patch `name`; whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.installed.len();
        self.installed.retain(|patch| patch.name != name);
        self.installed.len() < before
    }

    /// The record after `release` was installed on a node with `roles`; gives the names of the patches that are gone.
    ///
    /// A patch stays when it is for that release too and nothing of the release was installed over it.
    pub fn after(&mut self, release: &Release, roles: &[String], list: Option<&PatchList>) -> Vec<String> {
        let replaced = places::of(&release.modules, roles);
        let stays = |patch: &InstalledPatch| {
            let is_for = list
                .and_then(|list| list.named(&patch.name))
                .is_some_and(|entry| entry.is_for(&release.version));
            is_for && !release.supersedes_patches.contains(&patch.name) && patch.overlaps(&replaced).is_none()
        };
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut self.installed).into_iter().partition(stays);
        self.installed = stay;
        self.rolled_back.clear();
        for name in &release.supersedes_patches {
            self.superseded
                .entry(name.clone())
                .or_insert_with(|| release.version.clone());
        }
        go.into_iter().map(|patch| patch.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patch(id: u32, name: &str, place: &str) -> InstalledPatch {
        InstalledPatch {
            id,
            name: name.into(),
            sha256: Digest::of(name.as_bytes()),
            release: Version::new(1, 0, 0),
            time: Timestamp::UNIX_EPOCH,
            by: By::Run {
                run: "r".into(),
                attempt: "a".into(),
            },
            requires: Vec::new(),
            places: vec![place.into()],
            modules: BTreeMap::new(),
            restart: None,
        }
    }

    fn release() -> Release {
        let document = json!({
            "schema": 1, "product": "demo", "version": "2.0.0", "published": "2026-01-01T00:00:00Z",
            "supersedes_patches": ["contained", "never-had"],
            "artifacts": {"a": {"target": "artifacts/a", "sha256": Digest::of(b"a"), "size": 1}},
            "modules": [{"name": "web", "artifact": "a", "roles": ["*"], "install": {"policy": "replace", "dest": "/s/web"}}],
        });
        Release::from_json("r", &serde_json::to_vec(&document).unwrap()).unwrap()
    }

    #[test]
    fn r70_a_release_clears_the_patches_that_it_contains_or_replaces() {
        let mut patches = Patches::default();
        for (id, name, place) in [
            (1, "contained", "/s/etc/a"),
            (2, "overwritten", "/s/web/index"),
            (3, "stays", "/s/etc/b"),
            (4, "old", "/s/etc/c"),
        ] {
            patches.put(patch(id, name, place));
        }
        let entry = |id, name: &str, to: u64| PatchEntry {
            id,
            name: name.into(),
            summary: String::new(),
            severity: kato_shared::release::Severity::Optional,
            roles: vec!["*".into()],
            requires: Vec::new(),
            version: Version::new(to, 0, 0),
            from: kato_shared::release::Sources::default(),
            sha256: Digest::of(name.as_bytes()),
        };
        let list = PatchList {
            schema: 1,
            product: "demo".into(),
            patches: vec![
                entry(1, "contained", 2),
                entry(2, "overwritten", 2),
                entry(3, "stays", 2),
                entry(4, "old", 1),
            ],
        };
        let gone = patches.after(&release(), &["dea".into()], Some(&list));
        assert_eq!(gone, ["contained", "overwritten", "old"]);
        assert!(patches.installed("stays").is_some());
        // What a release contains is there, installed before or not.
        assert!(patches.has("contained") && patches.has("never-had") && !patches.has("old"));
    }

    #[test]
    fn the_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let paths = NodePaths::new(folder.path(), Path::new("/var/kato"));
        assert_eq!(Patches::load(&paths).unwrap(), Patches::default());
        let mut patches = Patches::default();
        patches.put(patch(1, "one", "/s/a"));
        patches.installed[0].by = By::Hand;
        patches.save(&paths).unwrap();
        assert_eq!(Patches::load(&paths).unwrap(), patches);
    }
}
