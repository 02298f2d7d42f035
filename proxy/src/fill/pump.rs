//! Moves one response body from the origin to the file, and to memory when the disk takes no more.

use std::sync::Arc;

use bytes::Bytes;
use kato_shared::{Digest, digest::Hasher};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
};

use super::{
    End, Fill, FillError, Progress,
    sink::{self, Written},
    window::Window,
};
use crate::{
    origin::OriginBody,
    store::{ContentRef, NoRoom, Temporary},
};

/// A fill before it runs.
#[derive(Debug)]
pub struct Pump {
    progress: Arc<watch::Sender<Progress>>,
    window: Arc<Window>,
    disk: Option<Temporary>,
    announced: Option<u64>,
    expected: Option<Digest>,
}

/// What a fill brought.
#[derive(Debug)]
pub enum Received {
    /// A whole body in a file that waits to be committed.
    InFile(Box<Temporary>, ContentRef),
    /// A whole body that the disk did not take; the clients have it, the store does not.
    PassedThrough(ContentRef),
    /// Not the whole body.
    Failed(Arc<FillError>),
}

/// How the part with the disk ended.
enum DiskPart {
    /// The origin ended, and all is in the file.
    Whole(Box<Temporary>),
    /// The disk refused: the file, and the position from which on memory takes over.
    Refused(Box<Temporary>, u64),
}

impl Pump {
    /// A fill into `disk`, or through memory alone when the store has no room, and the handle its readers use.
    ///
    /// `announced` is the `Content-Length`; `expected` the digest known before.
    pub fn new(
        disk: Result<Temporary, NoRoom>,
        announced: Option<u64>,
        expected: Option<Digest>,
    ) -> (Self, Fill) {
        let disk = disk
            .inspect_err(|error| {
                tracing::warn!(error = %kato_shared::chain::Chain(error), "not stored; passed through");
            })
            .ok();
        let (progress, watched) = watch::channel(Progress::default());
        let window = Arc::new(Window::default());
        let fill = Fill {
            file: disk.as_ref().map(|temporary| Arc::clone(temporary.file())),
            window: Arc::clone(&window),
            progress: watched,
            announced,
        };
        let pump = Self {
            progress: Arc::new(progress),
            window,
            disk,
            announced,
            expected,
        };
        (pump, fill)
    }

    /// Takes in the whole body and publishes the end.
    ///
    /// # Cancel safety
    /// Dropped early, the readers see [`FillError::Abandoned`] and nothing is stored.
    pub async fn run(mut self, mut body: OriginBody) -> Received {
        let outcome = self.receive(&mut body).await;
        let end = match &outcome {
            Ok((_, content)) => End::Complete {
                length: content.length,
                digest: content.digest,
            },
            Err(error) => End::Failed(Arc::clone(error)),
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
            Err(error) => Received::Failed(error),
        }
    }

    async fn receive(
        &mut self,
        body: &mut OriginBody,
    ) -> Result<(Option<Box<Temporary>>, ContentRef), Arc<FillError>> {
        let mut hasher = Hasher::new();
        let mut received = 0;
        // Kept until the end: readers may still be in the part that the file has.
        let mut partial_file = None;
        if let Some(temporary) = self.disk.take() {
            let (part, with_digest) = self.to_disk(temporary, body, &mut received).await?;
            hasher = with_digest;
            match part {
                DiskPart::Whole(file) => {
                    let content = self.judge(received, hasher)?;
                    return Ok((Some(file), content));
                }
                DiskPart::Refused(file, position) => {
                    partial_file = Some(file);
                    received = position;
                }
            }
        }
        while let Some(chunk) = next(body, received).await? {
            hasher.update(&chunk);
            received = self.hold(received, chunk).await?;
        }
        let content = self.judge(received, hasher)?;
        drop(partial_file);
        Ok((None, content))
    }

    /// Feeds the writer until the origin ends or the disk refuses.
    async fn to_disk(
        &self,
        temporary: Temporary,
        body: &mut OriginBody,
        received: &mut u64,
    ) -> Result<(DiskPart, Hasher), Arc<FillError>> {
        let (chunks, queue) = mpsc::channel(sink::QUEUE);
        let (progress, held_back) = (Arc::clone(&self.progress), self.held_back());
        let writer: JoinHandle<_> =
            spawn_blocking(move || sink::write_all(temporary, queue, &progress, held_back));
        let mut unsent = None;
        let mut broken = None;
        loop {
            match next(body, *received).await {
                Ok(Some(chunk)) => {
                    *received += chunk.len() as u64;
                    if let Err(refused) = chunks.send(chunk).await {
                        unsent = Some(refused.0);
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        drop(chunks);
        let (written, mut hasher) = writer.await.map_err(|_panicked| Arc::new(FillError::Abandoned))?;
        if let Some(error) = broken {
            return Err(error);
        }
        match written {
            Written::Whole(file) => Ok((DiskPart::Whole(file), hasher)),
            Written::Refused { rest, cause, file } => {
                tracing::warn!(%cause, "the disk took no more of a download; its clients get the rest from memory");
                let mut position = self.progress.borrow().in_file + self.held_back();
                for chunk in rest {
                    position = self.hold(position, chunk).await?;
                }
                if let Some(chunk) = unsent {
                    hasher.update(&chunk);
                    position = self.hold(position, chunk).await?;
                }
                Ok((DiskPart::Refused(file, position), hasher))
            }
        }
    }

    /// Holds a chunk in memory and publishes it; returns the position after it.
    async fn hold(&self, position: u64, chunk: Bytes) -> Result<u64, Arc<FillError>> {
        let end = position + chunk.len() as u64;
        if end == position {
            return Ok(end);
        }
        self.window
            .push(position, chunk)
            .await
            .map_err(|_nobody| Arc::new(FillError::Unwanted))?;
        self.progress
            .send_modify(|progress| progress.frontier = end - self.held_back());
        Ok(end)
    }

    /// Bytes at the end that are not shown before the digest is verified.
    const fn held_back(&self) -> u64 {
        if self.expected.is_some() { 1 } else { 0 }
    }

    fn judge(&self, received: u64, hasher: Hasher) -> Result<ContentRef, Arc<FillError>> {
        if let Some(announced) = self.announced
            && announced != received
        {
            return Err(Arc::new(FillError::Length { announced, received }));
        }
        let digest = hasher.finish();
        match self.expected {
            Some(expected) if expected != digest => Err(Arc::new(FillError::Digest {
                expected,
                received: digest,
            })),
            _ => Ok(ContentRef {
                digest,
                length: received,
            }),
        }
    }
}

async fn next(body: &mut OriginBody, received: u64) -> Result<Option<Bytes>, Arc<FillError>> {
    body.next()
        .await
        .map_err(|source| Arc::new(FillError::Interrupted { received, source }))
}
