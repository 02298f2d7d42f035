//! Why a repository cannot be made, added to, or renewed.

use std::{io, path::PathBuf};

use kato_shared::{Digest, durable::DurableError, release::ReadError, settings::SettingsError};
use semver::Version;

use crate::{
    exit::{Exit, Failure},
    module::unpack::UnpackError,
};

/// A step of publishing that failed. Nothing that was published before is changed by it.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// `release.toml` cannot be read or understood.
    #[error(transparent)]
    Description(#[from] SettingsError),
    /// `release.toml` can be read, but two parts of it do not fit together.
    #[error("{}: {problem}", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The release document that would come out cannot be used by a node.
    #[error("the release cannot be used by a node")]
    Unusable(#[source] Box<ReadError>),
    /// A file or folder cannot be read or written.
    #[error("{action} `{}` failed", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A module contains something that cannot be put into an archive.
    #[error("`{}` is {kind}; a module holds files, folders and symbolic links", path.display())]
    Entry {
        /// The entry.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// An archive is not what the release lists; every node would refuse it.
    #[error(transparent)]
    Archive(#[from] UnpackError),
    /// The folder is in use already.
    #[error("`{}` exists already", path.display())]
    Exists {
        /// The file that would be overwritten.
        path: PathBuf,
    },
    /// More signatures asked for than there are keys.
    #[error("a threshold of {threshold} needs at least as many root keys, {keys} given")]
    Threshold {
        /// The threshold.
        threshold: u8,
        /// The number of keys.
        keys: u8,
    },
    /// The keys would be served to everybody.
    #[error("the folder of keys `{}` is inside the repository, which is served to everybody", keys.display())]
    KeysServed {
        /// The folder of keys.
        keys: PathBuf,
    },
    /// No key file for a role.
    #[error("no key of the role {role} in `{}`, expected `{role}-1.pk8`", folder.display())]
    NoKey {
        /// The role.
        role: &'static str,
        /// The folder of keys.
        folder: PathBuf,
    },
    /// Signing failed; mostly keys that are not those of the repository.
    #[error("signing the {role} metadata failed")]
    Signing {
        /// The role.
        role: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Metadata in the repository or the build folder are not what they should be.
    #[error("`{}` is not usable metadata of this repository", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A target name that is taken by other content.
    #[error("`{name}` is published already with other content ({published}, now {offered})")]
    Taken {
        /// The target name.
        name: String,
        /// The digest of what is published.
        published: Digest,
        /// The digest of what would be.
        offered: Digest,
    },
    /// The repository is of another product.
    #[error("the repository is of the product `{published}`, the release of `{offered}`")]
    Product {
        /// The repository's product.
        published: String,
        /// The release's product.
        offered: String,
    },
    /// The build folder has no release in it, or several.
    #[error("`{}` holds {count} releases, expected 1", folder.display())]
    Releases {
        /// The build folder.
        folder: PathBuf,
        /// How many.
        count: usize,
    },
    /// A patch that does not fit to what is published.
    #[error("the patch `{name}` cannot be published: {problem}")]
    Patch {
        /// Its name.
        name: String,
        /// What does not fit.
        problem: String,
    },
    /// The build folder was not signed.
    #[error("`{}` was not signed", folder.display())]
    Unsigned {
        /// The build folder.
        folder: PathBuf,
    },
    /// Something was published between signing and publishing.
    #[error("signed as version {signed} of the targets, but the repository is at version {current}")]
    Outdated {
        /// The version that was signed.
        signed: u64,
        /// The version in the repository.
        current: u64,
    },
    /// Publishing would remove a target.
    #[error("the signed targets lack `{name}`, which is published")]
    Removed {
        /// The target name.
        name: String,
    },
    /// A file is not what was signed.
    #[error("`{}` is not what was signed: expected {expected}, found {found}", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// The signed digest.
        expected: Digest,
        /// Its digest.
        found: Digest,
    },
    /// Nothing was published yet.
    #[error("nothing is published in `{}` yet", folder.display())]
    Empty {
        /// The repository.
        folder: PathBuf,
    },
    /// Another publication is under way.
    #[error("another publication into `{}` is under way", folder.display())]
    Busy {
        /// The repository.
        folder: PathBuf,
    },
    /// A document of the repository does not agree with its targets.
    #[error("release {version}: {problem}")]
    Incomplete {
        /// The release.
        version: Version,
        /// What is missing or different.
        problem: String,
    },
}

impl PublishError {
    /// How a command ends with it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "everything else is about what was given"
    )]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Altered { .. } | Self::Metadata { .. } | Self::Incomplete { .. } | Self::Archive(_) => {
                Exit::Trust
            }
            Self::Busy { .. } => Exit::LockHeld,
            Self::Io { .. } => Exit::Preflight,
            _ => Exit::Usage,
        }
    }

    /// What to do next, when that is not obvious from the error.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Description(_) => Some("docs/releases.md shows a whole release.toml"),
            Self::Contradiction { .. } | Self::Unusable(_) => Some("correct release.toml and build again"),
            Self::Io { .. } => Some("check the path, its permissions and the free space"),
            Self::Entry { .. } => Some("remove it from the module's folder"),
            Self::Exists { .. } => Some("keys and roots are never overwritten; choose another folder"),
            Self::KeysServed { .. } => Some("choose a folder outside the repository for --keys"),
            Self::Threshold { .. } => Some("raise --root-keys or lower --root-threshold"),
            Self::NoKey { .. } => Some("give the folder that `kato release init` filled with --keys"),
            Self::Signing { .. } => Some("use the keys that were made with this repository"),
            Self::Metadata { .. } => Some("restore the file from a copy of the repository"),
            Self::Taken { .. } => Some("releases never change; give what is new a new version"),
            Self::Product { .. } => Some("make a repository of its own for each product"),
            Self::Releases { .. } => Some("run `kato release build` into an empty folder"),
            Self::Patch { .. } => Some("correct release.toml and build again into an empty folder"),
            Self::Unsigned { .. } => Some("run `kato release sign` first"),
            Self::Outdated { .. } | Self::Removed { .. } => {
                Some("run `kato release sign` again, then publish")
            }
            Self::Archive(_) => Some("run `kato release build` into an empty folder, and sign what it made"),
            Self::Altered { .. } => Some("build and sign again; find out what changed the file"),
            Self::Empty { .. } => Some("publish a release first"),
            Self::Busy { .. } => Some("wait for it and run the same command again"),
            Self::Incomplete { .. } => Some("build, sign and publish the release again under a new version"),
        }
    }

    /// [`PublishError::Io`] as a `map_err` argument.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// [`PublishError::Metadata`] as a `map_err` argument.
    pub(super) fn metadata<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Metadata {
            path,
            source: source.into(),
        }
    }
}

impl From<DurableError> for PublishError {
    fn from(error: DurableError) -> Self {
        Self::Io {
            action: error.action,
            path: error.path,
            source: error.source,
        }
    }
}

impl From<ReadError> for PublishError {
    fn from(error: ReadError) -> Self {
        Self::Unusable(Box::new(error))
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let (exit, hint) = (error.exit(), error.hint());
        let failure = Self::new(exit, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
