//! A client's end of an HTTP/1.1 connection: the times and sizes that hyper does not bound, or not as an operator wants them.
//!
//! Between two requests the connection is idle, and closed after the idle timeout. From the first byte of a head on, the head has its
//! own time and size; one that is too large is answered with a problem, which hyper would not do. While an answer is made or still being
//! written nothing is timed here: the client's progress is the kernel's to watch (`socket`). But whether the client is there at all is
//! looked at meanwhile (`presence`): hyper does not read then, and would not hear of it before it writes.
//!
//! hyper's own timer counts idle time and the time of a head as one, and runs while the end of the answer before is still being
//! written to a slow client: it is not used.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use memchr::memchr;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::refusal::{self, TooLarge};
use crate::presence::{LOOK, Presence, Transport};

/// The most bytes of a request head; a larger one gets 431. Unfinished heads are what clients can fill our memory with, so
/// this times the number of connections bounds it.
pub(super) const HEAD_LIMIT: usize = 128 << 10;

/// Whether a request of the connection is being answered. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Exchange(Arc<ExchangeState>);

#[derive(Debug, Default)]
struct ExchangeState {
    is_answering: AtomicBool,
    /// Requests so far: an answer may begin and end between two reads.
    requests: AtomicU64,
}

/// Dropped when the answer has been handed over to its end.
#[derive(Debug)]
pub(super) struct Answering(Option<Exchange>);

impl Exchange {
    /// The head of a request is complete.
    pub(super) fn begin(&self) -> Answering {
        self.0.requests.fetch_add(1, Ordering::AcqRel);
        self.0.is_answering.store(true, Ordering::Release);
        Answering(Some(self.clone()))
    }

    fn is_answering(&self) -> bool {
        self.0.is_answering.load(Ordering::Acquire)
    }

    fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Acquire)
    }
}

impl Answering {
    /// The connection is a tunnel from now on: there are no more heads.
    pub(super) fn for_good(&mut self) {
        self.0 = None;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(exchange) = &self.0 {
            exchange.0.is_answering.store(false, Ordering::Release);
        }
    }
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// From the first byte of a head to its end.
    pub(super) head: Duration,
    /// From the end of an answer to the next head.
    pub(super) idle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A request is answered, or nothing is known yet.
    Busy,
    Idle,
    /// So many bytes of a head, and whether its first line is complete.
    Head {
        bytes: usize,
        has_line: bool,
    },
}

/// A stream to a client, of which some bytes may have been read already.
#[derive(Debug)]
pub(super) struct ClientStream<S> {
    stream: S,
    ahead: Bytes,
    exchange: Exchange,
    requests: u64,
    times: Times,
    state: State,
    deadline: Pin<Box<Sleep>>,
    /// Bytes of an answer wait for the client to take others.
    owes: bool,
    /// What is still to be said before the connection ends.
    refusal: Option<Bytes>,
    look: Option<Look>,
}

/// What of `bytes` belongs to the first line of a head, the end of line included. Empty lines before a head are none of it
/// (RFC 9112 §2.2).
fn first_line(bytes: &[u8], is_begin: bool) -> &[u8] {
    let empty = bytes
        .iter()
        .take_while(|byte| is_begin && matches!(byte, b'\r' | b'\n'))
        .count();
    let end = memchr(b'\n', &bytes[empty..]).map_or(bytes.len(), |at| empty + at + 1);
    &bytes[empty..end]
}

/// When a client whose answer is made is looked at next.
#[derive(Debug)]
struct Look {
    timer: Pin<Box<Sleep>>,
    /// The last request about which a client that says nothing more was asked.
    nudged: u64,
}

impl<S: AsyncRead + AsyncWrite + Transport + Unpin> ClientStream<S> {
    pub(super) fn new(ahead: Bytes, stream: S, exchange: Exchange, times: Times) -> Self {
        Self {
            stream,
            ahead,
            requests: exchange.requests(),
            exchange,
            times,
            state: State::Busy,
            deadline: Box::pin(sleep(times.head)),
            owes: false,
            refusal: None,
            look: None,
        }
    }

    fn poll_ahead_or_stream(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.has_remaining() {
            let count = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }

    fn enter(&mut self, state: State, time: Duration) {
        self.state = state;
        self.deadline.as_mut().reset(Instant::now() + time);
    }

    /// Nothing came: an error when that has been so for too long.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state == State::Busy {
            self.enter(State::Idle, self.times.idle);
        }
        ready!(self.deadline.as_mut().poll(cx));
        let what = if self.state == State::Idle {
            "nothing was asked for too long"
        } else {
            "the request head did not end in time"
        };
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }

    /// An error when the client is gone whose answer is made.
    fn poll_presence(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let request = self.exchange.requests();
        let look = self.look.get_or_insert_with(|| Look {
            timer: Box::pin(sleep(LOOK)),
            nudged: 0,
        });
        // One that was set for the request before fires early, which does no harm.
        while look.timer.as_mut().poll(cx).is_ready() {
            match self.stream.presence() {
                Presence::Gone => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::ConnectionReset,
                        "the client left before its answer was made",
                    )));
                }
                Presence::Silent if look.nudged < request => {
                    look.nudged = request;
                    self.stream.nudge();
                }
                Presence::Silent | Presence::There => {}
            }
            look.timer.as_mut().reset(Instant::now() + LOOK);
        }
        Poll::Pending
    }

    /// Bytes of a head came.
    fn count(&mut self, fresh: &[u8]) {
        let (bytes, has_line) = match self.state {
            State::Head { bytes, has_line } => (bytes, has_line),
            State::Busy | State::Idle => {
                self.enter(State::Busy, self.times.head);
                (0, false)
            }
        };
        let line = if has_line {
            &[]
        } else {
            first_line(fresh, bytes == 0)
        };
        if line.contains(&b'#') {
            self.refusal = Some(refusal::fragment());
        }
        let has_line = has_line || line.ends_with(b"\n");
        let bytes = bytes + fresh.len();
        self.state = State::Head { bytes, has_line };
        if bytes >= HEAD_LIMIT {
            let part = if has_line {
                TooLarge::Fields
            } else {
                TooLarge::Target
            };
            self.refusal = Some(refusal::too_large(part));
        }
    }

    /// Writes the refusal, after which the connection is over.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(refusal) = self.refusal.as_mut().filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, refusal))?;
            refusal.advance(count);
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        Poll::Ready(Err(io::Error::other(
            "the request was refused before its head had ended",
        )))
    }
}

impl<S: AsyncRead + AsyncWrite + Transport + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.refusal.is_some() {
            return self.poll_refuse(cx);
        }
        let before = buffer.filled().len();
        let polled = self.poll_ahead_or_stream(cx, buffer);
        let requests = self.exchange.requests();
        if self.requests != requests || self.exchange.is_answering() {
            self.requests = requests;
            self.state = State::Busy;
        }
        if self.exchange.is_answering() || self.owes {
            return polled;
        }
        match polled {
            Poll::Pending => self.poll_deadline(cx),
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                self.count(&buffer.filled()[before..]);
                if self.refusal.is_some() {
                    // What was read is not handed on: hyper would answer it with a head of its own.
                    buffer.set_filled(before);
                    return self.poll_refuse(cx);
                }
                Poll::Ready(Ok(()))
            }
            ended @ Poll::Ready(_) => ended,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Transport + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.owes |= written.is_pending();
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.owes |= written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper comes here each time that it has looked for the answer in vain.
        if self.exchange.is_answering()
            && let Poll::Ready(left) = self.poll_presence(cx)
        {
            return Poll::Ready(left);
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.owes {
            self.owes = false;
            if !self.exchange.is_answering() {
                // hyper has asked for the next head already, and is not going to ask again before something comes.
                self.state = State::Busy;
                if self.poll_deadline(cx).is_ready() {
                    cx.waker().wake_by_ref();
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const SHORT: Duration = Duration::from_millis(40);
    const LONG: Duration = Duration::from_secs(60);

    fn stream(head: Duration, idle: Duration) -> (ClientStream<DuplexStream>, DuplexStream, Exchange) {
        let (client, server) = duplex(1 << 20);
        let exchange = Exchange::default();
        let times = Times { head, idle };
        let stream = ClientStream::new(Bytes::from_static(b"GE"), server, exchange.clone(), times);
        (stream, client, exchange)
    }

    async fn read(stream: &mut ClientStream<DuplexStream>) -> io::Result<usize> {
        stream.read(&mut [0; 4096]).await
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_in_time_ends_the_connection() {
        let (mut stream, mut client, _exchange) = stream(SHORT, LONG);
        assert_eq!(read(&mut stream).await.unwrap(), 2);
        client.write_all(b"T / HTTP/1.1\r\n").await.unwrap();
        assert!(read(&mut stream).await.is_ok());
        let error = read(&mut stream).await.unwrap_err();
        assert_eq!(error.to_string(), "the request head did not end in time");
    }

    #[tokio::test]
    async fn idle_time_begins_when_the_answer_has_ended_and_a_busy_connection_is_never_idle() {
        let (mut stream, mut client, exchange) = stream(LONG, SHORT);
        assert!(read(&mut stream).await.is_ok());
        let answering = exchange.begin();
        {
            let mut buffer = [0; 16];
            let waiting = stream.read(&mut buffer);
            assert!(
                tokio::time::timeout(SHORT * 3, waiting).await.is_err(),
                "it is not idle"
            );
        }
        drop(answering);
        // A request that is answered between two reads counts, too.
        client.write_all(b"GET").await.unwrap();
        assert!(read(&mut stream).await.is_ok());
        drop(exchange.begin());
        let error = read(&mut stream).await.unwrap_err();
        assert_eq!(error.to_string(), "nothing was asked for too long");
    }

    #[tokio::test]
    async fn rfc9112_s3_2_a_target_with_a_fragment_is_refused_and_one_in_a_field_is_not() {
        for (first, second, is_refused) in [
            ("T /a#b HTTP/1.1\r\n", "", true),
            ("T /a", "#b HTTP/1.1\r\n", true),
            ("T /a HTTP/1.1\r\nx: #\r\n", "y: #\r\n", false),
            ("T /a HTTP/1.1\r", "\nx: #\r\n", false),
        ] {
            let (mut stream, mut client, _exchange) = stream(LONG, LONG);
            let mut is_over = read(&mut stream).await.is_err();
            for part in [first, second].iter().filter(|part| !part.is_empty()) {
                client.write_all(part.as_bytes()).await.unwrap();
                is_over = is_over || read(&mut stream).await.is_err();
            }
            assert_eq!(is_over, is_refused, "{first}{second}");
            drop(stream);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer.starts_with("HTTP/1.1 400 "), is_refused, "{answer}");
        }
    }

    #[tokio::test]
    async fn rfc6585_s5_a_head_that_is_too_large_is_told_so_and_not_handed_on() {
        for (line, status) in [("GET / HTTP/1.1\r\nx: ", "431"), ("GET /", "414")] {
            let (mut stream, mut client, _exchange) = stream(LONG, LONG);
            let head = format!("{line}{}", "a".repeat(HEAD_LIMIT));
            client.write_all(head.as_bytes()).await.unwrap();
            while read(&mut stream).await.is_ok() {}
            drop(stream);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.contains("\r\ncache-status: "), "{answer}");
            assert!(answer.contains("urn:kato:problem:"), "{answer}");
        }
    }
}
