//! TLS towards clients: certificate files of the operator, read anew when they change, and the local authority ([`authority`]) that opens
//! what clients ask for by CONNECT.
//!
//! Flow of the files: [`Certificates`] holds the pair in force and hands it to every handshake; [`Certificates::watch`] looks at the files and puts a
//! changed pair in force, [`Certificates::replace`] does so when the settings are read again. Connections that are open keep the
//! keys that they agreed on.
//!
//! Invariant: a pair that cannot be used never replaces one that can. Tools replace the two files one after the other: in between they
//! do not belong together, and the pair before stays until they do.
//!
//! Deliberately absent: certificates for the proxy's own name made here, ACME, client certificates.

mod pair;

pub mod authority;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use kato_shared::chain::Chain;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{task::spawn_blocking, time::interval};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use pair::Stamps;
pub use pair::{Pair, PairError, PairFiles};

/// The protocols that are offered, the preferred one first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How often the files are looked at: two calls of `stat`.
const POLL: Duration = Duration::from_secs(2);

/// The pair in force; clones share it.
#[derive(Debug, Clone)]
pub struct Certificates(Arc<State>);

#[derive(Debug)]
struct State {
    in_force: ArcSwap<CertifiedKey>,
    looked_at: Mutex<LookedAt>,
}

/// What was read last, in force or not.
#[derive(Debug, Clone)]
struct LookedAt {
    files: PairFiles,
    stamps: Stamps,
}

impl Certificates {
    /// `pair` is in force.
    pub fn new(pair: Pair) -> Self {
        let Pair { files, stamps, key } = pair;
        Self(Arc::new(State {
            in_force: ArcSwap::from_pointee(key),
            looked_at: Mutex::new(LookedAt { files, stamps }),
        }))
    }

    /// Puts `pair` in force, and from now on watches its files.
    pub fn replace(&self, pair: Pair) {
        let Pair { files, stamps, key } = pair;
        *self.looked_at() = LookedAt { files, stamps };
        self.0.in_force.store(Arc::new(key));
    }

    /// Looks at the files now and then until `over`, and puts a changed pair in force, or says why not.
    pub async fn watch(&self, over: CancellationToken) {
        let mut ticks = interval(POLL);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = over.cancelled() => return,
            }
            let certificates = self.clone();
            if let Err(panicked) = spawn_blocking(move || certificates.look()).await {
                tracing::error!(%panicked, "the certificate files could not be looked at");
            }
        }
    }

    fn look(&self) {
        let before = self.looked_at().clone();
        let stamps = before.files.stamps();
        if stamps == before.stamps {
            return;
        }
        // Also of a pair that cannot be used: it is spoken of once, and read again when it has changed.
        self.looked_at().stamps = stamps;
        let certificate = before.files.certificate.clone();
        match before.files.load() {
            Ok(pair) => {
                self.replace(pair);
                tracing::info!(certificate = %certificate.display(), "a new certificate is in force");
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the certificate stays as it was");
            }
        }
    }

    fn looked_at(&self) -> MutexGuard<'_, LookedAt> {
        self.0.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What accepts TLS connections with the pair in force at each handshake.
    ///
    /// # Errors
    /// When the provider lacks what TLS 1.2 and 1.3 need.
    pub fn acceptor(&self) -> Result<TlsAcceptor, rustls::Error> {
        acceptor(Arc::new(self.clone()))
    }
}

/// What accepts TLS connections with the certificate that `resolver` chooses at each handshake.
///
/// # Errors
/// When the provider lacks what TLS 1.2 and 1.3 need.
fn acceptor(resolver: Arc<dyn ResolvesServerCert>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Resumption without a table of sessions: clients of a package mirror come back often and briefly.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.in_force.load_full())
    }
}
