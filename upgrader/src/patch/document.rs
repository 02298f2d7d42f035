//! The document of an installed patch, kept beside what it replaced: a patch can be taken back without the network.

use kato_shared::{
    Digest,
    durable::{self, DurableError},
    release::Release,
};
use serde::{Deserialize, Serialize};

use crate::{
    document::{self, DocumentError},
    paths::NodePaths,
};

/// The document, as it was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDocument {
    /// The digest of the signed document.
    pub sha256: Digest,
    /// The document, as the attempt had it.
    pub release: Release,
}

fn file(paths: &NodePaths, name: &str) -> std::path::PathBuf {
    // Not `.json`: beside it are the notes of the undo journal by their modules' names.
    paths.patch_kept(name).join("document")
}

impl KeptDocument {
    /// The document of the installed patch `name`; `None` for one that was marked by hand.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn load(paths: &NodePaths, name: &str) -> Result<Option<Self>, DocumentError> {
        document::read(&file(paths, name), "the document of an installed patch")
    }

    /// Keeps it.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn save(&self, paths: &NodePaths, name: &str) -> Result<(), DurableError> {
        durable::create_folder(&paths.patch_kept(name))?;
        durable::write_json(&file(paths, name), self, 0o600)
    }
}
