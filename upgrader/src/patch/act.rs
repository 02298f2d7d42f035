//! What an attempt does with a patch. It is part of the durable attempt, so that a later run goes on with the same.

use kato_shared::release::Patch;
use serde::{Deserialize, Serialize};

/// What is done with a patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchAct {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What is done with it.
    pub purpose: Purpose,
    /// Whether services stay as they are, for the operator to restart.
    pub no_restart: bool,
    /// Whether what it replaces is kept for its way back; not when an earlier installation did.
    pub keeps: bool,
}

/// What is done with a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// It is installed, for the first time or again.
    Install,
    /// It is taken back by modules of its own.
    Revert,
    /// It is taken back by putting the originals back.
    TakeBack,
}

impl PatchAct {
    /// The installation of `patch`.
    pub fn install(patch: &Patch) -> Self {
        Self {
            id: patch.id,
            name: patch.name.clone(),
            purpose: Purpose::Install,
            no_restart: false,
            keeps: true,
        }
    }

    /// The command that does it, and goes on with it after a failure.
    pub fn command(&self) -> String {
        let verb = match self.purpose {
            Purpose::Install => "install",
            Purpose::Revert | Purpose::TakeBack => "revert",
        };
        format!("kato patch {verb} {}", self.name)
    }
}
