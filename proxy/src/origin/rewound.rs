//! A connection over which a request was sent and part of its answer was read, in the form in which hyper can go on with it.
//!
//! hyper is given the same request once more. What it writes up to its first flush goes nowhere, since the server has it; after
//! that it reads what was read before, and then the connection itself.
//!
//! Invariant: before that flush nothing can be read. hyper takes what comes before it has asked for a breach of the protocol.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::connect::{Io, Stream};

/// See the module.
#[derive(Debug)]
pub(super) struct Rewound {
    stream: TcpStream,
    /// What was read before.
    read: Bytes,
    /// While the request is written that was sent already.
    again: Option<Again>,
}

#[derive(Debug, Default)]
struct Again {
    has_begun: bool,
    reader: Option<Waker>,
}

impl Rewound {
    /// `stream`, of which `read` was read; `is_asked` says whether any of the request was sent.
    pub(super) fn new(stream: TcpStream, read: Bytes, is_asked: bool) -> Self {
        Self {
            stream,
            read,
            again: is_asked.then(Again::default),
        }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.stream)
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(again) = &mut self.again {
            again.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.read.is_empty() {
            return self.stream().poll_read(cx, into);
        }
        let count = self.read.len().min(into.remaining());
        into.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(again) = &mut self.again {
            again.has_begun = true;
            return Poll::Ready(Ok(bytes.len()));
        }
        self.stream().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(again) = &mut self.again {
            again.has_begun = true;
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        self.stream().poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(again) = self.again.take_if(|again| again.has_begun)
            && let Some(reader) = again.reader
        {
            reader.wake();
        }
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

impl Io for Rewound {
    fn is_tcp(&self) -> bool {
        true
    }

    fn into_tcp(self: Box<Self>) -> Result<(TcpStream, Bytes), Stream> {
        Ok((self.stream, self.read))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn what_was_sent_is_not_sent_again_and_what_was_read_is_read_again_after_that() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut rewound = Rewound::new(stream, Bytes::from_static(b"HTTP/1.1 "), true);
        let is_held = poll_fn(|cx| {
            let mut room = [0; 4];
            let mut into = ReadBuf::new(&mut room);
            Poll::Ready(Pin::new(&mut rewound).poll_read(cx, &mut into).is_pending())
        })
        .await;
        assert!(is_held, "nothing is read before the request is flushed");
        rewound.flush().await.unwrap();
        rewound.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        rewound.flush().await.unwrap();
        server.write_all(b"200 OK").await.unwrap();
        let mut heard = [0; 15];
        rewound.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"HTTP/1.1 200 OK");
        rewound.write_all(b"next").await.unwrap();
        let mut said = [0; 4];
        server.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"next");
    }
}
