//! The bytes of a fill that the disk did not take, held until every reader has them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::timeout};

/// The most bytes held; then the fill waits for the slowest reader. Two of these and the socket buffers are what a
/// pass-through costs in memory.
const LIMIT: u64 = 8 << 20;

/// A reader that takes nothing for this long while the others wait for it is left behind.
const PATIENCE: Duration = Duration::from_secs(30);

/// The window of one fill, and where its readers are.
#[derive(Debug)]
pub(super) struct Window {
    patience: Duration,
    /// Whether everything is held to the end, whoever reads.
    keeps: bool,
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
    /// The last reader has left and the fill was given up: nobody attaches any more.
    is_closed: bool,
}

/// What the window has for a reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// These bytes.
    Bytes(Bytes),
    /// Nothing yet.
    NotYet,
    /// Nothing any more: the reader was left behind.
    LeftBehind,
}

/// Nobody reads any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NobodyReads;

impl Default for Window {
    fn default() -> Self {
        Self::with_patience(PATIENCE)
    }
}

impl Window {
    fn with_patience(patience: Duration) -> Self {
        Self {
            patience,
            keeps: false,
            state: Mutex::default(),
            moved: Notify::new(),
        }
    }

    /// A window for a small body, which is held as long as the window is.
    pub(super) fn keeping() -> Self {
        Self {
            keeps: true,
            ..Self::default()
        }
    }

    /// Holds `chunk`, which begins at `position`, in a window that keeps everything.
    pub(super) fn keep(&self, position: u64, chunk: Bytes) {
        self.lock().chunks.insert(position, chunk);
    }

    /// Adds a reader at `position`, unless bytes from there on have been let go.
    pub(super) fn attach(&self, position: u64, in_file: u64) -> Option<u64> {
        let mut state = self.lock();
        if state.is_closed || state.start > in_file.max(position) {
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
        // One that was left behind is not waited for again.
        if let Some(known) = state.readers.get_mut(&id) {
            *known = position;
        }
        // Without chunks there is nobody to wake: the disk takes everything.
        if !self.keeps && !state.chunks.is_empty() {
            drop(state);
            self.moved.notify_one();
        }
    }

    /// Removes a reader.
    pub(super) fn detach(&self, id: u64) {
        self.lock().readers.remove(&id);
        self.moved.notify_one();
    }

    /// Waits until there was a reader and none is left; from then on nobody attaches any more.
    ///
    /// # Cancel safety
    /// Nothing changes when dropped early.
    pub(super) async fn deserted(&self) {
        loop {
            let moved = self.moved.notified();
            {
                let mut state = self.lock();
                if state.next_reader > 0 && state.readers.is_empty() {
                    state.is_closed = true;
                    return;
                }
            }
            moved.await;
        }
    }

    /// Whether [`Self::deserted`] has come to its end.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// The bytes at `position`.
    pub(super) fn get(&self, position: u64) -> Held {
        let state = self.lock();
        if position < state.start {
            return Held::LeftBehind;
        }
        let Some((start, chunk)) = state.chunks.range(..=position).next_back() else {
            return Held::NotYet;
        };
        let skip = usize::try_from(position - start).unwrap_or(usize::MAX);
        if skip < chunk.len() {
            Held::Bytes(chunk.slice(skip..))
        } else {
            Held::NotYet
        }
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
            if timeout(self.patience, moved).await.is_err() {
                self.lock().leave_slowest_behind();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Stops waiting for the readers that are furthest behind.
    fn leave_slowest_behind(&mut self) {
        let slowest = self.readers.values().copied().min().unwrap_or(0);
        self.readers.retain(|_, position| *position > slowest);
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(bytes: u64) -> Bytes {
        vec![7; usize::try_from(bytes).unwrap()].into()
    }

    #[tokio::test]
    async fn the_slowest_reader_is_waited_for_and_at_last_left_behind() {
        let window = Window::with_patience(Duration::from_millis(10));
        let slow = window.attach(0, 0).unwrap();
        let fast = window.attach(0, 0).unwrap();
        window.push(0, chunk(LIMIT)).await.unwrap();
        window.advance(fast, LIMIT);
        window.push(LIMIT, chunk(1)).await.unwrap();
        assert_eq!(window.get(0), Held::LeftBehind);
        assert_eq!(window.get(LIMIT), Held::Bytes(chunk(1)));
        window.advance(slow, 1);
        assert_eq!(window.lock().readers.len(), 1);
        assert!(window.attach(0, 0).is_none());
    }

    #[tokio::test]
    async fn a_window_that_nobody_reads_takes_nothing() {
        let window = Window::default();
        let reader = window.attach(0, 0).unwrap();
        window.detach(reader);
        assert_eq!(window.push(0, chunk(1)).await, Err(NobodyReads));
    }

    #[tokio::test]
    async fn a_window_is_deserted_once_its_last_reader_has_left_and_takes_no_other() {
        let window = Window::default();
        let reader = window.attach(0, 0).unwrap();
        let deserted = window.deserted();
        tokio::pin!(deserted);
        let still_read =
            std::future::poll_fn(|cx| std::task::Poll::Ready(deserted.as_mut().poll(cx).is_pending()));
        assert!(still_read.await);
        window.detach(reader);
        deserted.await;
        assert!(window.attach(0, 0).is_none() && window.is_closed());
    }

    #[tokio::test]
    async fn room_is_made_when_every_reader_has_moved_on() {
        let window = Window::default();
        let one = window.attach(0, 0).unwrap();
        window.push(0, chunk(LIMIT)).await.unwrap();
        let next = window.push(LIMIT, chunk(1));
        tokio::pin!(next);
        let waiting = tokio::select! {
            biased;
            _ = next.as_mut() => false,
            () = std::future::ready(()) => true,
        };
        assert!(waiting);
        window.advance(one, LIMIT);
        next.await.unwrap();
        assert_eq!(window.get(LIMIT - 1), Held::LeftBehind);
    }
}
