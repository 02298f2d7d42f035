//! The first bytes of a connection in clear: which protocol they begin.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// "In HTTP/2, each endpoint is required to send a connection preface as a final confirmation of the protocol in use" (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The most bytes read before deciding: a request head of usual size comes with the first read.
const FIRST_READ: usize = 8 << 10;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, or what its parser will refuse.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS, at a door that speaks none. Container clients that may do without it try it first, and wait for an answer that a reader of
    /// HTTP would never give.
    Tls,
}

/// The type of the first record of TLS, `handshake` (RFC 8446 §5.1); no method begins with that byte.
const HANDSHAKE: u8 = 0x16;

impl Protocol {
    /// What `first` begins; `None` while that cannot be known.
    fn of(first: &[u8]) -> Option<Self> {
        if first.first() == Some(&HANDSHAKE) {
            Some(Self::Tls)
        } else if first.starts_with(PREFACE) {
            Some(Self::Http2)
        } else if PREFACE.starts_with(first) {
            // Also the empty beginning.
            None
        } else {
            Some(Self::Http1)
        }
    }
}

/// Reads from `stream` until its protocol is known; `None` when it ends before.
///
/// # Errors
/// When reading fails.
pub(super) async fn read_opening(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(Protocol, Bytes)>> {
    let mut first = BytesMut::with_capacity(FIRST_READ);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Ok(None);
        }
        if let Some(protocol) = Protocol::of(&first) {
            return Ok(Some((protocol, first.freeze())));
        }
    }
}

/// A stream of which the first bytes were read already.
#[derive(Debug)]
pub(super) struct Reread<S> {
    ahead: Bytes,
    stream: S,
}

impl<S> Reread<S> {
    pub(super) fn new(ahead: Bytes, stream: S) -> Self {
        Self { ahead, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Reread<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
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
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Reread<S> {
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn rfc9113_s3_4_the_preface_decides_and_nothing_shorter() {
        for length in 0..PREFACE.len() {
            assert_eq!(Protocol::of(&PREFACE[..length]), None);
        }
        assert_eq!(Protocol::of(PREFACE), Some(Protocol::Http2));
        assert_eq!(Protocol::of(&[PREFACE, b"more"].concat()), Some(Protocol::Http2));
        for other in [&b"G"[..], b"PROPFIND", b"PRI * HTTP/1.1\r\n"] {
            assert_eq!(Protocol::of(other), Some(Protocol::Http1));
        }
        assert_eq!(Protocol::of(b"\x16\x03"), Some(Protocol::Tls));
    }

    #[tokio::test]
    async fn what_was_read_to_decide_is_read_again() {
        let (mut client, mut server) = tokio::io::duplex(7);
        let sending = async {
            client.write_all(b"PRI * HTTQ and more").await.unwrap();
            client.shutdown().await.unwrap();
        };
        let reading = async {
            let (protocol, ahead) = read_opening(&mut server).await.unwrap().unwrap();
            assert_eq!(protocol, Protocol::Http1);
            let mut all = String::new();
            Reread::new(ahead, server).read_to_string(&mut all).await.unwrap();
            assert_eq!(all, "PRI * HTTQ and more");
        };
        tokio::join!(sending, reading);
    }
}
