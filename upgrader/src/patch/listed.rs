//! The signed list of patches as this node last saw it: `kato patch status` needs no network, `kato patch update` renews it,
//! `kato patch reset` forgets it.

use jiff::Timestamp;
use kato_shared::{
    durable::{self, DurableError},
    release::PatchList,
};
use serde::{Deserialize, Serialize};

use crate::{
    document::{self, DocumentError},
    paths::NodePaths,
};

/// The version of the document's format.
pub const SCHEMA: u32 = 1;

/// The list as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// When it was fetched and verified.
    pub time: Timestamp,
    /// The list.
    pub list: PatchList,
}

impl Listed {
    /// The list of the node; `None` where none was fetched since the last `reset`.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn load(paths: &NodePaths) -> Result<Option<Self>, DocumentError> {
        document::read(&paths.patch_list(), "the list of patches")
    }

    /// Keeps `list`, which was verified at `now`.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn keep(paths: &NodePaths, list: PatchList, now: Timestamp) -> Result<Self, DurableError> {
        let listed = Self {
            schema: SCHEMA,
            time: now,
            list,
        };
        let path = paths.patch_list();
        if let Some(folder) = path.parent() {
            durable::create_folder(folder)?;
        }
        durable::write_json(&path, &listed, 0o644)?;
        Ok(listed)
    }

    /// Forgets the list.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn forget(paths: &NodePaths) -> Result<(), DurableError> {
        durable::remove(&paths.patch_list())
    }
}
