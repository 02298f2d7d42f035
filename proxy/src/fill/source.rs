//! The bytes of a fill as the origin sends them, with the possibility of looking at what is there already.

use std::{collections::VecDeque, future::poll_fn, pin::pin, task::Poll};

use bytes::Bytes;

use crate::origin::{OriginBody, OriginError};

/// An origin's body, and what was read ahead of it.
#[derive(Debug)]
pub struct Source {
    /// What was read ahead; an error is the last.
    ahead: VecDeque<Result<Bytes, OriginError>>,
    body: OriginBody,
}

impl Source {
    /// The whole of `body`.
    pub fn new(body: OriginBody) -> Self {
        Self {
            ahead: VecDeque::new(),
            body,
        }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// As [`OriginBody::next`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        match self.ahead.pop_front() {
            Some(read) => read.map(Some),
            None => self.body.next().await,
        }
    }

    /// All `length` bytes, if they are here already: a small body usually comes with its head. Else what is here stays for
    /// [`Self::next`].
    pub async fn whole_at_once(&mut self, length: u64) -> Option<Bytes> {
        let mut here = 0;
        while here < length {
            let mut next = pin!(self.body.next());
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
