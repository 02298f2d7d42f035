//! The one place where the order of the layers is visible.
//!
//! ```text
//! access      a client that is not listed learns nothing but that
//! record      from here on every answer is counted and logged
//! host        a request that two readers could understand differently is refused
//! route       which upstream, which target: deny by default
//! loop        before anything is asked of an upstream
//! tunnel      CONNECT has no target that could be stored
//! forward     methods that the store cannot answer; they may invalidate
//! retrieve    GET and HEAD: store, policy, collapse, origin
//! finish      Via, Cache-Status, Date: the same for every answer
//! ```
//!
//! A [`Pipeline`] is one generation of the settings: what follows from them (router, access, limits, origins) never changes in it.
//! A request takes the generation in force once, from [`Current`], and keeps it to its end, as does the download that it begins;
//! replacing the settings is the next generation over the same store, flights and counters.

mod authority;
mod current;
mod deviations;
mod fetch;
mod fills;
mod forward;
mod landing;
mod landing_small;
mod negatives;
mod outcome;
mod present;
mod private_keys;
mod resumption;
mod retrieve;
mod shared;
mod side_trip;
mod tunnel;

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use hyper::body::Incoming;
use kato_shared::{clock::Clock, redact};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::{
    cache_status::CacheStatus,
    deliver::{Payload, Record, ResponseBody, SpanQueue},
    fill::collapse::Collapse,
    interim::Interim,
    metrics::{Gauges, Metrics, Outcome},
    origin::{Origin, OriginError},
    policy::headers as fields,
    respond,
    route::{Route, Router, Target},
    settings::{Settings, Upstream},
    store::Store,
};

pub use current::Current;
use fills::Fills;
use private_keys::PrivateKeys;
pub use shared::{Filling, Shared};

/// Everything that answering a request needs, under one generation of the settings; clones share it.
#[derive(Debug, Clone)]
pub struct Pipeline(Arc<Layers>);

#[derive(Debug)]
struct Layers {
    // What follows from the settings.
    settings: Settings,
    router: Router,
    origin: Origin,
    // What all generations share.
    store: Store,
    collapse: Collapse<Shared>,
    private_keys: PrivateKeys,
    fills: Arc<Fills>,
    metrics: Metrics,
    clock: Clock,
    /// Downloads and tunnels: what outlives the request that began it.
    tasks: TaskTracker,
    /// Our name in `Via`, unique to this process so that a loop is told from a chain of caches.
    pseudonym: Arc<str>,
}

/// A retrieval: what the client asks, owned, so that the download it may begin does not depend on the client.
#[derive(Debug)]
struct Ask {
    method: Method,
    headers: HeaderMap,
    target: Target,
    /// Where the client hears of interim responses, until it has its answer.
    interim: Option<Interim>,
}

/// What a request is about, for counting.
struct About {
    /// The key's URI.
    url: String,
    upstream: Arc<Upstream>,
}

/// An answer and what is to be said about it.
struct Answer {
    response: Response<Payload>,
    status: CacheStatus,
    outcome: Outcome,
    /// The HTTP version in which the upstream sent it; ours for what we made.
    received: Version,
}

impl Answer {
    /// An answer of our own making.
    fn generated(response: Response<Payload>, outcome: Outcome, detail: &str) -> Self {
        Self {
            response,
            status: CacheStatus::generated().detail(detail),
            outcome,
            received: Version::HTTP_11,
        }
    }
}

impl Pipeline {
    /// The layers, put together.
    pub fn new(settings: Settings, store: Store, origin: Origin, metrics: Metrics, clock: Clock) -> Self {
        Self(Arc::new(Layers {
            router: Router::new(&settings),
            fills: Arc::new(Fills::new(&settings)),
            settings,
            store,
            origin,
            collapse: Collapse::default(),
            private_keys: PrivateKeys::default(),
            metrics,
            clock,
            tasks: TaskTracker::new(),
            pseudonym: pseudonym().into(),
        }))
    }

    /// The next generation: `settings` over what this one shares.
    ///
    /// # Errors
    /// [`OriginError`] when its origins cannot be set up; this generation is as it was.
    pub fn under(&self, settings: Settings) -> Result<Self, OriginError> {
        let layers = &*self.0;
        layers.metrics.add_upstreams(&settings);
        Ok(Self(Arc::new(Layers {
            router: Router::new(&settings),
            origin: layers.origin.under(&layers.settings, &settings)?,
            settings,
            store: layers.store.clone(),
            collapse: layers.collapse.clone(),
            private_keys: layers.private_keys.clone(),
            fills: Arc::clone(&layers.fills),
            metrics: layers.metrics.clone(),
            clock: layers.clock.clone(),
            tasks: layers.tasks.clone(),
            pseudonym: Arc::clone(&layers.pseudonym),
        })))
    }

    /// Answers one request of a client at `client`.
    pub async fn handle(&self, request: Request<Incoming>, client: IpAddr) -> Response<ResponseBody> {
        let started = Instant::now();
        let queue = request.extensions().get::<SpanQueue>().cloned();
        let (method, shown) = (request.method().clone(), shown_target(request.uri()));
        let (is_last, is_connect) = (is_last_of_its_connection(&request), method == Method::CONNECT);
        // A client that is not listed must not be able to fill the log's disk with targets of its choice either.
        let in_flight = self.0.metrics.in_flight();
        let (answer, about, shown) = if self.0.settings.access.allows(client) {
            let (answer, about) = self.answer(request, client).await;
            (answer, about, shown)
        } else {
            let refusal = respond::problem(&respond::client_refused(client));
            (
                Answer::generated(refusal, Outcome::Refused, "client-refused"),
                None,
                "-".into(),
            )
        };
        self.0.metrics.answered(answer.outcome, started.elapsed());
        let (url, upstream) = about.map_or((None, None), |About { url, upstream }| {
            (Some(url), Some(upstream))
        });
        let record = Record {
            method,
            target: shown,
            client,
            url,
            upstream,
            in_flight,
            started,
            outcome: answer.outcome,
            status: answer.response.status(),
            sent: 0,
            is_complete: false,
            metrics: self.0.metrics.clone(),
        };
        let mut response = self.finish(answer, record).map(|body| body.by_way_of(queue));
        let is_tunnel = is_connect && response.status().is_success();
        if is_last && !is_tunnel {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Where the client of a request hears of interim responses.
    fn interim(&self, request: &http::Extensions) -> Option<Interim> {
        let interim = request.get::<Interim>()?.clone();
        Some(interim.by_way_of(&self.0.pseudonym))
    }

    /// Waits until downloads and tunnels have ended.
    pub async fn drain(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// The store, for the admin API.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Readings of the store and the origins, for metrics.
    pub(crate) fn gauges(&self) -> Gauges {
        let store = &self.0.store;
        let totals = store.totals().unwrap_or_default();
        let upstreams = self.0.settings.upstreams.iter();
        let mirrors = upstreams.flat_map(|upstream| {
            upstream.urls.iter().map(|base| {
                let is_down = self.0.origin.is_down(base.url());
                (upstream.name.to_string(), redact::url(base.url()), is_down)
            })
        });
        Gauges {
            responses: totals.responses,
            bytes: totals.bytes,
            queued: store.queued(),
            mirrors: mirrors.collect(),
            is_storing: store.trouble().is_none() && store.check_room().is_ok(),
        }
    }

    /// Where requests may go.
    pub(crate) fn router(&self) -> &Router {
        &self.0.router
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The time by the clock that stamps stored responses.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.0.clock.now()
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    async fn answer(&self, mut request: Request<Incoming>, client: IpAddr) -> (Answer, Option<About>) {
        let is_ambiguous = authority::normalise(&mut request, &self.0.router).is_err();
        if is_ambiguous || !fields::has_valid_host(request.version(), request.headers()) {
            let refusal = respond::problem(&respond::bad_host());
            return (Answer::generated(refusal, Outcome::Refused, "bad-host"), None);
        }
        let route = match self.0.router.route(request.method(), request.uri()) {
            Ok(route) => route,
            Err(error) => {
                let problem = respond::unrouted(&error);
                let kind = problem.kind.rsplit(':').next().unwrap_or_default().to_owned();
                let refusal = respond::problem(&problem);
                return (Answer::generated(refusal, Outcome::Refused, &kind), None);
            }
        };
        if fields::passed_us_before(request.headers(), &self.0.pseudonym) {
            let refusal = respond::problem(&respond::loops(&shown_target(request.uri())));
            return (Answer::generated(refusal, Outcome::Refused, "loop"), None);
        }
        match route {
            Route::Tunnel { host, port, upstream } => {
                (self.tunnel(request, (host, port), &upstream, client).await, None)
            }
            Route::Target(target) => {
                let about = About {
                    url: target.key.uri().to_owned(),
                    upstream: Arc::clone(&target.upstream),
                };
                let answer = if matches!(*request.method(), Method::GET | Method::HEAD) {
                    let (mut parts, _no_content) = request.into_parts();
                    fields::strip_unkeyed(&mut parts.headers);
                    let ask = Ask {
                        interim: self.interim(&parts.extensions),
                        method: parts.method,
                        headers: parts.headers,
                        target: *target,
                    };
                    self.retrieve(Arc::new(ask)).await
                } else {
                    self.forward(request, *target).await
                };
                (answer, Some(about))
            }
        }
    }

    fn finish(&self, answer: Answer, record: Record) -> Response<ResponseBody> {
        let (mut parts, payload) = answer.response.into_parts();
        fields::append_via(&mut parts.headers, answer.received, &self.0.pseudonym);
        answer.status.append_to(&mut parts.headers);
        fields::ensure_date(&mut parts.headers, self.0.clock.now());
        let is_head = record.method == Method::HEAD;
        let may_have_length =
            parts.status != http::StatusCode::NO_CONTENT && !parts.status.is_informational();
        if let Some(length) = payload.length()
            && may_have_length
            && !is_head
            && parts.status != http::StatusCode::NOT_MODIFIED
            && !(record.method == Method::CONNECT && parts.status.is_success())
        {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        let payload = if is_head { Payload::Empty } else { payload };
        Response::from_parts(parts, ResponseBody::new(payload, Some(record)))
    }
}

/// Whether what follows on the connection could be read as a request by one server and as content by another: after a transfer
/// coding, which is what request smuggling is made with, and after a CONNECT, behind which clients send what is for the tunnel.
/// "the server … ought to … close the connection after responding" ([RFC 9112 §6.1]).
///
/// [RFC 9112 §6.1]: https://www.rfc-editor.org/rfc/rfc9112#section-6.1
fn is_last_of_its_connection<B>(request: &Request<B>) -> bool {
    request.version() <= Version::HTTP_11
        && (request.method() == Method::CONNECT || request.headers().contains_key(header::TRANSFER_ENCODING))
}

/// The target of a request line for logs.
fn shown_target(uri: &http::Uri) -> String {
    let text = uri.to_string();
    match Url::parse(&text) {
        Ok(url) => redact::url(&url),
        // Origin-form: a query may carry a signature here, too.
        Err(_relative) => text.split('?').next().unwrap_or_default().to_owned(),
    }
}

fn pseudonym() -> String {
    format!("kato-{:08x}", nonce() & 0xffff_ffff)
}

/// A number that nobody outside can foresee, from the seed that the standard library takes from the system.
fn nonce() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let half = || u128::from(RandomState::new().hash_one(0_u8));
    half() << 64 | half()
}
