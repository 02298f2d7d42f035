//! `sendfile(2)` through hyper, without `unsafe` and without an HTTP implementation of our own.
//!
//! A body that wants to send part of a file yields a slice of one static placeholder and queues (file, offset, length) with
//! the connection. hyper frames the slice like any other; when it hands the slice to the connection for writing, the
//! connection knows it by its address and sends the queued part of the file instead.
//!
//! Invariant: the queue cannot get out of step unnoticed. A slice must begin where its span stands and be as long as what is
//! left of it; anything else is an error that closes the connection, never other bytes.
//!
//! Deliberately absent: TLS, which must see the bytes (its connections have no queue, and bodies then yield bytes).

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::sendfile,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::Span;
use crate::{interim::Waiting, presence::Transport};

/// The most bytes of one span: what one wake-up of a connection may keep a worker thread busy with, and the most that is
/// handed to a slow client ahead of time.
pub(super) const MAX_SPAN: usize = 1 << 20;

/// Below this, copying costs less than the extra system call (see the measurements beside the benchmarks).
pub(super) const MIN_SPAN: u64 = 32 << 10;

static PLACEHOLDER: [u8; MAX_SPAN] = [0; MAX_SPAN];

/// The parts of files that a connection has to send, in the order of their placeholders.
#[derive(Debug, Clone, Default)]
pub struct SpanQueue(Arc<Mutex<VecDeque<QueuedSpan>>>);

#[derive(Debug)]
struct QueuedSpan {
    span: Span,
    sent: usize,
    length: usize,
}

impl SpanQueue {
    /// Queues a part of a file, of [`MAX_SPAN`] bytes at most, and returns what to yield for it.
    pub(super) fn push(&self, span: Span) -> Bytes {
        let length = usize::try_from(span.end - span.next)
            .unwrap_or(MAX_SPAN)
            .min(MAX_SPAN);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(QueuedSpan {
                span,
                sent: 0,
                length,
            });
        Bytes::from_static(&PLACEHOLDER[..length])
    }
}

/// A connection that sends files in the place of placeholders.
#[derive(Debug)]
pub struct ZeroCopyStream {
    stream: TcpStream,
    queue: SpanQueue,
    interim: Waiting,
}

impl ZeroCopyStream {
    /// Wraps a connection; bodies that it sends may use the queue.
    pub fn new(stream: TcpStream) -> (Self, SpanQueue) {
        let queue = SpanQueue::default();
        let clone = queue.clone();
        let interim = Waiting::default();
        (
            Self {
                stream,
                queue,
                interim,
            },
            clone,
        )
    }

    /// Where interim responses wait for this connection.
    pub fn interim(&self) -> Waiting {
        self.interim.clone()
    }

    /// Writes the interim responses that wait: they come before anything that hyper writes.
    fn poll_interim(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let written = self.interim.drain(|bytes| self.stream.try_write(bytes));
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_write_ready(cx))?;
                }
                ended => return Poll::Ready(ended),
            }
        }
    }

    /// Sends from the span that `slice` stands for.
    fn poll_send_file(&self, cx: &mut Context<'_>, slice: Placeholder) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let mut queue = self.queue.0.lock().unwrap_or_else(PoisonError::into_inner);
            let out_of_step = || io::Error::other("a placeholder without its file");
            let queued = queue.front_mut().ok_or_else(out_of_step)?;
            if queued.sent != slice.offset || queued.length - queued.sent != slice.length {
                return Poll::Ready(Err(out_of_step()));
            }
            let mut partial = 0;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let mut position = queued.span.next;
                let (socket, file) = (self.stream.as_fd(), queued.span.file.as_fd());
                match sendfile(socket, file, Some(&mut position), slice.length)? {
                    sent if 0 < sent && sent < slice.length && is_full(&self.stream) => {
                        partial = sent;
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    sent => Ok(sent),
                }
            });
            let sent = if partial > 0 { Ok(partial) } else { sent };
            match sent {
                // The file is shorter than it was: an end here would look like the end of the body.
                Ok(0) => {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    queued.span.suspect_on(&error);
                    return Poll::Ready(Err(error));
                }
                Ok(count) => {
                    queued.span.next += count as u64;
                    queued.sent += count;
                    if queued.sent == queued.length {
                        queue.pop_front();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    queued.span.suspect_on(&error);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl Transport for ZeroCopyStream {
    fn line(&self) -> Option<BorrowedFd<'_>> {
        Some(self.stream.as_fd())
    }

    fn nudge(&self) {
        self.interim.nudge();
    }
}

/// Whether `socket` has taken all it can: asking it again before it says that there is room would be in vain, and read the
/// file in vain, too. What was taken only in part may also have been cut short by the file, which must be asked again at once.
pub(crate) fn is_full(socket: &TcpStream) -> bool {
    let mut asked = [PollFd::new(socket, PollFlags::OUT)];
    matches!(poll(&mut asked, Some(&Timespec::default())), Ok(0))
}

/// A slice of [`PLACEHOLDER`].
#[derive(Debug, Clone, Copy)]
struct Placeholder {
    offset: usize,
    length: usize,
}

impl Placeholder {
    fn of(slice: &[u8]) -> Option<Self> {
        let offset = slice.as_ptr().addr().checked_sub(PLACEHOLDER.as_ptr().addr())?;
        (offset < MAX_SPAN && !slice.is_empty()).then_some(Self {
            offset,
            length: slice.len(),
        })
    }
}

impl AsyncRead for ZeroCopyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ZeroCopyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.interim.writes();
        match Placeholder::of(bytes) {
            Some(slice) => self.poll_send_file(cx, slice),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.interim.writes();
        let first = slices.iter().position(|slice| Placeholder::of(slice).is_some());
        match first {
            Some(0) => match Placeholder::of(&slices[0]) {
                Some(slice) => self.poll_send_file(cx, slice),
                None => Poll::Ready(Ok(0)),
            },
            // What stands before the placeholder goes first.
            Some(ordinary) => Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..ordinary]),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        }
    }

    /// Must be true: else hyper copies the placeholders into a buffer of its own, and their address is lost.
    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper comes here only when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.interim.flushed(cx.waker());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn connected() -> (ZeroCopyStream, SpanQueue, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, queue) = ZeroCopyStream::new(listener.accept().await.unwrap().0);
        (stream, queue, client)
    }

    fn part(file: &Arc<File>, next: u64, length: u64) -> Span {
        Span {
            file: Arc::clone(file),
            next,
            end: next + length,
            in_use: None,
        }
    }

    fn file(content: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Arc::new(file)
    }

    #[tokio::test]
    async fn placeholders_become_the_bytes_of_their_files_in_order() {
        let (mut stream, queue, mut client) = connected().await;
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let file = file(&content);
        let first = queue.push(part(&file, 10, 300_000));
        let second = queue.push(part(&file, 0, 5));
        let sending = async {
            stream.write_all(b"head").await.unwrap();
            stream.write_all(&first).await.unwrap();
            stream.write_all(b"-").await.unwrap();
            stream.write_all(&second).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (read, ()) = tokio::join!(client.read_to_end(&mut received), sending);
        read.unwrap();
        let expected = [b"head", &content[10..300_010], b"-", &content[..5]].concat();
        assert!(received == expected);
    }

    #[tokio::test]
    async fn a_placeholder_that_does_not_fit_its_span_is_an_error() {
        let (mut stream, queue, _client) = connected().await;
        let yielded = queue.push(part(&file(b"0123456789"), 0, 10));
        assert!(stream.write_all(&yielded[..5]).await.is_err());
        assert!(stream.write_all(&yielded[1..]).await.is_err());
        let (mut stream, _queue, _client) = connected().await;
        assert!(stream.write_all(&yielded).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_has_become_shorter_is_an_error() {
        let (mut stream, queue, _client) = connected().await;
        let yielded = queue.push(part(&file(b"01234"), 0, 10));
        assert!(stream.write_all(&yielded).await.is_err());
    }
}
