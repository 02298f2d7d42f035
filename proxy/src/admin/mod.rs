//! The admin listener: health, metrics, statistics, and what the store holds.
//!
//! | path | answer |
//! |---|---|
//! | `GET /-/healthz` | 200 `{"status":"ok"}`, or 503 with reasons |
//! | `GET /-/metrics` | Prometheus text |
//! | `GET /-/ca.crt` | the certificate of the local authority, PEM; also on the data listener |
//! | `GET /-/api/stats` | [`Stats`] |
//! | `GET /-/api/requests?prefix=` | requests per URL since the start |
//! | `GET /-/api/entries?prefix=&upstream=&digest=&status=&sort=&after=&limit=` | stored responses, in pages |
//! | `GET /-/api/show?url=&field=` | why a URL's responses are fresh or stale, and what a request would get now |
//! | `POST /-/api/purge?url=\|prefix=\|upstream=\|digest=&dry_run=` | forgets stored responses |
//! | `POST /-/api/invalidate?…` | the same choice: to be validated before they are used again |
//! | `GET /-/api/pins` | what is pinned |
//! | `POST /-/api/pin?target=`, `POST /-/api/unpin?target=` | keeps a URL, a prefix (`…*`) or a digest from eviction, or no longer |
//! | `POST /-/api/gc` | removes what nobody can ask for, and compacts the index |
//! | `POST /-/api/verify` | reads all content and removes what is damaged |
//!
//! Who may ask for what: [`access`]. Deliberately absent: users and sessions; there is one token.

pub mod access;
mod api;
mod believed;
mod explain;
mod selection;
mod store_api;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use kato_shared::{
    api::{Problem, Stats},
    secret::Secret,
};
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use access::{TokenError, Want};

use crate::{
    deliver::{Payload, ResponseBody},
    pipeline::{CA_PATH, Pipeline},
    respond,
};

pub use access::{GUARD, Reach};
pub use api::{DamageView, EntryPage, EntryView, RequestsPage, UrlView, VerifyReport};
pub use explain::{Explanation, ShowPage, for_people};
pub use selection::SelectionReport;
pub use store_api::{GcReport, PinView, PinsPage};

/// The admin API; clones share what it watches.
#[derive(Debug, Clone)]
pub struct Admin {
    pipeline: Pipeline,
    shutdown: CancellationToken,
}

/// The state of `/-/healthz`.
#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    reasons: Vec<String>,
}

impl Admin {
    /// The API over `pipeline`; `shutdown` tells when it is about to stop.
    pub fn new(pipeline: Pipeline, shutdown: CancellationToken) -> Self {
        Self { pipeline, shutdown }
    }

    /// Answers one request that came in by `reach`.
    pub async fn handle(&self, request: Request<Incoming>, reach: Reach) -> Response<ResponseBody> {
        let want = Want::of(request.method(), request.uri().path());
        let settings = &self.pipeline.settings().admin;
        let admitted = access::admit(want, request.headers(), (reach, settings), self.token().await);
        let response = match admitted {
            Ok(()) => self.answer(&request).await,
            Err(refusal) => *refusal,
        };
        let is_head = request.method() == Method::HEAD;
        let (mut parts, payload) = response.into_parts();
        if let Some(length) = payload.length() {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        let payload = if is_head { Payload::Empty } else { payload };
        Response::from_parts(parts, ResponseBody::new(payload, None))
    }

    /// The token in force; read anew, so that it can be replaced while we run.
    async fn token(&self) -> Option<Result<Secret, TokenError>> {
        let path = self.pipeline.settings().admin.token_file.clone()?;
        match spawn_blocking(move || access::read_token(&path)).await {
            Ok(read) => Some(read),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Payload> {
        let query = Query::of(request.uri());
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/-/healthz") => self.health(),
            (&Method::GET | &Method::HEAD, "/-/metrics") => self.metrics(),
            (&Method::GET | &Method::HEAD, CA_PATH) => self.pipeline.ca_certificate(),
            (&Method::GET, "/-/api/stats") => json(StatusCode::OK, &self.stats()),
            (&Method::GET, "/-/api/requests") => json(StatusCode::OK, &self.requests(&query)),
            (&Method::GET, "/-/api/entries") => reply(self.entries(&query).await),
            (&Method::GET, "/-/api/show") => reply(self.show(&query).await),
            (&Method::POST, "/-/api/purge") => reply(self.purge(&query).await),
            (&Method::POST, "/-/api/invalidate") => reply(self.invalidate(&query).await),
            (&Method::GET, "/-/api/pins") => reply(self.pins().await),
            (&Method::POST, "/-/api/pin") => reply(self.pin(&query).await),
            (&Method::POST, "/-/api/unpin") => reply(self.unpin(&query).await),
            (&Method::POST, "/-/api/gc") => reply(self.gc().await),
            (&Method::POST, "/-/api/verify") => reply(self.verify().await),
            (method, path) => respond::problem(&respond::describe(
                "not-found",
                "no such page",
                StatusCode::NOT_FOUND,
                format!("{method} {path} is not part of the admin API"),
                Some(
                    "try GET /-/healthz, /-/metrics, /-/api/stats, /-/api/requests, /-/api/entries or /-/api/show".into(),
                ),
            )),
        }
    }

    fn health(&self) -> Response<Payload> {
        let mut reasons = Vec::new();
        if self.shutdown.is_cancelled() {
            reasons.push("stopping".to_owned());
        }
        if let Err(error) = self.pipeline.store().totals() {
            reasons.push(format!("index: {}", kato_shared::chain::Chain(&error)));
        }
        if let Some((trouble, cause)) = self.pipeline.store().trouble() {
            reasons.push(format!("store: {}: {cause}", trouble.label()));
        } else if let Err(error) = self.pipeline.store().check_room() {
            reasons.push(format!("store: {}", kato_shared::chain::Chain(&error)));
        }
        if reasons.is_empty() {
            json(
                StatusCode::OK,
                &Health {
                    status: "ok",
                    reasons,
                },
            )
        } else {
            json(
                StatusCode::SERVICE_UNAVAILABLE,
                &Health {
                    status: "degraded",
                    reasons,
                },
            )
        }
    }

    fn metrics(&self) -> Response<Payload> {
        let page = self.pipeline.metrics().render(&self.pipeline.gauges());
        let mut response = Response::new(Payload::bytes(page));
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        );
        response
    }

    fn stats(&self) -> Stats {
        let metrics = self.pipeline.metrics();
        let upstreams = metrics.upstreams();
        let totals = self.pipeline.store().totals().unwrap_or_default();
        Stats {
            schema: 1,
            requests: metrics.requests(),
            wan_bytes: upstreams.iter().map(|upstream| upstream.bytes).sum(),
            lan_bytes: metrics.lan_bytes(),
            tunnel_bytes: metrics.tunnel_bytes(),
            upstream_requests: upstreams.iter().map(|upstream| upstream.requests).sum(),
            stored_responses: totals.responses,
            stored_bytes: totals.bytes,
            queued_responses: self.pipeline.store().queued(),
            quarantined: self.pipeline.store().quarantined(),
            upstreams,
        }
    }
}

/// The parameters of a query.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(uri: &http::Uri) -> Self {
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// The values of a parameter that may be repeated.
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Payload> {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Payload::bytes(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn reply<T: Serialize>(outcome: Result<T, Problem>) -> Response<Payload> {
    match outcome {
        Ok(value) => json(StatusCode::OK, &value),
        Err(problem) => respond::problem(&problem),
    }
}
