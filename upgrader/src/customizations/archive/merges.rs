//! What came of merging an archive's files: `merges.json` beside its manifest.
//!
//! A merge is not its own inverse: applied a second time to its own result it may contradict itself. So each result is written
//! down before it is put in its place, and a file that is still as a merge left it counts as done.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use kato_shared::{Digest, durable};

use super::folder;
use crate::{customizations::error::CustomizationError, document, module::tree::Kind, paths::NodePaths};

const FILE: &str = "merges.json";

/// The digest of each merged file, by the place it was put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merges(BTreeMap<PathBuf, Digest>);

impl Merges {
    /// What is known of the archive `id`.
    ///
    /// # Errors
    /// [`CustomizationError::Document`] when the record is damaged.
    pub fn load(paths: &NodePaths, id: &str) -> Result<Self, CustomizationError> {
        let known = document::read(
            &folder(paths, id).join(FILE),
            "the record of merged local changes",
        )?;
        Ok(Self(known.unwrap_or_default()))
    }

    /// Whether the file at `path` is what a merge has left there.
    pub fn has(&self, path: &Path, now: Option<&Kind>) -> bool {
        matches!((self.0.get(path), now), (Some(made), Some(Kind::File { sha256, .. })) if made == sha256)
    }

    /// Writes down what is about to be put in place.
    ///
    /// # Errors
    /// [`CustomizationError`]; nothing may be put in place then.
    pub fn record<'a>(
        mut self,
        paths: &NodePaths,
        id: &str,
        merged: impl Iterator<Item = (&'a Path, &'a [u8])>,
    ) -> Result<(), CustomizationError> {
        let before = self.clone();
        let results = merged.map(|(path, bytes)| (path.to_owned(), Digest::of(bytes)));
        self.0.extend(results);
        if self == before {
            return Ok(());
        }
        Ok(durable::write_json(
            &folder(paths, id).join(FILE),
            &self.0,
            0o600,
        )?)
    }
}
