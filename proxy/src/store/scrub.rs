//! Looks for content that is no longer what it was, in the background and on request, and takes it out of the way.
//!
//! Flow: the thread of [`start`] reads all content once in `cache.scrub_interval`, no faster than `cache.scrub_rate`, beginning at a
//! random place, so that a process that is restarted often leaves nothing unread for ever. What a client's body broke
//! off at is read at once ([`super::InUse::suspect`]). [`Store::verify`] reads everything as fast as it can.
//!
//! Damaged content moves to `quarantine/`, where somebody may look at it, and the index forgets it: the next request for its
//! URL fetches it anew.
//!
//! Deliberately absent: fetching by itself. What nobody asks for again would be fetched for nothing.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    io::Read,
    path::Path,
    sync::{
        Arc, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use kato_shared::{Digest, chain::Chain, digest::Hasher};
use tokio::time::Instant;

use super::{Inner, Store, StoreError, index::ContentRow, low_priority, tables::Change};

/// How often the thread looks whether something is suspected, or the store is gone.
const BEAT: Duration = Duration::from_secs(1);

/// After a start, others need the disk more.
const FIRST: Duration = Duration::from_secs(60);

/// How much is read between two looks at the clock.
const CHUNK: usize = 256 << 10;

/// Content that was missing or other than its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What it should have been.
    pub digest: Digest,
    /// The cache keys that named it.
    pub keys: Vec<String>,
}

/// What [`Store::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Content files read.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Content that was damaged, and is forgotten now.
    pub damaged: Vec<Damage>,
    /// Content files that the index does not name; removed.
    pub unnamed: Vec<Digest>,
}

/// Counters of the scrub since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    bytes: AtomicU64,
    damaged: AtomicU64,
    passes: AtomicU64,
}

/// What the scrub has done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubFigures {
    /// Bytes read.
    pub bytes: u64,
    /// Contents found damaged.
    pub damaged: u64,
    /// Times that all content was read.
    pub passes: u64,
}

/// How fast, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Bytes a second; 0 for no scrub.
    pub(super) rate: u64,
    /// From the beginning of one pass to the next; 0 for no scrub.
    pub(super) interval: Duration,
}

impl Store {
    /// Reads all content, takes damaged content out of the way, and removes files that the index does not name. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the folder cannot be read.
    pub fn verify(&self) -> Result<Verification, StoreError> {
        self.0.behind.settle_all();
        let mut found = Verification::default();
        let rows = self.0.index.content()?;
        let named = rows.iter().map(|row| row.digest).collect();
        for row in rows {
            found.checked += 1;
            found.bytes += row.length;
            found.damaged.extend(self.check(row.digest, |_| true)?);
        }
        found.unnamed = self.sweep(&named)?;
        Ok(found)
    }

    /// What the scrub has done since the start.
    pub fn scrub_figures(&self) -> ScrubFigures {
        let counters = &self.0.scrub;
        ScrubFigures {
            bytes: counters.bytes.load(Ordering::Relaxed),
            damaged: counters.damaged.load(Ordering::Relaxed),
            passes: counters.passes.load(Ordering::Relaxed),
        }
    }

    /// Digests of what lies in quarantine.
    pub fn quarantined(&self) -> Vec<String> {
        self.0.layout.quarantined()
    }

    /// Reads one content; `go_on` hears of each piece and may end it. What was damaged, and is out of the way now.
    fn check(&self, digest: Digest, go_on: impl FnMut(u64) -> bool) -> Result<Option<Damage>, StoreError> {
        let in_use = self.0.in_use.take(digest);
        let read = digest_of(&self.0.layout.content(&digest), go_on);
        drop(in_use);
        if matches!(read, Found::Digest(found) if found == digest) || matches!(read, Found::Interrupted) {
            return Ok(None);
        }
        // Whoever evicted it meanwhile leaves no damage.
        if self.0.index.content_length(&digest)?.is_none() {
            return Ok(None);
        }
        let keys = self.0.index.keys_of(&digest)?;
        tracing::warn!(%digest, ?keys, "stored content is damaged; it will be fetched anew");
        self.0.scrub.damaged.fetch_add(1, Ordering::Relaxed);
        self.forget_content(&digest);
        Ok(Some(Damage { digest, keys }))
    }

    /// Forgets one content that turned out to be damaged or missing, and puts it into quarantine.
    pub(super) fn forget_content(&self, digest: &Digest) {
        let _no_commit = self.0.moving.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.put_away(digest) {
            tracing::warn!(%digest, error = %Chain(&error), "damaged content could not be forgotten");
        }
    }

    /// The caller holds `moving` for itself. The order is that of every removal, see `gc`.
    fn put_away(&self, digest: &Digest) -> Result<(), StoreError> {
        self.make_index_room();
        let marker = self.0.layout.mark(digest);
        let outcome = self
            .0
            .index
            .submit_blocking(vec![Change::Evict { digest: *digest }]);
        self.0.hot.forget_all();
        outcome?;
        self.0.hot.release(digest);
        if let Err(error) = self.0.layout.quarantine(digest) {
            tracing::warn!(%digest, error = %Chain(&error), "damaged content could not be put into quarantine");
            let _left = super::layout::remove_if_there(&self.0.layout.content(digest));
        }
        drop(marker);
        Ok(())
    }

    /// One pass over everything; false when the store is closed.
    fn scrub(&self, pace: Pace, is_closed: &impl Fn() -> bool) -> Result<bool, StoreError> {
        let mut rows: Vec<ContentRow> = self.0.index.content()?;
        rows.sort_by_key(|row| row.digest);
        let start = usize::try_from(RandomState::new().hash_one(0)).unwrap_or(0) % rows.len().max(1);
        rows.rotate_left(start);
        let (began, mut read) = (Instant::now(), 0_u64);
        for row in rows {
            self.check_suspects()?;
            self.check(row.digest, |bytes| {
                read += bytes;
                self.0.scrub.bytes.fetch_add(bytes, Ordering::Relaxed);
                let due = Duration::from_secs_f64(to_f64(read) / to_f64(pace.rate));
                while began.elapsed() < due && !is_closed() {
                    thread::sleep(due.saturating_sub(began.elapsed()).min(BEAT));
                }
                !is_closed()
            })?;
            if is_closed() {
                return Ok(false);
            }
        }
        self.0.scrub.passes.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    fn check_suspects(&self) -> Result<(), StoreError> {
        for digest in self.0.in_use.suspects() {
            self.check(digest, |_| true)?;
        }
        Ok(())
    }
}

/// Rates need no more than 53 bits.
#[expect(clippy::cast_precision_loss, reason = "a duration, not an amount")]
fn to_f64(bytes: u64) -> f64 {
    bytes as f64
}

/// Starts the thread; it ends when the store is dropped.
pub(super) fn start(store: &Store, pace: Pace) -> std::io::Result<()> {
    let weak = Arc::downgrade(&store.0);
    thread::Builder::new().name("scrub".into()).spawn(move || {
        low_priority();
        run(&weak, pace);
    })?;
    Ok(())
}

fn run(store: &Weak<Inner>, pace: Pace) {
    let mut next = Instant::now() + FIRST.min(pace.interval);
    loop {
        thread::sleep(BEAT);
        let Some(inner) = store.upgrade() else { return };
        let alive = Store(inner);
        alive.restore_reserve();
        let mut outcome = alive.check_suspects();
        if pace.rate > 0 && !pace.interval.is_zero() && Instant::now() >= next {
            next = Instant::now() + pace.interval;
            // The pass itself is the only one left that holds the store.
            let is_closed = || Arc::strong_count(&alive.0) == 1;
            outcome = alive.scrub(pace, &is_closed).map(drop);
        }
        if let Err(error) = outcome {
            tracing::warn!(error = %Chain(&error), "the scrub could not go on; it begins anew later");
        }
    }
}

enum Found {
    Digest(Digest),
    Unreadable,
    Interrupted,
}

fn digest_of(path: &Path, mut go_on: impl FnMut(u64) -> bool) -> Found {
    let Ok(mut file) = File::open(path) else {
        return Found::Unreadable;
    };
    let mut hasher = Hasher::new();
    let mut buffer = vec![0_u8; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Err(_io) => return Found::Unreadable,
            Ok(0) => return Found::Digest(hasher.finish()),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                if !go_on(count as u64) {
                    return Found::Interrupted;
                }
            }
        }
    }
}
