//! Where the originals of a complete restoration are kept: in the state folder, out of the product's sight.
//!
//! They are moved there after the restoration was written down as complete, one rename each, and the staging folders beside what
//! was restored are removed. A kill in between is finished by the next command that changes anything ([`super::settle`]).
//!
//! An original on another file system than the state folder stays in its staging folder, because only a rename keeps
//! it as it is to the last attribute; it goes with the next upgrade or restoration.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use kato_shared::durable;

use super::{Restoration, Unit};
use crate::{backup::BackupError, failpoint, module::tree, paths::NodePaths};

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> BackupError + 'a {
    move |source| BackupError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

impl Restoration {
    /// The folder of the originals in the state folder.
    fn keeps(&self, paths: &NodePaths) -> PathBuf {
        paths.restored().join(&self.id)
    }

    /// Where the original of the unit with the number `at` is, or would be.
    fn original(&self, paths: &NodePaths, at: usize, unit: &Unit) -> PathBuf {
        let kept = self.keeps(paths).join(at.to_string());
        if kept.symlink_metadata().is_ok() || unit.folder().symlink_metadata().is_err() {
            kept
        } else {
            unit.staged.clone()
        }
    }

    /// Moves the originals into the state folder, and removes the staging folders. May be killed anywhere and called again.
    ///
    /// # Errors
    /// [`BackupError`]; what was not moved is still beside its path, and can be taken back from there.
    pub(super) fn put_away(&self, paths: &NodePaths) -> Result<(), BackupError> {
        let keeps = self.keeps(paths);
        durable::create_folder(&keeps)?;
        let all = paths.restored();
        // The originals were perhaps in a folder that not everybody can look into.
        fs::set_permissions(&all, fs::Permissions::from_mode(0o700)).map_err(failed("protecting", &all))?;
        let here = fs::metadata(&keeps).map_err(failed("reading", &keeps))?.dev();
        for (at, unit) in self.units.iter().enumerate() {
            if unit
                .staged
                .symlink_metadata()
                .is_ok_and(|original| original.dev() == here)
            {
                durable::rename(&unit.staged, &keeps.join(at.to_string()))?;
                failpoint::hit("restore.kept");
            }
        }
        for unit in &self.units {
            let folder = unit.folder();
            match durable::remove_folder(folder) {
                Ok(()) => failpoint::hit("restore.cleared"),
                Err(error) if error.source.kind() == ErrorKind::DirectoryNotEmpty => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes the exchange of all units back, the last first.
    ///
    /// # Errors
    /// [`BackupError`]; the same call goes on.
    pub(super) fn undo(&self, paths: &NodePaths) -> Result<(), BackupError> {
        for (at, unit) in self.units.iter().enumerate().rev() {
            let original = self.original(paths, at, unit);
            if let Some(folder) = original.parent() {
                durable::create_folder(folder)?;
            }
            unit.undo(&original)?;
            failpoint::hit("restore.exchanged");
        }
        Ok(())
    }

    /// Removes the staging folders and the originals, with everything in them.
    ///
    /// # Errors
    /// [`BackupError::Io`] with the folder that cannot be removed.
    pub(super) fn clear(&self, paths: &NodePaths) -> Result<(), BackupError> {
        let keeps = [self.keeps(paths)];
        let folders = self.units.iter().map(Unit::folder);
        for folder in folders.chain(keeps.iter().map(PathBuf::as_path)) {
            if folder.symlink_metadata().is_err() {
                continue;
            }
            tree::remove(folder).map_err(failed("removing", folder))?;
            if let Some(above) = folder.parent() {
                durable::sync_folder(above)?;
            }
        }
        Ok(())
    }
}
