//! From a host and port to a stream that HTTP can be spoken over: name, guard, TCP, parent proxy, TLS.
//!
//! ```text
//! direct      resolve → guard → dial → [TLS with the origin]
//! by parent   resolve → guard → dial → [TLS with the parent] → for https targets: CONNECT → TLS with the origin
//! ```
//! The guard judges the address that is connected to, so with a parent it judges the parent's; what the parent resolves was
//! judged by its text before ([`Guard::allows`]).

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::{client::conn::http1, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use kato_shared::chain::Chain;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::TaskTracker;

use super::{
    dial::{Winners, dial},
    dns::Resolver,
    error::ConnectError,
    guard::Guard,
    parent::Parent,
};
use crate::pacing;

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// Whether nothing lies between these bytes and those of a TCP connection.
    fn is_tcp(&self) -> bool {
        false
    }

    /// The TCP connection, where [`Self::is_tcp`], and bytes that come before those of it.
    ///
    /// # Errors
    /// Itself, where there is more than that.
    fn into_tcp(self: Box<Self>) -> Result<(TcpStream, Bytes), Stream>;
}

impl Io for TcpStream {
    fn is_tcp(&self) -> bool {
        true
    }

    fn into_tcp(self: Box<Self>) -> Result<(TcpStream, Bytes), Stream> {
        Ok((*self, Bytes::new()))
    }
}

impl Io for TlsStream<Stream> {
    fn into_tcp(self: Box<Self>) -> Result<(TcpStream, Bytes), Stream> {
        Err(self)
    }
}

impl Io for TokioIo<Upgraded> {
    fn into_tcp(self: Box<Self>) -> Result<(TcpStream, Bytes), Stream> {
        Err(self)
    }
}

/// A connection of whatever kind.
pub type Stream = Box<dyn Io>;

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// As in a URL: IPv6 addresses in brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Makes connections; clones share what was learnt about names and addresses.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) guard: Guard,
    pub(super) resolver: Resolver,
    pub(super) winners: Winners,
    /// For TCP, for TLS, and for an answer to CONNECT: each.
    pub(super) patience: Duration,
    pub(super) tasks: TaskTracker,
    /// See `bulk`.
    pub(super) wide_pieces: Arc<Semaphore>,
}

impl Connector {
    /// A TCP connection to `end`, perhaps with TLS.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropping it ends the attempt.
    pub(super) async fn direct(
        &self,
        end: &End,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<(Stream, bool), ConnectError> {
        let tcp = self.tcp(end).await?;
        match tls {
            Some(config) => self.tls(Box::new(tcp), end, config).await,
            None => Ok((Box::new(tcp), false)),
        }
    }

    /// A connection to `parent`.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub(super) async fn to_parent(
        &self,
        parent: &Parent,
        tls: &Arc<ClientConfig>,
    ) -> Result<Stream, ConnectError> {
        let end = End {
            host: parent.host.clone(),
            port: parent.port,
        };
        let made = self.direct(&end, parent.is_tls.then_some(tls)).await;
        made.map(|(stream, _)| stream)
            .map_err(|source| ConnectError::Parent {
                parent: parent.to_string(),
                source: Box::new(source),
            })
    }

    /// A tunnel to `end` through `parent` (RFC 9110 §9.3.6).
    ///
    /// # Errors
    /// [`ConnectError`]; a refusal is told with its status code, 407 with what the parent wants.
    pub(super) async fn tunnel(
        &self,
        end: &End,
        parent: &Parent,
        tls: &Arc<ClientConfig>,
    ) -> Result<Stream, ConnectError> {
        let stream = self.to_parent(parent, tls).await?;
        let asked = timeout(self.patience, self.ask_for_tunnel(stream, end, parent)).await;
        asked.unwrap_or_else(|_elapsed| {
            Err(ConnectError::Timeout {
                to: format!("{end} through the parent proxy {parent}"),
                waited: self.patience,
            })
        })
    }

    async fn ask_for_tunnel(
        &self,
        stream: Stream,
        end: &End,
        parent: &Parent,
    ) -> Result<Stream, ConnectError> {
        let silent = |source| ConnectError::ParentSilent {
            parent: parent.to_string(),
            source,
        };
        let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(silent)?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(error = %Chain(&error), "a connection to a parent proxy ended");
            }
        });
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::CONNECT;
        let authority = end.to_string();
        let no_authority = || ConnectError::BadHost {
            host: end.host.clone(),
        };
        *request.uri_mut() = Uri::builder()
            .authority(authority.as_str())
            .build()
            .map_err(|_bad| no_authority())?;
        let headers = request.headers_mut();
        headers.insert(
            header::HOST,
            HeaderValue::from_str(&authority).map_err(|_bad| no_authority())?,
        );
        if let Some(authorization) = &parent.authorization {
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        let response = sender.send_request(request).await.map_err(silent)?;
        if !response.status().is_success() {
            return Err(refusal(parent, Some(end), response.status(), response.headers()));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(silent)?;
        Ok(Box::new(TokioIo::new(upgraded)))
    }

    /// TLS over `stream`; tells whether HTTP/2 was agreed on (RFC 7301).
    ///
    /// # Errors
    /// [`ConnectError::Tls`], [`ConnectError::Timeout`].
    pub(super) async fn tls(
        &self,
        stream: Stream,
        end: &End,
        config: &Arc<ClientConfig>,
    ) -> Result<(Stream, bool), ConnectError> {
        let host = end.host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|_no_name| ConnectError::BadHost {
            host: end.host.clone(),
        })?;
        let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
        match timeout(self.patience, connecting).await {
            Ok(Ok(stream)) => {
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Ok((Box::new(stream), is_http2))
            }
            Ok(Err(source)) => Err(ConnectError::Tls {
                to: end.to_string(),
                source,
            }),
            Err(_elapsed) => Err(ConnectError::Timeout {
                to: format!("{end} (TLS)"),
                waited: self.patience,
            }),
        }
    }

    async fn tcp(&self, end: &End) -> Result<TcpStream, ConnectError> {
        let bare = end.host.trim_matches(['[', ']']);
        let found: Arc<[IpAddr]> = match bare.parse::<IpAddr>() {
            Ok(address) => Arc::new([address]),
            Err(_name) => self
                .resolver
                .resolve(bare)
                .await
                .map_err(|source| ConnectError::Name {
                    host: end.host.clone(),
                    source,
                })?,
        };
        let permitted = self
            .guard
            .permitted(&end.host, end.port, &found)
            .map_err(ConnectError::Refused)?;
        let has_choice = permitted.len() > 1;
        let ordered = self.winners.order(bare, permitted);
        let stream = match timeout(self.patience, dial(&ordered)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => {
                return Err(ConnectError::Tcp {
                    to: end.to_string(),
                    source,
                });
            }
            Err(_elapsed) => {
                return Err(ConnectError::Timeout {
                    to: end.to_string(),
                    waited: self.patience,
                });
            }
        };
        if let Ok(peer) = stream.peer_addr() {
            if has_choice {
                self.winners.won(bare, peer.ip());
            }
            pacing::spare(&stream, peer.ip());
        }
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's algorithm");
        }
        Ok(stream)
    }
}

/// What a parent's refusal means.
pub(super) fn refusal(
    parent: &Parent,
    end: Option<&End>,
    status: StatusCode,
    headers: &http::HeaderMap,
) -> ConnectError {
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        let wants = headers
            .get(header::PROXY_AUTHENTICATE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("it does not say which")
            .to_owned();
        return ConnectError::ParentCredentials {
            parent: parent.to_string(),
            sent: parent.authorization.is_some(),
            wants,
        };
    }
    ConnectError::ParentRefused {
        parent: parent.to_string(),
        to: end.map(ToString::to_string).unwrap_or_default(),
        status: status.as_u16(),
    }
}
