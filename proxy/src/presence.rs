//! Whether a client is still there while nothing is written to it: a request whose client has left must not keep its place until its
//! origin says something.
//!
//! A FIN alone does not tell. A client that has shut its sending side down and waits for its answer ("half-close", [RFC 9293 §3.6])
//! and one that has closed its socket look the same until something is sent to them: the kernel of the first takes it, that of the second
//! answers with a reset. So, step by step:
//!
//! * reset: gone, and the request is dropped;
//! * FIN: asked once by an interim response, 100, which a client that did not ask for it "can simply discard" ([RFC 9110 §15.2.1]);
//!   where none can be sent (HTTP/1.0, and what hyper serves over TLS) the kernel's own probes find out (`listener::socket`);
//! * neither: there.
//!
//! Sockets are looked at every [`LOOK`], by one `poll(2)`, and not registered for it: a request that is answered sooner costs nothing.
//!
//! [RFC 9293 §3.6]: https://www.rfc-editor.org/rfc/rfc9293#section-3.6
//! [RFC 9110 §15.2.1]: https://www.rfc-editor.org/rfc/rfc9110#section-15.2.1

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::server::TlsStream;

/// Between two looks at a client that waits.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// What asks the kernel of a client that has sent FIN.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What is known of the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Nothing speaks against it.
    There,
    /// It says nothing more, and may listen.
    Silent,
    /// Nobody hears what is sent.
    Gone,
}

/// A stream over a socket.
pub(crate) trait Transport {
    /// The socket, where it is known.
    fn line(&self) -> Option<BorrowedFd<'_>>;

    /// Sends an interim response where it cannot cut anything in two, if there is such a place.
    fn nudge(&self) {}

    /// What the kernel knows of the other end.
    fn presence(&self) -> Presence {
        self.line().map_or(Presence::There, of)
    }
}

impl Transport for TcpStream {
    fn line(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

impl Transport for UnixStream {
    fn line(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

impl<T: Transport> Transport for TlsStream<T> {
    fn line(&self) -> Option<BorrowedFd<'_>> {
        self.get_ref().0.line()
    }
}

#[cfg(test)]
impl Transport for tokio::io::DuplexStream {
    fn line(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A stream of which another handle to its socket is held, as it does not show it.
#[derive(Debug)]
pub(crate) struct Held<S> {
    pub(crate) stream: S,
    pub(crate) line: Option<OwnedFd>,
}

impl<S> Transport for Held<S> {
    fn line(&self) -> Option<BorrowedFd<'_>> {
        self.line.as_ref().map(AsFd::as_fd)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn of(socket: BorrowedFd<'_>) -> Presence {
    let mut asked = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    if !matches!(poll(&mut asked, Some(&Timespec::default())), Ok(1..)) {
        return Presence::There;
    }
    if asked[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
        Presence::Gone
    } else {
        Presence::Silent
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, server) = tokio::join!(client, listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    async fn until(server: &TcpStream, expected: Presence) {
        let seen = async {
            while server.presence() != expected {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap();
    }

    #[tokio::test]
    async fn a_fin_is_silence_whether_half_or_whole_and_an_interim_response_tells_them_apart() {
        let (mut half, mut server) = pair().await;
        assert_eq!(server.presence(), Presence::There);
        half.shutdown().await.unwrap();
        until(&server, Presence::Silent).await;
        server.write_all(CONTINUE).await.unwrap();
        assert_eq!(server.presence(), Presence::Silent);

        let (whole, mut server) = pair().await;
        drop(whole);
        until(&server, Presence::Silent).await;
        server.write_all(CONTINUE).await.unwrap();
        until(&server, Presence::Gone).await;
    }

    #[tokio::test]
    async fn a_reset_and_a_process_that_is_gone_are_seen_at_once() {
        let (mut client, mut server) = pair().await;
        // What was not read makes the close a reset.
        server.write_all(b"x").await.unwrap();
        client.readable().await.unwrap();
        client.flush().await.unwrap();
        drop(client);
        until(&server, Presence::Gone).await;
        let (client, server) = UnixStream::pair().unwrap();
        assert_eq!(server.presence(), Presence::There);
        drop(client);
        assert_eq!(server.presence(), Presence::Gone);
    }
}
