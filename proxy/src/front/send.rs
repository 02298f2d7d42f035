//! Writing an answer: head and body in one system call where both are in memory, parts of files without copying.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::{
    fs::sendfile,
    net::{SendFlags, send, sockopt::set_tcp_cork},
};
use tokio::{io::Interest, net::TcpStream, task::yield_now, time::Instant};

use super::{Connection, Ready, ReadyBody, Wire};
use crate::deliver::{Payload, Record, Span, is_full};

/// The most bytes of one `sendfile`, and between two looks at what other connections want.
const TURN: u64 = 2 << 20;

/// Whether the answer is whole; if not, the connection is over.
type Sent = Option<()>;

impl<S: Wire> Connection<S> {
    /// Sends an answer that was prepared.
    pub(super) async fn send_ready(&mut self, head: &[u8], ready: Ready) -> Sent {
        let sent = match ready.body {
            ReadyBody::Empty => self.send_bytes(head, &[], ready.record).await,
            ReadyBody::Memory(body) => self.send_bytes(head, &body, ready.record).await,
            ReadyBody::File(span) => self.send(head, Payload::Stored(span), ready.record).await,
        };
        drop(ready.slot);
        sent
    }

    /// Sends an answer from the store.
    pub(super) async fn send(&mut self, head: &[u8], payload: Payload, record: Record) -> Sent {
        self.send_payload(head, (payload, false), record).await
    }

    /// Sends an answer, its body in chunks if so said.
    pub(super) async fn send_payload(
        &mut self,
        head: &[u8],
        (payload, is_chunked): (Payload, bool),
        record: Record,
    ) -> Sent {
        match payload {
            Payload::Empty => self.send_bytes(head, &[], record).await,
            Payload::Memory(body) => self.send_bytes(head, &body, record).await,
            Payload::Stored(span) if self.stream.socket().is_some() => {
                self.send_file(head, span, record).await
            }
            payload @ (Payload::Stored(_)
            | Payload::Filling { .. }
            | Payload::Passing { .. }
            | Payload::Parts(_)) => Box::pin(self.send_stream(head, (payload, is_chunked), record)).await,
        }
    }

    async fn send_bytes(&mut self, head: &[u8], body: &[u8], mut record: Record) -> Sent {
        let written = self.write(head, body).await;
        record.add((written.bytes.saturating_sub(head.len())) as u64);
        match written.end {
            Ok(()) => record.is_complete = true,
            Err(error) => tracing::debug!(%error, "an answer was cut short"),
        }
        record.is_complete.then_some(())
    }

    async fn send_file(&mut self, head: &[u8], span: Span, mut record: Record) -> Sent {
        self.send_span(head, span, &mut record).await?;
        record.is_complete = true;
        Some(())
    }

    /// Sends `head` and part of a file.
    pub(super) async fn send_span(&mut self, head: &[u8], mut span: Span, record: &mut Record) -> Sent {
        self.cork(true);
        let mut unsent = head;
        while !unsent.is_empty() || span.next < span.end {
            let turn = self.turn(&mut unsent, &mut span).await;
            let is_whole_turn = matches!(turn, Ok(TURN));
            match turn {
                Ok(bytes) => record.add(bytes),
                Err(error) => {
                    tracing::debug!(%error, "a body was cut short");
                    return None;
                }
            }
            // A client that takes everything at once must not keep others waiting.
            if is_whole_turn && span.next < span.end {
                yield_now().await;
            }
        }
        self.cork(false);
        Some(())
    }

    /// Between the two only full segments leave. Without it a segment leaves for every page or two that `sendfile` hands over
    /// while acknowledgements come in, and the client is woken for each: measured with one client, 2.7 GB/s in place of 4.1.
    fn cork(&self, is_corked: bool) {
        if let Some(socket) = self.stream.socket()
            && let Err(error) = set_tcp_cork(socket, is_corked)
        {
            tracing::debug!(%error, "TCP_CORK refused");
        }
    }

    /// Sends the head, or one turn of the file; how many bytes of the file went.
    async fn turn(&mut self, unsent: &mut &[u8], span: &mut Span) -> io::Result<u64> {
        let mut is_waiting = false;
        poll_fn(|cx| {
            let Some(socket) = self.stream.socket() else {
                return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
            };
            if let Poll::Ready(sent) = poll_turn(socket, cx, unsent, span) {
                return Poll::Ready(sent);
            }
            if !std::mem::replace(&mut is_waiting, true) {
                self.patience.move_to(Instant::now() + self.times.progress);
            }
            self.patience
                .poll(cx)
                .map(|()| Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }

    pub(super) async fn write(&mut self, head: &[u8], body: &[u8]) -> Written {
        let mut bytes = 0;
        let mut waits_since = None;
        let end = poll_fn(|cx| {
            while bytes < head.len() + body.len() {
                let first = &head[bytes.min(head.len())..];
                let second = &body[bytes.saturating_sub(head.len())..];
                let slices = [IoSlice::new(first), IoSlice::new(second)];
                let slices = if first.is_empty() {
                    &slices[1..]
                } else {
                    &slices[..]
                };
                match Pin::new(&mut self.stream).poll_write_vectored(cx, slices) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(written)) => bytes += written,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return self.patience_at(cx, bytes, &mut waits_since),
                }
            }
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(flushed) => Poll::Ready(flushed),
                Poll::Pending => self.patience_at(cx, bytes, &mut waits_since),
            }
        })
        .await;
        Written { bytes, end }
    }

    /// Waits for the client to take more than `bytes`, but not for ever.
    fn patience_at(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
        waits_since: &mut Option<usize>,
    ) -> Poll<io::Result<()>> {
        if waits_since.replace(bytes) != Some(bytes) {
            self.patience.move_to(Instant::now() + self.times.progress);
        }
        self.patience
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// How far writing came.
pub(super) struct Written {
    pub(super) bytes: usize,
    pub(super) end: io::Result<()>,
}

/// Sends one turn at most.
fn poll_turn(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    unsent: &mut &[u8],
    span: &mut Span,
) -> Poll<io::Result<u64>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        let mut partial = 0;
        let sent = socket.try_io(Interest::WRITABLE, || {
            if !unsent.is_empty() {
                // The body follows at once: one segment for both.
                let sent = send(socket.as_fd(), unsent, SendFlags::MORE | SendFlags::NOSIGNAL)?;
                *unsent = &unsent[sent..];
                return Ok(0);
            }
            let length = usize::try_from(TURN.min(span.end - span.next)).unwrap_or(usize::MAX);
            match sendfile(socket.as_fd(), span.file.as_fd(), Some(&mut span.next), length)? {
                // The file is shorter than it was.
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                sent if sent < length && is_full(socket) => {
                    partial = sent as u64;
                    Err(io::ErrorKind::WouldBlock.into())
                }
                sent => Ok(sent as u64),
            }
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && partial > 0 => {
                return Poll::Ready(Ok(partial));
            }
            Ok(0) if unsent.is_empty() && span.next < span.end => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                span.suspect_on(&error);
                return Poll::Ready(Err(error));
            }
            sent => return Poll::Ready(sent),
        }
    }
}
