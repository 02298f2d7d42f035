//! Pages of our own on the data listener, below `/-/`, which no upstream can be named: what a client needs before it can use the rest.

use std::net::IpAddr;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::{Answer, Pipeline};
use crate::{
    deliver::Payload,
    metrics::Outcome,
    respond,
    setup::{Client, SetupPage, Site},
};

/// Where the certificate of the local authority is, on either listener.
pub const CA_PATH: &str = "/-/ca.crt";

/// Below it are the texts for clients.
const SETUP_PATH: &str = "/-/setup/";

impl Pipeline {
    /// The page that a request in origin-form asks for, where there is one.
    pub(super) fn own_page<B>(&self, request: &Request<B>, asking: IpAddr) -> Option<Answer> {
        let is_for_us = request.uri().authority().is_none();
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if !is_for_us || !is_read {
            return None;
        }
        let path = request.uri().path();
        let page = match path.strip_prefix(SETUP_PATH) {
            Some(client) => self.setup_page(client, (request, asking)),
            None if path == CA_PATH => self.ca_certificate(),
            None => return None,
        };
        let outcome = if page.status().is_success() {
            Outcome::Hit
        } else {
            Outcome::Refused
        };
        Some(Answer::generated(page, outcome, "own-page"))
    }

    /// What `client` is told, or which clients there are.
    fn setup_page<B>(&self, client: &str, (request, asking): (&Request<B>, IpAddr)) -> Response<Payload> {
        let Some(base) = self.server_base(request) else {
            return respond::problem(&respond::bad_host());
        };
        let site = Site {
            settings: self.settings(),
            base: &base,
            client: Some(asking),
        };
        if client.is_empty() {
            let mut page = SetupPage::of(site);
            if self.settings().offline {
                page = page.offline(site, self.served().as_deref());
            }
            let accept = request.headers().get(header::ACCEPT);
            let wants_json = accept.is_some_and(|accept| accept == "application/json");
            return if wants_json {
                text_page("application/json", serde_json::to_vec(&page).unwrap_or_default())
            } else {
                text_page("text/plain; charset=utf-8", page.text().into_bytes())
            };
        }
        match client.parse::<Client>().map(|client| client.text(site)) {
            Ok(Some(text)) => text_page("text/plain; charset=utf-8", text.into_bytes()),
            Ok(None) => respond::problem(&respond::not_set_up(&format!(
                "no upstream is configured that would be anything for {client}"
            ))),
            Err(error) => respond::problem(&respond::not_set_up(&error)),
        }
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

/// What is made for this client, now.
fn text_page(media_type: &'static str, text: Vec<u8>) -> Response<Payload> {
    let mut response = Response::new(Payload::bytes(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
