//! CONNECT to a host that is opened: the answer says yes, and carries to the listener what it needs to go on.
//!
//! Nothing is asked of the host for that, so what is stored is found with the host unreachable, and with `--offline`.

use http::Response;
use hyper::upgrade::{self, OnUpgrade};
use kato_shared::chain::Chain;
use tokio_rustls::TlsAcceptor;

use super::{Answer, Asked, Inside, Pipeline};
use crate::{deliver::Payload, metrics::Outcome, respond};

/// What becomes of a connection after the answer that carries this: TLS, and then requests about one host.
#[derive(Clone)]
#[expect(
    missing_debug_implementations,
    reason = "a TLS acceptor says nothing about itself"
)]
pub struct Intercept {
    /// The connection, when the client has its answer.
    pub upgrade: OnUpgrade,
    /// With a leaf for the host.
    pub acceptor: TlsAcceptor,
    /// Marks the requests.
    pub inside: Inside,
}

impl Pipeline {
    /// The answer to CONNECT to `host` and `port`, which are opened.
    pub(super) fn intercept(&self, request: Asked, host: &str, port: u16) -> Answer {
        let inside = Inside::new(host, port);
        let Some(authority) = &self.0.authority else {
            tracing::error!(%inside, "no local authority, and a host that is opened");
            return refused(&inside);
        };
        let acceptor = match authority.acceptor(host) {
            Ok(acceptor) => acceptor,
            Err(error) => {
                tracing::error!(%inside, error = %Chain(&error), "CONNECT cannot be opened");
                return refused(&inside);
            }
        };
        let mut response = Response::new(Payload::Empty);
        response.extensions_mut().insert(Intercept {
            upgrade: upgrade::on(request),
            acceptor,
            inside,
        });
        Answer::generated(response, Outcome::Bypass, "opened")
    }
}

fn refused(inside: &Inside) -> Answer {
    let problem = respond::problem(&respond::not_opened(&inside.to_string()));
    Answer::generated(problem, Outcome::Failed, "not-opened")
}
