//! Bytes both ways until nothing has gone for a while.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    time::{Instant, sleep_until},
};

use crate::metrics::Tunnelled;

/// Carries bytes between `one` and `other` until both have ended, and returns how many went to `other` and to `one`.
///
/// # Errors
/// When either breaks, and [`io::ErrorKind::TimedOut`] when nothing went in either direction for `patience`.
pub(super) async fn copy_until_idle<A, B>(
    one: A,
    other: &mut B,
    patience: Duration,
    counted: Tunnelled,
) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let begun = Instant::now();
    let moved_at = Arc::new(AtomicU64::new(0));
    let mut one = Watched {
        stream: one,
        begun,
        moved_at: Arc::clone(&moved_at),
        counted,
    };
    let idle = async {
        let mut look = begun + patience;
        loop {
            sleep_until(look).await;
            let moved = begun + Duration::from_millis(moved_at.load(Relaxed));
            if moved + patience <= Instant::now() {
                return;
            }
            look = moved + patience;
        }
    };
    tokio::select! {
        copied = copy_bidirectional(&mut one, other) => copied,
        () = idle => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing went through it")),
    }
}

/// A stream that notes when bytes went in or out of it: whatever moves between two streams moves here.
struct Watched<S> {
    stream: S,
    begun: Instant,
    /// Milliseconds after `begun`.
    moved_at: Arc<AtomicU64>,
    counted: Tunnelled,
}

impl<S> Watched<S> {
    fn moved(&self, bytes: usize) {
        self.counted.passed(bytes as u64);
        let at = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_at.store(at, Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.moved(buffer.filled().len() - before);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.moved(*count);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(count)) = &written {
            self.moved(*count);
        }
        written
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::{metrics::Metrics, settings::Settings};

    #[tokio::test]
    async fn a_tunnel_ends_when_nothing_goes_through_it_and_not_before() {
        let ((mut client, one), (mut server, mut other)) = (duplex(64), duplex(64));
        let patience = Duration::from_millis(100);
        let metrics = Metrics::new(&Settings::default());
        let begun = Instant::now();
        let using = async {
            // Each byte is waited for half of the patience: longer than it in all.
            for _ in 0..4 {
                client.write_all(b"x").await.unwrap();
                assert_eq!(server.read_u8().await.unwrap(), b'x');
                sleep_until(Instant::now() + patience / 2).await;
            }
            Instant::now()
        };
        let (ended, last_use) = tokio::join!(
            copy_until_idle(one, &mut other, patience, metrics.tunnel("any")),
            using
        );
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(last_use - begun >= patience * 2);
        assert_eq!(metrics.tunnel_bytes(), 4, "counted although it did not end well");
    }
}
