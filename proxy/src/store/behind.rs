//! Write-behind: a small body is a hit at once, from memory, and becomes durable together with others a moment later.
//!
//! Flow: a fill asks for a [`Place`] before the body comes; [`Store::put_small`] queues what came; a thread of low priority
//! takes all that is queued and makes it durable in one go (`batch`): many files, few flushes, one index transaction. Until
//! then [`WriteBehind::responses`] and [`WriteBehind::body`] answer for the index and the disk.
//!
//! Coherence: whatever changes a key that is queued waits for the queue first ([`WriteBehind::settle`]), so that the order of changes is
//! the order in which they were made, and the index is the only judge. A reader looks here first and at the index
//! afterwards, so that it cannot miss what moves from here to there.
//!
//! Bounded in bytes: without a place there is no write-behind, and the fill goes by way of a file. Bounded in time: the
//! thread gathers for [`GATHER`] and then writes; it never waits for more.
//!
//! Deliberately absent: a promise. What is queued is lost by a power cut, like what is still being downloaded.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use kato_shared::Digest;

use super::{Inner, Store, StoredResponse, hot::MAX_BODY};
use crate::quick_map::QuickMap;

/// How long the thread waits for company of the first body. Short beside what an operator would call lost, long beside a burst of
/// requests: what answers them should not share the processor with what can wait.
const GATHER: Duration = Duration::from_millis(200);

/// The most bytes that are queued or promised.
const LIMIT: u64 = 16 << 20;

/// What a queued response is taken to weigh beside its body, in bytes.
const OVERHEAD: u64 = 1024;

/// Queued bytes at which the thread stops gathering.
const ENOUGH: u64 = LIMIT / 2;

/// The most responses of one batch: bounds the time of one transaction.
const BATCH: usize = 2048;

/// How often a store in trouble is tried again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A response that is not durable yet.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) response: StoredResponse,
    pub(super) body: Bytes,
    _place: Place,
}

/// Room in memory for one small body; given back when dropped.
#[derive(Debug)]
pub struct Place {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The queue; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct WriteBehind {
    queue: Arc<Queue>,
    used: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Item>>,
    /// Everything that is not durable, waiting or being written.
    by_key: QuickMap<String, Vec<Arc<Item>>>,
    /// Their bodies, with the number of items that have them.
    bodies: QuickMap<Digest, (Bytes, usize)>,
    /// Bytes of `bodies`; each larger body asks for them while it makes room.
    bytes: u64,
    queued: u64,
    settled: u64,
    is_urgent: bool,
    is_closed: bool,
}

impl WriteBehind {
    /// Room for a body of `length` bytes, unless it is large or too much is queued already.
    pub(super) fn place(&self, length: u64) -> Option<Place> {
        if length > MAX_BODY {
            return None;
        }
        let bytes = length + OVERHEAD;
        let add = |used: u64| (used + bytes <= LIMIT).then_some(used + bytes);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .ok()?;
        Some(Place {
            used: Arc::clone(&self.used),
            bytes,
        })
    }

    /// Queues a response.
    pub(super) fn push(&self, key: String, response: StoredResponse, body: Bytes, place: Place) {
        let digest = response.content.digest;
        let item = Arc::new(Item {
            key,
            response,
            body: body.clone(),
            _place: place,
        });
        let mut state = self.lock();
        state.queued += 1;
        let length = body.len() as u64;
        let users = &mut state.bodies.entry(digest).or_insert((body, 0)).1;
        *users += 1;
        if *users == 1 {
            state.bytes += length;
        }
        let of_key = state.by_key.entry(item.key.clone()).or_default();
        of_key.push(Arc::clone(&item));
        state.waiting.push_back(item);
        let is_first = state.waiting.len() == 1;
        drop(state);
        if is_first || self.used.load(Ordering::Relaxed) >= ENOUGH {
            self.queue.changed.notify_all();
        }
    }

    /// Whether responses of `key` are queued.
    pub(super) fn has(&self, key: &str) -> bool {
        self.lock().by_key.contains_key(key)
    }

    /// The queued responses of `key`, oldest first.
    pub(super) fn responses(&self, key: &str) -> Vec<StoredResponse> {
        let state = self.lock();
        let of_key = state.by_key.get(key).map(Vec::as_slice).unwrap_or_default();
        of_key.iter().map(|item| item.response.clone()).collect()
    }

    /// A body that may not be on the disk yet.
    pub(super) fn body(&self, digest: &Digest) -> Option<Bytes> {
        self.lock().bodies.get(digest).map(|(body, _)| body.clone())
    }

    /// How many responses are not durable yet.
    pub(super) fn len(&self) -> u64 {
        let state = self.lock();
        state.queued - state.settled
    }

    /// Keys and bytes of distinct content that are queued.
    pub(super) fn totals(&self) -> (u64, u64) {
        let state = self.lock();
        (state.by_key.len() as u64, state.bytes)
    }

    /// Waits until nothing that is queued now concerns one of `keys` or `digest`. Blocks.
    pub(super) fn settle<'k>(&self, keys: impl IntoIterator<Item = &'k str>, digest: Option<&Digest>) {
        let state = self.lock();
        let concerns = keys.into_iter().any(|key| state.by_key.contains_key(key))
            || digest.is_some_and(|digest| state.bodies.contains_key(digest));
        if concerns {
            self.wait_for_all(state);
        }
    }

    /// Waits until everything that is queued now is durable, or given up. Blocks.
    pub(super) fn settle_all(&self) {
        let state = self.lock();
        if state.settled < state.queued {
            self.wait_for_all(state);
        }
    }

    fn wait_for_all(&self, mut state: MutexGuard<'_, State>) {
        let until = state.queued;
        state.is_urgent = true;
        self.queue.changed.notify_all();
        let is_open = |state: &mut State| state.settled < until && !state.is_closed;
        drop(
            self.queue
                .changed
                .wait_while(state, is_open)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Ends the thread; what is queued then is lost.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.queue.changed.notify_all();
    }

    /// The next batch, empty when there was none for a while; `None` when closed. Blocks.
    fn next(&self) -> Option<Vec<Arc<Item>>> {
        let idle = |state: &mut State| state.waiting.is_empty() && !state.is_closed;
        let (state, _) = self
            .queue
            .changed
            .wait_timeout_while(self.lock(), PROBE_EVERY, idle)
            .unwrap_or_else(PoisonError::into_inner);
        if state.waiting.is_empty() {
            return (!state.is_closed).then(Vec::new);
        }
        let gathering = |state: &mut State| {
            !state.is_urgent && !state.is_closed && self.used.load(Ordering::Relaxed) < ENOUGH
        };
        let (mut state, _) = self
            .queue
            .changed
            .wait_timeout_while(state, GATHER, gathering)
            .unwrap_or_else(PoisonError::into_inner);
        if state.is_closed {
            return None;
        }
        let count = state.waiting.len().min(BATCH);
        let batch = state.waiting.drain(..count).collect();
        state.is_urgent &= !state.waiting.is_empty();
        Some(batch)
    }

    /// The batch is in the index, or lost: it is looked for there from now on.
    fn settled(&self, batch: &[Arc<Item>]) {
        let mut state = self.lock();
        let State {
            by_key,
            bodies,
            bytes,
            ..
        } = &mut *state;
        for item in batch {
            if let Some(of_key) = by_key.get_mut(&item.key) {
                of_key.retain(|other| !Arc::ptr_eq(other, item));
                if of_key.is_empty() {
                    by_key.remove(&item.key);
                }
            }
            let digest = item.response.content.digest;
            if let Some((body, users)) = bodies.get_mut(&digest) {
                *users -= 1;
                if *users == 0 {
                    *bytes -= body.len() as u64;
                    bodies.remove(&digest);
                }
            }
        }
        state.settled += batch.len() as u64;
        drop(state);
        self.queue.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.queue.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread of `store`; it ends when the store is dropped.
pub(super) fn start(store: &Store) -> std::io::Result<()> {
    let (queue, store) = (store.0.behind.clone(), Arc::downgrade(&store.0));
    thread::Builder::new()
        .name("write-behind".into())
        .spawn(move || {
            super::low_priority();
            while let Some(batch) = queue.next() {
                if !write(&queue, &store, &batch) {
                    break;
                }
            }
        })?;
    Ok(())
}

/// Writes one batch; false when the store is gone.
fn write(queue: &WriteBehind, store: &Weak<Inner>, batch: &[Arc<Item>]) -> bool {
    let Some(inner) = store.upgrade() else {
        return false;
    };
    let store = Store(inner);
    if batch.is_empty() {
        store.probe();
        return true;
    }
    let outcome = store.make_durable(batch);
    queue.settled(batch);
    if let Err(error) = outcome {
        // What was read from the queue must not be remembered any longer.
        store.0.hot.forget(batch.iter().map(|item| item.key.as_str()));
        crate::seldom::warn_seldom!(
            error = %kato_shared::chain::Chain(&error),
            responses = batch.len(),
            "small responses were delivered but could not be stored"
        );
        store.0.health.failed(&error);
    } else {
        let keys = || batch.iter().map(|item| item.key.as_str());
        if store.0.doubts.settle(keys()) {
            store.0.hot.forget(keys());
        }
        store.0.health.well();
    }
    true
}
