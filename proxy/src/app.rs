//! The proxy as one value: settings in, bound addresses out, then a server that runs until it is told to stop.

use std::{io, net::SocketAddr, time::Duration};

use kato_shared::{chain::Chain, clock::Clock};
use tokio::{
    net::TcpListener,
    task::spawn_blocking,
    time::{Instant, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Admin,
    front,
    listener::Serving,
    metrics::Metrics,
    origin::{Origin, OriginError},
    pipeline::Pipeline,
    settings::{InvalidSettings, Settings},
    store::{OpenError, Store},
};

/// How often last-use times are written. A crash forgets at most this much about what was used.
const FLUSH_EVERY: Duration = Duration::from_secs(30);
/// Admin connections at once; a scraper and an operator need few.
const ADMIN_CONNECTIONS: u32 = 64;

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict themselves.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
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
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// No TLS.
    #[error(transparent)]
    Origin(#[from] OriginError),
}

/// A proxy whose addresses are bound, and that serves when [`App::serve`] runs.
#[derive(Debug)]
pub struct App {
    data: TcpListener,
    admin: TcpListener,
    /// Where clients connect.
    pub data_address: SocketAddr,
    /// Where the admin API is.
    pub admin_address: SocketAddr,
    pipeline: Pipeline,
}

impl App {
    /// Binds the addresses and opens the store. No network is needed: upstreams and name servers may be dead.
    ///
    /// # Errors
    /// [`StartError`]; nothing was changed then.
    pub async fn build(settings: Settings, clock: Clock) -> Result<Self, StartError> {
        settings.validate()?;
        // Addresses first: a second process with the same settings should hear of the port, and touch nothing.
        let data = bind("data", "listen", settings.listen.data).await?;
        let admin = bind("admin", "admin", settings.listen.admin).await?;
        let metrics = Metrics::new(&settings);
        let origin = Origin::new(&settings, clock.clone(), metrics.clone())?;
        let (cache, at) = (settings.cache.clone(), clock.clone());
        let store = match spawn_blocking(move || Store::open(&cache, at)).await {
            Ok(opened) => opened?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let (data_address, admin_address) = (
            local(&data, settings.listen.data),
            local(&admin, settings.listen.admin),
        );
        Ok(Self {
            data,
            admin,
            data_address,
            admin_address,
            pipeline: Pipeline::new(settings, store, origin, metrics, clock),
        })
    }

    /// Serves until `shutdown` is cancelled and the grace period is over or nothing is left to do.
    pub async fn serve(self, shutdown: CancellationToken) {
        let limits = self.pipeline.settings().limits.clone();
        let serving = Serving {
            connections: limits.connections,
            header_timeout: limits.header_timeout.get(),
            grace: limits.shutdown_grace.get(),
            shutdown: shutdown.clone(),
            front: Some((
                self.pipeline.clone(),
                front::Times {
                    header: limits.header_timeout.get(),
                    progress: limits.progress_timeout.get(),
                },
            )),
        };
        let over = CancellationToken::new();
        let admin_serving = Serving {
            connections: ADMIN_CONNECTIONS,
            grace: Duration::from_secs(1),
            // Health keeps answering until the end.
            shutdown: over.clone(),
            front: None,
            ..serving.clone()
        };
        let pipeline = self.pipeline.clone();
        let metrics = pipeline.metrics().clone();
        let data = async {
            let answer = {
                let pipeline = pipeline.clone();
                move |request, peer: SocketAddr| {
                    let pipeline = pipeline.clone();
                    async move { pipeline.handle(request, peer.ip()).await }
                }
            };
            let stopping = async {
                shutdown.cancelled().await;
                Instant::now()
            };
            let ((), since) = tokio::join!(serving.run(self.data, answer), stopping);
            // Downloads whose clients have their bytes may still be on their way into the store.
            // One grace period for both.
            if timeout_at(since + limits.shutdown_grace.get(), pipeline.drain())
                .await
                .is_err()
            {
                tracing::warn!("downloads were cut off by the end of the grace period");
            }
            over.cancel();
        };
        let admin = Admin::new(self.pipeline.clone(), shutdown.clone());
        let watching = admin_serving.run(self.admin, move |request, _peer| {
            let admin = admin.clone();
            async move { admin.handle(request).await }
        });
        tokio::join!(
            data,
            watching,
            flush_uses(self.pipeline.store().clone(), over.clone())
        );
        tracing::info!(lan_bytes = metrics.lan_bytes(), "stopped");
    }
}

/// Writes last-use times now and then, and at the end.
async fn flush_uses(store: Store, over: CancellationToken) {
    let mut every = interval(FLUSH_EVERY);
    loop {
        let is_over = tokio::select! {
            _ = every.tick() => false,
            () = over.cancelled() => true,
        };
        let flushed = store.clone();
        if let Ok(Err(error)) = spawn_blocking(move || flushed.flush_uses()).await {
            tracing::warn!(error = %Chain(&error), "last-use times could not be written");
        }
        if is_over {
            return;
        }
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
