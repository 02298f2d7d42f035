//! The body of an answer on a connection that hyper serves, as far as that concerns the connection.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::client::Answering;
use crate::deliver::{BodyError, ResponseBody};

/// A body whose end is the end of the exchange.
pub(super) struct AnsweringBody {
    pub(super) body: ResponseBody,
    #[expect(dead_code, reason = "its end is what it is for")]
    pub(super) under_way: Answering,
}

impl Body for AnsweringBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
