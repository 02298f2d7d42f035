//! The short way of plain requests over HTTP/1.1: served without hyper.
//!
//! ```text
//! read     bytes up to the end of a head
//! prepared the same head was answered a moment ago: the same answer again
//! at hand  the layers of the pipeline, as far as the store alone can answer
//! asked    all layers of the pipeline; interim responses pass meanwhile
//! send     head and body in one write; files, and downloads that are written to one, by sendfile(2)
//! ```
//!
//! Anything else (another method, content, a condition of the connection, any doubt about the head) hands the connection over to
//! hyper with the bytes read so far, for good. So there is one implementation of everything difficult, and nothing here decides
//! anything about caching: `Pipeline::at_hand` and `Pipeline::answered` go through the same functions as every request.
//!
//! Why: a hit of 1 KiB costs a read, a write and their share of an `epoll_wait`, about as much as hyper's way through tasks,
//! body frames and its own buffers costs on top of them.
//!
//! Invariants:
//! * Answers are sent in the order of their requests; the next head is looked at when the answer before is written whole.
//! * A connection that makes no progress is dropped: a head has its time from its first bytes on, an idle connection another, and
//!   a client must take some byte of its answer within a third.
//! * After the shutdown began no request is answered here: hyper says `Connection: close`. One that has no answer when its grace
//!   is over gets 503.
//! * A client that left before its answer is noticed (`presence`), and its request dropped.

mod asked;
mod head;
mod patience;
mod prepared;
mod send;
mod stream;

use std::{
    future::{Future, poll_fn},
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::{Extensions, HeaderValue, Method, header, request};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::server::TlsStream;
use tokio_util::{io::poll_read_buf, sync::WaitForCancellationFutureOwned};

pub use prepared::{Prepared, Ready, ReadyBody};

use crate::{
    interim::Waiting,
    pipeline::{Current, Pipeline},
    presence::{CONTINUE, Transport},
    view::OverTls,
};
use asked::Unanswered;
use patience::Patience;

/// Room for the bytes of requests: heads are a few hundred bytes, and a read that leaves room free tells that nothing more
/// is there.
const ROOM: usize = 4 << 10;

/// A head that has not ended after this many bytes is left to hyper, which has a limit of its own.
const MAX_HEAD: usize = 16 << 10;

/// What the front can serve on.
#[expect(private_bounds, reason = "served by this crate alone")]
pub trait Wire: Transport + AsyncRead + AsyncWrite + Unpin + Send {
    /// The socket, where bytes may go past what this type does with them.
    fn socket(&self) -> Option<&TcpStream>;

    /// Sends an interim response by which a client that is gone is found out, where that has no queue of its own.
    fn nudge_through(&mut self, _cx: &mut Context<'_>) {}

    /// Gives a request what is to be known of the connection that it came by.
    fn equip(&self, _request: &mut Extensions) {}
}

impl Wire for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl<T: Wire> Wire for TlsStream<T> {
    /// What is written here must be encrypted first.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    /// Between two answers nothing is under way. It is encrypted whole; what the socket does not take goes with the answer.
    fn nudge_through(&mut self, cx: &mut Context<'_>) {
        if Pin::new(&mut *self).poll_write(cx, CONTINUE).is_ready() {
            let _error_is_met_again = Pin::new(self).poll_flush(cx);
        }
    }

    fn equip(&self, request: &mut Extensions) {
        request.insert(OverTls);
    }
}

/// How long the front waits.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From the first bytes of a head to its end.
    pub head: Duration,
    /// From the end of an answer to the next head.
    pub idle: Duration,
    /// For a client to take some byte of its answer.
    pub progress: Duration,
}

pub use crate::listener::Ending;

/// A connection of which something was read already.
#[derive(Debug)]
pub struct Rest<S> {
    /// The connection.
    pub stream: S,
    /// Bytes that come before those of the connection.
    pub read: Bytes,
}

/// Serves `stream` until it ends, or until it is hyper's.
pub async fn serve<S: Wire>(
    Rest { stream, read }: Rest<S>,
    (current, client): (&Current, IpAddr),
    times: Times,
    ending: &Ending,
) -> Option<Rest<S>> {
    let mut connection = Connection {
        stream,
        read: BytesMut::from(&*read),
        is_inside_head: false,
        times,
        patience: Patience::until(Instant::now() + times.head),
        interim: Waiting::default(),
        shutdown: Box::pin(ending.begun.clone().cancelled_owned()),
    };
    let mut head = Vec::new();
    loop {
        let Some(length) = head::length(&connection.read) else {
            match connection.fill().await {
                Filled::More => continue,
                Filled::End => return None,
                Filled::NotOurs => break,
            }
        };
        let started = Instant::now();
        if ending.begun.is_cancelled() {
            break;
        }
        let pipeline = current.load();
        let asked = &connection.read[..length];
        if let Some(ready) = pipeline.prepared(asked, client, started, &mut head) {
            connection.send_ready(&head, ready).await?;
        } else {
            let Some(request) = head::read(asked) else {
                break;
            };
            let mut answer = match pipeline.at_hand(request, client, started).await {
                Ok(answer) => answer,
                Err(unchanged) => {
                    // The same head once more, where looking at what is at hand has changed it.
                    let request = unchanged.or_else(|| head::read(asked))?;
                    let asked = (&pipeline, request, (client, started));
                    Box::pin(connection.ask_and_send(asked, ending, (&mut head, length))).await?;
                    connection.take(length);
                    continue;
                }
            };
            if let Some(lasting) = answer.lasting.take() {
                let kept = pipeline.to_prepare();
                kept.keep(asked, &answer.head, lasting, &answer.record);
            }
            head::write(&answer.head, &mut head);
            connection.send(&head, answer.payload, answer.record).await?;
            drop(answer.slot);
        }
        connection.take(length);
    }
    Some(Rest {
        stream: connection.stream,
        read: connection.read.freeze(),
    })
}

struct Connection<S> {
    stream: S,
    /// What was read and is not answered.
    read: BytesMut,
    /// Part of a head was read, and its time runs.
    is_inside_head: bool,
    times: Times,
    patience: Patience,
    /// Interim responses to the request that is being answered.
    interim: Waiting,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What became of waiting for more of a head.
enum Filled {
    /// There is more.
    More,
    /// Nobody waits for anything here any more.
    End,
    /// hyper goes on.
    NotOurs,
}

impl<S: Wire> Connection<S> {
    /// The answer to the first `length` bytes is written.
    fn take(&mut self, length: usize) {
        self.is_inside_head = false;
        if length == self.read.len() {
            self.read.clear();
        } else {
            self.read.advance(length);
        }
    }

    /// Has all layers answer the request in the first `length` bytes, and sends that; `None` when the connection is over. `head` is room
    /// for the head of the answer.
    async fn ask_and_send(
        &mut self,
        (pipeline, request, at): (&Pipeline, request::Parts, (IpAddr, Instant)),
        ending: &Ending,
        (head, length): (&mut Vec<u8>, usize),
    ) -> Option<()> {
        let is_head = request.method == Method::HEAD;
        let mut answered = match self.ask(pipeline, request, at, &ending.cut).await {
            Ok(answered) => answered,
            Err(Unanswered::Left) => return None,
            Err(Unanswered::Cut) => {
                self.refuse(head, is_head).await;
                return None;
            }
        };
        if ending.begun.is_cancelled() && self.read.len() == length {
            // Nothing more is answered here, and the client is told so while it can still hear it.
            let close = HeaderValue::from_static("close");
            answered.head.headers.insert(header::CONNECTION, close);
        }
        self.send_answer(head, answered).await
    }

    /// Reads more of a head.
    async fn fill(&mut self) -> Filled {
        if self.read.len() >= MAX_HEAD {
            return Filled::NotOurs;
        }
        if self.read.capacity() - self.read.len() < ROOM / 4 {
            self.read.reserve(ROOM);
        }
        let was_idle = self.read.is_empty();
        if was_idle {
            self.patience.move_to(Instant::now() + self.times.idle);
        } else if !std::mem::replace(&mut self.is_inside_head, true) {
            self.patience.move_to(Instant::now() + self.times.head);
        }
        poll_fn(|cx| {
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.read) {
                // A client that has no more to say may still wait for an answer to what it said.
                Poll::Ready(Ok(0)) if was_idle => return Poll::Ready(Filled::End),
                Poll::Ready(Ok(0)) => return Poll::Ready(Filled::NotOurs),
                Poll::Ready(Ok(_)) => return Poll::Ready(Filled::More),
                Poll::Ready(Err(_)) => return Poll::Ready(Filled::End),
                Poll::Pending => {}
            }
            if self.shutdown.as_mut().poll(cx).is_ready() {
                return Poll::Ready(if was_idle { Filled::End } else { Filled::NotOurs });
            }
            self.patience.poll(cx).map(|()| Filled::End)
        })
        .await
    }
}
