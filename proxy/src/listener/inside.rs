//! A CONNECT that was opened: TLS with a leaf for its host, and then HTTP as on any other connection.
//!
//! ```text
//! 200 to CONNECT ─ handshake ─ ALPN h2 ─► HTTP/2
//!                            └ else ────► HTTP/1.1
//! ```
//! Handshake and heads have their times here, too. Each request carries whose it is, and the pipeline holds it to that. The front is
//! not asked: it knows answers by the bytes of a head, and the same bytes mean something else here.

use std::{future::Future, io, os::fd::OwnedFd, pin::Pin};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kato_shared::chain::Chain;
use rustls::AlertDescription::{self, BadCertificate, CertificateUnknown, UnknownCA};
use tokio::time::error::Elapsed;

use super::{
    Peer,
    connection::{Connection, Failure},
    streams::Using,
};
use crate::{
    deliver::ResponseBody,
    pipeline::{Inside, Intercept},
    presence::Held,
};

/// Why there is no TLS with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoTls {
    /// It does not know our authority.
    Distrust(AlertDescription),
    /// It speaks something else.
    NotTls,
    /// It is gone, without a word.
    Left,
    /// It takes too long.
    Slow,
    /// Anything else, which rustls explains.
    Other,
}

impl NoTls {
    fn of(failure: &Failure) -> Self {
        if failure.is::<Elapsed>() {
            return Self::Slow;
        }
        let Some(error) = failure.downcast_ref::<io::Error>() else {
            return Self::Other;
        };
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::AlertReceived(alert @ (UnknownCA | BadCertificate | CertificateUnknown))) => {
                Self::Distrust(*alert)
            }
            Some(rustls::Error::InvalidMessage(_)) => Self::NotTls,
            Some(_) => Self::Other,
            None => Self::Left,
        }
    }

    /// Tells the operator what to do about it.
    fn tell(self, peer: Peer, inside: &Inside, failure: &Failure) {
        const TRUST: &str = "have the client trust the local authority (`kato-proxy ca show`, or /-/ca.crt of this proxy), or use a mirror path";
        let error = Chain(&**failure);
        match self {
            Self::Distrust(alert) => tracing::warn!(
                %peer, %inside, ?alert, hint = TRUST,
                "a client does not trust the local authority"
            ),
            Self::Left => tracing::info!(
                %peer, %inside, %error, hint = TRUST,
                "a client left in its TLS handshake; some do so when they do not trust the local authority"
            ),
            Self::NotTls => tracing::warn!(
                %peer, %inside,
                hint = "set intercept = false for the upstream if something else than https is meant",
                "a client does not speak TLS inside CONNECT; closed"
            ),
            Self::Slow => tracing::info!(%peer, %inside, "a client did not end its TLS handshake in time"),
            Self::Other => tracing::info!(%peer, %inside, %error, "no TLS inside CONNECT"),
        }
    }
}

impl<A, F> Connection<A>
where
    A: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<ResponseBody>> + Send + 'static,
{
    /// Serves what is inside `intercept` until it ends; `line` is a handle to the socket below.
    pub(super) async fn inside(&self, intercept: Intercept, line: Option<OwnedFd>) -> Result<(), Failure> {
        let Intercept {
            upgrade,
            acceptor,
            inside,
        } = intercept;
        let Some(upgraded) = self.opening(upgrade).await? else {
            return Ok(());
        };
        let stream = TokioIo::new(upgraded);
        let stream = match self.opening(acceptor.accept(Held { stream, line })).await {
            Ok(Some(stream)) => stream,
            Ok(None) => return Ok(()),
            Err(failure) => {
                NoTls::of(&failure).tell(self.peer, &inside, &failure);
                return Ok(());
            }
        };
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let equip = move |request: &mut Request<Incoming>| {
            request.extensions_mut().insert(inside.clone());
        };
        if is_http2 {
            self.http2(stream, equip).await
        } else {
            // CONNECT inside CONNECT is refused, so there is nothing to go on with.
            self.http1(Bytes::new(), stream, equip).await.map(drop)
        }
    }

    /// The same beside a connection of HTTP/2 that has other things to do, and is not idle meanwhile.
    pub(super) fn inside_beside(self, intercept: Intercept, using: Using) {
        let (tasks, over) = (self.streams.clone(), self.over.clone());
        let peer = self.peer;
        // Boxed with its type forgotten: HTTP/2 inside holds what HTTP/2 outside holds, this future included.
        let serving: Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>> =
            Box::pin(async move { self.inside(intercept, None).await });
        tasks.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                served = serving => if let Err(error) = served {
                    tracing::debug!(%peer, error = %Chain(&*error), "connection ended");
                },
            }
            drop(using);
        });
    }
}
