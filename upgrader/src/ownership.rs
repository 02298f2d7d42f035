//! The record that *we* took the node out of service; only with it do we put the node back.
//!
//! It is written before the node is retired and removed after it is back. A node that somebody else took out of service
//! never gets one and stays out. One that an operator retired with `kato node retire` has a record that says so: an upgrade
//! takes it for somebody else's, and only `kato node rejoin` ends it.

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
    /// Who wants it out of service.
    #[serde(default)]
    pub by: By,
}

/// Who wants a node out of service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A run, which puts it back at its end.
    #[default]
    Run,
    /// An operator, who puts it back by hand.
    Hand,
}

impl Ownership {
    /// The record of the node.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn load(paths: &NodePaths) -> Result<Option<Self>, DocumentError> {
        document::read(&paths.ownership(), "the record of who retired the node")
    }

    /// The record of the node if a run may put it back.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn of_a_run(paths: &NodePaths) -> Result<Option<Self>, DocumentError> {
        Ok(Self::load(paths)?.filter(|ownership| ownership.by == By::Run))
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
