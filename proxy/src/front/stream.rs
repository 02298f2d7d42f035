//! Answers of which not all is at hand when their head leaves: downloads under way, what an origin sends to this client alone, and
//! several parts.
//!
//! What is at hand leaves together with the head; a body without a known length leaves in chunks (RFC 9112 §7.1).

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use kato_shared::chain::Chain;
use tokio::time::Instant;

use super::{Connection, Wire};
use crate::{
    deliver::{BodyError, Payload, Piece, Record},
    presence::{LOOK, Presence},
};

/// What ends a chunk.
const END_OF_LINE: &[u8] = b"\r\n";
/// The chunk that ends a body, and no trailers.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl<S: Wire> Connection<S> {
    /// Sends `head` and then the body as it comes; `None` when the connection is over.
    pub(super) async fn send_stream(
        &mut self,
        head: &[u8],
        (mut payload, is_chunked): (Payload, bool),
        mut record: Record,
    ) -> Option<()> {
        let takes_files = self.stream.socket().is_some();
        // What goes before the next piece, in one write with it.
        let mut before = head.to_vec();
        loop {
            let next = {
                let mut next = pin!(payload.next(takes_files));
                if let Some(next) = at_once(next.as_mut()).await {
                    next
                } else {
                    self.write_all(&mut before).await?;
                    self.while_there(next).await?
                }
            };
            let Some(piece) = said(next)? else { break };
            if is_chunked {
                before.extend_from_slice(format!("{:x}\r\n", piece.length()).as_bytes());
            }
            match piece {
                Piece::Bytes(bytes) => {
                    let written = self.write(&before, &bytes).await;
                    record.add(written.bytes.saturating_sub(before.len()) as u64);
                    before.clear();
                    written.end.ok()?;
                }
                Piece::File(span) => {
                    self.send_span(&before, span, &mut record).await?;
                    before.clear();
                }
            }
            if is_chunked {
                before.extend_from_slice(END_OF_LINE);
            }
        }
        if is_chunked {
            before.extend_from_slice(LAST_CHUNK);
        }
        self.write_all(&mut before).await?;
        record.is_complete = true;
        Some(())
    }

    /// What `next` has to say; `None` when the client is gone before.
    async fn while_there<F: Future>(&mut self, mut next: Pin<&mut F>) -> Option<F::Output> {
        self.patience.move_to(Instant::now() + LOOK);
        poll_fn(|cx| {
            if let Poll::Ready(next) = next.as_mut().poll(cx) {
                return Poll::Ready(Some(next));
            }
            while self.patience.poll(cx).is_ready() {
                if self.stream.presence() == Presence::Gone {
                    tracing::debug!("an answer was cut short: its client is gone");
                    return Poll::Ready(None);
                }
                self.patience.move_to(Instant::now() + LOOK);
            }
            Poll::Pending
        })
        .await
    }

    /// Writes `bytes`, of which none are left then.
    async fn write_all(&mut self, bytes: &mut Vec<u8>) -> Option<()> {
        if bytes.is_empty() {
            return Some(());
        }
        let written = self.write(bytes, &[]).await;
        bytes.clear();
        written.end.ok()
    }
}

/// What `next` has to say without waiting for anything.
async fn at_once<F: Future>(mut next: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| match next.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// What came; a body that broke off ends the connection, which is how the client sees it.
#[expect(clippy::option_option, reason = "the outer one is the connection's end")]
fn said(next: Result<Option<Piece>, BodyError>) -> Option<Option<Piece>> {
    next.inspect_err(|error| tracing::warn!(error = %Chain(error), "a client's body was cut short"))
        .ok()
}
