//! One client's way through a fill: from the file, then from the window, then waiting at the frontier.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    End, Fill, FillError, Progress,
    window::{Held, Window},
};

/// The most bytes read at once: large enough that a system call costs nothing beside the copy, small enough that a
/// thousand slow clients cost 256 MiB at most.
const CHUNK: u64 = 256 << 10;

/// Reads a fill from some position to its end.
#[derive(Debug)]
pub struct Reader {
    id: u64,
    position: u64,
    file: Option<Arc<File>>,
    window: Arc<Window>,
    progress: watch::Receiver<Progress>,
}

/// Why a client's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The fill failed.
    #[error("the download failed")]
    Fill(#[source] Arc<FillError>),
    /// The disk takes no more, and the other clients would wait for this one no longer.
    #[error("too slow for a download that the store has no room for")]
    LeftBehind,
    /// The file cannot be read back.
    #[error("reading the temporary file failed")]
    File(#[source] io::Error),
}

/// What can be read now.
#[derive(Debug)]
pub enum Available {
    /// This many bytes of the file, from the reader's position.
    InFile(u64),
    /// These bytes.
    Bytes(Bytes),
    /// Nothing more, ever.
    End,
}

impl Reader {
    pub(super) fn attach(fill: &Fill, start: u64) -> Option<Self> {
        let in_file = fill.progress.borrow().in_file;
        let id = fill.window.attach(start, in_file)?;
        Some(Self {
            id,
            position: start,
            file: fill.file.clone(),
            window: Arc::clone(&fill.window),
            progress: fill.progress.clone(),
        })
    }

    /// The file that [`Available::InFile`] speaks of.
    pub const fn file(&self) -> Option<&Arc<File>> {
        self.file.as_ref()
    }

    /// The next byte to be read.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Waits until something can be read, or the end.
    ///
    /// # Errors
    /// [`ReadError::Fill`] when the fill failed and everything before that was read.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped early.
    pub async fn available(&mut self) -> Result<Available, ReadError> {
        loop {
            {
                let progress = self.progress.borrow_and_update();
                if self.position < progress.in_file {
                    return Ok(Available::InFile(progress.in_file - self.position));
                }
                if self.position < progress.frontier {
                    match self.window.get(self.position) {
                        Held::Bytes(mut bytes) => {
                            let shown = progress.frontier - self.position;
                            bytes.truncate(usize::try_from(shown).unwrap_or(usize::MAX));
                            return Ok(Available::Bytes(bytes));
                        }
                        Held::LeftBehind => return Err(ReadError::LeftBehind),
                        Held::NotYet => {}
                    }
                } else {
                    match &progress.end {
                        Some(End::Complete { .. }) => return Ok(Available::End),
                        Some(End::Failed(error)) => return Err(ReadError::Fill(Arc::clone(error))),
                        None => {}
                    }
                }
            }
            if self.progress.changed().await.is_err() {
                return Err(ReadError::Fill(Arc::new(FillError::Abandoned)));
            }
        }
    }

    /// Notes that the next `bytes` bytes are on their way to the client.
    pub fn advance(&mut self, bytes: u64) {
        self.position += bytes;
        self.window.advance(self.id, self.position);
    }

    /// Leaves out what lies before `position`.
    pub fn skip_to(&mut self, position: u64) {
        self.advance(position.saturating_sub(self.position));
    }

    /// The next bytes, at most `limit`; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next(&mut self, limit: u64) -> Result<Option<Bytes>, ReadError> {
        let bytes = match self.available().await? {
            Available::End => return Ok(None),
            Available::Bytes(bytes) => {
                let take = usize::try_from(limit).unwrap_or(usize::MAX).min(bytes.len());
                bytes.slice(..take)
            }
            Available::InFile(readable) => self.read(readable.min(limit))?,
        };
        self.advance(bytes.len() as u64);
        Ok(Some(bytes))
    }

    /// What was written a moment ago is in the page cache: reading it here does not block for the disk.
    fn read(&self, readable: u64) -> Result<Bytes, ReadError> {
        let file = self
            .file
            .as_ref()
            .ok_or_else(|| ReadError::File(io::ErrorKind::NotFound.into()))?;
        let mut buffer = vec![0; usize::try_from(readable.min(CHUNK)).unwrap_or(0)];
        file.read_exact_at(&mut buffer, self.position)
            .map_err(ReadError::File)?;
        Ok(buffer.into())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.window.detach(self.id);
    }
}
