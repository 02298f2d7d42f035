//! Saved local changes: one folder for each time, with an archive of the files and a manifest of digests.
//!
//! `customizations/<id>/files.tar.zst` has `local/<path>` for every saved file or link, and `original/<path>` for texts whose content
//! before the change is known: with it a later release can be merged. `manifest.json` says what was changed how. The folder is
//! written as `<id>.part` and renamed when it is whole. A person can unpack it with `tar`.
//!
//! Invariants: only the owner can look into it; an archive that is not what its manifest says is not used.

mod extract;
mod merges;
mod save;

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::{Digest, release::Version};
use serde::{Deserialize, Serialize};

pub use self::{extract::extract, merges::Merges, save::save};
use super::{
    change::{Class, What},
    error::CustomizationError,
};
use crate::{
    document,
    module::tree::{self, Kind},
    paths::NodePaths,
};

/// The version of the manifest's format.
pub const SCHEMA: u32 = 1;

/// Where saved files are in an archive.
pub(super) const LOCAL: &str = "local";
/// Where their originals are.
pub(super) const ORIGINAL: &str = "original";

/// Why local changes were saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Somebody asked for it.
    ByHand,
    /// An upgrade was going to take them away.
    Upgrade,
    /// Others were going to be put in their place.
    Reapply,
}

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// Its name.
    pub id: String,
    /// Why it was made.
    pub reason: Reason,
    /// The release that was installed.
    pub version: Version,
    /// When it was made.
    pub time: Timestamp,
    /// The digest of `files.tar.zst`.
    pub archive: Digest,
    /// The saved changes, by path.
    pub files: Vec<SavedFile>,
    /// The folders in which they were, below their modules' folders, by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<SavedFolder>,
}

/// What a folder was like in which something was saved: where it is gone, it is made again like that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFolder {
    /// Where it was.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Its user and group.
    pub owner: (u32, u32),
}

/// One saved change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFile {
    /// Where it was.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// The same below its module's folder.
    #[serde(with = "crate::path_text")]
    pub below: PathBuf,
    /// The module.
    pub module: String,
    /// How upgrades treat its place.
    pub class: Class,
    /// How it differed from the installed release.
    pub what: Vec<What>,
    /// What the installed release had there.
    pub pristine: Option<Kind>,
    /// What was there; `None` where it was deleted.
    pub local: Option<Kind>,
    /// Its user and group.
    pub owner: Option<(u32, u32)>,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether the archive has the original as well.
    pub has_original: bool,
}

/// Where the archive `id` is.
pub fn folder(paths: &NodePaths, id: &str) -> PathBuf {
    paths.customizations().join(id)
}

/// The archives that are whole, newest first.
///
/// # Errors
/// [`CustomizationError::Document`] when a manifest is damaged.
pub fn all(paths: &NodePaths) -> Result<Vec<Manifest>, CustomizationError> {
    let Ok(listing) = fs::read_dir(paths.customizations()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for item in listing.flatten() {
        let name = item.file_name();
        let is_whole = Path::new(&name).extension().is_none_or(|end| end != "part");
        if let Some(id) = name.to_str().filter(|_| is_whole) {
            found.extend(load(paths, id)?);
        }
    }
    found.sort_by(|one, other| (other.time, &other.id).cmp(&(one.time, &one.id)));
    Ok(found)
}

/// The archive `id`; without one, the newest that was not made by `reapply` itself.
///
/// # Errors
/// [`CustomizationError::NoArchive`].
pub fn find(paths: &NodePaths, id: Option<&str>) -> Result<Manifest, CustomizationError> {
    let all = all(paths)?;
    let known: Vec<String> = all.iter().map(|manifest| manifest.id.clone()).collect();
    let is_meant = |manifest: &Manifest| match id {
        Some(id) => manifest.id == id,
        None => manifest.reason != Reason::Reapply,
    };
    all.into_iter()
        .find(is_meant)
        .ok_or_else(|| CustomizationError::NoArchive {
            id: id.unwrap_or("the newest").to_owned(),
            known,
        })
}

/// Removes all but the newest `keep` archives and what is not whole.
///
/// # Errors
/// [`CustomizationError`].
pub fn retain(paths: &NodePaths, keep: u32) -> Result<(), CustomizationError> {
    let keep = usize::try_from(keep.max(1)).unwrap_or(usize::MAX);
    for old in all(paths)?.into_iter().skip(keep) {
        let path = folder(paths, &old.id);
        tree::remove(&path).map_err(CustomizationError::io("removing", &path))?;
    }
    let Ok(listing) = fs::read_dir(paths.customizations()) else {
        return Ok(());
    };
    for item in listing.flatten() {
        let path = item.path();
        if path.extension().is_some_and(|end| end == "part") {
            tree::remove(&path).map_err(CustomizationError::io("removing", &path))?;
        }
    }
    Ok(())
}

fn load(paths: &NodePaths, id: &str) -> Result<Option<Manifest>, CustomizationError> {
    let path = folder(paths, id).join("manifest.json");
    Ok(document::read(&path, "the manifest of saved local changes")?)
}

pub(super) fn name(top: &str, path: &Path) -> PathBuf {
    Path::new(top).join(path.strip_prefix("/").unwrap_or(path))
}
