//! `kato node restore`: a backup brought back, as a whole or single paths of it.
//!
//! ```text
//!   verify ─▶ note ─▶ stage beside ─▶ retire ─▶ exchange, path by path ─▶ platform's restore ─▶ record ─▶ restart ─▶ done
//!                                                                                                              └─▶ undo
//! ```
//!
//! Every path is staged whole in `.kato-restore-<id>/` beside what it replaces, and exchanged with it in one step; the originals
//! are then in the staging folder, and at the end in the state folder ([`kept`]), where they stay until the restoration is
//! forgotten, so that it can be taken back. Which side a path is on is read from its inode: a run that was killed goes on with the
//! same command.
//!
//! After a restoration of everything the node's record says what the backup says: release, modules, patches. An upgrade that was
//! in progress is given up by it. After a restoration of single paths the record keeps its version, and of the modules there says
//! what is on the disk.
//!
//! Deliberately absent: taking back what the platform's own `restore` did.
//!
//! Invariants: nothing is exchanged before the whole backup was verified and everything is staged and flushed; nothing is deleted
//! before the restoration is complete and then forgotten.

mod act;
mod admit;
mod kept;
mod plan;
mod record;
mod show;
mod units;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::durable::{self, DurableError};
use serde::{Deserialize, Serialize};

pub use act::{Request, run};

use crate::{
    backup::{self, BackupError, Found},
    document::{self, DocumentError},
    exit::{Exit, Failure},
    failpoint,
    paths::NodePaths,
};

/// The version of the document's format.
const SCHEMA: u32 = 1;

/// A restoration: in progress, or complete and not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoration {
    /// The version of this format.
    pub schema: u32,
    /// Names its staging folders.
    pub id: String,
    /// The id of the backup.
    pub backup: String,
    /// The backup's folder.
    pub folder: PathBuf,
    /// When it began.
    pub started: Timestamp,
    /// Whether it is about everything in the backup.
    pub whole: bool,
    /// The paths that were asked for, below the node's root; empty when it is about everything.
    #[serde(
        default,
        skip_serializing_if = "BTreeSet::is_empty",
        with = "crate::path_text::many"
    )]
    pub only: BTreeSet<PathBuf>,
    /// How far it is.
    pub phase: Phase,
    /// What is exchanged.
    pub units: Vec<Unit>,
    /// The node's records as they were before, by path: text, or `None` where there was none.
    pub records: BTreeMap<PathBuf, Option<String>>,
}

/// How far a restoration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing is changed; what is staged may be incomplete.
    Staging,
    /// Everything is staged; paths are being exchanged.
    Exchanging,
    /// It is complete.
    Done,
    /// It is being taken back.
    Undoing,
}

/// One path that is exchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// The path, below the node's root.
    #[serde(with = "crate::path_text")]
    pub below: PathBuf,
    /// The same on this machine.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// Where its restored form is staged, and later what it replaced.
    #[serde(with = "crate::path_text")]
    pub staged: PathBuf,
    /// Whether the backup has it; one that it has not is taken away.
    pub saved: bool,
    /// Device and inode of the restored form.
    pub identity: Option<(u64, u64)>,
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Unit {
    /// Brings the restored form into place; nothing to do when it is there.
    fn exchange(&self) -> Result<(), DurableError> {
        let is_here = self.path.symlink_metadata().is_ok();
        let is_staged = self.staged.symlink_metadata().is_ok();
        match (self.saved, is_here) {
            (true, _) if identity(&self.path) == self.identity => Ok(()),
            (true, true) => durable::exchange(&self.staged, &self.path),
            (true, false) => durable::rename(&self.staged, &self.path),
            (false, true) if !is_staged => durable::rename(&self.path, &self.staged),
            (false, _) => Ok(()),
        }
    }

    /// Takes [`Self::exchange`] back, which left what was replaced at `original`; nothing to do when it did nothing.
    fn undo(&self, original: &Path) -> Result<(), DurableError> {
        let is_staged = original.symlink_metadata().is_ok();
        let is_restored = self.identity.is_some() && identity(&self.path) == self.identity;
        match (self.saved, is_staged) {
            (true, true) if is_restored => durable::exchange(original, &self.path),
            (true, false) if is_restored => durable::rename(&self.path, original),
            (false, true) if self.path.symlink_metadata().is_err() => durable::rename(original, &self.path),
            _ => Ok(()),
        }
    }

    fn folder(&self) -> &Path {
        self.staged.parent().unwrap_or(Path::new("/"))
    }
}

impl Restoration {
    /// The one that the node knows of.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn load(paths: &NodePaths) -> Result<Option<Self>, DocumentError> {
        document::read(&paths.restoration(), "the restoration in progress")
    }

    /// The command that goes on with it.
    fn command(&self) -> String {
        let only = self.only.iter().map(|path| format!(" /{}", path.display()));
        format!("kato node restore {}{}", self.backup, only.collect::<String>())
    }

    fn save(&self, paths: &NodePaths) -> Result<(), DurableError> {
        if let Some(folder) = paths.restoration().parent() {
            durable::create_folder(folder)?;
        }
        durable::write_json(&paths.restoration(), self, 0o600)
    }

    /// Stages everything beside what it replaces, from the beginning.
    fn stage(&mut self, paths: &NodePaths, backup: &Found) -> Result<(), BackupError> {
        self.clear(paths)?;
        for unit in &self.units {
            durable::create_folder(unit.folder())?;
        }
        let units: BTreeMap<&Path, &Unit> = self
            .units
            .iter()
            .map(|unit| (unit.below.as_path(), unit))
            .collect();
        backup.extract(|path| {
            let unit = path.ancestors().find_map(|above| units.get(above))?;
            let rest = path.strip_prefix(&unit.below).ok()?;
            Some(unit.staged.join(rest).components().collect())
        })?;
        for unit in &mut self.units {
            unit.identity = identity(&unit.staged);
            if unit.saved && unit.identity.is_none() {
                return Err(BackupError::Altered {
                    path: unit.staged.clone(),
                    problem: "it was not staged",
                });
            }
        }
        Ok(())
    }

    fn exchange(&self) -> Result<(), DurableError> {
        for unit in &self.units {
            unit.exchange()?;
            failpoint::hit("restore.exchanged");
        }
        Ok(())
    }
}

/// The records of the node that a backup holds beside the product: they are written, not exchanged.
fn records(paths: &NodePaths) -> [PathBuf; 2] {
    [paths.installed(), paths.patches()]
}

/// Forgets a complete restoration with the originals that it has kept; one that is not complete stays.
///
/// # Errors
/// [`Failure`] with what cannot be removed.
pub fn forget(paths: &NodePaths) -> Result<(), Failure> {
    if let Some(restoration) = Restoration::load(paths)?.filter(|one| one.phase == Phase::Done) {
        restoration.clear(paths)?;
        durable::remove(&paths.restoration())?;
    }
    Ok(())
}

/// Finishes what a killed restoration left to be put away after it was complete: called by every command that changes something.
///
/// # Errors
/// [`Failure`] with what cannot be moved or removed.
pub fn settle(paths: &NodePaths) -> Result<(), Failure> {
    if let Some(restoration) = Restoration::load(paths)?.filter(|one| one.phase == Phase::Done) {
        restoration.put_away(paths)?;
    }
    Ok(())
}

/// Refuses an upgrade of a node that is in the middle of a restoration; of one that is complete, it puts away what is left.
///
/// # Errors
/// [`Failure`] with 20.
pub fn refuse_upgrade(paths: &NodePaths) -> Result<(), Failure> {
    match Restoration::load(paths)? {
        Some(restoration) if restoration.phase != Phase::Done => {
            let problem = anyhow::anyhow!(
                "the backup {} is being restored on this node, and that is not complete",
                restoration.backup
            );
            Err(Failure::new(Exit::Preflight, problem).hint(format!(
                "finish it with `{}`, or take it back with `kato node restore --undo`",
                restoration.command()
            )))
        }
        _ => settle(paths),
    }
}

/// The backup that `name` means, whole.
fn find(paths: &NodePaths, name: &str) -> Result<Found, Failure> {
    Ok(backup::named(paths, name)?)
}
