//! The body type that hyper sends.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::admission::Slot;

use super::{BodyError, Payload, Record, SpanQueue};

type Step = Pin<Box<dyn Future<Output = (Payload, Result<Option<Bytes>, BodyError>)> + Send>>;

/// A payload that is being sent, with the record of its request.
pub struct ResponseBody {
    state: State,
    left: Option<u64>,
    record: Option<Record>,
    /// Of the connection that sends this body, where that can send files.
    queue: Option<SpanQueue>,
    /// Its request is in flight as long as this is here.
    slot: Option<Slot>,
}

enum State {
    Idle(Payload),
    Waiting(Step),
    Done,
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody")
            .field("left", &self.left)
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl ResponseBody {
    /// Sends `payload`; `record` is written at the end.
    pub fn new(payload: Payload, record: Option<Record>) -> Self {
        let left = payload.length();
        let mut body = Self {
            state: State::Idle(payload),
            left,
            record,
            queue: None,
            slot: None,
        };
        body.finish_if_empty();
        body
    }

    /// Sends parts of files by way of the connection's queue.
    #[must_use]
    pub fn by_way_of(mut self, queue: Option<SpanQueue>) -> Self {
        self.queue = queue;
        self
    }

    /// Holds the place of its request until it is gone.
    #[must_use]
    pub fn holding(mut self, slot: Option<Slot>) -> Self {
        self.slot = slot;
        self
    }

    /// hyper does not ask a body that says it is at its end: the record must be told here.
    fn finish_if_empty(&mut self) {
        if self.left == Some(0) {
            self.complete();
        }
    }

    fn complete(&mut self) {
        self.state = State::Done;
        if let Some(mut record) = self.record.take() {
            record.is_complete = true;
        }
    }

    fn sent(&mut self, bytes: u64) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes);
        }
        if let Some(record) = &mut self.record {
            record.add(bytes);
        }
        self.finish_if_empty();
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut step = match std::mem::replace(&mut self.state, State::Done) {
            State::Done => return Poll::Ready(None),
            State::Waiting(step) => step,
            State::Idle(mut payload) => {
                let queue = self.queue.clone();
                Box::pin(async move {
                    let next = match queue {
                        Some(queue) => {
                            let next = payload.next(true).await;
                            next.map(|piece| piece.map(|piece| piece.by_way_of(&queue)))
                        }
                        None => payload.next_bytes().await,
                    };
                    (payload, next)
                })
            }
        };
        match step.as_mut().poll(cx) {
            Poll::Pending => {
                self.state = State::Waiting(step);
                Poll::Pending
            }
            Poll::Ready((payload, Ok(Some(bytes)))) => {
                self.state = State::Idle(payload);
                self.sent(bytes.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready((_, Ok(None))) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Ready((_, Err(error))) => {
                tracing::warn!(error = %kato_shared::chain::Chain(&error), "a client's body was cut short");
                self.record = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
