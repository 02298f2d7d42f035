//! The failure marker: it is there while the last upgrade of the node failed after it had begun to change the node.
//!
//! The next run is then tolerant: missing services and paths are warnings. Integrity is never relaxed.

use std::path::PathBuf;

use jiff::Timestamp;
use kato_shared::durable::{self, DurableError};
use serde::{Deserialize, Serialize};

use crate::{failpoint, paths::NodePaths, run::event::ErrorReport};

/// The content of the marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureMarker {
    /// The run that failed.
    pub run: String,
    /// When.
    pub time: Timestamp,
    /// The version that it was to install.
    pub target: String,
    /// What failed.
    #[serde(flatten)]
    pub error: ErrorReport,
    /// Where the whole story is.
    pub log: PathBuf,
}

/// Whether the last run failed; a marker made by hand counts, a folder in its place does not.
pub fn is_set(paths: &NodePaths) -> bool {
    paths.failure_marker().is_file()
}

/// Writes the marker.
///
/// # Errors
/// [`DurableError`].
pub fn set(paths: &NodePaths, marker: &FailureMarker) -> Result<(), DurableError> {
    let path = paths.failure_marker();
    if let Some(folder) = path.parent() {
        durable::create_folder(folder)?;
    }
    durable::write_json(&path, marker, 0o644)
}

/// What the marker says; `None` when there is none or it was made by hand.
pub fn read(paths: &NodePaths) -> Option<FailureMarker> {
    serde_json::from_slice(&std::fs::read(paths.failure_marker()).ok()?).ok()
}

/// What is in the marker's place and is no marker: a folder, which `kato` neither made nor removes.
pub fn foreign(paths: &NodePaths) -> Option<PathBuf> {
    let path = paths.failure_marker();
    let is_folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    is_folder.then_some(path)
}

/// Removes the marker; gives what is [`foreign`] and stays.
///
/// # Errors
/// [`DurableError`].
pub fn clear(paths: &NodePaths) -> Result<Option<PathBuf>, DurableError> {
    let foreign = foreign(paths);
    if foreign.is_none() {
        durable::remove(&paths.failure_marker())?;
    }
    failpoint::hit("record.marker");
    Ok(foreign)
}
