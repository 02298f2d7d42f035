//! Requests that the store alone cannot answer: the whole pipeline, while interim responses pass.

use std::{
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    pin::pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Method, Request, StatusCode, Version, header, request};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Connection, Wire, head};
use crate::{
    listener::refusal,
    pipeline::{Answered, Pipeline},
    presence::{LOOK, Presence},
};

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// The client is gone.
    Left,
    /// The grace of the shutdown is over.
    Cut,
}

impl<S: Wire> Connection<S> {
    /// The answer to a request without content. What comes before it has been written to the client by then, as far as that took it.
    pub(super) async fn ask(
        &mut self,
        pipeline: &Pipeline,
        mut parts: request::Parts,
        (client, started): (IpAddr, Instant),
        cut: &CancellationToken,
    ) -> Result<Answered, Unanswered> {
        self.stream.equip(&mut parts.extensions);
        // Over TLS interim responses would have to be encrypted between two polls of the stream; they are not passed there.
        let interim = self
            .stream
            .socket()
            .and_then(|_| self.interim.begin(Version::HTTP_11));
        if let Some(interim) = &interim {
            parts.extensions.insert(interim.clone());
        }
        let asked = Request::from_parts(parts, None);
        let mut answering = pin!(pipeline.answered(asked, client, started));
        let mut cut = pin!(cut.cancelled());
        let mut is_asked = false;
        self.patience.move_to(Instant::now() + LOOK);
        let answered = poll_fn(|cx| {
            if let Poll::Ready(answered) = answering.as_mut().poll(cx) {
                return Poll::Ready(Ok(answered));
            }
            while self.patience.poll(cx).is_ready() {
                match self.stream.presence() {
                    Presence::Gone => return Poll::Ready(Err(Unanswered::Left)),
                    Presence::Silent if !std::mem::replace(&mut is_asked, true) => self.nudge(cx),
                    Presence::Silent | Presence::There => {}
                }
                self.patience.move_to(Instant::now() + LOOK);
            }
            if interim.is_some() {
                self.pass_interim(cx);
            }
            // There is no cut before the shutdown, so nothing else has to wait for it.
            if self.shutdown.as_mut().poll(cx).is_ready() && cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Unanswered::Cut));
            }
            Poll::Pending
        })
        .await;
        if let Some(interim) = interim {
            interim.close();
        }
        answered
    }

    /// Has the kernel of a client that says nothing more tell whether anybody is there.
    fn nudge(&mut self, cx: &mut Context<'_>) {
        if self.stream.socket().is_some() {
            self.interim.nudge();
        } else {
            self.stream.nudge_through(cx);
        }
    }

    /// Refuses the request that has no answer, as far as the client takes that.
    pub(super) async fn refuse(&mut self, bytes: &mut Vec<u8>, is_head: bool) {
        let (parts, body) = refusal::stopping();
        head::write(&parts, bytes);
        self.behind_interim(bytes);
        let body = if is_head { &[] } else { body.as_slice() };
        let written = self.write(bytes, body).await;
        if let Err(error) = written.end {
            tracing::debug!(%error, "a refusal was cut short");
        }
    }

    /// Writes the interim responses that wait, as far as the client takes them; `cx` is woken when there are more.
    fn pass_interim(&self, cx: &mut Context<'_>) {
        let Some(socket) = self.stream.socket() else {
            return;
        };
        self.interim.flushed(cx.waker());
        loop {
            match self.interim.drain(|bytes| socket.try_write(bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if socket.poll_write_ready(cx).is_pending() {
                        return;
                    }
                }
                // An error of the connection is met again when the answer is written.
                Ok(()) | Err(_) => return,
            }
        }
    }

    /// Puts what is left of interim responses before `bytes`.
    fn behind_interim(&self, bytes: &mut Vec<u8>) {
        let mut before = Vec::new();
        let _taken: Result<(), io::Error> = self.interim.drain(|waiting| {
            before.extend_from_slice(waiting);
            Ok(waiting.len())
        });
        if !before.is_empty() {
            bytes.splice(..0, before);
        }
    }

    /// Sends an answer with what is left of the interim responses before it; `bytes` is room for its head.
    pub(super) async fn send_answer(&mut self, bytes: &mut Vec<u8>, answered: Answered) -> Option<()> {
        let Answered {
            head: mut parts,
            payload,
            record,
            slot,
        } = answered;
        let may_have_body = record.method != Method::HEAD && may_have_body(parts.status);
        let is_chunked = payload.length().is_none() && may_have_body;
        if is_chunked {
            let chunked = HeaderValue::from_static("chunked");
            parts.headers.insert(header::TRANSFER_ENCODING, chunked);
        }
        head::write(&parts, bytes);
        self.behind_interim(bytes);
        let sent = self.send_payload(bytes, (payload, is_chunked), record).await;
        drop(slot);
        sent
    }
}

/// Whether the answer to a GET with this status has a body, be it empty (RFC 9112 §6.3).
fn may_have_body(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
