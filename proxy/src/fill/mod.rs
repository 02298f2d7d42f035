//! A fill: one download that no client owns. Origin → growing file → every client, the first one included.
//!
//! Flow: [`Pump::run`] takes the body of an origin response and feeds a writer thread (`sink`); after each write the
//! frontier is published ([`Progress`], a `watch` channel), and each client reads the file up to it ([`Reader`]). The digest
//! is computed beside that ([`tally`]). Nothing a client does or fails to do slows the origin down.
//!
//! A download that breaks off leaves a [`Partial`], which the next request for the same takes up where it ends ([`partial`]).
//!
//! When the disk refuses, the fill goes on in memory (`window`): the bytes that are not on the disk are held until every
//! attached client has them, and only then do the slowest client and the origin wait for each other.
//!
//! A small body of known length takes neither file nor thread ([`Small`]).
//!
//! The end is [`End::Complete`] or [`End::Failed`]; a reader that meets `Failed` ends its body with an error, so that the
//! connection breaks instead of looking finished.
//!
//! Invariant: `Complete` is published only for a body that was received whole and, where its digest was known before,
//! verified; where it was known, the last byte is held back until then.

mod abort;
pub mod collapse;
pub mod partial;
mod pump;
mod reader;
pub mod segments;
mod sink;
mod small;
mod source;
pub mod tally;
mod window;

use std::{fs::File, sync::Arc};

use kato_shared::Digest;
use tokio::sync::watch;

pub use abort::{AbortRule, OnAbort};
pub use partial::Partial;
pub use pump::{Promise, Pump, Received};
pub use reader::{Available, ReadError, Reader};
pub use small::{Small, verify};
pub use source::Source;

use crate::ecosystem::Integrity;
use window::Window;

/// How far a fill is. Published after every write.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Bytes that can be read from the file.
    pub in_file: u64,
    /// Bytes that can be read at all: `in_file` and what the window holds.
    pub frontier: u64,
    /// The end, once there is one.
    pub end: Option<End>,
}

/// How a fill ended.
#[derive(Debug, Clone)]
pub enum End {
    /// Everything was received.
    Complete {
        /// The size in bytes.
        length: u64,
        /// The digest of the bytes.
        digest: Digest,
    },
    /// Not everything was received; what was must not be taken for the whole.
    Failed(Arc<FillError>),
}

/// Why a fill failed.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The origin stopped, and going on where it stopped was not possible.
    #[error("the upstream stopped after {received} bytes")]
    Interrupted {
        /// Bytes received.
        received: u64,
        /// Why.
        #[source]
        source: crate::origin::OriginError,
    },
    /// The origin sent another number of bytes than it announced.
    #[error("the upstream announced {announced} bytes and sent {received}")]
    Length {
        /// `Content-Length`.
        announced: u64,
        /// Bytes received.
        received: u64,
    },
    /// The upstream announced another size than is known: it has other content.
    #[error("size mismatch: expected {expected} bytes, the upstream announced {announced}")]
    Size {
        /// The size known before, in bytes.
        expected: u64,
        /// `Content-Length`.
        announced: u64,
    },
    /// The content is not what its URL promises.
    #[error("digest mismatch: expected {expected}, received {received}")]
    Digest {
        /// The digest known before.
        expected: Box<Integrity>,
        /// The digest of what arrived, by the same function.
        received: Box<Integrity>,
    },
    /// Every client had left, and the settings or the disk did not let the download go on for nobody.
    #[error("no client was left")]
    Unwanted,
    /// What was written cannot be read, so that nobody knows what it is.
    #[error("the temporary file cannot be read back")]
    ReadBack(#[source] std::io::Error),
    /// The task that filled is gone.
    #[error("the download was abandoned")]
    Abandoned,
}

impl FillError {
    /// Whether content is what was `expected`.
    ///
    /// # Errors
    /// [`FillError::Digest`] where what was `received` is something else.
    pub fn of_other_content(expected: Option<Integrity>, received: Integrity) -> Result<(), Self> {
        match expected {
            Some(expected) if expected != received => Err(Self::Digest {
                expected: expected.into(),
                received: received.into(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether both say of content that it is not the same that was expected.
    pub fn expects_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Digest { expected: one, .. }, Self::Digest { expected: two, .. }) => one == two,
            (Self::Size { expected: one, .. }, Self::Size { expected: two, .. }) => one == two,
            _ => false,
        }
    }
}

/// A fill as its readers see it.
#[derive(Debug, Clone)]
pub struct Fill {
    file: Option<Arc<File>>,
    window: Arc<Window>,
    progress: watch::Receiver<Progress>,
    /// `Content-Length`, when the origin sent one.
    pub announced: Option<u64>,
}

impl Fill {
    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Whether all bytes are there: a client may have the whole body, even where the verdict is still being reached.
    pub fn is_received(&self) -> bool {
        let progress = self.progress.borrow();
        progress.end.is_some() || self.announced == Some(progress.frontier)
    }

    /// Whether all of it has come and is what it should be, so that it will be kept.
    pub fn is_kept(&self) -> bool {
        matches!(self.progress.borrow().end, Some(End::Complete { .. }))
    }

    /// Whether it came, or is about to come, to no good end: whoever comes now does better to wait for the next.
    pub fn has_failed(&self) -> bool {
        self.window.is_closed() || matches!(self.progress.borrow().end, Some(End::Failed(_)))
    }

    /// A reader from `start`. `None` when the bytes from there on are no longer all at hand.
    pub fn reader(&self, start: u64) -> Option<Reader> {
        Reader::attach(self, start)
    }
}
