//! Pages of our own on the data listener, below `/-/`, which no upstream can be named: what a client needs before it can use the rest.

use std::net::IpAddr;

use http::{HeaderValue, Method, Response, StatusCode, header};

use super::{Answer, Asked, Pipeline};
use crate::{
    deliver::Payload,
    metrics::Outcome,
    respond,
    route::keys_below,
    settings::Upstream,
    setup::{Client, SetupPage, Site},
};

/// Where the certificate of the local authority is, on either listener.
pub const CA_PATH: &str = "/-/ca.crt";

/// How many URLs of an upstream are looked at for content: the first ones may be errors.
const LOOKED_AT: usize = 100;

/// Below it are the texts for clients.
const SETUP_PATH: &str = "/-/setup/";

impl Pipeline {
    /// The page that a request in origin-form asks for, where there is one.
    pub(super) async fn own_page(&self, request: &Asked, asking: IpAddr) -> Option<Answer> {
        let is_for_us = request.uri().authority().is_none();
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if !is_for_us || !is_read {
            return None;
        }
        let path = request.uri().path();
        let page = match path.strip_prefix(SETUP_PATH) {
            Some(client) => self.setup_page(client, (request, asking)).await,
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
    async fn setup_page(&self, client: &str, (request, asking): (&Asked, IpAddr)) -> Response<Payload> {
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
                self.note_what_is_held(&mut page).await;
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

    /// Says of each upstream whether the store has something of it.
    async fn note_what_is_held(&self, page: &mut SetupPage) {
        for view in &mut page.upstreams {
            let of_name = |upstream: &&Upstream| upstream.name.as_str() == view.name;
            if let Some(upstream) = self.settings().upstreams.iter().find(of_name) {
                view.holds = self.holds_any(upstream).await;
            }
        }
    }

    /// Whether one of the first responses below the base URLs of `upstream` is content; `None` where the index cannot tell.
    async fn holds_any(&self, upstream: &Upstream) -> Option<bool> {
        for prefix in upstream.all_urls().filter_map(keys_below) {
            let rows = self.0.store.list(prefix, String::new(), LOOKED_AT).await.ok()?;
            let mut found = rows.iter().flat_map(|(_, responses)| responses);
            if found.any(|response| response.head.status == StatusCode::OK) {
                return Some(true);
            }
        }
        Some(false)
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
