//! A disk that is full in the middle of a run: which one it is, what it has, and what the upgrade needs there.
//!
//! Space is judged before anything is changed (see [`crate::space`]); this is for what others wrote meanwhile. A full disk says
//! nothing about the release, so it never leads to the way back.

use std::{error::Error, path::PathBuf};

use kato_shared::durable::{self, DurableError};

use super::Node;
use crate::{
    backup::BackupError,
    customizations::CustomizationError,
    exit::{Exit, Failure},
    fetch::FetchError,
    jsonl::LinesError,
    latch::LatchError,
    lock::LockError,
    module::{ModuleError, unpack::UnpackError},
    self_update::SelfUpdateError,
    space::{self, Need},
};

/// No room for a file.
#[derive(Debug, thiserror::Error)]
#[error("no room for `{path}` on {mount}: {have} bytes are free{}", needs(*need, *have, *inodes))]
pub(super) struct NoRoom {
    /// The file or folder.
    path: PathBuf,
    /// The mount point of its file system.
    mount: PathBuf,
    /// What the upgrade needs there in all, in bytes of whole blocks; 0 when that is not known yet.
    need: u64,
    /// What is free for this user, in bytes.
    have: u64,
    /// How many more files there can be; `None` where the file system does not count.
    inodes: Option<u64>,
    /// What failed.
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

fn needs(need: u64, have: u64, inodes: Option<u64>) -> String {
    if inodes == Some(0) {
        return " and no inodes: the file system can hold no more files".to_owned();
    }
    if need == 0 {
        return String::new();
    }
    format!(
        ", the upgrade needs {need} there in all, {} short",
        need.saturating_sub(have)
    )
}

/// Whether `failure` says by itself which disk is full.
fn is_explained(failure: &Failure) -> bool {
    failure.source.downcast_ref::<NoRoom>().is_some()
        || matches!(failure.source.downcast_ref(), Some(FetchError::DiskFull { .. }))
}

/// Whether `failure` is one of a full disk, explained or not.
pub(super) fn is_full(failure: &Failure) -> bool {
    is_explained(failure)
        || failure.source.chain().any(|cause| {
            cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(durable::is_disk_full)
        })
}

/// `failure` with the disk that is full, if that is what it is about; `needs` is what the upgrade needs.
pub(crate) fn explain<'a>(
    node: &Node,
    needs: impl IntoIterator<Item = &'a Need>,
    failure: Failure,
) -> Failure {
    if is_explained(&failure) || !is_full(&failure) {
        return failure;
    }
    let path = failure.source.chain().find_map(place);
    // Whatever does not say where it writes writes into the state folder.
    let path = path.unwrap_or_else(|| node.paths.state_dir().to_owned());
    let Ok(mount) = space::mount_of(&path) else {
        return failure;
    };
    let is_there = |need: &&Need| {
        let place = if need.path.starts_with(node.paths.state_dir()) {
            need.path.clone()
        } else {
            node.paths.on_node(&need.path)
        };
        space::mount_of(&place).is_ok_and(|of| of.device == mount.device)
    };
    let need = needs
        .into_iter()
        .filter(is_there)
        .map(|need| need.on(mount.block))
        .sum();
    let hint = format!(
        "free space on {}, then run the same command again; modules that are done are skipped",
        mount.point.display()
    );
    // A full disk is not the fault of the metadata, nor of the network.
    let exit = if matches!(failure.exit, Exit::Trust | Exit::TryAgain) {
        Exit::Preflight
    } else {
        failure.exit
    };
    let error = NoRoom {
        path,
        mount: mount.point,
        need,
        have: mount.free,
        inodes: mount.free_inodes,
        source: failure.source.into(),
    };
    Failure::new(exit, error).hint(hint)
}

/// What an error of a file operation is about.
fn place(error: &(dyn Error + 'static)) -> Option<PathBuf> {
    durable_inside(error)
        .map(|error| error.path.clone())
        .or_else(|| place_of_others(error))
}

/// The durable operation that failed. Errors that are transparent have it inside instead of behind them.
fn durable_inside<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a DurableError> {
    if let Some(ModuleError::Durable(inside)) = error.downcast_ref() {
        return Some(inside);
    }
    if let Some(BackupError::Durable(inside)) = error.downcast_ref() {
        return Some(inside);
    }
    if let Some(
        CustomizationError::Durable(inside) | CustomizationError::Module(ModuleError::Durable(inside)),
    ) = error.downcast_ref()
    {
        return Some(inside);
    }
    if let Some(LinesError::Append(inside)) = error.downcast_ref() {
        return Some(inside);
    }
    if let Some(LatchError::Write(inside)) = error.downcast_ref() {
        return Some(inside);
    }
    if let Some(LockError::Durable(inside)) = error.downcast_ref() {
        return Some(inside);
    }
    if let Some(SelfUpdateError::Durable(inside)) = error.downcast_ref() {
        return Some(inside);
    }
    error.downcast_ref()
}

fn place_of_others(error: &(dyn Error + 'static)) -> Option<PathBuf> {
    if let Some(ModuleError::Io { path, .. }) = error.downcast_ref() {
        return Some(path.clone());
    }
    if let Some(ModuleError::Unpack(UnpackError::Write { into, .. })) = error.downcast_ref() {
        return Some(into.clone());
    }
    if let Some(BackupError::Io { path, .. }) = error.downcast_ref() {
        return Some(path.clone());
    }
    if let Some(
        CustomizationError::Io { path, .. } | CustomizationError::Module(ModuleError::Io { path, .. }),
    ) = error.downcast_ref()
    {
        return Some(path.clone());
    }
    if let Some(LockError::Io { path, .. }) = error.downcast_ref() {
        return Some(path.clone());
    }
    None
}
