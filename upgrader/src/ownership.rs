//! The record that *we* took the node out of service; only with it do we put the node back.
//!
//! It is written before the node is retired and removed after it is back. A node that somebody else took out of service
//! never gets one and stays out.

use jiff::Timestamp;
use kato_shared::durable::{self, DurableError};
use serde::{Deserialize, Serialize};

use crate::{
    document::{self, DocumentError},
    failpoint,
    paths::NodePaths,
};

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// The run that took the node out of service.
    pub run: String,
    /// When.
    pub since: Timestamp,
}

impl Ownership {
    /// The record of the node.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn load(paths: &NodePaths) -> Result<Option<Self>, DocumentError> {
        document::read(&paths.ownership(), "the record of who retired the node")
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn save(&self, paths: &NodePaths) -> Result<(), DurableError> {
        durable::write_json(&paths.ownership(), self, 0o644)?;
        failpoint::hit("retire.owned");
        Ok(())
    }

    /// Removes it.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn remove(paths: &NodePaths) -> Result<(), DurableError> {
        durable::remove(&paths.ownership())?;
        failpoint::hit("rejoin.disowned");
        Ok(())
    }
}
