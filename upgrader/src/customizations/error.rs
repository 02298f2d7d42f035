//! What can go wrong with local changes, and what to do next.

use std::{
    io,
    path::{Path, PathBuf},
};

use kato_shared::durable::{self, DurableError};

use crate::{
    document::DocumentError,
    exit::{Exit, Failure},
    module::ModuleError,
    run::remedy,
};

/// A command about local changes that failed.
#[derive(Debug, thiserror::Error)]
pub enum CustomizationError {
    /// There is no installed release to compare with.
    #[error("this node has no release that its files could be compared with")]
    NothingInstalled,
    /// A file or folder cannot be read or written.
    #[error("{action} `{path}` failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A durable operation failed.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A record or manifest cannot be used.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A module's place cannot be read.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// No archive has this id.
    #[error("no saved local changes are called `{id}`; there are: {}", list(known))]
    NoArchive {
        /// The id.
        id: String,
        /// What there is, newest first.
        known: Vec<String>,
    },
    /// An archive is not what its manifest says.
    #[error("the archive `{path}` is damaged: expected {expected}, found {found}")]
    Altered {
        /// The archive.
        path: PathBuf,
        /// By its manifest.
        expected: String,
        /// On the disk.
        found: String,
    },
    /// A path is none of those that can be meant.
    #[error("`{path}` {problem}")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why it cannot be meant.
        problem: &'static str,
    },
}

fn list(known: &[String]) -> String {
    if known.is_empty() {
        "none".into()
    } else {
        known.join(", ")
    }
}

impl CustomizationError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => durable::is_disk_full(source),
            Self::Durable(error) => error.is_disk_full(),
            Self::Module(error) => error.is_disk_full(),
            Self::NothingInstalled
            | Self::Document(_)
            | Self::NoArchive { .. }
            | Self::Altered { .. }
            | Self::Path { .. } => false,
        }
    }

    pub(super) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

impl From<CustomizationError> for Failure {
    fn from(error: CustomizationError) -> Self {
        if let CustomizationError::Document(document) = &error {
            let (exit, hint) = remedy::of_document(document);
            return Self::new(exit, error).hint(hint);
        }
        let hint = match &error {
            _ if error.is_disk_full() => remedy::FREE_SPACE,
            CustomizationError::NothingInstalled => "run it after the first `kato node upgrade`",
            CustomizationError::NoArchive { .. } => "`kato customizations list` shows what is saved",
            CustomizationError::Altered { .. } => "name another archive with `--from`",
            CustomizationError::Path { .. } => "`kato customizations scan` lists what can be named",
            CustomizationError::Io { source, .. } => remedy::of_io(source),
            CustomizationError::Durable(error) => remedy::of_io(&error.source),
            CustomizationError::Module(_) | CustomizationError::Document(_) => {
                "look at what is named above, then run the same command again"
            }
        };
        // Nothing was changed before: what changes files reports file by file.
        Self::new(Exit::Preflight, error).hint(hint)
    }
}
