//! Moves one response body from the origin to the file, and to memory when the disk takes no more.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use kato_shared::digest::{Hasher, OtherHasher};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{
    End, Fill, FillError, OnAbort, Partial, Progress, Source,
    sink::{self, Written},
    window::Window,
};
use crate::{
    ecosystem::Integrity,
    seldom::warn_seldom,
    store::{ContentRef, NoRoom, Temporary},
};

/// How long a download at full speed waits for its first bytes to be written before it goes on; far more than that takes.
const HEAD_START: Duration = Duration::from_millis(10);

/// What is known about a body before it comes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Promise {
    /// The size of the whole body: `Content-Length`, or what `Content-Range` says.
    pub announced: Option<u64>,
    /// The digest known before.
    pub expected: Option<Integrity>,
}

/// A fill before it runs.
#[derive(Debug)]
pub struct Pump {
    progress: Arc<watch::Sender<Progress>>,
    window: Arc<Window>,
    disk: Option<Partial>,
    promise: Promise,
    on_abort: OnAbort,
}

/// What a fill brought.
#[derive(Debug)]
pub enum Received {
    /// A whole body in a file that waits to be committed.
    InFile(Box<Temporary>, ContentRef),
    /// A whole body that the disk did not take; the clients have it, the store does not.
    PassedThrough(ContentRef),
    /// Not the whole body; what there is of it, where the rest may follow.
    Failed(Arc<FillError>, Option<Box<Partial>>),
}

/// How the part with the disk ended.
enum DiskPart {
    /// The origin ended, or broke off, and all that came is in the file.
    Landed(Box<Partial>, Result<(), FillError>),
    /// The disk refused: the file, and what it did not take.
    Refused(Box<Partial>, Vec<Bytes>),
}

type Whole = (Option<Box<Temporary>>, ContentRef);
type Broken = (Arc<FillError>, Option<Box<Partial>>);

impl Pump {
    /// A fill into `disk`, behind what is there already, or through memory alone when the store has no room; and the
    /// handle that its readers use.
    pub fn new(disk: Result<Partial, NoRoom>, promise: Promise, on_abort: OnAbort) -> (Self, Fill) {
        let disk = disk
            .inspect_err(|error| {
                warn_seldom!(error = %kato_shared::chain::Chain(error), "not stored; passed through");
            })
            .ok();
        let at_hand = disk.as_ref().map_or(0, |partial| partial.received);
        let (progress, watched) = watch::channel(Progress {
            in_file: at_hand,
            frontier: at_hand,
            end: None,
        });
        let window = Arc::new(Window::default());
        let fill = Fill {
            file: disk.as_ref().map(|partial| Arc::clone(partial.temporary.file())),
            window: Arc::clone(&window),
            progress: watched,
            announced: promise.announced,
        };
        let pump = Self {
            progress: Arc::new(progress),
            window,
            disk,
            promise,
            on_abort,
        };
        (pump, fill)
    }

    /// Takes in the whole body and publishes the end.
    ///
    /// # Cancel safety
    /// Dropped early, the readers see [`FillError::Abandoned`] and nothing is stored.
    pub async fn run(mut self, body: &mut Source) -> Received {
        let outcome = self.receive(body).await;
        let end = match &outcome {
            Ok((_, content)) => End::Complete {
                length: content.length,
                digest: content.digest,
            },
            Err((error, _)) => End::Failed(Arc::clone(error)),
        };
        self.progress.send_modify(|progress| {
            if let Ok((file, content)) = &outcome {
                progress.frontier = content.length;
                if file.is_some() {
                    progress.in_file = content.length;
                }
            }
            progress.end = Some(end);
        });
        match outcome {
            Ok((Some(file), content)) => Received::InFile(file, content),
            Ok((None, content)) => Received::PassedThrough(content),
            Err((error, partial)) => Received::Failed(error, partial),
        }
    }

    async fn receive(&mut self, body: &mut Source) -> Result<Whole, Broken> {
        let Some(partial) = self.disk.take() else {
            let sums = Sums {
                ours: Hasher::new(),
                other: self.promise.expected.as_ref().and_then(Integrity::hasher),
            };
            return self.through_memory(body, (0, sums), Vec::new()).await;
        };
        let (partial, rest) = match self.to_disk(partial, body).await? {
            DiskPart::Landed(partial, Err(error)) => return Err((Arc::new(error), Some(partial))),
            DiskPart::Landed(partial, Ok(())) => {
                let length = self.length(partial.received).map_err(alone)?;
                let sums = self.sums(&partial).await?;
                let content = self.judge(length, sums).map_err(alone)?;
                return Ok((Some(Box::new(partial.temporary)), content));
            }
            DiskPart::Refused(partial, rest) => (partial, rest),
        };
        let sums = self.sums(&partial).await?;
        let outcome = self.through_memory(body, (partial.received, sums), rest).await;
        // Kept until the end: readers may still be in the part that the file has.
        drop(partial);
        outcome
    }

    /// What the disk did not take, from `received` on: `rest`, then what comes.
    async fn through_memory(
        &self,
        body: &mut Source,
        (mut received, mut sums): (u64, Sums),
        rest: Vec<Bytes>,
    ) -> Result<Whole, Broken> {
        for chunk in rest {
            sums.update(&chunk);
            received = self.hold(received, chunk).await.map_err(alone)?;
        }
        while let Some(chunk) = next(body, received).await.map_err(alone)? {
            sums.update(&chunk);
            received = self.hold(received, chunk).await.map_err(alone)?;
        }
        let length = self.length(received).map_err(alone)?;
        Ok((None, self.judge(length, sums).map_err(alone)?))
    }

    /// Feeds the writer until the origin ends or breaks off, the disk refuses, or nobody wants it any more.
    async fn to_disk(&self, partial: Partial, body: &mut Source) -> Result<DiskPart, Broken> {
        let depth = if body.is_in_bulk() {
            sink::BULK_QUEUE
        } else {
            sink::QUEUE
        };
        let (chunks, queue) = mpsc::channel(depth);
        let mut received = partial.received;
        let (progress, held_back) = (Arc::clone(&self.progress), self.held_back());
        let writer: JoinHandle<_> =
            spawn_blocking(move || sink::write_all(partial, queue, &progress, held_back));
        let mut unsent = None;
        let mut first = body.is_in_bulk().then(|| self.progress.subscribe());
        let ended = loop {
            let chunk = match self.next_wanted(body, received).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            received += chunk.len() as u64;
            if let Err(refused) = chunks.send(chunk).await {
                unsent = Some(refused.0);
                break Ok(());
            }
            // Where one processor does it all, the clients would wait for as much as fits on the way.
            if let Some(mut first) = first.take() {
                let _written_or_slow = timeout(HEAD_START, first.changed()).await;
            }
        };
        drop(chunks);
        let written = writer.await.map_err(|_panicked| alone(FillError::Abandoned))?;
        match (written, ended) {
            (Written::Whole(partial), ended) => Ok(DiskPart::Landed(partial, ended)),
            (Written::Refused { .. }, Err(error)) => Err(alone(error)),
            (
                Written::Refused {
                    mut rest,
                    cause,
                    file,
                },
                Ok(()),
            ) => {
                warn_seldom!(%cause, "the disk took no more of a download; its clients get the rest from memory");
                rest.extend(unsent);
                Ok(DiskPart::Refused(file, rest))
            }
        }
    }

    /// The next bytes, as long as somebody wants them or the rule says that nobody needs to.
    async fn next_wanted(&self, body: &mut Source, received: u64) -> Result<Option<Bytes>, FillError> {
        if !self.on_abort.gives_up(received, self.promise.announced) {
            return next(body, received).await;
        }
        tokio::select! {
            biased;
            next = next(body, received) => next,
            () = self.window.deserted() => Err(FillError::Unwanted),
        }
    }

    /// Holds a chunk in memory and publishes it; returns the position after it.
    async fn hold(&self, position: u64, chunk: Bytes) -> Result<u64, FillError> {
        let end = position + chunk.len() as u64;
        if end == position {
            return Ok(end);
        }
        self.window
            .push(position, chunk)
            .await
            .map_err(|_nobody| FillError::Unwanted)?;
        self.progress
            .send_modify(|progress| progress.frontier = end - self.held_back());
        Ok(end)
    }

    /// Bytes at the end that are not shown before the digest is verified.
    const fn held_back(&self) -> u64 {
        if self.promise.expected.is_some() { 1 } else { 0 }
    }

    /// The length, if it is the one announced.
    fn length(&self, received: u64) -> Result<u64, FillError> {
        match self.promise.announced {
            Some(announced) if announced != received => Err(FillError::Length { announced, received }),
            _ => Ok(received),
        }
    }

    fn judge(&self, length: u64, sums: Sums) -> Result<ContentRef, FillError> {
        let digest = sums.ours.finish();
        let expected = self.promise.expected;
        let received = expected.map_or(digest.into(), |expected| expected.received(digest, sums.other));
        FillError::of_other_content(expected, received)?;
        Ok(ContentRef { digest, length })
    }

    /// The hashers after everything that is in the file.
    async fn sums(&self, partial: &Partial) -> Result<Sums, Broken> {
        let failed = |source| alone(FillError::ReadBack(source));
        let ours = partial.tally.finish(partial.received).await.map_err(failed)?;
        let Some(mut other) = self.promise.expected.as_ref().and_then(Integrity::hasher) else {
            return Ok(Sums { ours, other: None });
        };
        let (file, length) = (Arc::clone(partial.temporary.file()), partial.received);
        let read = spawn_blocking(move || other.read(FromStart { file, at: 0 }.take(length)).map(|()| other));
        let other = read.await.map_err(|_panicked| alone(FillError::Abandoned))?;
        Ok(Sums {
            ours,
            other: Some(other.map_err(failed)?),
        })
    }
}

/// A failure after which nothing is worth keeping.
fn alone(error: FillError) -> Broken {
    (Arc::new(error), None)
}

/// The digests of what has come: our own, and that by the function of the promise, where it is another. That one is computed when all
/// is there: such promises are about archives of languages, which are small.
struct Sums {
    ours: Hasher,
    other: Option<OtherHasher>,
}

impl Sums {
    fn update(&mut self, bytes: &[u8]) {
        self.ours.update(bytes);
        if let Some(other) = &mut self.other {
            other.update(bytes);
        }
    }
}

/// A file that others read, too, from its beginning.
struct FromStart {
    file: Arc<File>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

async fn next(body: &mut Source, received: u64) -> Result<Option<Bytes>, FillError> {
    body.next()
        .await
        .map_err(|source| FillError::Interrupted { received, source })
}
