//! Reads the small JSON documents of a node. A missing document is `None`; a damaged one is an error, never "missing".

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

/// A document that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file cannot be read.
    #[error("reading `{path}` failed")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not the document that belongs there.
    #[error("`{path}` is damaged: expected {expected}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What belongs there.
        expected: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// There is nothing in the file: a full disk or a machine without power may leave that.
    #[error("`{path}` is empty: expected {expected}")]
    Empty {
        /// The file.
        path: PathBuf,
        /// What belongs there.
        expected: &'static str,
    },
}

/// Reads the document at `path`; `expected` names it in errors.
///
/// # Errors
/// [`DocumentError`]; a missing file is not one.
pub fn read<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<Option<T>, DocumentError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(DocumentError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    if bytes.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace()) {
        return Err(DocumentError::Empty {
            path: path.to_owned(),
            expected,
        });
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| DocumentError::Damaged {
            path: path.to_owned(),
            expected,
            source,
        })
}
