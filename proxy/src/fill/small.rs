//! A small body with a known length: received in memory, without a file and without a thread.
//!
//! The readers are the same as those of a large fill. Everything is held until the fill is dropped, so that whoever joins finds
//! the beginning, too; the size is bounded by who calls.
//!
//! Deliberately absent: digests that are known before. Such a small body is held back whole, and has no readers (`pipeline`).
//!
//! Invariant: the end is published when all of it is there, and by then it is a hit.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kato_shared::Digest;
use tokio::sync::watch;

use super::{End, Fill, FillError, Progress, Source, window::Window};
use crate::{ecosystem::Integrity, store::ContentRef};

/// A fill into memory before it runs.
#[derive(Debug)]
pub struct Small {
    progress: watch::Sender<Progress>,
    window: Arc<Window>,
    announced: u64,
}

impl Small {
    /// A fill of `announced` bytes, and the handle that its readers use.
    pub fn new(announced: u64) -> (Self, Fill) {
        let (progress, watched) = watch::channel(Progress::default());
        let window = Arc::new(Window::keeping());
        let fill = Fill {
            file: None,
            window: Arc::clone(&window),
            progress: watched,
            announced: Some(announced),
        };
        let small = Self {
            progress,
            window,
            announced,
        };
        (small, fill)
    }

    /// Takes in the whole body. The end is not published yet: [`Received::publish`] does that.
    ///
    /// # Errors
    /// [`FillError`], which is published.
    ///
    /// # Cancel safety
    /// Dropped early, the readers see [`FillError::Abandoned`].
    pub async fn run(self, body: &mut Source) -> Result<Received, Arc<FillError>> {
        match self.receive(body).await {
            Ok((whole, content)) => Ok(Received {
                whole,
                content,
                progress: self.progress,
            }),
            Err(error) => {
                let error = Arc::new(error);
                let end = End::Failed(Arc::clone(&error));
                self.progress.send_modify(|progress| progress.end = Some(end));
                Err(error)
            }
        }
    }

    async fn receive(&self, body: &mut Source) -> Result<(Bytes, ContentRef), FillError> {
        // Of its own size: what comes from the connection may hold a larger buffer.
        let mut whole = BytesMut::with_capacity(usize::try_from(self.announced).unwrap_or(0));
        let mut received = 0;
        let next = |received| move |source| FillError::Interrupted { received, source };
        while let Some(chunk) = body.next().await.map_err(next(received))? {
            let position = received;
            received += chunk.len() as u64;
            if received > self.announced {
                break;
            }
            whole.extend_from_slice(&chunk);
            self.window.keep(position, chunk);
            if received < self.announced {
                self.progress.send_modify(|progress| progress.frontier = received);
            } else {
                break;
            }
        }
        if received != self.announced {
            return Err(FillError::Length {
                announced: self.announced,
                received,
            });
        }
        let digest = Digest::of(&whole);
        let content = ContentRef {
            digest,
            length: received,
        };
        Ok((whole.freeze(), content))
    }
}

/// Whether `whole`, a body in memory whose SHA-256 is `digest`, is what was `expected`.
///
/// # Errors
/// [`FillError::Digest`].
pub fn verify(expected: Option<Integrity>, digest: Digest, whole: &[u8]) -> Result<(), FillError> {
    let received = expected.map_or(digest.into(), |expected| expected.of(digest, whole));
    FillError::of_other_content(expected, received)
}

/// A whole body whose readers wait for the end.
#[derive(Debug)]
pub struct Received {
    /// The body.
    pub whole: Bytes,
    /// What it is.
    pub content: ContentRef,
    progress: watch::Sender<Progress>,
}

impl Received {
    /// Lets the readers have the end.
    pub fn publish(self) {
        self.progress.send_modify(|progress| {
            progress.frontier = self.content.length;
            progress.end = Some(End::Complete {
                length: self.content.length,
                digest: self.content.digest,
            });
        });
    }
}
