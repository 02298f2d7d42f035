//! The record that an upgrade turned the maintenance mode on: with it, and only with it, an upgrade turns it off again.

use jiff::Timestamp;
use kato_shared::durable::{self, DurableError};
use serde::{Deserialize, Serialize};

use crate::{
    document::{self, DocumentError},
    paths::NodePaths,
};

/// The version of the document.
const SCHEMA: u32 = 1;

/// `state/maintenance.json` on Core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format.
    pub schema: u32,
    /// The plan whose upgrade turned it on.
    pub run: String,
    /// When.
    pub since: Timestamp,
}

impl Record {
    pub(super) fn new(run: &str, now: Timestamp) -> Self {
        Self {
            schema: SCHEMA,
            run: run.to_owned(),
            since: now,
        }
    }

    pub(super) fn load(paths: &NodePaths) -> Result<Option<Self>, DocumentError> {
        document::read(
            &paths.maintenance(),
            "the record of who turned maintenance mode on",
        )
    }

    pub(super) fn save(&self, paths: &NodePaths) -> Result<(), DurableError> {
        let path = paths.maintenance();
        if let Some(folder) = path.parent() {
            durable::create_folder(folder)?;
        }
        durable::write_json(&path, self, 0o644)
    }

    pub(super) fn remove(paths: &NodePaths) -> Result<(), DurableError> {
        durable::remove(&paths.maintenance())
    }
}
