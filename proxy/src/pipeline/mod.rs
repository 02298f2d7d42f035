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

mod at_hand;
mod fetch;
mod forward;
mod outcome;
mod present;
mod private_keys;
mod retrieve;
mod shared;
mod side_trip;
mod tunnel;

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, Method, Request, Response, Version, header, response};
use hyper::body::Incoming;
use kato_shared::{clock::Clock, redact};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::{
    cache_status::CacheStatus,
    deliver::{Payload, Record, ResponseBody, SpanQueue},
    fill::collapse::Collapse,
    front::Prepared,
    interim::Interim,
    metrics::{Metrics, Outcome, UrlCounters},
    origin::Origin,
    policy::{self, headers as fields},
    respond,
    route::{Route, Router, Target},
    settings::Settings,
    store::Store,
};

pub use at_hand::{AtHand, Lasting};
use private_keys::PrivateKeys;
pub use shared::{Filling, Shared};

/// Everything that answering a request needs; clones share it.
#[derive(Debug, Clone)]
pub struct Pipeline(Arc<Layers>);

#[derive(Debug)]
struct Layers {
    settings: Settings,
    router: Router,
    store: Store,
    origin: Origin,
    collapse: Collapse<Shared>,
    private_keys: PrivateKeys,
    metrics: Metrics,
    clock: Clock,
    /// Answers that requests with the same head get for the rest of the second.
    prepared: Prepared,
    /// Downloads and tunnels: what outlives the request that began it.
    tasks: TaskTracker,
    /// Our name in `Via`, unique to this process so that a loop is told from a chain of caches.
    pseudonym: String,
}

/// A retrieval: what the client asks, owned, so that the download it may begin does not depend on the client.
#[derive(Debug)]
struct Ask {
    method: Method,
    headers: HeaderMap,
    target: Arc<Target>,
    /// Where the client hears of interim responses, until it has its answer.
    interim: Option<Interim>,
}

impl Ask {
    /// As the policy sees it.
    fn request(&self) -> policy::Request<'_> {
        policy::Request {
            method: &self.method,
            headers: &self.headers,
        }
    }
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
            settings,
            store,
            origin,
            collapse: Collapse::default(),
            private_keys: PrivateKeys::default(),
            metrics,
            clock,
            prepared: Prepared::default(),
            tasks: TaskTracker::new(),
            pseudonym: pseudonym(),
        }))
    }

    /// Answers one request of a client at `client`.
    pub async fn handle(&self, request: Request<Incoming>, client: IpAddr) -> Response<ResponseBody> {
        let started = Instant::now();
        let queue = request.extensions().get::<SpanQueue>().cloned();
        let method = request.method().clone();
        // A client that is not listed must not be able to fill the log's disk with targets of its choice either.
        let (answer, url, shown) = if self.0.settings.access.allows(client) {
            let shown = shown_if_wanted(request.uri());
            let (answer, url) = self.answer(request, client).await;
            (answer, url, shown)
        } else {
            let refusal = respond::problem(&respond::client_refused(client));
            (
                Answer::generated(refusal, Outcome::Refused, "client-refused"),
                None,
                "-".into(),
            )
        };
        let record = self.record(&answer, (method, client), (url, shown), started);
        let (parts, payload, record) = self.finish(answer, record);
        Response::from_parts(parts, ResponseBody::new(payload, Some(record)).by_way_of(queue))
    }

    /// Counts an answer whose head is ready, and begins its entry in the access log.
    fn record(
        &self,
        answer: &Answer,
        (method, client): (Method, IpAddr),
        (url, target): (Option<Arc<UrlCounters>>, Arc<str>),
        started: Instant,
    ) -> Record {
        self.0.metrics.answered(answer.outcome, started.elapsed());
        Record {
            method,
            target,
            client,
            url,
            started,
            outcome: answer.outcome,
            status: answer.response.status(),
            sent: 0,
            is_complete: false,
            metrics: self.0.metrics.clone(),
        }
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

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The layers before any target is looked at: where the request goes, or the answer that refuses it.
    fn admit(
        &self,
        (method, uri, version): (&Method, &http::Uri, Version),
        headers: &HeaderMap,
    ) -> Result<Route, Box<Answer>> {
        let refuse = |problem: &kato_shared::api::Problem, detail: &str| {
            let refusal = respond::problem(problem);
            Box::new(Answer::generated(refusal, Outcome::Refused, detail))
        };
        if !fields::has_valid_host(version, headers) {
            return Err(refuse(&respond::bad_host(), "bad-host"));
        }
        let route = self.0.router.route(method, uri).map_err(|error| {
            let problem = respond::unrouted(&error);
            let kind = problem.kind.rsplit(':').next().unwrap_or_default();
            refuse(&problem, kind)
        })?;
        if fields::passed_us_before(headers, &self.0.pseudonym) {
            return Err(refuse(&respond::loops(&shown_target(uri)), "loop"));
        }
        Ok(route)
    }

    async fn answer(&self, request: Request<Incoming>, client: IpAddr) -> (Answer, Option<Arc<UrlCounters>>) {
        let line = (request.method(), request.uri(), request.version());
        let route = match self.admit(line, request.headers()) {
            Ok(route) => route,
            Err(refusal) => return (*refusal, None),
        };
        match route {
            Route::Tunnel { host, port, upstream } => {
                (self.tunnel(request, (host, port), &upstream, client).await, None)
            }
            Route::Target(target) => {
                let url = self.0.metrics.url(target.key.uri());
                let answer = if matches!(*request.method(), Method::GET | Method::HEAD) {
                    let (parts, _no_content) = request.into_parts();
                    let ask = Ask {
                        interim: self.interim(&parts.extensions),
                        method: parts.method,
                        headers: parts.headers,
                        target,
                    };
                    self.retrieve(Arc::new(ask)).await
                } else {
                    self.forward(request, &target).await
                };
                (answer, url)
            }
        }
    }

    /// The head and the payload as they are sent.
    fn finish(&self, answer: Answer, record: Record) -> (response::Parts, Payload, Record) {
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
        (parts, payload, record)
    }
}

/// The target for the access log, where somebody reads that.
fn shown_if_wanted(uri: &http::Uri) -> Arc<str> {
    if Record::is_wanted() {
        shown_target(uri).into()
    } else {
        Arc::default()
    }
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
