//! The undo journal: how each place of a module was before an upgrade first touched it, and the way back there.
//!
//! One note for each module, `state/undo/<module>.json`, written before the first change and extended before every further
//! one. What is overwritten is kept beside its place as `….old-<attempt>`: folders are moved there, files and links get a
//! second name, which costs nothing. A note outlives attempts: an upgrade that follows one that failed half way has the same
//! way back. [`forget`] removes notes and kept originals once the node is on one side.
//!
//! Invariants: a path is noted once, as it was before the first change; putting back may be killed anywhere and started again;
//! an original that is gone is an error, never taken for put back.

mod act;
mod back;
mod found;
mod keep;
mod moved;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use kato_shared::durable;
use serde::{Deserialize, Serialize};

pub use self::{
    act::{Act, Noted, take_back},
    back::{check, undo},
    found::{Found, all, found, read},
    keep::{is_put_by, put_by, take_out},
};
use super::{
    Job, ModuleError, beside, overlay,
    tree::{self, Kind},
};
use crate::{failpoint, paths::NodePaths};

/// The version of the notes' format.
pub const SCHEMA: u32 = 1;

/// How the names begin under which originals are kept; the id of the upgrade follows.
const OLD: &str = ".old-";

/// How the places of one module were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// Modules are undone in descending order.
    pub order: usize,
    /// The root of the node when it was written, which its paths begin with; empty in notes of earlier versions.
    #[serde(default, skip_serializing_if = "is_empty")]
    root: PathBuf,
    /// The module.
    pub module: String,
    /// Whether it holds `kato` itself, which is undone last.
    pub recovery: bool,
    /// Whether others write to its folder as well, so that only empty folders are removed.
    pub shared: bool,
    /// The release's name of `kept` begins with this: `.old-<attempt>`.
    suffix: String,
    /// What was or will be changed, by its path on this machine; folders come before their content.
    pub places: BTreeMap<PathBuf, Place>,
    /// What was or will be done beside places, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acts: Vec<Noted>,
    /// Temporary folders of the installation.
    leftovers: Vec<PathBuf>,
    /// Folders above the places that were not there.
    made: Vec<PathBuf>,
    /// Whether the file on the disk says the same.
    #[serde(skip)]
    saved: bool,
}

/// What an upgrade changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What was there; `None` for nothing.
    pub was: Option<Was>,
    /// Where the original is kept once it is overwritten.
    pub kept: PathBuf,
}

/// What was at a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Was {
    /// Its content.
    #[serde(flatten)]
    pub kind: Kind,
    /// Its inode: tells the original from its successor while a move is half done.
    inode: u64,
    /// Permission bits of a folder.
    folder_mode: u32,
}

impl Was {
    fn look(path: &Path) -> Result<Option<Self>, ModuleError> {
        let Some(kind) = tree::look(path).map_err(ModuleError::io("reading", path))? else {
            return Ok(None);
        };
        let metadata = fs::symlink_metadata(path).map_err(ModuleError::io("reading", path))?;
        Ok(Some(Self {
            kind,
            inode: metadata.ino(),
            folder_mode: metadata.permissions().mode() & 0o7777,
        }))
    }

    /// Whether it is kept by a second name; anything else is moved.
    const fn is_copied(&self) -> bool {
        matches!(self.kind, Kind::File { .. } | Kind::Link { .. })
    }

    /// Whether it stands at `path` under its own inode.
    fn stands_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }
}

impl Note {
    /// The note of the job's module, or a new one that is not written yet.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub(super) fn open(job: &Job<'_>, shared: bool) -> Result<Self, ModuleError> {
        if let Some(mut note) = read(job.paths, &job.module.name)? {
            note.saved = true;
            return Ok(note);
        }
        Ok(Self {
            schema: SCHEMA,
            order: found::count(job.paths)?,
            root: job.paths.root().to_owned(),
            module: job.module.name.clone(),
            recovery: job.module.recovery,
            shared,
            suffix: format!("{OLD}{}", job.attempt.id),
            places: BTreeMap::new(),
            acts: Vec::new(),
            leftovers: Vec::new(),
            made: Vec::new(),
            saved: false,
        })
    }

    /// The id of the upgrade that wrote it.
    pub fn attempt(&self) -> &str {
        self.suffix.strip_prefix(OLD).unwrap_or(&self.suffix)
    }

    /// Where the original of `path` is kept: beside it.
    pub(super) fn kept_beside(&self, path: &Path) -> PathBuf {
        beside(path, &self.suffix)
    }

    /// Notes what is at `path` now, unless it was noted before.
    pub(super) fn place(&mut self, path: &Path, kept: PathBuf) -> Result<(), ModuleError> {
        if !self.places.contains_key(path) {
            self.saved = false;
            let was = Was::look(path)?;
            self.places.insert(path.to_owned(), Place { was, kept });
        }
        Ok(())
    }

    /// Notes a temporary folder of the installation.
    pub(super) fn leftover(&mut self, path: &Path) {
        if !self.leftovers.iter().any(|known| known == path) {
            self.saved = false;
            self.leftovers.push(path.to_owned());
        }
    }

    /// Notes which folders must be made for `folder` to exist.
    pub(super) fn making(&mut self, folder: &Path) {
        let missing = folder.ancestors().take_while(|folder| !folder.exists());
        let mut missing: Vec<_> = missing.map(Path::to_owned).collect();
        missing.reverse();
        for folder in missing {
            if !self.made.contains(&folder) {
                self.saved = false;
                self.made.push(folder);
            }
        }
    }

    /// Writes the note, if there is anything new in it.
    pub(super) fn save(&mut self, paths: &NodePaths) -> Result<(), ModuleError> {
        if !self.saved {
            durable::create_folder(&paths.undo())?;
            durable::write_json(&file(paths, &self.module), self, 0o600)?;
            self.saved = true;
            failpoint::hit("undo.noted");
        }
        Ok(())
    }

    /// Gives the file or link at `path` the second name under which it is kept. Called before it is overwritten or removed.
    pub(super) fn keep(&mut self, paths: &NodePaths, path: &Path) -> Result<(), ModuleError> {
        let Some(place) = self.places.get_mut(path) else {
            return Ok(());
        };
        let is_kept = place.kept.symlink_metadata().is_ok();
        let Some(was) = place.was.as_mut().filter(|was| !is_kept && was.is_copied()) else {
            return Ok(());
        };
        if !was.stands_at(path) {
            // Not kept, so not overwritten either: somebody changed it since it was noted, and that is what must come back.
            let Some(now) = Was::look(path)?.filter(Was::is_copied) else {
                return Ok(());
            };
            *was = now;
            self.saved = false;
            self.save(paths)?;
            return self.keep(paths, path);
        }
        if let Some(folder) = place.kept.parent() {
            durable::create_folder(folder)?;
        }
        match fs::hard_link(path, &place.kept) {
            Ok(()) => durable::sync_folder(place.kept.parent().unwrap_or(path))?,
            // Another file system, or one without second names.
            Err(_) => copy(&was.kind, path, &place.kept)?,
        }
        failpoint::hit("undo.kept");
        Ok(())
    }

    /// Takes a folder that a person put where the original is kept for the original: only originals are ever kept there.
    fn adopt(&mut self, paths: &NodePaths) -> Result<(), ModuleError> {
        for place in self.places.values_mut().filter(|_| !self.shared) {
            let Some(was) = place.was.as_mut().filter(|was| !was.is_copied()) else {
                continue;
            };
            if !was.stands_at(&place.kept)
                && let Some(found) = Was::look(&place.kept)?
            {
                *was = found;
                self.saved = false;
            }
        }
        self.save(paths)
    }

    /// Moves originals that an exchange left under a temporary name to where they are kept.
    pub(super) fn set_aside(&self) -> Result<(), ModuleError> {
        for place in self.places.values().filter(|_| !self.shared) {
            let Some(was) = &place.was else { continue };
            let found = self.leftovers.iter().find(|leftover| was.stands_at(leftover));
            if let Some(found) = found.filter(|_| place.kept.symlink_metadata().is_err()) {
                durable::rename(found, &place.kept)?;
                failpoint::hit("module.set_aside");
            }
        }
        Ok(())
    }
}

/// Removes the kept originals and the notes: the node is on one side, whichever it is. May be called again. What a note that
/// cannot be read speaks of is found by its name when its module is settled.
///
/// # Errors
/// [`ModuleError`].
pub fn forget(paths: &NodePaths) -> Result<(), ModuleError> {
    for note in found(paths)?.notes {
        let kept = note.places.values().map(|place| place.kept.clone());
        let out = note.places.values().map(|place| back::out(&place.kept));
        for path in kept.chain(out).chain(note.leftovers.iter().cloned()) {
            tree::remove(&path).map_err(ModuleError::io("removing", &path))?;
        }
    }
    tree::remove(&paths.undo()).map_err(ModuleError::io("removing", &paths.undo()))
}

/// The note of `module`.
pub fn file(paths: &NodePaths, module: &str) -> PathBuf {
    paths.undo().join(format!("{module}.json"))
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn copy(kind: &Kind, from: &Path, to: &Path) -> Result<(), ModuleError> {
    match kind {
        Kind::File { mode, .. } => {
            let marks = (*mode, overlay::owner(from));
            durable::copy_with(from, to, marks, &super::attributes(from))?;
        }
        Kind::Link { to: target } => durable::symlink(target, to)?,
        Kind::Folder { .. } | Kind::Special => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
