//! The digest of a download, computed beside it: what was written is read back and hashed by threads of low priority.
//!
//! Flow: the writer says how far the file is ([`Tally::wrote`]); a thread of [`Lane`] hashes up to there; whoever needs the
//! digest asks for the hasher at the end ([`Tally::finish`]). SHA-256 takes about 0.6 s of a core for a GiB: on the way of
//! the bytes it would be what bounds a cold download on a small machine, and here it only delays the commit.
//!
//! A tally can be left and taken up again with its file, so that a download that is resumed hashes nothing twice.
//!
//! Deliberately absent: hashing small bodies (they are hashed where they arrive) and bytes that never reach a file.
//!
//! Invariant: the hasher has seen exactly the bytes `0..hashed` of the file, in order.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use kato_shared::digest::Hasher;
use tokio::sync::oneshot;

/// Bytes read back at once: small enough to stay in the processor's cache between reading and hashing.
const PIECE: usize = 128 << 10;

/// A tally is hashed in steps of this many bytes, so that many downloads share the threads evenly.
const STEP: u64 = 8 << 20;

/// Below this many new bytes it is not worth waking a thread.
const WORTHWHILE: u64 = 1 << 20;

/// How long an idle thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(2);

/// The niceness of the threads that nobody waits for: they take what the others leave.
const NICE: i32 = 19;

/// The threads that hash; clones share them. They begin with the first work and end when there is none.
#[derive(Debug, Clone)]
pub struct Lane(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    most_threads: usize,
    nice: i32,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arc<Inner>>,
    threads: usize,
    idle: usize,
}

impl Default for Lane {
    fn default() -> Self {
        Self::with_niceness(NICE)
    }
}

impl Lane {
    /// Threads at normal priority, for digests that a client waits for.
    pub fn urgent() -> Self {
        Self::with_niceness(0)
    }

    fn with_niceness(nice: i32) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            most_threads: thread::available_parallelism().map_or(1, usize::from),
            nice,
        }))
    }

    fn push(&self, tally: Arc<Inner>) {
        let mut queue = self.0.lock();
        queue.waiting.push_back(tally);
        if queue.idle > 0 || queue.threads >= self.0.most_threads {
            self.0.work.notify_one();
            return;
        }
        queue.threads += 1;
        drop(queue);
        let shared = Arc::clone(&self.0);
        let started = thread::Builder::new()
            .name("kato-digest".into())
            .spawn(move || shared.run());
        if let Err(error) = started {
            tracing::warn!(%error, "a hashing thread cannot be started");
            self.0.lock().threads -= 1;
            // Without any thread the work is done here, slowly, rather than never.
            self.0.work_off();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        if self.nice > 0
            && let Err(error) = rustix::process::nice(self.nice)
        {
            tracing::debug!(%error, "hashing runs at normal priority");
        }
        let mut queue = self.lock();
        loop {
            if let Some(tally) = queue.waiting.pop_front() {
                drop(queue);
                let again = tally.hash_step();
                queue = self.lock();
                if again {
                    queue.waiting.push_back(tally);
                }
                continue;
            }
            queue.idle += 1;
            let (woken, timed_out) = self
                .work
                .wait_timeout(queue, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.idle -= 1;
            if timed_out.timed_out() && queue.waiting.is_empty() {
                queue.threads -= 1;
                return;
            }
        }
    }

    fn work_off(&self) {
        while let Some(tally) = { self.lock().waiting.pop_front() } {
            while tally.hash_step() {}
        }
    }
}

/// The digest of one file that is being written, as far as it is.
#[derive(Debug, Clone)]
pub struct Tally {
    inner: Arc<Inner>,
    lane: Lane,
}

#[derive(Debug)]
struct Inner {
    file: Arc<File>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` while a thread works with it, after it was handed out, and after reading failed.
    hasher: Option<Hasher>,
    hashed: u64,
    written: u64,
    is_queued: bool,
    error: Option<io::Error>,
    /// Who waits for the hasher at which position.
    awaited: Option<(u64, oneshot::Sender<io::Result<Hasher>>)>,
}

impl Tally {
    /// Nothing of `file` is written or hashed yet.
    pub fn new(file: Arc<File>, lane: &Lane) -> Self {
        Self {
            inner: Arc::new(Inner {
                file,
                state: Mutex::new(State {
                    hasher: Some(Hasher::new()),
                    hashed: 0,
                    written: 0,
                    is_queued: false,
                    error: None,
                    awaited: None,
                }),
            }),
            lane: lane.clone(),
        }
    }

    /// Bytes `0..position` of the file will not change any more.
    pub fn wrote(&self, position: u64) {
        let is_worthwhile = {
            let mut state = self.inner.lock();
            state.written = state.written.max(position);
            let is_worthwhile = !state.is_queued && state.written - state.hashed >= WORTHWHILE;
            state.is_queued |= is_worthwhile;
            is_worthwhile
        };
        if is_worthwhile {
            self.lane.push(Arc::clone(&self.inner));
        }
    }

    /// The hasher after bytes `0..position`, all of which were written.
    ///
    /// # Errors
    /// When they cannot be read back.
    ///
    /// # Cancel safety
    /// Dropped early, the hasher is lost.
    pub async fn finish(&self, position: u64) -> io::Result<Hasher> {
        let (hasher, ready) = oneshot::channel();
        let must_queue = {
            let mut state = self.inner.lock();
            state.written = state.written.max(position);
            state.awaited = Some((position, hasher));
            !std::mem::replace(&mut state.is_queued, true)
        };
        if must_queue {
            self.lane.push(Arc::clone(&self.inner));
        }
        ready
            .await
            .map_err(|_gone| io::Error::other("the hashing thread is gone"))?
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hashes up to [`STEP`] bytes; whether there is more to do.
    fn hash_step(&self) -> bool {
        let mut state = self.lock();
        let (from, to) = (state.hashed, state.written.min(state.hashed + STEP));
        let Some(mut hasher) = state.hasher.take() else {
            state.is_queued = false;
            state.settle();
            return false;
        };
        drop(state);
        let read = hash_range(&self.file, &mut hasher, (from, to));
        let mut state = self.lock();
        match read {
            Ok(()) => {
                state.hashed = to;
                state.hasher = Some(hasher);
            }
            // The hasher may have seen part of the step: it is of no use any more.
            Err(error) => state.error = Some(error),
        }
        state.settle();
        let rest = state.written - state.hashed;
        let is_awaited = state.awaited.is_some();
        state.is_queued = state.hasher.is_some() && (rest >= WORTHWHILE || (is_awaited && rest > 0));
        state.is_queued
    }
}

impl State {
    /// Hands the hasher to whoever waits for it, once it has come so far.
    fn settle(&mut self) {
        let is_due = self.hasher.is_none() || self.awaited.as_ref().is_some_and(|(at, _)| *at == self.hashed);
        if !is_due {
            return;
        }
        if let Some((_, waiting)) = self.awaited.take() {
            let outcome = match (self.error.take(), self.hasher.take()) {
                (None, Some(hasher)) => Ok(hasher),
                (error, _) => Err(error.unwrap_or_else(|| io::Error::other("the hasher is gone"))),
            };
            let _nobody_waits = waiting.send(outcome);
        }
    }
}

fn hash_range(file: &File, hasher: &mut Hasher, (from, to): (u64, u64)) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut at = from;
    while at < to {
        let size = usize::try_from(to - at).unwrap_or(PIECE).min(PIECE);
        file.read_exact_at(&mut piece[..size], at)?;
        hasher.update(&piece[..size]);
        at += size as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kato_shared::Digest;

    use super::*;

    fn file(content: &[u8]) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        Arc::new(file)
    }

    #[tokio::test]
    async fn the_digest_is_that_of_the_bytes_however_they_were_announced() {
        let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let whole = content.len() as u64;
        let lane = Lane::default();
        for steps in [vec![], vec![1], vec![5 << 20, 9 << 20], vec![whole]] {
            let tally = Tally::new(file(&content), &lane);
            for position in steps {
                tally.wrote(position);
            }
            let digest = tally.finish(whole).await.unwrap().finish();
            assert_eq!(digest, Digest::of(&content));
        }
        let empty = Tally::new(file(b""), &lane).finish(0).await.unwrap();
        assert_eq!(empty.finish(), Digest::of(b""));
    }

    #[tokio::test]
    async fn many_downloads_share_few_threads() {
        let lane = Lane::default();
        let content = vec![7_u8; 20 << 20];
        let tallies: Vec<_> = (0..8).map(|_| Tally::new(file(&content), &lane)).collect();
        for tally in &tallies {
            tally.wrote(content.len() as u64);
        }
        for tally in &tallies {
            let digest = tally.finish(content.len() as u64).await.unwrap().finish();
            assert_eq!(digest, Digest::of(&content));
        }
        assert!(lane.0.lock().threads <= lane.0.most_threads);
    }

    #[tokio::test]
    async fn bytes_that_cannot_be_read_back_are_an_error() {
        let tally = Tally::new(file(b"short"), &Lane::default());
        assert!(tally.finish(6).await.is_err());
    }
}
