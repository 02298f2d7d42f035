//! A body in small frames that tells whether its client takes them: for HTTP/2.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{BodyError, Handed, ResponseBody};

/// The most bytes of one frame: the largest that every HTTP/2 peer takes (RFC 9113 §4.2), and so the steps in which a slow
/// client is seen to move.
const FRAME: usize = 16 << 10;

/// A [`ResponseBody`] in frames of at most 16 KiB.
#[derive(Debug)]
pub struct FramedBody {
    body: ResponseBody,
    rest: Bytes,
}

impl From<ResponseBody> for FramedBody {
    fn from(body: ResponseBody) -> Self {
        let rest = Bytes::new();
        Self { body, rest }
    }
}

impl Body for FramedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Handed::asked();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.rest = bytes,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let length = self.rest.len().min(FRAME);
        Handed::handed_out();
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.rest.len() as u64;
        let of_body = self.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + ahead);
        }
        hint.set_lower(of_body.lower() + ahead);
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::deliver::Payload;

    #[tokio::test]
    async fn no_frame_is_larger_than_every_peer_takes_and_nothing_is_lost() {
        let whole: Vec<u8> = (0..=255).cycle().take(FRAME * 2 + 5).collect();
        let body = ResponseBody::new(Payload::Memory(whole.clone().into()), None);
        let mut framed = FramedBody::from(body);
        let mut sizes = Vec::new();
        let mut received = Vec::new();
        while let Some(frame) = framed.frame().await {
            assert_eq!(
                framed.size_hint().exact(),
                Some(
                    (whole.len() - received.len()) as u64 - {
                        let frame = frame.as_ref().unwrap().data_ref().unwrap();
                        frame.len() as u64
                    }
                )
            );
            let bytes = frame.unwrap().into_data().unwrap();
            sizes.push(bytes.len());
            received.extend_from_slice(&bytes);
        }
        assert_eq!(sizes, [FRAME, FRAME, 5]);
        assert!(received == whole);
    }

    #[tokio::test]
    async fn who_observes_sees_for_how_long_the_client_has_been_due() {
        let handed = Handed::default();
        let body = ResponseBody::new(Payload::Memory(Bytes::from_static(b"content")), None);
        let mut framed = FramedBody::from(body);
        assert!(handed.since().is_none());
        let frame = handed.clone().observe(framed.frame()).await;
        assert!(frame.is_some() && handed.since().is_some());
        assert!(handed.clone().observe(framed.frame()).await.is_none());
        assert!(handed.since().is_none(), "nothing is due any more");
    }
}
