//! Content on its way in (a temporary file with its room) and on its way out (an open file that is in use).

use std::{
    collections::HashSet,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use bytes::Bytes;
use kato_shared::{
    Digest,
    durable::{self, DurableError},
};

use super::{Store, StoreError, layout::remove_if_there};
use crate::{quick_map::QuickMap, recent::Held};

/// Room is asked for in steps of this many bytes when the size of a body is not known.
const STEP: u64 = 16 << 20;

/// Content that can be read.
#[derive(Debug)]
pub enum Content {
    /// A small body, held in memory.
    Memory(Arc<Held<Bytes>>),
    /// A file; the guard keeps it from being evicted.
    File {
        /// The open file.
        file: Arc<File>,
        /// Its size in bytes, checked against the index.
        length: u64,
        /// Held while the file is read.
        in_use: Arc<InUse>,
    },
}

impl From<Bytes> for Content {
    /// Bytes that the memory tier does not hold.
    fn from(bytes: Bytes) -> Self {
        Self::Memory(Arc::new(Held::new(bytes)))
    }
}

impl Content {
    /// The size in bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

/// Why a body cannot be stored now. Not an error towards clients: the body is passed through.
#[derive(Debug, thiserror::Error)]
pub enum NoRoom {
    /// The quota or the floor of free space does not allow it, even after evicting.
    #[error("the store has no room for {needed} bytes")]
    Quota {
        /// What was asked for.
        needed: u64,
    },
    /// What is pinned leaves too little of the quota.
    #[error(
        "the store has no room for {needed} bytes: pinned content takes {pinned} of {max_size} bytes\nhint: unpin something, or raise cache.max_size"
    )]
    Pinned {
        /// What was asked for.
        needed: u64,
        /// Bytes of pinned content.
        pinned: u64,
        /// The quota in bytes.
        max_size: u64,
    },
    /// The disk refused.
    #[error("the store cannot be written")]
    Disk(#[source] StoreError),
    /// Writing could not keep up a moment ago.
    #[error("the disk is too slow")]
    Slow,
    /// The store is being closed.
    #[error("the store is closing")]
    Closing,
}

/// A body that is being received: a file in `tmp/` and the room promised to it. Dropped, both are given back.
#[derive(Debug)]
pub struct Temporary {
    store: Store,
    file: Arc<File>,
    path: PathBuf,
    reserved: u64,
    written: u64,
    is_placed: bool,
}

impl Temporary {
    /// Makes room for `expected` bytes and creates the file.
    pub(super) fn create(store: &Store, expected: u64) -> Result<Self, NoRoom> {
        store.make_room(expected)?;
        let path = store.0.layout.new_temp();
        let file = durable::create_new(&path).map_err(|error| NoRoom::Disk(error.into()))?;
        store.reserve(expected);
        Ok(Self {
            store: store.clone(),
            file: Arc::new(file),
            path,
            reserved: expected,
            written: 0,
            is_placed: false,
        })
    }

    /// A second name for the file at `path`, which holds a whole body of `length` bytes.
    pub(super) fn link(store: &Store, path: &Path, length: u64) -> std::io::Result<Self> {
        let own = store.0.layout.new_temp();
        std::fs::hard_link(path, &own)?;
        let file = File::open(&own)?;
        store.reserve(length);
        store.0.written.fetch_add(length, Ordering::Relaxed);
        Ok(Self {
            store: store.clone(),
            file: Arc::new(file),
            path: own,
            reserved: length,
            written: length,
            is_placed: false,
        })
    }

    /// The file, for its writer and its readers.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Notes that `written` bytes are in the file and makes room for the next ones if they were not promised.
    ///
    /// # Errors
    /// [`NoRoom`]: what is written stays readable, but the body cannot be stored.
    pub fn grow(&mut self, written: u64) -> Result<(), NoRoom> {
        self.store
            .0
            .written
            .fetch_add(written - self.written, Ordering::Relaxed);
        self.written = written;
        if written > self.reserved {
            self.store.make_room(STEP)?;
            self.store.reserve(STEP);
            self.reserved += STEP;
        }
        Ok(())
    }

    /// Evicts so that `bytes` more can be written after the disk refused.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn make_room(&self, bytes: u64) -> Result<(), NoRoom> {
        self.store.evict_for(bytes.max(STEP))
    }

    /// Flushes the file and moves it to `path`.
    pub(super) fn place(mut self, path: &Path) -> Result<(), DurableError> {
        durable::commit(&self.file, &self.path, path)?;
        self.is_placed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        self.store.0.reserved.fetch_sub(self.reserved, Ordering::Relaxed);
        self.store.0.written.fetch_sub(self.written, Ordering::Relaxed);
        // Readers keep the file open; a file that cannot be removed is removed at the next start.
        if !self.is_placed
            && let Err(error) = remove_if_there(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a temporary file cannot be removed");
        }
    }
}

/// Who reads what.
#[derive(Debug, Clone, Default)]
pub(super) struct InUseCounts {
    readers: Arc<Mutex<QuickMap<Digest, usize>>>,
    suspects: Arc<Mutex<HashSet<Digest>>>,
}

impl InUseCounts {
    /// Notes one more reader of `digest`.
    pub(super) fn take(&self, digest: Digest) -> InUse {
        *self
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(digest)
            .or_default() += 1;
        InUse {
            counts: self.clone(),
            digest,
        }
    }

    /// What is being read now.
    pub(super) fn now(&self) -> HashSet<Digest> {
        self.readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .copied()
            .collect()
    }
}

impl InUseCounts {
    /// What could not be read lately; it is told once.
    pub(super) fn suspects(&self) -> HashSet<Digest> {
        std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Somebody reads content; dropped when that ends.
#[derive(Debug)]
pub struct InUse {
    counts: InUseCounts,
    digest: Digest,
}

impl InUse {
    /// Notes that the content could not be read: it is looked at soon, and forgotten if it is damaged.
    pub fn suspect(&self) {
        let mut suspects = self
            .counts
            .suspects
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        suspects.insert(self.digest);
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut counts = self.counts.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(readers) = counts.get_mut(&self.digest) {
            *readers -= 1;
            if *readers == 0 {
                counts.remove(&self.digest);
            }
        }
    }
}
