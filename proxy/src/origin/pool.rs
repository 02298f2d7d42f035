//! The connections to one origin: kept, bounded, shared.
//!
//! At most `limits.connections_per_origin` are open, idle ones included: a request takes a permit (in the order of arrival), then
//! the idle connection used last, and makes a new one only when none is idle. An HTTP/2 connection is one connection, however many
//! requests share it. A connection goes back when the body that it carried was read to its end; one that was left early is closed.
//! Over plain TCP it is without hyper ([`plain`]), which gets it for what is not plain.
//!
//! The server may close an idle connection at the very moment when a request is sent over it. Then the request goes over a new one:
//! at once where nothing of it was sent, and otherwise only if it is idempotent (RFC 9110 §9.2.2).

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use hyper::client::conn::http2;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    bulk::Bulk,
    connect::{Connector, Stream},
    error::{ConnectError, ExchangeError},
    flow::Arriving,
    lease::{Lease, Place},
    open::{self, Http1},
    outgoing::{Content, Outgoing, Way},
    plain::{self, Heard, Plain},
};

/// How long an idle connection is kept: below the minute or more after which servers close them by themselves.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// A connection whose body was read to its end is ready at once, unless the server never read what was sent to it.
const READY_WITHIN: Duration = Duration::from_millis(100);

/// Bounds on the connections of one origin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) connections: usize,
    pub(super) wait: Duration,
    /// A response head must come within this time.
    pub(super) patience: Duration,
}

/// Why no head came.
#[derive(Debug)]
pub(super) enum NoHead {
    Failed(ExchangeError),
    Stalled,
}

/// An origin with its connections.
pub(super) struct Destination {
    way: Way,
    connector: Connector,
    bounds: Bounds,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
    /// Held by the first connection while nobody knows which version the origin speaks.
    first: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    http2: Option<(http2::SendRequest<Content>, Instant)>,
    /// ALPN chose HTTP/1.1 before.
    speaks_http1: bool,
}

struct Idle {
    connection: Kept,
    since: Instant,
}

/// An HTTP/1.1 connection on which nothing is under way.
pub(super) enum Kept {
    /// Over plain TCP.
    Plain(Plain),
    /// Over TLS, or where something was not plain.
    Hyper(Http1),
}

impl Kept {
    fn is_closed(&self) -> bool {
        match self {
            Self::Plain(plain) => !plain.is_quiet(),
            Self::Hyper(connection) => connection.sender.is_closed(),
        }
    }

    /// Whether it can carry a request now.
    async fn is_ready(&mut self) -> bool {
        match self {
            // It was looked at when it was taken.
            Self::Plain(_) => true,
            // The body before was read to its end; the connection is ready, or closes, within the same moment.
            Self::Hyper(connection) => {
                matches!(timeout(READY_WITHIN, connection.sender.ready()).await, Ok(Ok(())))
            }
        }
    }
}

enum Sender {
    Http1(Kept, OwnedSemaphorePermit),
    Http2(http2::SendRequest<Content>),
}

/// A request that failed, and whether any of it was sent.
struct Unanswered {
    error: hyper::Error,
    is_unsent: bool,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination")
            .field("end", &self.way.end)
            .finish_non_exhaustive()
    }
}

impl Destination {
    /// No connection yet.
    pub(super) fn new(way: Way, connector: Connector, bounds: Bounds) -> Self {
        Self {
            way,
            connector,
            permits: Arc::new(Semaphore::new(bounds.connections)),
            bounds,
            state: Mutex::default(),
            first: tokio::sync::Mutex::new(()),
        }
    }

    /// One exchange up to the head of the final response. Without a lease, the connection needs none.
    ///
    /// # Errors
    /// [`NoHead`].
    ///
    /// # Cancel safety
    /// Dropping it ends the exchange.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        outgoing: &Outgoing<'_>,
    ) -> Result<Response<Arriving>, NoHead> {
        let mut may_reuse = true;
        loop {
            let (sender, is_reused) = self.checkout(may_reuse).await.map_err(NoHead::Failed)?;
            let sending = self.send(sender, outgoing);
            let Ok(sent) = timeout(self.bounds.patience, sending).await else {
                self.lock().http2 = None;
                return Err(NoHead::Stalled);
            };
            match sent {
                Ok(response) => {
                    self.way.check(&response).map_err(NoHead::Failed)?;
                    return Ok(response);
                }
                // A server that answered, with whatever, did not close an idle connection.
                Err(failed) if failed.error.is_parse() => return Err(NoHead::Failed(failed.error.into())),
                Err(failed) if is_reused && (failed.is_unsent || outgoing.is_repeatable) => {
                    // What was idle as long is as stale.
                    let mut state = self.lock();
                    state.idle.clear();
                    state.http2 = None;
                    may_reuse = false;
                }
                Err(failed) => return Err(NoHead::Failed(failed.error.into())),
            }
        }
    }

    /// Makes a connection and keeps it: the answer to whether the origin can be reached again.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(super) async fn probe(self: &Arc<Self>) -> Result<(), ExchangeError> {
        match self.checkout(false).await? {
            (Sender::Http1(connection, permit), _) => self.keep(connection, permit),
            (Sender::Http2(_), _) => {}
        }
        Ok(())
    }

    /// Keeps a connection over which everything was read; `permit` is whose place it has.
    pub(super) fn keep(&self, connection: Kept, permit: OwnedSemaphorePermit) {
        if connection.is_closed() {
            return;
        }
        let since = Instant::now();
        self.lock().idle.push(Idle { connection, since });
        // Whoever waits for the permit finds the connection.
        drop(permit);
    }

    /// See [`super::lease::Place::wide_pieces`].
    pub(super) fn wide_pieces(&self) -> &Arc<Semaphore> {
        &self.connector.wide_pieces
    }

    /// Closes what has been idle for too long; tells whether anything is left.
    pub(super) fn sweep(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state
            .idle
            .retain(|idle| now < idle.since + IDLE_TIMEOUT && !idle.connection.is_closed());
        if state
            .http2
            .as_ref()
            .is_some_and(|(sender, used)| sender.is_closed() || now >= *used + IDLE_TIMEOUT)
        {
            state.http2 = None;
        }
        !state.idle.is_empty() || state.http2.is_some()
    }

    async fn checkout(self: &Arc<Self>, may_reuse: bool) -> Result<(Sender, bool), ExchangeError> {
        if may_reuse && let Some(shared) = self.http2() {
            return Ok((Sender::Http2(shared), true));
        }
        let permit = self.permit().await?;
        while may_reuse && let Some(mut connection) = self.idle() {
            if connection.is_ready().await {
                return Ok((Sender::Http1(connection, permit), true));
            }
        }
        let is_unknown = self.way.tls.is_some() && !self.lock().speaks_http1;
        let _first = if is_unknown {
            Some(self.first.lock().await)
        } else {
            None
        };
        if is_unknown && let Some(shared) = self.http2() {
            return Ok((Sender::Http2(shared), true));
        }
        // Seldom beside what goes over connections that are there, and long: requests on those do not carry room for it.
        let (stream, is_http2) = Box::pin(self.connect()).await?;
        if is_http2 {
            let begun = Box::pin(open::http2(stream, (&self.connector.tasks, permit))).await;
            let sender = begun.map_err(|source| self.no_http(source))?;
            self.lock().http2 = Some((sender.clone(), Instant::now()));
            return Ok((Sender::Http2(sender), false));
        }
        self.lock().speaks_http1 = true;
        let connection = match stream.into_tcp() {
            Ok((stream, _nothing)) => Kept::Plain(Plain::new(stream)),
            Err(stream) => {
                let begun = Box::pin(open::http1(stream, &self.connector.tasks)).await;
                Kept::Hyper(begun.map_err(|source| self.no_http(source))?)
            }
        };
        Ok((Sender::Http1(connection, permit), false))
    }

    fn no_http(&self, source: hyper::Error) -> ConnectError {
        ConnectError::Handshake {
            to: self.way.end.to_string(),
            source,
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, ExchangeError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let waiting = Arc::clone(&self.permits).acquire_owned();
        match timeout(self.bounds.wait, waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(ExchangeError::NoConnectionFree {
                to: self.way.end.to_string(),
                limit: self.bounds.connections,
                waited: self.bounds.wait,
            }),
        }
    }

    fn http2(&self) -> Option<http2::SendRequest<Content>> {
        let mut state = self.lock();
        let (sender, used) = state.http2.as_mut()?;
        if sender.is_closed() {
            state.http2 = None;
            return None;
        }
        *used = Instant::now();
        Some(sender.clone())
    }

    fn idle(&self) -> Option<Kept> {
        let now = Instant::now();
        let mut state = self.lock();
        while let Some(idle) = state.idle.pop() {
            if now < idle.since + IDLE_TIMEOUT && !idle.connection.is_closed() {
                return Some(idle.connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<(Stream, bool), ConnectError> {
        let Way {
            end,
            tls,
            parent,
            parent_tls,
            ..
        } = &self.way;
        match (parent, tls) {
            (None, tls) => self.connector.direct(end, tls.as_ref()).await,
            (Some(parent), None) => Ok((self.connector.to_parent(parent, parent_tls).await?, false)),
            (Some(parent), Some(tls)) => {
                let tunnel = self.connector.tunnel(end, parent, parent_tls).await?;
                self.connector.tls(tunnel, end, tls).await
            }
        }
    }

    async fn send(
        self: &Arc<Self>,
        sender: Sender,
        outgoing: &Outgoing<'_>,
    ) -> Result<Response<Arriving>, Unanswered> {
        match sender {
            Sender::Http1(kept, permit) => {
                let stream: Stream = match kept {
                    Kept::Hyper(connection) => {
                        return Box::pin(self.send_by_hyper(connection, permit, outgoing)).await;
                    }
                    Kept::Plain(plain) if outgoing.is_plain() => {
                        match plain.ask(&self.way.head(outgoing)).await {
                            Heard::Answer(answer) => return Ok(self.arrived(*answer, permit)),
                            Heard::Difficult(rewound) => Box::new(rewound),
                        }
                    }
                    Kept::Plain(plain) => Box::new(plain.into_stream()),
                };
                let begun = Box::pin(open::http1(stream, &self.connector.tasks)).await;
                let connection = begun.map_err(|error| Unanswered {
                    error,
                    is_unsent: false,
                })?;
                Box::pin(self.send_by_hyper(connection, permit, outgoing)).await
            }
            Sender::Http2(mut sender) => {
                let request = self.way.request(outgoing, true);
                let response = sender.try_send_request(request).await.map_err(unanswered)?;
                Ok(response.map(|incoming| Arriving::Hyper(incoming, None)))
            }
        }
    }

    async fn send_by_hyper(
        self: &Arc<Self>,
        mut connection: Http1,
        permit: OwnedSemaphorePermit,
        outgoing: &Outgoing<'_>,
    ) -> Result<Response<Arriving>, Unanswered> {
        let request = self.way.request(outgoing, false);
        let sending = connection.sender.try_send_request(request);
        let response = sending.await.map_err(unanswered)?;
        let lease = Lease {
            destination: Arc::clone(self),
            connection,
            permit,
        };
        Ok(response.map(|incoming| Arriving::Hyper(incoming, Some(lease))))
    }

    /// A plain answer; the connection is for others where all of it is here.
    fn arrived(self: &Arc<Self>, answer: plain::Answer, permit: OwnedSemaphorePermit) -> Response<Arriving> {
        let plain::Answer {
            head,
            come,
            length,
            connection,
            may_be_kept,
        } = answer;
        let content = if come.len() as u64 == length {
            if may_be_kept {
                self.keep(Kept::Plain(connection), permit);
            }
            Arriving::Here(come)
        } else {
            let place = Place {
                destination: Arc::clone(self),
                permit,
            };
            let bulk = Bulk::of(connection.into_stream(), (place, may_be_kept), come, length);
            Arriving::Bulk(Box::new(bulk))
        };
        Response::from_parts(head, content)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unanswered(mut failed: hyper::client::conn::TrySendError<Request<Content>>) -> Unanswered {
    Unanswered {
        is_unsent: failed.take_message().is_some(),
        error: failed.into_error(),
    }
}
