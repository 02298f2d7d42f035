//! The admin listener: health, metrics, statistics, and what the store holds.
//!
//! | path | answer |
//! |---|---|
//! | `GET /-/healthz` | 200 `{"status":"ok"}`, or 503 with reasons |
//! | `GET /-/metrics` | Prometheus text |
//! | `GET /-/api/stats` | [`Stats`] |
//! | `GET /-/api/requests?prefix=` | requests per URL since the start |
//! | `GET /-/api/entries?prefix=&after=&limit=` | stored responses, in pages |
//! | `POST /-/api/purge?prefix=` | forgets the stored responses whose URL begins so |
//! | `POST /-/api/verify` | reads all content and removes what is damaged |
//!
//! Deliberately absent: authentication. The listener belongs on loopback.

mod api;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use kato_shared::api::{Problem, Stats};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    deliver::{Payload, ResponseBody},
    metrics::render_store,
    pipeline::Pipeline,
    respond,
};

pub use api::{DamageView, EntryPage, EntryView, PurgeReport, RequestsPage, UrlView, VerifyReport};

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

    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let query = Query::of(request.uri());
        // Browsers send `Origin` with every POST: a page that an operator looks at must not reach in here.
        let is_of_a_page = method == Method::POST && request.headers().contains_key(header::ORIGIN);
        let response = match (method, path.as_str()) {
            _ if is_of_a_page => respond::problem(&respond::describe(
                "page-refused",
                "not for web pages",
                StatusCode::FORBIDDEN,
                "a request with an Origin field may change nothing".into(),
                Some("use kato-proxy purge or kato-proxy verify".into()),
            )),
            (Method::GET | Method::HEAD, "/-/healthz") => self.health(),
            (Method::GET | Method::HEAD, "/-/metrics") => self.metrics(),
            (Method::GET, "/-/api/stats") => json(StatusCode::OK, &self.stats()),
            (Method::GET, "/-/api/requests") => json(StatusCode::OK, &self.requests(&query)),
            (Method::GET, "/-/api/entries") => reply(self.entries(&query).await),
            (Method::POST, "/-/api/purge") => reply(self.purge(&query).await),
            (Method::POST, "/-/api/verify") => reply(self.verify().await),
            (method, path) => respond::problem(&respond::describe(
                "not-found",
                "no such page",
                StatusCode::NOT_FOUND,
                format!("{method} {path} is not part of the admin API"),
                Some(
                    "try GET /-/healthz, /-/metrics, /-/api/stats, /-/api/requests or /-/api/entries".into(),
                ),
            )),
        };
        let is_head = request.method() == Method::HEAD;
        let (mut parts, payload) = response.into_parts();
        if let Some(length) = payload.length() {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        let payload = if is_head { Payload::Empty } else { payload };
        Response::from_parts(parts, ResponseBody::new(payload, None))
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
        let totals = self.pipeline.store().totals().unwrap_or_default();
        let mut page = self.pipeline.metrics().render((totals.responses, totals.bytes));
        page.push_str(&render_store(self.pipeline.store()));
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
