//! The note that a module leaves while it is installed: what was unpacked, and which folder on the disk that is.
//!
//! After a kill the note tells whether the unpacked folder already stands in the destination: a rename keeps the inode.
//! The list of entries becomes the base of the next upgrade's three-way decisions.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use kato_shared::{
    Digest, durable,
    release::{Install, Version},
};
use serde::{Deserialize, Serialize};

use super::{Job, ModuleError, tree::Entry};
use crate::{
    document::{self, DocumentError},
    failpoint,
    paths::NodePaths,
};

const WHAT: &str = "the note of a module's installation";

/// The note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The artifact.
    pub sha256: Digest,
    /// The release that it is installed for.
    pub target: Version,
    /// Everything that was unpacked.
    pub entries: Vec<Entry>,
    /// Device and inode of the unpacked folder, while its way into the destination is not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<(u64, u64)>,
}

/// Device and inode of `path`.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Work {
    /// The note of `module`, if it has one.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn load(paths: &NodePaths, module: &str) -> Result<Option<Self>, DocumentError> {
        document::read(&file(paths, module), WHAT)
    }

    /// The releases that the notes are about; what cannot be read is left out.
    pub(crate) fn targets(paths: &NodePaths) -> Vec<Version> {
        let Ok(listing) = fs::read_dir(paths.work()) else {
            return Vec::new();
        };
        let note = |path: &Path| document::read::<Self>(path, WHAT).ok().flatten();
        let notes = listing.flatten().filter_map(|item| note(&item.path()));
        notes.map(|work| work.target).collect()
    }

    /// Notes what was unpacked to `folder`.
    pub(super) fn save(job: &Job<'_>, mut entries: Vec<Entry>, folder: &Path) -> Result<(), ModuleError> {
        // Into folders that others write to as well, an overlay puts files; what those folders are like is not its business.
        if !matches!(job.module.install, Install::Overlay { .. }) {
            for entry in &mut entries {
                entry.kind = entry.kind.clone().with_mode_of(&folder.join(&entry.path));
            }
        }
        durable::create_folder(&job.paths.work())?;
        let work = Self {
            sha256: job.artifact.sha256,
            target: job.release().version.clone(),
            entries,
            folder: identity(folder),
        };
        durable::write_json(&file(job.paths, &job.module.name), &work, 0o644)?;
        failpoint::hit("module.noted");
        Ok(())
    }

    /// Whether the folder that was unpacked for `job` stands at `path` already.
    pub(super) fn stands_at(job: &Job<'_>, path: &Path) -> Result<bool, ModuleError> {
        Ok(Self::load(job.paths, &job.module.name)?.is_some_and(|work| {
            work.sha256 == job.artifact.sha256
                && work.target == job.release().version
                && work.folder.is_some()
                && work.folder == identity(path)
        }))
    }

    /// Forgets which folder was unpacked: the module is installed, and a later installation must unpack again.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn close(paths: &NodePaths, module: &str) -> Result<(), ModuleError> {
        if let Some(mut work) = Self::load(paths, module)?.filter(|work| work.folder.is_some()) {
            work.folder = None;
            durable::write_json(&file(paths, module), &work, 0o644)?;
        }
        Ok(())
    }
}

fn file(paths: &NodePaths, module: &str) -> std::path::PathBuf {
    paths.work().join(format!("{module}.json"))
}
