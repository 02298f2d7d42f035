//! Pages of our own on the data listener, below `/-/`, which no upstream can be named: what a client needs before it can use the rest.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::{Answer, Pipeline};
use crate::{deliver::Payload, metrics::Outcome, respond};

/// Where the certificate of the local authority is, on either listener.
pub const CA_PATH: &str = "/-/ca.crt";

impl Pipeline {
    /// The page that a request in origin-form asks for, where there is one.
    pub(super) fn own_page<B>(&self, request: &Request<B>) -> Option<Answer> {
        let is_for_us = request.uri().authority().is_none();
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        (is_for_us && is_read && request.uri().path() == CA_PATH).then(|| {
            let page = self.ca_certificate();
            let outcome = if page.status().is_success() {
                Outcome::Hit
            } else {
                Outcome::Refused
            };
            Answer::generated(page, outcome, "own-page")
        })
    }

    /// The certificate of the local authority, PEM; 404 where nothing is opened.
    pub(crate) fn ca_certificate(&self) -> Response<Payload> {
        let Some(authority) = &self.0.authority else {
            return respond::problem(&respond::describe(
                "no-authority",
                "no local authority",
                StatusCode::NOT_FOUND,
                "no upstream has intercept = true, so there is nothing to trust".into(),
                Some("mirror paths and tunnels need no certificate of this proxy".into()),
            ));
        };
        let mut response = Response::new(Payload::bytes(authority.record().certificate.clone()));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/pem-certificate-chain"),
        );
        // The next one comes with a rotation.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
