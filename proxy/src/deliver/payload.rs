//! Where the bytes of an answer are, and how the next ones are had.

use std::{collections::VecDeque, fs::File, io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::zero_copy::{MAX_SPAN, MIN_SPAN, SpanQueue};
use crate::{
    fill::{Available, ReadError, Reader},
    origin::{OriginBody, OriginError},
    store::InUse,
};

/// Bytes read from a file at once.
const CHUNK: u64 = 256 << 10;

/// The bytes of an answer.
#[derive(Debug, Default)]
pub enum Payload {
    /// None.
    #[default]
    Empty,
    /// These.
    Memory(Bytes),
    /// Part of a stored file.
    Stored(Span),
    /// Part of a download under way.
    Filling {
        /// Where the next byte is.
        reader: Reader,
        /// Bytes still to send; `None` for all that come.
        left: Option<u64>,
    },
    /// What an origin sends, for this client alone: `skip` bytes are dropped, then `left` are sent.
    Passing {
        /// The origin's body.
        body: Box<OriginBody>,
        /// Bytes to drop first.
        skip: u64,
        /// Bytes still to send; `None` for all that come.
        left: Option<u64>,
    },
    /// One after the other.
    Parts(VecDeque<Payload>),
}

/// Bytes `next..end` of an open file.
#[derive(Debug, Clone)]
pub struct Span {
    /// The file.
    pub file: Arc<File>,
    /// The next byte.
    pub next: u64,
    /// The byte after the last.
    pub end: u64,
    /// Keeps the content from being evicted.
    pub in_use: Option<Arc<InUse>>,
}

/// Some bytes of an answer; at least one.
#[derive(Debug)]
pub enum Piece {
    /// In memory.
    Bytes(Bytes),
    /// In a file, for whoever can send from files.
    File(Span),
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// A download failed.
    #[error("the download under way failed")]
    Fill(#[source] ReadError),
    /// An origin's body broke off.
    #[error("the upstream's body failed")]
    Origin(#[source] OriginError),
    /// A stored file cannot be read.
    #[error("reading stored content failed")]
    File(#[source] io::Error),
    /// The source ended early.
    #[error("the source ended {missing} bytes early")]
    Short {
        /// Bytes that were to come.
        missing: u64,
    },
}

impl Payload {
    /// Bytes that are at hand.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::Memory(bytes.into())
    }

    /// How many bytes will come, where that is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Memory(bytes) => Some(bytes.len() as u64),
            Self::Stored(span) => Some(span.end - span.next),
            Self::Filling { left, .. } | Self::Passing { left, .. } => *left,
            Self::Parts(parts) => parts.iter().map(Self::length).sum(),
        }
    }

    /// The next bytes, never empty, in memory; `None` at the end.
    ///
    /// # Errors
    /// As [`Self::next`].
    ///
    /// # Cancel safety
    /// As [`Self::next`].
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.next(false).await? {
            Some(Piece::Bytes(bytes)) => Ok(Some(bytes)),
            // Not asked for; if it came, all of it would be missing.
            Some(piece @ Piece::File(_)) => Err(BodyError::Short {
                missing: piece.length(),
            }),
            None => Ok(None),
        }
    }

    /// The next bytes; `None` at the end. Parts of files stay there where the caller `takes_files`.
    ///
    /// # Errors
    /// [`BodyError`] when not all bytes can be had.
    ///
    /// # Cancel safety
    /// Bytes may be lost when dropped early, except from a download under way.
    pub async fn next(&mut self, takes_files: bool) -> Result<Option<Piece>, BodyError> {
        match self {
            Self::Empty => Ok(None),
            Self::Memory(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Ok((!bytes.is_empty()).then_some(Piece::Bytes(bytes)))
            }
            Self::Stored(span) => span.next_piece(takes_files).await,
            Self::Filling { reader, left } => {
                let limit = left.unwrap_or(u64::MAX);
                if limit == 0 {
                    return Ok(None);
                }
                let next = next_of_fill(reader, limit, takes_files)
                    .await
                    .map_err(BodyError::Fill)?;
                settle(next, left)
            }
            Self::Passing { body, skip, left } => loop {
                if *left == Some(0) {
                    return Ok(None);
                }
                let mut next = body.next().await.map_err(BodyError::Origin)?;
                if let Some(bytes) = &mut next {
                    let dropped = (*skip).min(bytes.len() as u64);
                    *skip -= dropped;
                    bytes.advance_by(dropped);
                    bytes.truncate(usize::try_from(left.unwrap_or(u64::MAX)).unwrap_or(usize::MAX));
                    if bytes.is_empty() {
                        continue;
                    }
                }
                return settle(next.map(Piece::Bytes), left);
            },
            Self::Parts(parts) => loop {
                let Some(first) = parts.front_mut() else {
                    return Ok(None);
                };
                if let Some(piece) = Box::pin(first.next(takes_files)).await? {
                    return Ok(Some(piece));
                }
                parts.pop_front();
            },
        }
    }
}

impl Piece {
    /// How many bytes these are.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(span) => span.end - span.next,
        }
    }

    /// The bytes, or a placeholder for those of a file, which `queue` then has.
    pub(super) fn by_way_of(self, queue: &SpanQueue) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::File(span) => queue.push(span),
        }
    }
}

/// The next bytes of a download under way, up to its frontier.
async fn next_of_fill(
    reader: &mut Reader,
    limit: u64,
    takes_files: bool,
) -> Result<Option<Piece>, ReadError> {
    if takes_files
        && let Available::InFile(readable) = reader.available().await?
        && let Some(file) = reader.file()
        && readable.min(limit) >= MIN_SPAN
    {
        let next = reader.position();
        let span = Span {
            file: Arc::clone(file),
            next,
            end: next + readable.min(limit).min(MAX_SPAN as u64),
            in_use: None,
        };
        reader.advance(span.end - span.next);
        return Ok(Some(Piece::File(span)));
    }
    Ok(reader.next(limit).await?.map(Piece::Bytes))
}

/// Counts what is left down; an end before that is an error.
fn settle(next: Option<Piece>, left: &mut Option<u64>) -> Result<Option<Piece>, BodyError> {
    match (&next, left) {
        (Some(piece), Some(left)) => *left -= piece.length(),
        (None, Some(missing)) if *missing > 0 => return Err(BodyError::Short { missing: *missing }),
        _ => {}
    }
    Ok(next)
}

impl Span {
    /// Has the content looked at when `error`, met while it was sent, is the file's and not the connection's fault.
    pub fn suspect_on(&self, error: &io::Error) {
        let is_of_file = error.kind() == io::ErrorKind::UnexpectedEof
            || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
        if let Some(in_use) = self.in_use.as_ref().filter(|_| is_of_file) {
            in_use.suspect();
        }
    }

    async fn next_piece(&mut self, takes_files: bool) -> Result<Option<Piece>, BodyError> {
        let left = self.end.saturating_sub(self.next);
        if left == 0 {
            return Ok(None);
        }
        if takes_files && left >= MIN_SPAN {
            let end = self.next + left.min(MAX_SPAN as u64);
            let piece = Self { end, ..self.clone() };
            self.next = end;
            return Ok(Some(Piece::File(piece)));
        }
        self.read().await.map(|bytes| Some(Piece::Bytes(bytes)))
    }

    /// Some bytes from the beginning of what is left, which must be something.
    async fn read(&mut self) -> Result<Bytes, BodyError> {
        let (file, position) = (Arc::clone(&self.file), self.next);
        let size = usize::try_from((self.end - self.next).min(CHUNK)).unwrap_or(0);
        let read = spawn_blocking(move || {
            let mut buffer = vec![0; size];
            file.read_exact_at(&mut buffer, position)
                .map(|()| Bytes::from(buffer))
        });
        let bytes = match read.await {
            Ok(read) => read.map_err(|error| {
                if let Some(in_use) = &self.in_use {
                    in_use.suspect();
                }
                BodyError::File(error)
            })?,
            Err(_going_down) => {
                return Err(BodyError::Short {
                    missing: self.end - self.next,
                });
            }
        };
        self.next += bytes.len() as u64;
        Ok(bytes)
    }
}

/// Drops bytes at the front.
trait AdvanceBy {
    fn advance_by(&mut self, count: u64);
}

impl AdvanceBy for Bytes {
    fn advance_by(&mut self, count: u64) {
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.len());
        drop(self.split_to(count));
    }
}
