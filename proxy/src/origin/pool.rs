//! The connections to one origin: kept, bounded, shared.
//!
//! At most `limits.connections_per_origin` are open, idle ones included: a request takes a permit (in the order of arrival), then
//! the idle connection used last, and makes a new one only when none is idle. An HTTP/2 connection is one connection, however many
//! requests share it. A connection goes back when the body that it carried was read to its end; one that was left early is closed.
//!
//! The server may close an idle connection at the very moment when a request is sent over it. Then the request goes over a new one:
//! at once where nothing of it was sent, and otherwise only if it is idempotent (RFC 9110 §9.2.2).

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http2};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    connect::{Connector, Stream},
    error::{ConnectError, ExchangeError},
    lease::Lease,
    open::{self, Http1},
    outgoing::{Content, Outgoing, Way},
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
    connection: Http1,
    since: Instant,
}

enum Sender {
    Http1(Http1, OwnedSemaphorePermit),
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
    ) -> Result<(Response<Incoming>, Option<Lease>), NoHead> {
        let mut may_reuse = true;
        loop {
            let (sender, is_reused) = self.checkout(may_reuse).await.map_err(NoHead::Failed)?;
            let sending = self.send(sender, outgoing);
            let Ok(sent) = timeout(self.bounds.patience, sending).await else {
                self.lock().http2 = None;
                return Err(NoHead::Stalled);
            };
            match sent {
                Ok((response, lease)) => {
                    self.way.check(&response).map_err(NoHead::Failed)?;
                    return Ok((response, lease));
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
    pub(super) fn keep(&self, connection: Http1, permit: OwnedSemaphorePermit) {
        if connection.sender.is_closed() {
            return;
        }
        let since = Instant::now();
        self.lock().idle.push(Idle { connection, since });
        // Whoever waits for the permit finds the connection.
        drop(permit);
    }

    /// Keeps a connection that hyper does not have.
    pub(super) fn keep_socket(self: Arc<Self>, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let tasks = self.connector.tasks.clone();
        tasks.spawn(async move {
            let opened = open::http1(Box::new(stream), &self.way.end, &self.connector.tasks).await;
            if let Ok(connection) = opened {
                self.keep(connection, permit);
            }
        });
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
            .retain(|idle| now < idle.since + IDLE_TIMEOUT && !idle.connection.sender.is_closed());
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
            // The body before was read to its end; the connection is ready, or closes, within the same moment.
            if matches!(timeout(READY_WITHIN, connection.sender.ready()).await, Ok(Ok(()))) {
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
        let (stream, is_http2) = self.connect().await?;
        if is_http2 {
            let sender = open::http2(stream, &self.way.end, (&self.connector.tasks, permit)).await?;
            self.lock().http2 = Some((sender.clone(), Instant::now()));
            return Ok((Sender::Http2(sender), false));
        }
        let connection = open::http1(stream, &self.way.end, &self.connector.tasks).await?;
        self.lock().speaks_http1 = true;
        Ok((Sender::Http1(connection, permit), false))
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

    fn idle(&self) -> Option<Http1> {
        let now = Instant::now();
        let mut state = self.lock();
        while let Some(idle) = state.idle.pop() {
            if !idle.connection.sender.is_closed() && now < idle.since + IDLE_TIMEOUT {
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
    ) -> Result<(Response<Incoming>, Option<Lease>), Unanswered> {
        match sender {
            Sender::Http1(mut connection, permit) => {
                let request = self.way.request(outgoing, false);
                let sending = connection.sender.try_send_request(request);
                let response = sending.await.map_err(unanswered)?;
                let lease = Lease {
                    destination: Arc::clone(self),
                    connection,
                    permit,
                };
                Ok((response, Some(lease)))
            }
            Sender::Http2(mut sender) => {
                let request = self.way.request(outgoing, true);
                let response = sender.try_send_request(request).await.map_err(unanswered)?;
                Ok((response, None))
            }
        }
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
