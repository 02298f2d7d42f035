//! What can go wrong with the store, and whether it is a reason not to start.

use std::{io, path::PathBuf, sync::Arc};

use kato_shared::durable::DurableError;

/// A store that cannot be opened. The process must not start on it, and nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be created or written.
    #[error(
        "the cache folder `{path}` cannot be used\nhint: make it writable for this user, or name another with --cache-dir"
    )]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process works on it.
    #[error(
        "the cache folder `{path}` is in use by another process\nhint: stop that process, or name another folder with --cache-dir"
    )]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds something that is not a store of this program.
    #[error(
        "the cache folder `{path}` holds `{found}`, which is not part of a kato-proxy store; nothing was changed\nhint: name an empty folder with --cache-dir"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The store was written by a later version.
    #[error(
        "the store in `{path}` has schema {found}, this program knows schema {known}; nothing was changed\nhint: run the newer kato-proxy, or name another folder with --cache-dir"
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// The schema of the store.
        found: u64,
        /// The schema of this program.
        known: u64,
    },
    /// The index cannot be opened and could not be moved out of the way.
    #[error("the index `{path}` cannot be opened")]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
}

/// An operation on an open store that failed. Shared by all who wait for one commit.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The index refused.
    #[error("the index refused to {action}")]
    Index {
        /// What was tried, as a verb.
        action: &'static str,
        /// Why.
        #[source]
        source: Arc<redb::Error>,
    },
    /// A stored row cannot be read: written by something else, or damaged.
    #[error("the index row of `{key}` cannot be read")]
    Row {
        /// The cache key.
        key: String,
        /// Why.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] Arc<DurableError>),
    /// A file of the store cannot be read.
    #[error("reading `{path}` failed")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// The index is open for reading alone.
    #[error("the store can only be read")]
    ReadOnly,
    /// The store is being closed.
    #[error("the store is closing")]
    Closing,
}

impl StoreError {
    /// For `map_err`: an index error while doing `action`.
    pub(super) fn index<E: Into<redb::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Index {
            action,
            source: Arc::new(source.into()),
        }
    }
}

impl From<DurableError> for StoreError {
    fn from(error: DurableError) -> Self {
        Self::File(Arc::new(error))
    }
}
