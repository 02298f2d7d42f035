//! The connections to origins, and one exchange over one of them.
//!
//! `reqwest` keeps interim responses (1xx) to itself, and a proxy has to pass them on; so requests go to hyper's own client with
//! its pool, and responses are handed on as `reqwest`'s, whose bodies the rest of this folder reads.
//!
//! Deliberately absent: redirects, proxies, decompression, cookies (see the parent module).

use std::{
    error::Error,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::ext::on_informational;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use kato_shared::chain::Chain;
use rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

use super::guard::Guard;
use crate::interim::Interim;

/// Idle connections kept per origin.
const IDLE_PER_HOST: usize = 8;
/// How long one is kept: below the minute or more after which servers close idle connections by themselves.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Why an exchange failed.
pub(super) type ExchangeError = hyper_util::client::legacy::Error;

/// The pool of connections; clones share it.
#[derive(Clone)]
pub(super) struct Connections(Client<HttpsConnector<HttpConnector<Guard>>, Full<Bytes>>);

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl Connections {
    /// Connections to what `guard` allows, each made within `connect_timeout`.
    ///
    /// # Errors
    /// When this build of the TLS library has no protocol version to offer.
    pub(super) fn new(guard: Guard, connect_timeout: Duration) -> Result<Self, rustls::Error> {
        let mut connector = HttpConnector::new_with_resolver(guard);
        connector.set_connect_timeout(Some(connect_timeout));
        connector.set_nodelay(true);
        // The scheme is judged below, by the TLS layer.
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls()?)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .build(connector);
        Ok(Self(client))
    }

    /// One exchange up to the head of the final response; `interim` gets those before it.
    ///
    /// # Errors
    /// When no connection could be made, or none that a response came over.
    ///
    /// # Cancel safety
    /// Dropping it ends the exchange.
    pub(super) async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        interim: Option<Interim>,
    ) -> Result<reqwest::Response, ExchangeError> {
        if let Some(interim) = interim {
            on_informational(&mut request, move |response| {
                interim.send(response.status(), response.headers());
            });
        }
        let response = self.0.request(request).await?;
        Ok(response.map(reqwest::Body::wrap).into())
    }
}

/// Certificates are verified as this host does it.
fn tls() -> Result<ClientConfig, rustls::Error> {
    match builder()?.try_with_platform_verifier() {
        Ok(builder) => Ok(builder.with_no_client_auth()),
        // Plain HTTP, and what is stored, need no certificates: a host without any is served all the same.
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "no https upstream can be verified; install the ca-certificates of this host");
            Ok(builder()?
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth())
        }
    }
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions()
}

/// Whether a connection took too long to be made.
pub(super) fn is_timeout(error: &ExchangeError) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    })
}

/// What lies below `error`, outermost first.
pub(super) fn causes<'e>(error: &'e ExchangeError) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause: &&'e (dyn Error + 'static)| {
        (*cause).source()
    })
}

impl Service<Name> for Guard {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move { Ok(guard.resolve(name.as_str()).await?.into_iter()) })
    }
}
