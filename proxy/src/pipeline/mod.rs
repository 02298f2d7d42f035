//! The one place where the order of the layers is visible.
//!
//! ```text
//! access      a client that is not listed learns nothing but that
//! admission   so many at once, in all and of one client; beyond that 503
//! record      from here on every answer is counted and logged
//! inside      a request out of an opened CONNECT is about the host of that CONNECT
//! host        a request that two readers could understand differently is refused
//! guest       who asks, at the door /v2/ of users
//! route       which upstream, which target: deny by default
//! clients     who may have what comes from there; the users of the door /v2/
//! loop        before anything is asked of an upstream
//! intercept   CONNECT to a host that is opened: what comes out of it begins at the top again
//! tunnel      any other CONNECT has no target that could be stored
//! unserved    what a cache cannot give: publishing, pushing, git
//! forward     methods that the store cannot answer; they may invalidate
//! viewed      documents of package indexes by mirror path: retrieved, then their links rewritten
//! retrieve    GET and HEAD: store, policy, collapse, origin
//! finish      Via, Cache-Status, Date: the same for every answer
//! ```
//!
//! A [`Pipeline`] is one generation of the settings: what follows from them (router, access, limits, origins) never changes in it.
//! A request takes the generation in force once, from [`Current`], and keeps it to its end, as does the download that it begins;
//! replacing the settings is the next generation over the same store, flights and counters.

mod admit;
mod answer;
mod ask;
mod at_hand;
mod authority;
mod current;
mod detached;
mod deviations;
mod door;
mod fetch;
mod fills;
mod flight;
mod forward;
mod generation;
mod groups;
mod handed_on;
mod held;
mod held_tags;
mod idle;
mod inside;
mod intercept;
mod kept;
mod landing;
mod landing_small;
mod lessons;
mod listed;
mod looked_at;
mod mismatches;
mod negatives;
mod offline;
mod outcome;
mod own;
mod parallel;
mod present;
mod prime;
mod private_keys;
mod resumption;
mod retrieve;
mod shared;
mod side_trip;
mod tag_heads;
mod tags;
mod token;
mod tunnel;
mod viewed;

use std::{net::IpAddr, sync::Arc};

use http::{HeaderValue, Method, Request, Response, Version, header};
use hyper::body::Incoming;
use kato_shared::clock::Clock;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    admission::{Admission, Slot},
    deliver::{ResponseBody, SpanQueue},
    ecosystem::unserved::{Unserved, reads, unserved},
    fill::collapse::Collapse,
    front::Prepared,
    interim::Interim,
    metrics::{Counted, Metrics, Outcome},
    origin::Origin,
    registry::{self, Guests, Place},
    respond,
    route::{Route, Router, Target},
    settings::{Kind, Settings},
    store::Store,
    tls::authority::Authority,
};

use answer::{Answer, shown_if_wanted};
pub use answer::{Answered, Asked};
use ask::Ask;
pub(crate) use at_hand::LastingBody;
pub use at_hand::{AtHand, Lasting};
pub use current::Current;
use fills::Fills;
pub use inside::{Inside, OutOfPlace};
pub use intercept::Intercept;
pub use own::CA_PATH;
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
    guests: Guests,
    /// Opens CONNECT to some hosts, where there are such.
    authority: Option<Authority>,
    // What all generations share.
    store: Store,
    admission: Admission,
    collapse: Collapse<Shared>,
    private_keys: PrivateKeys,
    fills: Arc<Fills>,
    metrics: Metrics,
    clock: Clock,
    /// Answers that requests with the same head get for a while; each generation has its own.
    prepared: Prepared,
    /// Downloads and tunnels: what outlives the request that began it.
    tasks: TaskTracker,
    /// Our name in `Via`, unique to this process so that a loop is told from a chain of caches.
    pseudonym: Arc<str>,
}

impl Pipeline {
    /// Answers one request of a client at `client`.
    pub async fn handle(&self, request: Request<Incoming>, client: IpAddr) -> Response<ResponseBody> {
        let queue = request.extensions().get::<SpanQueue>().cloned();
        let is_connect = request.method() == Method::CONNECT;
        let is_last = is_last_of_its_connection(&request);
        let answered = self.answered(request.map(Some), client, Instant::now()).await;
        let body = ResponseBody::new(answered.payload, Some(answered.record))
            .by_way_of(queue)
            .holding(answered.slot);
        let mut response = Response::from_parts(answered.head, body);
        let is_tunnel = is_connect && response.status().is_success();
        if is_last && !is_tunnel {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The answer to one request, as it is sent: the same for whoever writes it.
    pub async fn answered(&self, request: Asked, client: IpAddr, started: Instant) -> Answered {
        let method = request.method().clone();
        let is_registry = self.is_at_door(&request);
        let challenge = self.challenge(&request).filter(|_| is_registry);
        // A client that is not listed must not be able to fill the log's disk with targets of its choice either.
        let (mut answer, counted, shown, slot) = if self.0.settings.access.allows(client) {
            let shown = shown_if_wanted(&inside::shown(&request));
            let (answer, counted, slot) = self.admitted(request, client).await;
            (answer, counted, shown, slot)
        } else {
            let refusal = respond::problem(&respond::client_refused(client));
            let answer = Answer::generated(refusal, Outcome::Refused, "client-refused");
            (answer, Counted::default(), "-".into(), None)
        };
        if is_registry {
            registry::speak(&mut answer.response, challenge.as_deref());
        }
        let record = self.record(&answer, (method, client), (counted, shown), started);
        let (head, payload, record) = self.finish(answer, record);
        Answered {
            head,
            payload,
            record,
            slot,
        }
    }

    /// Where the client of a request hears of interim responses.
    fn interim(&self, request: &http::Extensions) -> Option<Interim> {
        let interim = request.get::<Interim>()?.clone();
        Some(interim.by_way_of(&self.0.pseudonym))
    }

    /// Where answers about `target` are counted.
    fn counted(&self, target: &Target) -> Counted {
        let upstream = target.upstream.name.as_str();
        self.0.metrics.counted(target.key.uri(), upstream)
    }

    /// Answers when there is a place for one more request; the place is held until the answer is sent.
    async fn admitted(&self, request: Asked, client: IpAddr) -> (Answer, Counted, Option<Slot>) {
        match self.0.admission.admit(client, &self.0.settings.limits).await {
            Ok(slot) => {
                let (answer, counted) = self.answer(request, client).await;
                (answer, counted, Some(slot))
            }
            Err(overload) => {
                let refusal = respond::overloaded(&overload);
                let answer = Answer::generated(refusal, Outcome::Refused, "overloaded");
                (answer, Counted::default(), None)
            }
        }
    }

    async fn answer(&self, mut request: Asked, client: IpAddr) -> (Answer, Counted) {
        if let Err(refusal) = self.settle(&mut request) {
            return (*refusal, Counted::default());
        }
        if let Some(page) = self.own_page(&request, client).await {
            return (page, Counted::default());
        }
        if self.is_for_token(&request) {
            return (
                Box::pin(self.token_page(request, client)).await,
                Counted::default(),
            );
        }
        let seen = self.guest(&request, client).await;
        let line = (request.method(), request.uri(), request.version());
        let route = match self.admit(line, (request.headers(), client), seen) {
            Ok(route) => route,
            Err(refusal) => return (*refusal, Counted::default()),
        };
        match route {
            Route::Intercept { host, port } => (self.intercept(request, &host, port), Counted::default()),
            Route::Tunnel {
                host,
                port,
                upstreams,
            } => {
                let upstream = upstreams.first().map_or("", |first| first.name.as_str());
                let answer = Box::pin(self.tunnel(request, (host, port), upstream, client)).await;
                (answer, Counted::default())
            }
            Route::Target(target) if inside::is_in_clear(&request, &target) => {
                let refusal = respond::problem(&respond::inside_in_clear(&target));
                let answer = Answer::generated(refusal, Outcome::Refused, "inside-in-clear");
                (answer, self.counted(&target))
            }
            Route::RegistryBase => (door::base(), Counted::default()),
            Route::Target(target) => {
                let counted = self.counted(&target);
                (self.answer_about(target, request, client).await, counted)
            }
        }
    }

    async fn answer_about(&self, target: Arc<Target>, request: Asked, client: IpAddr) -> Answer {
        let (kind, query) = (target.upstream.kind, request.uri().query());
        // What could be another upstream's is written to as little as that.
        let is_read_only =
            || !reads(request.method()) && target.gates.iter().any(|gate| gate.kind != Kind::Generic);
        let why = unserved(kind, request.method(), &target.path, query)
            .or_else(|| is_read_only().then_some(Unserved::ReadOnly));
        if let Some(why) = why {
            let mut refusal = respond::unserved(why, target.upstream.name.as_str());
            if target.registry.is_some() {
                registry::speak(&mut refusal, None);
            }
            return Answer::generated(refusal, Outcome::Refused, "unserved");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Box::pin(self.forward(request, &target)).await;
        }
        // A client that takes us for its registry, by its proxy settings, hears as at the door that there is one, whether or not the one
        // behind is there and gives tokens. By mirror path it is asked of the registry, as `doctor` does to see whether it is well.
        let is_by_proxy = request.uri().scheme().is_some();
        if is_by_proxy && target.registry.is_some() && Place::is_base(&target.path) {
            return door::base();
        }
        let view = self.view_of(&target, request.uri());
        let base = view.and_then(|_| self.server_base(&request));
        let (mut parts, _no_content) = request.into_parts();
        retrieve::keep_credentials_of_clients_back(&target, &mut parts.headers);
        match view {
            Some(view) => Box::pin(self.answer_view((parts, client), target, view, base)).await,
            None => self.answer_retrieval(parts, target, client).await,
        }
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
