//! A static file server on loopback: an upgrade host, or any origin that serves files.
//!
//! It counts what it is asked, per path and by method of answering, answers ranges with entity tags (RFC 9110 §13–14),
//! and can be told to fail: each fault is switched on for a path suffix and off again, while it runs.

mod answer;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

/// What goes wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed after this many bytes of the body, although more were announced.
    Truncate(u64),
    /// This status instead of the file.
    Status(u16),
    /// Nothing more comes after this many bytes of the body; the connection stays open.
    Stall(u64),
    /// The body never ends: zeros follow the file, without a length announced.
    Endless,
    /// The first byte of the body is another one; size and entity tag stay.
    Alter,
    /// The whole file is sent although a range was asked for.
    IgnoreRange,
    /// The same, and it has no entity tag.
    Plain,
}

/// A fault and for how many more requests it is in force; `None` is until it is cleared.
type Armed = (String, Fault, Option<u32>);

#[derive(Debug, Default)]
struct State {
    requests: BTreeMap<String, u64>,
    bodies: BTreeMap<String, u64>,
    ranges: BTreeMap<String, u64>,
    bytes: u64,
    faults: Vec<Armed>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server; it stops when it is dropped.
#[derive(Debug)]
pub struct StaticServer {
    address: SocketAddr,
    url: Url,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
    _stop: DropGuard,
}

impl StaticServer {
    /// Serves `folder` on a free port of loopback.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(folder: &Path) -> std::io::Result<Self> {
        Self::start_on(folder, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Serves `folder` on `address`.
    ///
    /// # Errors
    /// When it cannot be bound.
    #[expect(
        clippy::unused_async,
        reason = "it needs the runtime, which a caller that awaits has"
    )]
    pub async fn start_on(folder: &Path, address: SocketAddr) -> std::io::Result<Self> {
        Self::start_with(folder, std::net::TcpListener::bind(address)?)
    }

    /// Serves `folder` on a listener that was made elsewhere, e.g. inside the lab.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn start_with(folder: &Path, listener: std::net::TcpListener) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            state: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared), stop.clone()));
        Ok(Self {
            address,
            url: Url::parse(&format!("http://{address}/")).map_err(std::io::Error::other)?,
            shared,
            _tasks: tasks,
            _stop: stop.drop_guard(),
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL with a final slash, e.g. `http://127.0.0.1:40123/`.
    pub fn url(&self) -> Url {
        self.url.clone()
    }

    /// How often each path was asked for, with any outcome. Paths begin with a slash.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.shared.state().requests.clone()
    }

    /// How often each path was answered with a body, whole or a range.
    pub fn bodies(&self) -> BTreeMap<String, u64> {
        self.shared.state().bodies.clone()
    }

    /// How often each path was answered with a range.
    pub fn ranges(&self) -> BTreeMap<String, u64> {
        self.shared.state().ranges.clone()
    }

    /// How often paths that end with `suffix` were asked for.
    pub fn count(&self, suffix: &str) -> u64 {
        let state = self.shared.state();
        let matching = state.requests.iter().filter(|(path, _)| path.ends_with(suffix));
        matching.map(|(_, count)| count).sum()
    }

    /// All requests together.
    pub fn total(&self) -> u64 {
        self.shared.state().requests.values().sum()
    }

    /// Bytes of bodies that were handed to connections.
    pub fn bytes(&self) -> u64 {
        self.shared.state().bytes
    }

    /// Sets all counters to zero.
    pub fn reset(&self) {
        let mut state = self.shared.state();
        let faults = std::mem::take(&mut state.faults);
        *state = State {
            faults,
            ..State::default()
        };
    }

    /// From now on, paths that end with `suffix` fail.
    pub fn fail(&self, suffix: &str, fault: Fault) {
        self.shared.state().faults.push((suffix.to_owned(), fault, None));
    }

    /// The next `times` requests of paths that end with `suffix` fail.
    pub fn fail_times(&self, suffix: &str, fault: Fault, times: u32) {
        self.shared
            .state()
            .faults
            .push((suffix.to_owned(), fault, Some(times)));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.shared.state().faults.clear();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    while let Some(Ok((stream, _peer))) = stop.run_until_cancelled(listener.accept()).await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(answer::answer(&shared, &request)) }
            });
            // A client that goes away is part of many tests.
            let _gone = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
