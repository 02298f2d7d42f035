//! What can be wrong with an inventory.

use std::path::PathBuf;

use kato_shared::settings::SettingsError;

/// An inventory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The file cannot be read or has a wrong key or value.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The file has no `[[node]]`.
    #[error(
        "{path}: no node is listed: expected one `[[node]]` each, one of them with the role `{core_role}`"
    )]
    Empty {
        /// The file.
        path: PathBuf,
        /// The role of Core.
        core_role: String,
    },
    /// No node is Core.
    #[error("{path}: no node has the role `{core_role}`: expected exactly one, the Core node")]
    NoCore {
        /// The file.
        path: PathBuf,
        /// The role of Core.
        core_role: String,
    },
    /// More than one node is Core.
    #[error("{path}: {} have the role `{core_role}`: expected exactly one, the Core node", ids.join(", "))]
    SeveralCores {
        /// The file.
        path: PathBuf,
        /// The role of Core.
        core_role: String,
        /// The nodes with it.
        ids: Vec<String>,
    },
    /// Two nodes have the same id, address or settings file.
    #[error("{path}: `{first}` and `{second}` have the same {what} `{value}`")]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The key that repeats.
        what: &'static str,
        /// Its value.
        value: String,
        /// The id of the first node.
        first: String,
        /// The id of the second node.
        second: String,
    },
    /// A word that ssh or a file name could misread.
    #[error(
        "{path}: `{value}` is no {what}: expected letters, digits and `{allowed}`, not beginning with `-`"
    )]
    Word {
        /// The file.
        path: PathBuf,
        /// The key.
        what: &'static str,
        /// What stands there.
        value: String,
        /// Which other characters are allowed.
        allowed: &'static str,
    },
    /// Rules for a role that no node has.
    #[error("{path}: `[rollout.role.{role}]` is about a role that no node has")]
    RoleOfNobody {
        /// The file.
        path: PathBuf,
        /// The role.
        role: String,
    },
}
