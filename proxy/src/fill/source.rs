//! The bytes of a fill as the origin sends them: over one connection or several, with the possibility of looking at what is
//! there already.

use std::{collections::VecDeque, future::poll_fn, pin::pin, task::Poll};

use bytes::Bytes;

use super::segments::{NextSegment, Segments};
use crate::origin::{OriginBody, OriginError};

/// An origin's body, and what was read ahead of it.
#[derive(Debug)]
pub struct Source {
    /// What was read ahead; an error is the last.
    ahead: VecDeque<Result<Bytes, OriginError>>,
    /// What is read now; `None` between the segments.
    body: Option<Box<OriginBody>>,
    /// How many bytes of it are wanted; the others belong to the segments.
    left: u64,
    segments: Option<Segments>,
}

impl Source {
    /// The whole of `body`.
    pub fn new(body: OriginBody) -> Self {
        Self {
            ahead: VecDeque::new(),
            body: Some(Box::new(body.in_bulk())),
            left: u64::MAX,
            segments: None,
        }
    }

    /// A whole that is here already.
    pub fn of(whole: Bytes) -> Self {
        Self {
            ahead: VecDeque::from([Ok(whole)]),
            body: None,
            left: 0,
            segments: None,
        }
    }

    /// Only what comes before `segments` comes from the body; nothing of it may have been read. What is here already stays whole.
    #[must_use]
    pub fn split(self, segments: Segments) -> Self {
        if self.body.is_none() {
            return self;
        }
        Self {
            left: segments.position(),
            segments: Some(segments),
            ..self
        }
    }

    /// Whether its pieces may be large, so that few of them should wait anywhere.
    pub fn is_in_bulk(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.is_in_bulk())
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// As [`OriginBody::next`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        loop {
            if let Some(read) = self.ahead.pop_front() {
                return read.map(Some);
            }
            if let Some(body) = &mut self.body {
                if let Some(segments) = &mut self.segments {
                    segments.start(1);
                }
                let mut next = body.next().await?;
                if let Some(bytes) = &mut next {
                    bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                    self.left -= bytes.len() as u64;
                    if self.left == 0
                        && let (Some(segments), Some(body)) = (&mut self.segments, self.body.take())
                    {
                        // What it still has belongs to them.
                        segments.come_after(body);
                    }
                }
                return Ok(next);
            }
            let Some(segments) = &mut self.segments else {
                return Ok(None);
            };
            match segments.next().await? {
                NextSegment::Bytes(segment) => self.ahead.extend(segment.into_iter().map(Ok)),
                NextSegment::Rest(body) => *self = Self::new(*body),
                NextSegment::End => return Ok(None),
            }
        }
    }

    /// All `length` bytes, if they are here already: a small body usually comes with its head. Else what is here stays for
    /// [`Self::next`].
    pub async fn whole_at_once(&mut self, length: u64) -> Option<Bytes> {
        let body = self.body.as_mut()?;
        let mut here = 0;
        while here < length {
            let mut next = pin!(body.next());
            let at_hand = poll_fn(|cx| match next.as_mut().poll(cx) {
                Poll::Ready(Ok(bytes)) => Poll::Ready(bytes.map(Ok)),
                Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
                Poll::Pending => Poll::Ready(None),
            });
            let read = at_hand.await?;
            let size = read.as_ref().ok().map(|bytes| bytes.len() as u64);
            self.ahead.push_back(read);
            here += size?;
        }
        let parts: Vec<Bytes> = self.ahead.drain(..).flatten().collect();
        Some(match <[Bytes; 1]>::try_from(parts) {
            Ok([only]) => only,
            Err(parts) => parts.concat().into(),
        })
    }
}
