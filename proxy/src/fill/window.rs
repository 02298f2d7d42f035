//! The bytes of a fill that the disk did not take, held until every reader has them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

/// The most bytes held; then the fill waits for the slowest reader. Two of these and the socket buffers are what a
/// pass-through costs in memory.
const LIMIT: u64 = 8 << 20;

/// The window of one fill, and where its readers are.
#[derive(Debug, Default)]
pub(super) struct Window {
    state: Mutex<State>,
    /// A reader moved on or left.
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    chunks: BTreeMap<u64, Bytes>,
    held: u64,
    /// What begins before this is no longer held; 0 while nothing was let go.
    start: u64,
    readers: HashMap<u64, u64>,
    next_reader: u64,
}

/// Nobody reads any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NobodyReads;

impl Window {
    /// Adds a reader at `position`, unless bytes from there on have been let go.
    pub(super) fn attach(&self, position: u64, in_file: u64) -> Option<u64> {
        let mut state = self.lock();
        if state.start > in_file.max(position) {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, position);
        Some(id)
    }

    /// Notes that reader `id` has everything before `position`.
    pub(super) fn advance(&self, id: u64, position: u64) {
        let mut state = self.lock();
        state.readers.insert(id, position);
        // Without chunks there is nobody to wake: the disk takes everything.
        if !state.chunks.is_empty() {
            drop(state);
            self.moved.notify_one();
        }
    }

    /// Removes a reader.
    pub(super) fn detach(&self, id: u64) {
        self.lock().readers.remove(&id);
        self.moved.notify_one();
    }

    /// The bytes at `position`, if they are held.
    pub(super) fn get(&self, position: u64) -> Option<Bytes> {
        let state = self.lock();
        let (start, chunk) = state.chunks.range(..=position).next_back()?;
        let skip = usize::try_from(position - start).ok()?;
        (skip < chunk.len()).then(|| chunk.slice(skip..))
    }

    /// Holds `chunk`, which begins at `position`, after waiting until there is room.
    ///
    /// # Cancel safety
    /// Nothing is held when dropped early.
    pub(super) async fn push(&self, position: u64, chunk: Bytes) -> Result<(), NobodyReads> {
        loop {
            let moved = self.moved.notified();
            {
                let mut state = self.lock();
                if state.readers.is_empty() {
                    return Err(NobodyReads);
                }
                state.let_go();
                if state.held < LIMIT {
                    state.held += chunk.len() as u64;
                    state.chunks.insert(position, chunk);
                    return Ok(());
                }
            }
            moved.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets go of what every reader has.
    fn let_go(&mut self) {
        let slowest = self.readers.values().copied().min().unwrap_or(0);
        while let Some(first) = self.chunks.first_entry() {
            let end = first.key() + first.get().len() as u64;
            if end > slowest {
                break;
            }
            self.held -= first.remove().len() as u64;
            self.start = end;
        }
    }
}
