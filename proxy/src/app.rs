//! The proxy as one value: settings in, bound addresses out, then a server that runs until it is told to stop.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use kato_shared::{chain::Chain, clock::Clock, telemetry::FilterError};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::spawn_blocking,
    time::{Instant, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{Admin, Reach, access::TokenError},
    beside::Beside,
    inputs::Inputs,
    listener::{Bounds, Door, Peer, Serving, bind_unix},
    metrics::Metrics,
    offline::ServeError,
    origin::OriginError,
    pipeline::{Current, Pipeline},
    reload::Reloader,
    settings::{InvalidSettings, Listen, Settings},
    store::{OpenError, Store},
    tls::{
        Certificates, PairError,
        authority::{Authority, AuthorityError},
    },
};

/// How often what eviction has learned is written down. A crash forgets at most this much of it.
const FLUSH_EVERY: Duration = Duration::from_secs(30);
/// How often another snapshot is looked for.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);
/// Admin connections at once; a scraper and an operator need few.
const ADMIN_CONNECTIONS: u32 = 64;

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict themselves.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// What is to be logged cannot be understood.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// An address cannot be listened on.
    #[error(
        "the {listener} address {address} cannot be listened on\nhint: stop what uses it, or choose another with --{flag}"
    )]
    Listen {
        /// `data` or `admin`.
        listener: &'static str,
        /// The flag that sets it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The token of the admin API cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The admin socket cannot be listened on.
    #[error(
        "the admin socket {} cannot be listened on\nhint: stop what listens there, or make its folder writable for this user",
        path.display()
    )]
    Socket {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// No TLS to origins.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The certificate of the data listener cannot be used.
    #[error("no TLS for clients")]
    Certificate(#[from] PairError),
    /// CONNECT is to be opened for some hosts, and cannot be.
    #[error("no interception")]
    Authority(#[from] AuthorityError),
    /// The snapshot that is to be served is not there, or damaged.
    #[error("no snapshot to serve")]
    Snapshot(#[from] ServeError),
    /// No TLS to clients.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Where operators come in.
#[derive(Debug)]
struct AdminDoors {
    network: TcpListener,
    socket: Option<(UnixListener, PathBuf)>,
}

impl AdminDoors {
    async fn bind(listen: &Listen) -> Result<Self, StartError> {
        let network = bind("admin", "admin", listen.admin).await?;
        let socket = match listen.admin_socket.clone() {
            None => None,
            Some(path) => match bind_unix(&path) {
                Ok(listener) => Some((listener, path)),
                Err(source) => return Err(StartError::Socket { path, source }),
            },
        };
        Ok(Self { network, socket })
    }

    /// Answers operators until the end.
    async fn serve(self, serving: Serving, current: Current, shutdown: CancellationToken) {
        let address = self.network.local_addr().map(|address| address.ip());
        // Who cannot tell how somebody came in takes them for a stranger.
        let of_network = address.map_or(Reach::Network, Reach::of);
        let mut doors = vec![Door::Clear(self.network)];
        let path = self.socket.map(|(listener, path)| {
            doors.push(Door::Unix(listener));
            path
        });
        let answer = move |request, peer: Peer| {
            let reach = match peer {
                Peer::Network(_) => of_network,
                Peer::Local => Reach::Socket,
            };
            let admin = Admin::new(current.load(), shutdown.clone());
            async move { admin.handle(request, reach).await }
        };
        serving.run(doors, answer).await;
        if let Some(path) = path
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::debug!(path = %path.display(), %error, "the admin socket stays behind");
        }
    }
}

/// A proxy whose addresses are bound, and that serves when [`App::serve`] runs.
#[derive(Debug)]
pub struct App {
    /// Where clients come in; they share their permits.
    doors: Vec<Door>,
    admin: AdminDoors,
    beside: Beside,
    certificates: Option<Certificates>,
    /// Where clients connect.
    pub data_address: SocketAddr,
    /// Where clients connect with TLS, if there is such a listener.
    pub tls_address: Option<SocketAddr>,
    /// Where the admin API is.
    pub admin_address: SocketAddr,
    current: Current,
    bounds: watch::Receiver<Bounds>,
    reloader: Reloader,
}

/// Says what `registry.users_file` does not protect.
pub(crate) fn warn_of_what_is_beside_users(settings: &Settings) {
    for beside in settings.beside_users() {
        tracing::warn!(upstream = beside.upstream, hint = beside.hint(), "{beside}");
    }
}

impl App {
    /// Binds the addresses and opens the store. No network is needed: upstreams and name servers may be dead.
    ///
    /// # Errors
    /// [`StartError`]; nothing was changed then.
    pub async fn build(settings: Settings, clock: Clock) -> Result<Self, StartError> {
        let metrics = Metrics::new(&settings);
        let (given, at, counted) = (settings.clone(), clock.clone(), metrics.clone());
        warn_of_what_is_beside_users(&settings);
        let Inputs { origin, pair } = blocking(move || Inputs::read(&given, at, counted)).await?;
        // Addresses before the store: a second process with the same settings should hear of the port, and touch nothing.
        let data = bind("data", "listen", settings.listen.data).await?;
        let tls = match settings.listen.tls {
            Some(address) => Some(bind("TLS", "listen-tls", address).await?),
            None => None,
        };
        let admin = AdminDoors::bind(&settings.listen).await?;
        let (cache, at) = (settings.cache.clone(), clock.clone());
        let store = blocking(move || Store::open(&cache, at)).await?;
        let (folder, hosts, at) = (settings.ca_dir(), settings.intercepted_hosts(), clock.clone());
        let authority = blocking(move || Authority::ready(&folder, &hosts, &at)).await?;
        let certificates = pair.map(Certificates::new);
        let data_address = local(&data, settings.listen.data);
        let admin_address = local(&admin.network, settings.listen.admin);
        let tls_address = tls.as_ref().and_then(|listener| listener.local_addr().ok());
        let mut doors = vec![Door::Clear(data)];
        if let Some((listener, certificates)) = tls.zip(certificates.as_ref()) {
            doors.push(Door::Tls(listener, certificates.acceptor()?));
        }
        let (bounds, watched) = watch::channel(Bounds::of(&settings.limits));
        let opened = store.clone();
        let beside = blocking(move || Beside::listen(&opened, data_address)).await;
        let pipeline = Pipeline::new(settings, store, origin, metrics, clock, authority);
        let looking = pipeline.clone();
        blocking(move || looking.look_for_snapshot()).await?;
        let current = Current::new(pipeline);
        Ok(Self {
            doors,
            admin,
            beside,
            data_address,
            tls_address,
            admin_address,
            reloader: Reloader::new(current.clone(), bounds, certificates.clone()),
            certificates,
            bounds: watched,
            current,
        })
    }

    /// The way to replace the settings while serving.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Serves until `shutdown` is cancelled and the grace period is over or nothing is left to do.
    pub async fn serve(self, shutdown: CancellationToken) {
        let over = CancellationToken::new();
        let serving = Serving {
            bounds: self.bounds.clone(),
            shutdown: shutdown.clone(),
            front: Some(self.current.clone()),
            metrics: self.current.load().metrics().clone(),
        };
        // Health keeps answering until the end, whatever the settings say meanwhile.
        let (_unchanging, admin_bounds) = watch::channel(Bounds {
            connections: ADMIN_CONNECTIONS,
            connections_per_client: ADMIN_CONNECTIONS,
            grace: Duration::from_secs(1),
            ..*self.bounds.borrow()
        });
        let admin_serving = Serving {
            bounds: admin_bounds,
            shutdown: over.clone(),
            front: None,
            // Those who watch are not counted among those who are watched.
            metrics: Metrics::new(&Settings::default()),
        };
        // Shared by all generations of the settings.
        let first = self.current.load();
        let data = async {
            let answer = {
                let current = self.current.clone();
                move |request, peer: Peer| {
                    let pipeline = current.load();
                    async move { pipeline.handle(request, peer.ip()).await }
                }
            };
            let stopping = async {
                shutdown.cancelled().await;
                Instant::now()
            };
            let ((), since) = tokio::join!(serving.run(self.doors, answer), stopping);
            // Downloads whose clients have their bytes may still be on their way into the store.
            // One grace period for both.
            let grace = self.bounds.borrow().grace;
            if timeout_at(since + grace, first.drain()).await.is_err() {
                tracing::warn!("downloads were cut off by the end of the grace period");
            }
            over.cancel();
        };
        let watching = self
            .admin
            .serve(admin_serving, self.current.clone(), shutdown.clone());
        let certificates = async {
            if let Some(certificates) = self.certificates {
                certificates.watch(over.clone()).await;
            }
        };
        tokio::join!(
            data,
            certificates,
            watching,
            self.beside.serve(self.current.clone(), over.clone()),
            upkeep(first.store().clone(), over.clone()),
            snapshots(self.current.clone(), over.clone())
        );
        tracing::info!(lan_bytes = first.metrics().lan_bytes(), "stopped");
    }
}

/// Looks after the store now and then; at the end makes durable what is not yet.
async fn upkeep(store: Store, over: CancellationToken) {
    let mut every = interval(FLUSH_EVERY);
    loop {
        let is_over = tokio::select! {
            _ = every.tick() => false,
            () = over.cancelled() => true,
        };
        let flushed = store.clone();
        let writing = spawn_blocking(move || {
            if is_over {
                flushed.flush();
            }
            flushed.upkeep()
        });
        if let Ok(Err(error)) = writing.await {
            tracing::warn!(error = %Chain(&error), "the store could not be looked after");
        }
        if is_over {
            return;
        }
    }
}

/// Looks for the snapshot that is to be served, as long as there is no network.
async fn snapshots(current: Current, over: CancellationToken) {
    let mut every = interval(SNAPSHOT_EVERY);
    let mut said = String::new();
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = over.cancelled() => return,
        }
        let pipeline = current.load();
        if !pipeline.settings().offline {
            continue;
        }
        let looked = spawn_blocking(move || pipeline.look_for_snapshot()).await;
        let says = match looked {
            Ok(Err(error)) => Chain(&error).to_string(),
            Ok(Ok(())) | Err(_) => String::new(),
        };
        if !says.is_empty() && says != said {
            tracing::warn!(error = says, "the snapshot that is served stays");
        }
        said = says;
    }
}

/// Runs what blocks, away from the workers.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

async fn bind(
    listener: &'static str,
    flag: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen {
            listener,
            flag,
            address,
            source,
        })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}
