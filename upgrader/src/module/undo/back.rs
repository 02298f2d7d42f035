//! Puts back what a note says was there.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use kato_shared::durable;

use super::{Note, Was, copy};
use crate::{
    failpoint,
    module::{
        ModuleError, beside,
        tree::{self, Kind},
    },
    paths::NodePaths,
};

/// Puts everything of the note back: originals first, then what was not there goes away.
///
/// # Errors
/// [`ModuleError::Lost`] when an original is gone; what was put back before stays so, and the same call goes on.
pub fn undo(paths: &NodePaths, note: &mut Note) -> Result<(), ModuleError> {
    note.set_aside()?;
    note.adopt(paths)?;
    for (path, place) in &note.places {
        if let Some(was) = &place.was {
            put_back(note, path, &place.kept, was)?;
        }
    }
    for (path, _) in note.places.iter().rev().filter(|(_, place)| place.was.is_none()) {
        take_away(note, path)?;
    }
    for leftover in &note.leftovers {
        tree::remove(leftover).map_err(ModuleError::io("removing", leftover))?;
    }
    remove_temporary_files(note)?;
    for folder in note.made.iter().rev() {
        remove_if_empty(folder)?;
    }
    failpoint::hit("undo.cleaned");
    Ok(())
}

/// Removes the temporary files that a killed run left beside what the module changed.
fn remove_temporary_files(note: &Note) -> Result<(), ModuleError> {
    let folders: BTreeSet<&Path> = note.places.keys().filter_map(|path| path.parent()).collect();
    folders
        .into_iter()
        .try_for_each(crate::module::remove_temporary_files)
}

/// Everything of the note is as it was.
///
/// # Errors
/// [`ModuleError::Lost`] with the first place that is not, [`ModuleError::NotBack`] with the first act.
pub fn check(note: &Note) -> Result<(), ModuleError> {
    if let Some(noted) = note.acts.iter().find(|noted| !noted.undone) {
        return Err(ModuleError::NotBack {
            what: format!("the module {} was not taken back: {}", note.module, noted.act),
        });
    }
    for (path, place) in &note.places {
        let found = tree::look(path).map_err(ModuleError::io("reading", path))?;
        let is_back = match (&place.was, &found) {
            (None, None) => true,
            // Files that others put into a folder of ours meanwhile keep it there.
            (None, Some(kind)) => note.shared && kind.is_folder(),
            (Some(was), Some(Kind::Folder { .. })) if !note.shared => was.stands_at(path),
            (Some(was), Some(kind)) => was.kind.same_content(kind),
            (Some(_), None) => false,
        };
        if !is_back {
            return Err(lost(path, &place.kept));
        }
    }
    Ok(())
}

fn lost(path: &Path, kept: &Path) -> ModuleError {
    ModuleError::Lost {
        path: path.to_owned(),
        kept: kept.to_owned(),
    }
}

/// Where the successor of a folder goes before the folder comes back.
pub(super) fn out(kept: &Path) -> PathBuf {
    beside(kept, ".out")
}

fn put_back(note: &Note, path: &Path, kept: &Path, was: &Was) -> Result<(), ModuleError> {
    if let Some(folder) = path.parent() {
        durable::create_folder(folder)?;
    }
    match &was.kind {
        Kind::Folder { .. } if note.shared => {
            if path.symlink_metadata().is_err() {
                durable::create_folder(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(was.folder_mode))
                    .map_err(ModuleError::io("setting the mode of", path))?;
                failpoint::hit("undo.back");
            }
        }
        _ if kept.symlink_metadata().is_ok() => {
            move_back(path, kept, was)?;
            failpoint::hit("undo.back");
        }
        // Never overwritten, or put back before.
        Kind::File { .. } | Kind::Link { .. } => {
            let found = tree::look(path).map_err(ModuleError::io("reading", path))?;
            if !found.is_some_and(|found| found.same_content(&was.kind)) {
                return Err(lost(path, kept));
            }
        }
        Kind::Folder { .. } | Kind::Special if was.stands_at(path) => {}
        Kind::Folder { .. } | Kind::Special => return Err(lost(path, kept)),
    }
    // What made way for a folder; see `move_back`.
    let out = out(kept);
    tree::remove(&out).map_err(ModuleError::io("removing", &out))
}

/// Moves the kept original to its place.
fn move_back(path: &Path, kept: &Path, was: &Was) -> Result<(), ModuleError> {
    let is_folder = path.is_dir() && !path.is_symlink();
    if was.is_copied() && !is_folder {
        let found = tree::look(path).map_err(ModuleError::io("reading", path))?;
        // It was never overwritten: nobody could, maybe. What is kept is a second name of it, or a copy.
        let is_untouched = was.stands_at(path) && found.is_some_and(|found| found.same_content(&was.kind));
        if !is_untouched && durable::rename(kept, path).is_err() {
            // It was kept on another file system.
            copy(&was.kind, kept, path)?;
        }
        // Of two names of one file none is moved, and the second name is left.
        return Ok(durable::remove(kept)?);
    }
    // A folder cannot be renamed over: its successor makes way first. As long as the original is under its kept name, what
    // stands in its place is the successor.
    if path.symlink_metadata().is_ok() {
        let out = out(kept);
        tree::remove(&out).map_err(ModuleError::io("removing", &out))?;
        durable::rename(path, &out)?;
        failpoint::hit("undo.out");
    }
    Ok(durable::rename(kept, path)?)
}

fn take_away(note: &Note, path: &Path) -> Result<(), ModuleError> {
    let Ok(metadata) = path.symlink_metadata() else {
        return Ok(());
    };
    if metadata.is_dir() && note.shared {
        remove_if_empty(path)?;
    } else {
        tree::remove(path).map_err(ModuleError::io("removing", path))?;
        if let Some(folder) = path.parent() {
            durable::sync_folder(folder)?;
        }
    }
    failpoint::hit("undo.away");
    Ok(())
}

fn remove_if_empty(folder: &Path) -> Result<(), ModuleError> {
    match fs::remove_dir(folder) {
        Ok(()) => Ok(durable::sync_folder(folder.parent().unwrap_or(folder))?),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(ModuleError::io("removing", folder)(error)),
    }
}
