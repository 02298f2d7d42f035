//! An origin server on loopback that does what a test tells it: good manners by default, and every fault that a network and a
//! server can show.
//!
//! It speaks HTTP/1.1 over plain TCP by hand, because a library would not let it lie about a length or break off in the middle of a
//! chunk. Each request is recorded before it is answered, so that a test can count what crossed the WAN.
//!
//! Time is not used to synchronise: a test holds a response at a [`Gate`], looks at what the clients have so far, and opens it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

mod resource;
mod wire;

pub use resource::{Fault, Framing, Gate, Resource};

/// Long beside anything that loopback does, short beside a test runner's patience.
const SOON: Duration = Duration::from_secs(20);

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Recorded {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A running origin; it stops when it is dropped.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    state: Arc<State>,
    listening: JoinSet<()>,
}

/// What the connections share.
#[derive(Debug)]
struct State {
    resources: Mutex<HashMap<String, Resource>>,
    log: watch::Sender<Vec<Recorded>>,
    connections: AtomicU64,
    body_bytes: AtomicU64,
}

impl Origin {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("no port for the origin")?;
        Self::listening_at(listener)
    }

    /// Listens with a listener that was made elsewhere, e.g. inside the lab.
    ///
    /// # Errors
    /// When the listener cannot be used, or outside of a runtime.
    pub fn start_with(listener: std::net::TcpListener) -> Result<Self> {
        listener.set_nonblocking(true)?;
        Self::listening_at(TcpListener::from_std(listener)?)
    }

    fn listening_at(listener: TcpListener) -> Result<Self> {
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            resources: Mutex::default(),
            log: watch::Sender::new(Vec::new()),
            connections: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
        });
        let mut listening = JoinSet::new();
        listening.spawn(accept(listener, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            listening,
        })
    }

    /// Serves `resource` at `path`, in place of what was there.
    pub fn serve(&self, path: &str, resource: Resource) {
        self.state.resources().insert(path.to_owned(), resource);
    }

    /// Serves `resource` at `path` to those whose `Accept` names `media_type` first; the others get what [`Self::serve`] has.
    pub fn serve_as(&self, path: &str, media_type: &str, resource: Resource) {
        self.serve(&form(path, media_type), resource);
    }

    /// From now on all that is served wants this `Authorization`.
    pub fn close_to_all_but(&self, authorization: &str) {
        for resource in self.state.resources().values_mut() {
            resource.wanted = Some(authorization.to_owned());
        }
    }

    /// `http://127.0.0.1:PORT` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests for `path` so far, oldest first.
    pub fn requests(&self, path: &str) -> Vec<Recorded> {
        self.state
            .log
            .borrow()
            .iter()
            .filter(|request| request.path == path)
            .cloned()
            .collect()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many bytes of content were handed to sockets so far.
    pub fn body_bytes(&self) -> u64 {
        self.state.body_bytes.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests for `path` have arrived.
    ///
    /// # Errors
    /// When they do not arrive soon.
    pub async fn wait_for_requests(&self, path: &str, count: usize) -> Result<()> {
        let mut log = self.state.log.subscribe();
        let arrived = log.wait_for(|all| all.iter().filter(|request| request.path == path).count() >= count);
        timeout(SOON, arrived)
            .await
            .with_context(|| format!("{count} requests for {path} did not arrive"))??;
        Ok(())
    }

    /// Stops listening and drops every connection; the port stays free, so that connecting is refused.
    pub async fn stop(&mut self) {
        self.listening.shutdown().await;
    }
}

/// Under what a form of the resource at `path` is kept.
fn form(path: &str, media_type: &str) -> String {
    format!("{path} as {media_type}")
}

impl State {
    fn resources(&self) -> MutexGuard<'_, HashMap<String, Resource>> {
        self.resources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts for ever; the connections end with this task.
async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(connection(stream, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection; a client that goes away is no event here.
async fn connection(stream: TcpStream, state: Arc<State>) {
    wire::serve(stream, &state).await.ok();
}

#[cfg(test)]
mod tests;
