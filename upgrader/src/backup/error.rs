//! How a backup fails.

use std::{io, path::PathBuf};

use kato_shared::{
    Digest,
    durable::{self, DurableError},
};

use crate::document::DocumentError;

/// A backup that failed, or that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be read or the archive not written.
    #[error("{action} `{path}` failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A durable operation failed.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// Its manifest cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// There is no such backup.
    #[error("there is no whole backup `{name}` on this node, only {}", listed(known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The archive's digest is another one.
    #[error("the archive `{path}` was altered: expected {expected}, found {found}")]
    Digest {
        /// The archive.
        path: PathBuf,
        /// The manifest's digest.
        expected: Digest,
        /// The file's.
        found: Digest,
    },
    /// An entry is not what the manifest says.
    #[error("`{path}` in the backup was altered: {problem}")]
    Altered {
        /// The entry.
        path: PathBuf,
        /// How.
        problem: &'static str,
    },
    /// A second name of a file that is not restored.
    #[error("`{path}` is a second name of `{first}`, which is not restored with it")]
    SecondName {
        /// The entry.
        path: PathBuf,
        /// The entry with the content.
        first: PathBuf,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

impl BackupError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => durable::is_disk_full(source),
            Self::Durable(error) => error.is_disk_full(),
            Self::Document(_)
            | Self::Unknown { .. }
            | Self::Digest { .. }
            | Self::Altered { .. }
            | Self::SecondName { .. } => false,
        }
    }

    /// Whether the backup is not what its manifest says.
    pub const fn is_altered(&self) -> bool {
        matches!(self, Self::Digest { .. } | Self::Altered { .. })
    }
}
