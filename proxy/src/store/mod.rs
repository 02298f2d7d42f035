//! The store: content in files, metadata in the index, what is hot in memory. The only folder that names cacache's layout
//! and redb.
//!
//! Flow of a fill: [`Store::begin`] makes room and hands out a [`Temporary`] file; the fill writes it; [`Store::commit`]
//! flushes it, moves it to its place by digest, and then, durably, tells the index. Flow of a hit: [`Store::lookup`] finds
//! the stored responses of a key, [`Store::content`] opens the bytes after checking their size against the index. A small body
//! takes no file of its own on the way in: [`Store::place`], [`Store::put_small`], and `behind` makes it durable with others.
//!
//! Invariants:
//! * the index never names content that is not durably in place;
//! * content leaves only after the index has durably forgotten it, and never while somebody reads it;
//! * a process that is killed at any point leaves at most files in `tmp/`, which the next start clears.
//!
//! Deliberately absent: any knowledge of HTTP caching rules (see `policy/`), and of who is downloading (see `fill/`).
//! cacache's own writer is not used: it neither flushes nor lets others read an unfinished entry.

mod batch;
mod behind;
mod carry;
mod change;
mod collect;
mod content;
mod content_row;
mod doubts;
mod error;
pub mod eviction;
mod frozen;
mod gc;
mod health;
mod hot;
mod index;
mod index_file;
mod index_scan;
mod keys;
mod known;
mod layout;
mod ledger;
mod lessons;
mod pinning;
mod pins;
mod proofs;
mod quota;
mod read;
mod reserve;
mod schema;
mod scrub;
mod stored;
mod tables;
mod view;

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use kato_shared::{Digest, chain::Chain, clock::Clock, durable};
use tokio::{task::spawn_blocking, time::timeout};

pub use behind::Place;
pub use carry::{CARRIED, carried_key};
pub use collect::{Collected, Removed};
pub use content::{Content, InUse, NoRoom, Temporary};
pub use error::{OpenError, StoreError};
pub use health::Trouble;
pub use hot::Responses;
pub use index::Totals;
pub use known::{Generation, KEPT, Taught};
pub use ledger::LedgerFigures;
pub use lessons::{Forgotten, LearnError, MOST_KNOWN, Outdated};
pub use pinning::{Pinned, PinnedTotal};
pub use pins::Pin;
pub use scrub::{Damage, ScrubFigures, Verification};
#[cfg(test)]
pub(crate) use stored::sample;
pub use stored::{ContentRef, Entry, StoredResponse};
pub use view::ViewError;

use behind::WriteBehind;
use content::InUseCounts;
use health::Health;
use hot::Hot;
use index::Index;
use layout::Layout;
use quota::Quota;
use reserve::Reserve;
use tables::Change;

use crate::seldom::warn_seldom;
use crate::settings;

/// How long a download waits for its file to be created. A disk that takes longer is passed by.
const PATIENCE: Duration = Duration::from_secs(1);

/// What background threads add to their nice value: a third of the share of a thread that serves.
const NICE: i32 = 5;

/// An open store; clones share it.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // Dropped before the layout, whose lock must outlive the last write.
    index: Index,
    layout: Layout,
    quota: Quota,
    hot: Hot,
    clock: Clock,
    in_use: InUseCounts,
    behind: WriteBehind,
    doubts: doubts::Doubts,
    proofs: proofs::Proofs,
    health: Health,
    reserve: Reserve,
    scrub: scrub::Counters,
    /// Bytes promised to fills under way, and the part of them that is written.
    reserved: AtomicU64,
    written: AtomicU64,
    /// One pin or unpin at a time.
    pinning: Mutex<()>,
    /// One document at a time teaches.
    learning: Mutex<()>,
    /// Commits share it, eviction takes it alone: content that a commit is about to name cannot be evicted.
    moving: RwLock<()>,
}

impl Store {
    /// Whether there is a store in `dir`; nothing is made or locked.
    pub fn is_in(dir: &Path) -> bool {
        layout::index(dir).is_file()
    }

    /// Whether a process has the store in `dir` open.
    pub fn is_open(dir: &Path) -> bool {
        layout::is_locked(dir)
    }

    /// Opens or founds the store of `settings`. Blocks; call it before serving.
    ///
    /// # Errors
    /// [`OpenError`]; nothing in the folder was changed in a way that loses data.
    pub fn open(settings: &settings::Cache, clock: Clock) -> Result<Self, OpenError> {
        let layout = Layout::open(&settings.dir)?;
        let index = Index::open(&layout.index(), layout.dir())?;
        let leftovers = layout
            .recover(|digest| index.content_length(digest).is_ok_and(|length| length.is_some()))
            .map_err(|source| OpenError::Unusable {
                path: settings.dir.clone(),
                source,
            })?;
        if leftovers != layout::Leftovers::default() {
            tracing::info!(
                temporary = leftovers.temporary,
                content = leftovers.content,
                "removed what an interrupted process left"
            );
        }
        let space = layout.space().map_err(|source| OpenError::Unusable {
            path: settings.dir.clone(),
            source,
        })?;
        let reserve = Reserve::new(layout.reserve(), space);
        reserve.make(space);
        let is_new = index.is_new;
        let store = Self(Arc::new(Inner {
            index,
            layout,
            quota: Quota {
                max_size: settings.max_size.bytes(),
                min_free: settings.min_free.bytes(),
                max_objects: settings.max_objects,
            },
            hot: Hot::new(settings.memory.bytes()),
            clock,
            in_use: InUseCounts::default(),
            behind: WriteBehind::default(),
            doubts: doubts::Doubts::default(),
            proofs: proofs::Proofs::default(),
            health: Health::default(),
            reserve,
            scrub: scrub::Counters::default(),
            reserved: AtomicU64::new(0),
            written: AtomicU64::new(0),
            pinning: Mutex::default(),
            learning: Mutex::default(),
            moving: RwLock::new(()),
        }));
        if store.0.layout.is_read_only() {
            store.0.health.failed(&NoRoom::Disk(StoreError::ReadOnly));
        }
        store.start(settings)?;
        // Beside an index that knows nothing lies content only where the old index was damaged; whoever was to remove it may have been killed.
        let is_bare = || store.0.index.totals().is_ok_and(|totals| totals.contents == 0);
        if (is_new || is_bare())
            && let Err(error) = store.sweep(&HashSet::new())
        {
            tracing::warn!(error = %Chain(&error), "content without a name could not be removed");
        }
        Ok(store)
    }

    /// Starts the threads that write, flush and scrub.
    fn start(&self, settings: &settings::Cache) -> Result<(), OpenError> {
        let pace = scrub::Pace {
            rate: settings.scrub_rate.bytes(),
            interval: settings.scrub_interval.get(),
        };
        behind::start(self)
            .and_then(|()| scrub::start(self, pace))
            .map_err(|source| OpenError::Unusable {
                path: settings.dir.clone(),
                source,
            })
    }

    /// The store's folder.
    pub fn dir(&self) -> &Path {
        self.0.layout.dir()
    }

    /// A temporary file for a body of `expected` bytes (0 when unknown), after making room for it.
    ///
    /// # Errors
    /// [`NoRoom`] when the quota, the disk or its permissions do not allow it: pass the body through instead.
    pub async fn begin(&self, expected: u64) -> Result<Temporary, NoRoom> {
        if self.0.health.rests() {
            return Err(NoRoom::Slow);
        }
        let store = self.clone();
        let creating = spawn_blocking(move || Temporary::create(&store, expected));
        let begun = match timeout(PATIENCE, creating).await {
            Ok(created) => created.unwrap_or(Err(NoRoom::Closing)),
            Err(_elapsed) => Err(NoRoom::Slow),
        };
        if let Err(error) = &begun
            && !matches!(error, NoRoom::Quota { needed } if *needed > self.0.quota.max_size)
        {
            self.0.health.failed(error);
        }
        begun
    }

    /// Room in memory for a body of `length` bytes that is to be stored by [`Store::put_small`]. `None` when it is not small,
    /// when too much waits for the disk already, or when the store ails: use [`Store::begin`] then.
    pub fn place(&self, length: u64) -> Option<Place> {
        if length > self.0.quota.max_size || !self.0.health.is_well() {
            return None;
        }
        self.0.behind.place(length)
    }

    /// Stores `response` with its whole `body` under `key`: at once for everybody who asks, durably a moment later.
    pub fn put_small(&self, key: &str, response: StoredResponse, body: Bytes, place: Place) {
        let digest = response.content.digest;
        self.0.hot.hold(digest, body.clone());
        self.0.behind.push(key.to_owned(), response, body, place);
        self.0.hot.forget([key]);
    }

    /// Responses that are hits already and not durable yet.
    pub fn queued(&self) -> u64 {
        self.0.behind.len()
    }

    /// Makes durable what [`Store::put_small`] has taken, for the end of the process. Blocks.
    pub fn flush(&self) {
        self.0.behind.settle_all();
    }

    /// Makes a finished body durable and stores `response`, which names it, under `key`.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is stored then, and the temporary file is gone.
    pub async fn commit(
        &self,
        body: Temporary,
        key: String,
        response: StoredResponse,
    ) -> Result<(), StoreError> {
        let store = self.clone();
        let outcome = blocking(move || store.commit_blocking(body, &key, response)).await;
        match &outcome {
            Ok(()) => self.0.health.well(),
            Err(error) => self.0.health.failed(&NoRoom::Disk(error.clone())),
        }
        outcome
    }

    fn commit_blocking(
        &self,
        body: Temporary,
        key: &str,
        response: StoredResponse,
    ) -> Result<(), StoreError> {
        self.commit_untrimmed(body, key, response)?;
        // It is stored; a quota that cannot be kept now is tried again with the next body.
        if let Err(error) = self.trim() {
            warn_seldom!(error = %Chain(&error), "the store is above its quota");
        }
        Ok(())
    }

    fn commit_untrimmed(
        &self,
        body: Temporary,
        key: &str,
        response: StoredResponse,
    ) -> Result<(), StoreError> {
        let digest = response.content.digest;
        self.0.behind.settle([key], None);
        let _no_eviction = self.0.moving.read().unwrap_or_else(PoisonError::into_inner);
        let marker = self.0.layout.mark(&digest)?;
        let path = self.0.layout.content(&digest);
        // Two levels, one after the other: each new folder must be flushed into its parent.
        for folder in path
            .ancestors()
            .skip(1)
            .take(2)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            durable::create_folder(folder)?;
        }
        // Also over a file that is there already: this one was verified just now, and that one may have been damaged since.
        // Who reads the old file keeps it.
        body.place(&path)?;
        let outcome = self.0.index.submit_blocking(vec![Change::Put {
            key: key.to_owned(),
            response: Box::new(response),
        }]);
        if outcome.is_ok() {
            let _was_in_doubt = self.0.doubts.settle([key]);
        }
        self.0.hot.forget([key]);
        // After a failed commit the marker stays in memory only as long as this process; the next start looks at it.
        if outcome.is_ok() {
            drop(marker);
        } else {
            marker.keep();
        }
        outcome
    }

    /// Replaces the head of a response whose content is stored already.
    ///
    /// # Errors
    /// [`StoreError`]; the old head then stays.
    pub async fn update(&self, key: String, response: StoredResponse) -> Result<(), StoreError> {
        let store = self.clone();
        blocking(move || {
            store
                .0
                .behind
                .settle([key.as_str()], Some(&response.content.digest));
            let _no_eviction = store.0.moving.read().unwrap_or_else(PoisonError::into_inner);
            // Evicted while it was being validated: there is nothing left to describe.
            if store.0.index.content_length(&response.content.digest)?.is_none() {
                return Ok(());
            }
            let outcome = store.0.index.submit_blocking(vec![Change::Put {
                key: key.clone(),
                response: Box::new(response),
            }]);
            if outcome.is_ok() {
                let _was_in_doubt = store.0.doubts.settle([key.as_str()]);
            }
            store.0.hot.forget([key.as_str()]);
            outcome
        })
        .await
    }

    /// Forgets the responses of `keys`, and their content where no other key names it; content that is being read follows when
    /// that ends. A pin does not keep it: whoever removes, means it.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be changed.
    pub async fn remove(&self, keys: Vec<String>) -> Result<Removed, StoreError> {
        let store = self.clone();
        blocking(move || store.remove_blocking(&keys)).await
    }

    /// Marks the responses of `key` as not to be reused without validation (RFC 9111 §4.4).
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be read or changed.
    pub async fn invalidate(&self, key: String) -> Result<(), StoreError> {
        let store = self.clone();
        blocking(move || {
            store.0.behind.settle([key.as_str()], None);
            // First, so that nobody is given what is invalid now, whatever becomes of the index.
            store.0.doubts.add(&key);
            store.0.hot.forget([key.as_str()]);
            store.make_index_room();
            let changes: Vec<_> = store
                .0
                .index
                .responses(&key)?
                .into_iter()
                .map(|mut response| {
                    response.head.invalidated = true;
                    Change::Put {
                        key: key.clone(),
                        response: Box::new(response),
                    }
                })
                .collect();
            if !changes.is_empty() {
                store.0.index.submit_blocking(changes)?;
            }
            let _was_in_doubt = store.0.doubts.settle([key.as_str()]);
            store.0.hot.forget([key.as_str()]);
            Ok(())
        })
        .await
    }

    /// Up to `limit` keys that begin with `prefix`, after `after`, in order, with their responses.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be read.
    pub async fn list(
        &self,
        prefix: String,
        after: String,
        limit: usize,
    ) -> Result<Vec<(String, Vec<StoredResponse>)>, StoreError> {
        let store = self.clone();
        blocking(move || {
            store.0.behind.settle_all();
            store.0.index.list(&prefix, &after, limit)
        })
        .await
    }

    /// Figures of eviction and pins, for metrics.
    pub fn figures(&self) -> LedgerFigures {
        self.0.index.ledger().figures()
    }

    /// Totals for metrics. What is not durable yet is counted, too: for that moment, one that takes another's place counts twice.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be read.
    pub fn totals(&self) -> Result<Totals, StoreError> {
        let (responses, bytes) = self.0.behind.totals();
        let durable = self.0.index.totals()?;
        Ok(Totals {
            responses: durable.responses + responses,
            bytes: durable.bytes + bytes,
            ..durable
        })
    }

    fn touch(&self, digest: Digest) {
        self.0
            .index
            .ledger()
            .used(&digest, self.0.clock.now().as_second());
    }

    fn reserve(&self, bytes: u64) {
        self.0.reserved.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.behind.close();
    }
}

/// Lets this thread wait for the others where there is not enough of the processor for all. Only Linux does this for one thread.
pub(crate) fn low_priority() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "a background thread keeps its priority");
    }
}

/// Runs file and index work off the reactor.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    // The work ends with an error only when the runtime is going down.
    spawn_blocking(work).await.unwrap_or(Err(StoreError::Closing))
}

#[cfg(test)]
mod tests;
