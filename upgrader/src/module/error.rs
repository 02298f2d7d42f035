//! Why a module could not be installed, or not be taken back.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use kato_shared::durable::{self, DurableError};

use super::UnpackError;
use crate::{document::DocumentError, platform::process::ProcessError};

/// A module that could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// Its archive cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// A durable operation failed.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The note of what was unpacked cannot be read.
    #[error(transparent)]
    Note(#[from] DocumentError),
    /// A file or folder cannot be read or removed.
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
    /// The destination leads out of the node's root.
    #[error("the destination `{dest}` is a symbolic link to `{target}`, outside the root `{root}`")]
    OutsideRoot {
        /// The destination.
        dest: PathBuf,
        /// Where it leads.
        target: PathBuf,
        /// The node's root.
        root: PathBuf,
    },
    /// Local changes do not allow it.
    #[error("{count} local changes in `{dest}` do not allow the module: {first}")]
    Conflict {
        /// The destination.
        dest: PathBuf,
        /// How many.
        count: usize,
        /// The first ones.
        first: String,
    },
    /// The way back is blocked: an original is neither in its place nor where it was kept.
    #[error("`{path}` cannot be put back: the original is not at `{kept}`")]
    Lost {
        /// The place.
        path: PathBuf,
        /// Where the original was kept.
        kept: PathBuf,
    },
    /// The module was installed, and nothing says any more what it changed.
    #[error("the note that leads back, `{path}`, is gone")]
    NoNote {
        /// Where it was.
        path: PathBuf,
    },
    /// What is installed is not what the release promises.
    #[error("`{path}` is not what the release installs: {problem}")]
    Differs {
        /// The file.
        path: PathBuf,
        /// How it differs.
        problem: String,
    },
    /// A command that the module needs failed.
    #[error("{what} failed")]
    Command {
        /// What it was for.
        what: String,
        /// How it ended, with its last lines.
        #[source]
        source: ProcessError,
    },
    /// What a module was to bring about is not so.
    #[error("the module {module} is not installed: {problem}")]
    Undone {
        /// The module.
        module: String,
        /// What was found.
        problem: String,
    },
    /// An act was not taken back.
    #[error("{what}")]
    NotBack {
        /// What was found.
        what: String,
    },
    /// Somebody else changes packages.
    #[error("`{lock}` is held by {holder}; waited {}", humantime::format_duration(*waited))]
    Busy {
        /// The lock.
        lock: PathBuf,
        /// Who holds it.
        holder: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The container runtime is there, and says nothing.
    #[error("the container runtime `{runtime}` does not answer")]
    Silent {
        /// Its command.
        runtime: String,
        /// What became of the last question.
        #[source]
        source: ProcessError,
    },
    /// The container runtime says something that is not understood.
    #[error("the container runtime `{runtime}` answers with something else than a list of images")]
    Unclear {
        /// Its command.
        runtime: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// There is nothing to pull images with.
    #[error("no container runtime is there: {asked}")]
    NoRuntime {
        /// What each said.
        asked: String,
    },
}

impl ModuleError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Unpack(UnpackError::Write { source, .. }) | Self::Io { source, .. } => {
                durable::is_disk_full(source)
            }
            Self::Durable(error) => error.is_disk_full(),
            Self::Unpack(_)
            | Self::Note(_)
            | Self::OutsideRoot { .. }
            | Self::Conflict { .. }
            | Self::Lost { .. }
            | Self::NoNote { .. }
            | Self::Differs { .. }
            | Self::Command { .. }
            | Self::Undone { .. }
            | Self::NotBack { .. }
            | Self::Busy { .. }
            | Self::Silent { .. }
            | Self::Unclear { .. }
            | Self::NoRuntime { .. } => false,
        }
    }

    /// Whether the archive is not what was signed.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Unpack(UnpackError::Altered { .. }))
    }

    /// Whether what leads back is lost: there is no note, or what is in it is not one.
    pub const fn is_lost_note(&self) -> bool {
        matches!(
            self,
            Self::NoNote { .. } | Self::Note(DocumentError::Damaged { .. } | DocumentError::Empty { .. })
        )
    }

    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
