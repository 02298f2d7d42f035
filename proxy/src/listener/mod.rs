//! Accepts connections, as many at once as there are permits, and serves HTTP on them.
//!
//! Flow: each [`Door`] has an accept loop of its own; all share the permits. A permit is taken before `accept`: a connection that
//! cannot be served yet waits in the kernel's queue, not in our memory. A client that has its share already is turned away, so that
//! one alone cannot take all permits. What an accepted connection speaks is decided in `connection`, the
//! one place where its first bytes are looked at.
//!
//! On shutdown no more are accepted, idle ones are closed, and answers under way get the grace period; requests that have no answer
//! after it are refused with 503 rather than left without a word.

mod answering;
mod client;
mod connection;
mod inside;
mod opening;
pub(crate) mod refusal;
mod socket;
mod streams;
mod unix;

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    deliver::ResponseBody,
    metrics::Metrics,
    per_client::PerClient,
    permits::{Permit, Permits},
    pipeline::Current,
    seldom::warn_seldom,
    settings::Limits,
};

use connection::Connection;
pub use unix::bind_unix;

/// After `accept` failed (usually: no more file descriptors), how long to wait for some to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// After the grace of the shutdown, how long requests without an answer have to be refused, which takes no more than a write.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Bounds on connections. They may change while serving: a connection has those that were in force when it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once.
    pub connections: u32,
    /// Connections of one client address at once.
    pub connections_per_client: u32,
    /// The time in which a request head must arrive, and a TLS handshake end.
    pub header_timeout: Duration,
    /// The time in which a client must take some of what it is sent.
    pub progress_timeout: Duration,
    /// The time after which a connection without requests is closed.
    pub idle_timeout: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// The time that answers under way get after the shutdown began.
    pub grace: Duration,
}

impl Bounds {
    /// The bounds of the data listeners.
    pub fn of(limits: &Limits) -> Self {
        Self {
            connections: limits.connections,
            connections_per_client: limits.connections_per_client,
            header_timeout: limits.header_timeout.get(),
            progress_timeout: limits.client_progress_timeout.get(),
            idle_timeout: limits.idle_timeout.get(),
            streams: limits.streams,
            grace: limits.shutdown_grace.get(),
        }
    }
}

/// Where connections come in.
pub enum Door {
    /// In clear.
    Clear(TcpListener),
    /// With TLS.
    Tls(TcpListener, TlsAcceptor),
    /// Through a Unix socket, in clear.
    Unix(UnixListener),
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clear(listener) => f.debug_tuple("Clear").field(listener).finish(),
            Self::Tls(listener, _) => f.debug_tuple("Tls").field(listener).finish(),
            Self::Unix(listener) => f.debug_tuple("Unix").field(listener).finish(),
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A client at this address.
    Network(SocketAddr),
    /// A process on this host, through a Unix socket.
    Local,
}

impl Peer {
    /// The address of the client; that of this host for a process on it.
    pub fn ip(self) -> IpAddr {
        match self {
            Self::Network(address) => address.ip(),
            Self::Local => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Local => f.write_str("local"),
        }
    }
}

/// What a door lets in.
enum Accepted {
    Clear(TcpStream),
    Tls(TcpStream, TlsAcceptor),
    Unix(UnixStream),
}

/// The end of serving, step by step.
#[derive(Debug, Clone)]
pub struct Ending {
    /// The shutdown has begun.
    pub begun: CancellationToken,
    /// Its grace is over: what has no answer is refused.
    pub cut: CancellationToken,
}

/// How connections are served.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The bounds in force.
    pub bounds: watch::Receiver<Bounds>,
    /// Cancelled when the shutdown begins.
    pub shutdown: CancellationToken,
    /// Where hits over HTTP/1.1 are answered before hyper reads anything; see [`crate::front`].
    pub front: Option<Current>,
    /// Where connections are counted.
    pub metrics: Metrics,
}

impl Serving {
    /// Serves `doors` until the shutdown and its grace are over; `answer` makes the response.
    pub async fn run<A, F>(mut self, doors: Vec<Door>, answer: A)
    where
        A: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<ResponseBody>> + Send + 'static,
    {
        for door in &doors {
            socket::probe(door);
        }
        let permits = Permits::new(self.bounds.borrow_and_update().connections);
        let clients = PerClient::default();
        let (loops, connections) = (TaskTracker::new(), TaskTracker::new());
        let (cut, over) = (CancellationToken::new(), CancellationToken::new());
        for door in doors {
            let accepting = Accepting {
                serving: self.clone(),
                permits: permits.clone(),
                clients: clients.clone(),
                connections: connections.clone(),
                cut: cut.clone(),
                over: over.clone(),
            };
            loops.spawn(accepting.run(door, answer.clone()));
        }
        loops.close();
        loop {
            tokio::select! {
                () = loops.wait() => break,
                Ok(()) = self.bounds.changed() => {
                    permits.resize(self.bounds.borrow_and_update().connections);
                }
            }
        }
        connections.close();
        let grace = self.bounds.borrow().grace;
        if timeout(grace, connections.wait()).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "the grace period is over; cutting connections"
            );
            cut.cancel();
            let _said_or_not = timeout(LAST_WORDS, connections.wait()).await;
            over.cancel();
            connections.wait().await;
        }
    }
}

/// The accept loop of one door.
struct Accepting {
    serving: Serving,
    permits: Permits,
    clients: PerClient,
    connections: TaskTracker,
    /// Cancelled when the grace period is over.
    cut: CancellationToken,
    /// Cancelled when all has been said.
    over: CancellationToken,
}

impl Accepting {
    async fn run<A, F>(self, door: Door, answer: A)
    where
        A: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<ResponseBody>> + Send + 'static,
    {
        loop {
            let accepted = tokio::select! {
                () = self.serving.shutdown.cancelled() => break,
                accepted = accept(&door, &self.permits) => accepted,
            };
            let (accepted, peer, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let bounds = *self.serving.bounds.borrow();
            // Who is on this host by way of a Unix socket has no address to be told apart by.
            let is_counted = matches!(peer, Peer::Network(_));
            let place = is_counted.then(|| self.clients.take(peer.ip(), bounds.connections_per_client));
            if matches!(place, Some(None)) {
                turn_away(&accepted, peer);
                continue;
            }
            let connection = Connection {
                peer,
                bounds,
                ending: Ending {
                    begun: self.serving.shutdown.clone(),
                    cut: self.cut.clone(),
                },
                streams: self.connections.clone(),
                over: self.over.clone(),
                answer: answer.clone(),
                front: self.serving.front.clone(),
            };
            let over = self.over.clone();
            let open = self.serving.metrics.connected();
            self.connections.spawn(async move {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = connection.serve(accepted) => {}
                }
                drop((permit, place, open));
            });
        }
    }
}

/// Closes a connection beyond the bound of its client. In clear a word goes along, which its client hears if it has not begun to speak.
fn turn_away(accepted: &Accepted, peer: Peer) {
    warn_seldom!(client = %peer.ip(), "a client has more connections than limits.connections_per_client; further ones are closed");
    if let Accepted::Clear(stream) = accepted {
        // A new connection takes this much at once, or the client is gone.
        let _said_or_not = stream.try_write(&refusal::crowded());
    }
}

async fn accept(door: &Door, permits: &Permits) -> io::Result<(Accepted, Peer, Permit)> {
    let permit = permits
        .take()
        .await
        .ok_or_else(|| io::Error::other("no more permits"))?;
    let (accepted, peer) = match door {
        Door::Clear(listener) => {
            let (stream, peer) = listener.accept().await?;
            (Accepted::Clear(stream), Peer::Network(peer))
        }
        Door::Tls(listener, acceptor) => {
            let (stream, peer) = listener.accept().await?;
            (Accepted::Tls(stream, acceptor.clone()), Peer::Network(peer))
        }
        Door::Unix(listener) => (Accepted::Unix(listener.accept().await?.0), Peer::Local),
    };
    Ok((accepted, peer, permit))
}
