//! What the process remembers about the content in the index: the order of eviction, what is pinned, what lost its last name.
//!
//! Flow: the writer of the index tells [`Ledger::apply`] what each commit did, whoever asked for it; hits tell [`Ledger::used`]; what
//! eviction learned goes back to the index with [`Ledger::changes`], in batches. After a start a thread reads the rows back
//! ([`Loader`]) while the proxy serves already; until it is done, the ledger knows what has happened since the start.
//!
//! Invariants: once loaded, the ledger knows exactly the content of the index, but for changes that are being committed;
//! what is held is never chosen.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use kato_shared::{Digest, chain::Chain};

use super::{
    StoreError,
    eviction::{Policy, S3Fifo, Standing},
    index::Handle,
    keys::Keys,
    known::KNOWN,
    pins::{Pin, Pins},
    tables::{Effect, RESPONSES},
};

/// Times of use are kept to this many seconds, so that what is hot is not written down again and again.
const COARSE_SECS: i64 = 64;

/// The memory of one store's content.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Those with a stored response,
    keys: Keys,
    /// and those that a document has taught something about.
    taught: Keys,
    state: Mutex<State>,
    loaded: Condvar,
}

#[derive(Debug, Default)]
struct State {
    policy: S3Fifo<Digest>,
    pins: Pins,
    is_loaded: bool,
    /// Content that went while the rows were being read.
    dropped: HashSet<Digest>,
    /// Content that no key names any more.
    orphans: HashSet<Digest>,
    /// Held content that lost a name, and perhaps the reason to hold it.
    doubtful: HashSet<Digest>,
    evicted: u64,
    evicted_bytes: u64,
}

/// Figures for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerFigures {
    /// Contents known.
    pub contents: usize,
    /// Bytes of memory that the order of eviction and the keys take, for all contents together.
    pub memory: usize,
    /// Fingerprints of what went recently.
    pub ghosts: usize,
    /// Contents that are pinned.
    pub pinned: usize,
    /// Their bytes.
    pub pinned_bytes: u64,
    /// Contents evicted since the start.
    pub evicted: u64,
    /// Their bytes.
    pub evicted_bytes: u64,
    /// Whether everything stored is known already.
    pub is_loaded: bool,
}

/// What is asked of an eviction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Excess {
    pub(super) bytes: u64,
    pub(super) contents: u64,
}

impl Ledger {
    /// A ledger that knows the pins alone.
    pub(super) fn new(pins: impl IntoIterator<Item = Pin>) -> Self {
        let ledger = Self::default();
        let mut state = ledger.lock();
        for pin in pins {
            state.pins.add(pin);
        }
        drop(state);
        ledger
    }

    /// Brings the ledger in line with a commit.
    pub(super) fn apply(&self, effects: Vec<Effect>) {
        let mut state = self.lock();
        for effect in effects {
            match &effect {
                Effect::Named { key, .. } => self.keys.add(key),
                Effect::Gone { key } => self.keys.remove(key),
                Effect::Unnamed { .. } | Effect::Dropped { .. } | Effect::Pinned(_) | Effect::Unpinned(_) => {
                }
            }
            state.apply(effect);
        }
    }

    /// Which keys have a response in the index.
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Which keys something is taught about.
    pub(super) fn taught(&self) -> &Keys {
        &self.taught
    }

    /// Whether there may be anything in the index about `key`; false is certain.
    pub(super) fn may_know(&self, key: &str) -> bool {
        self.keys.may_have(key) || self.taught.may_have(key)
    }

    /// Whether content may be in the index; false is certain, but for content that is being evicted.
    pub(super) fn may_have(&self, digest: &Digest) -> bool {
        let state = self.lock();
        !state.is_loaded || state.policy.contains(digest)
    }

    /// Content was read at `now`, in seconds since 1970.
    pub(super) fn used(&self, digest: &Digest, now: i64) {
        self.lock().policy.use_at(digest, coarse(now));
    }

    /// Takes content that together makes up for `excess`, sparing what `in_use` names. `None`, and nothing taken, when all of it
    /// would not do. Waits until everything is known.
    pub(super) fn take(&self, excess: Excess, in_use: &HashSet<Digest>) -> Option<Vec<(Digest, u64)>> {
        let mut state = self.when_loaded();
        let free = state.policy.bytes() - state.policy.held_bytes();
        if free < excess.bytes {
            return None;
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < excess.bytes || (taken.len() as u64) < excess.contents {
            if let Some((digest, length)) = state.policy.evict(&|digest| in_use.contains(digest)) {
                taken.push((digest, length));
                bytes += length;
            } else {
                drop(state);
                self.give_back(taken);
                return None;
            }
        }
        Some(taken)
    }

    /// Content that was taken stays after all.
    pub(super) fn give_back(&self, taken: Vec<(Digest, u64)>) {
        let mut state = self.lock();
        for (digest, length) in taken {
            state.policy.insert(digest, length);
        }
    }

    /// Content that was taken is gone.
    pub(super) fn note_evicted(&self, taken: &[(Digest, u64)]) {
        let mut state = self.lock();
        state.evicted += taken.len() as u64;
        state.evicted_bytes += taken.iter().map(|(_, length)| length).sum::<u64>();
    }

    /// What eviction has learned since the last call, at most `most` rows of it. Nothing before everything is known: the order
    /// would mean nothing.
    pub(super) fn changes(&self, most: usize) -> Vec<(Digest, Standing)> {
        let mut state = self.lock();
        if state.is_loaded {
            state.policy.changes(most)
        } else {
            Vec::new()
        }
    }

    /// These could not be written down.
    pub(super) fn note_unwritten(&self, rows: &[(Digest, Standing)]) {
        let mut state = self.lock();
        for (digest, _) in rows {
            state.policy.note_unwritten(digest);
        }
    }

    /// Content that lost its last name since the last call.
    pub(super) fn take_orphans(&self) -> HashSet<Digest> {
        std::mem::take(&mut self.lock().orphans)
    }

    /// Orphans that could not go yet.
    pub(super) fn keep_orphans(&self, orphans: impl IntoIterator<Item = Digest>) {
        self.lock().orphans.extend(orphans);
    }

    /// Held content whose reason must be looked at again.
    pub(super) fn take_doubtful(&self) -> HashSet<Digest> {
        std::mem::take(&mut self.lock().doubtful)
    }

    /// Holds `digest`, or lets go of it, as the pins say about the keys that name it. They are read under the lock: a key that is
    /// added later tells [`Ledger::apply`].
    pub(super) fn weigh(&self, digest: &Digest, index: &Handle) -> Result<(), StoreError> {
        let mut state = self.lock();
        let held = state.pins.names(digest)
            || (!state.pins.is_empty() && index.keys_of(digest)?.iter().any(|key| state.pins.covers(key)));
        state.policy.hold(digest, held);
        Ok(())
    }

    /// Whether content under `key` is pinned.
    pub(super) fn is_pinned(&self, key: &str, digest: &Digest) -> bool {
        let state = self.lock();
        state.pins.names(digest) || state.pins.covers(key)
    }

    /// Whether content is pinned by itself.
    pub(super) fn is_content_pinned(&self, digest: &Digest) -> bool {
        self.lock().pins.names(digest)
    }

    /// Waits until everything stored is known. Blocks.
    pub(super) fn wait(&self) {
        drop(self.when_loaded());
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.lock().is_loaded
    }

    /// Bytes of what is pinned, and how many contents that are; after everything is known.
    pub(super) fn pinned(&self) -> (u64, usize) {
        let state = self.lock();
        (state.policy.held_bytes(), state.policy.held())
    }

    pub(super) fn figures(&self) -> LedgerFigures {
        let state = self.lock();
        LedgerFigures {
            contents: state.policy.len(),
            memory: state.policy.memory() + self.keys.memory() + self.taught.memory(),
            ghosts: state.policy.ghosts(),
            pinned: state.policy.held(),
            pinned_bytes: state.policy.held_bytes(),
            evicted: state.evicted,
            evicted_bytes: state.evicted_bytes,
            is_loaded: state.is_loaded,
        }
    }

    fn adopt(&self, rows: Vec<(Digest, u64, Standing)>) {
        let mut restored = S3Fifo::restore(rows);
        let mut state = self.lock();
        for digest in std::mem::take(&mut state.dropped) {
            restored.remove(&digest);
        }
        restored.take_over(&state.policy);
        state.policy = restored;
    }

    fn when_loaded(&self) -> MutexGuard<'_, State> {
        self.loaded
            .wait_while(self.lock(), |state| !state.is_loaded)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Named {
                key,
                digest,
                length,
                at,
            } => {
                self.policy.insert_at(digest, length, coarse(at));
                self.orphans.remove(&digest);
                if !self.pins.is_empty() && (self.pins.names(&digest) || self.pins.covers(&key)) {
                    self.policy.hold(&digest, true);
                }
            }
            Effect::Unnamed { digest, is_orphan } => {
                if is_orphan {
                    self.orphans.insert(digest);
                }
                if self.policy.is_held(&digest) {
                    self.doubtful.insert(digest);
                }
            }
            Effect::Dropped { digest } => {
                self.policy.remove(&digest);
                self.orphans.remove(&digest);
                self.doubtful.remove(&digest);
                if !self.is_loaded {
                    self.dropped.insert(digest);
                }
            }
            Effect::Gone { .. } => {}
            Effect::Pinned(pin) => self.pins.add(pin),
            Effect::Unpinned(pin) => self.pins.remove(&pin),
        }
    }
}

fn coarse(secs: i64) -> u32 {
    u32::try_from(secs - secs.rem_euclid(COARSE_SECS)).unwrap_or(0)
}

/// The thread that reads the rows back after a start; dropped, it is waited for.
#[derive(Debug)]
pub(super) struct Loader(Option<thread::JoinHandle<()>>);

impl Loader {
    /// Begins to read.
    pub(super) fn start(ledger: &Arc<Ledger>, index: Arc<Handle>) -> io::Result<Self> {
        let ledger = Arc::clone(ledger);
        thread::Builder::new()
            .name("ledger-loader".into())
            .spawn(move || {
                let done = Done(&ledger);
                if let Err(error) = load(&ledger, &index) {
                    tracing::error!(error = %Chain(&error), "the order of eviction could not be read; only what is stored from now on can be evicted");
                }
                drop(done);
            })
            .map(|thread| Self(Some(thread)))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A thread that panicked has nothing left to do.
            let _finished = thread.join();
        }
    }
}

/// Lets those who wait go on, whatever became of the loading.
struct Done<'s>(&'s Ledger);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.lock().is_loaded = true;
        self.0.loaded.notify_all();
    }
}

fn load(ledger: &Ledger, index: &Handle) -> Result<(), StoreError> {
    ledger.keys.learn(index.prints(RESPONSES, &ledger.keys)?);
    ledger.taught.learn(index.prints(KNOWN, &ledger.taught)?);
    let rows = index.standings()?;
    let contents = rows.len();
    ledger.adopt(rows);
    // Now, not before: what is pinned from here on finds its content on the ledger.
    for (pin, _) in index.pins()? {
        for digest in index.covered(&pin)? {
            ledger.weigh(&digest, index)?;
        }
    }
    tracing::debug!(contents, "the order of eviction is known");
    Ok(())
}
