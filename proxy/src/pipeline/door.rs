//! Who may have what: the clients of an upstream, and the users of the door for container clients.
//!
//! A layer of its own behind the route: whether a client may ask follows from where the request goes. What it refuses has reached
//! neither the store nor an upstream.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Limited};
use kato_shared::api::Problem;

use super::{Answer, Inside, Pipeline};
use crate::{
    deliver::{Payload, ResponseBody},
    metrics::Outcome,
    registry::{self, Guest, Seen, is_door},
    respond,
    route::{Route, Target},
    settings::{Kind, Upstream},
    store::{Responses, StoredResponse},
};

/// The fields of an upstream's error that are about its bytes.
const ABOUT_THE_BYTES: [header::HeaderName; 4] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::ETAG,
    header::LAST_MODIFIED,
];

/// Whether `response` to a request for `target` is an upstream's error for a client of registries.
pub(super) fn is_error_at_the_door(target: &Target, response: &Response<Payload>) -> bool {
    let status = response.status();
    // What is about the conditions and ranges of a request is said by its status code, and is ours.
    let is_about_the_request = matches!(
        status,
        StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE
    );
    let is_error = (status.is_client_error() || status.is_server_error()) && !is_about_the_request;
    let is_at_the_door = target.registry.as_ref().is_some_and(|place| place.door.is_some());
    // Our own problems get their form later.
    is_error && is_at_the_door && response.extensions().get::<Problem>().is_none()
}

/// Puts what an upstream says with an error, see [`is_error_at_the_door`], into the form that clients of registries read.
pub(super) async fn in_the_form_of_registries(target: &Target, response: &mut Response<Payload>) {
    let is_coded = response.headers().contains_key(header::CONTENT_ENCODING);
    let payload = std::mem::take(response.body_mut());
    let body = Limited::new(ResponseBody::new(payload, None), registry::MOST_SAID);
    // What breaks off or does not end is not worth waiting for: the status code says enough.
    let said = match body.collect().await {
        Ok(body) if !is_coded => body.to_bytes(),
        Ok(_) | Err(_) => bytes::Bytes::new(),
    };
    let errors = registry::errors(target.upstream.name.as_str(), response.status(), &said);
    *response.body_mut() = Payload::bytes(errors.to_string().into_bytes());
    let headers = response.headers_mut();
    for name in ABOUT_THE_BYTES {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
}

impl Pipeline {
    /// Whether `request` comes by the door for container clients, whatever its form (see `authority`).
    pub(super) fn is_at_door<B>(&self, request: &Request<B>) -> bool {
        let uri = request.uri();
        let is_own_name = request.version() == Version::HTTP_2 && !self.0.router.names(uri);
        request.extensions().get::<Inside>().is_none()
            && (is_door(uri) || is_own_name && uri.path().starts_with("/v2/"))
    }

    /// Who has sent a request for `uri`, if it comes by the door: other doors ask nobody who they are. Told without delay, or not
    /// at all.
    pub(super) fn guest_at_hand(&self, uri: &Uri, headers: &HeaderMap) -> Option<Seen> {
        is_door(uri).then(|| self.0.guests.who(headers, self.0.clock.now()))
    }

    /// The same, with the time that it takes to verify a password.
    pub(super) fn guest<B>(
        &self,
        request: &Request<B>,
        client: IpAddr,
    ) -> impl Future<Output = Option<Seen>> + Send + use<B> {
        let seen = self.guest_at_hand(request.uri(), request.headers());
        let claim = matches!(seen, Some(Seen::Claim(_)))
            .then(|| (self.0.guests.clone(), authorization(request.headers())));
        let now = self.0.clock.now();
        async move {
            match claim {
                Some((guests, shown)) => Some(guests.recognise(&shown, client, now).await),
                None => seen,
            }
        }
    }

    /// Whether a client at `client`, at the door `guest`, may go by `route`.
    ///
    /// # Errors
    /// The problem that says why not.
    pub(super) fn may_have(
        &self,
        route: &Route,
        (uri, client): (&Uri, IpAddr),
        guest: Option<&Guest>,
    ) -> Result<(), Problem> {
        // The first is the one that is asked of; whoever else could be meant on that server has a say, too.
        let keepers: Vec<&Upstream> = match route {
            Route::Target(target) => target.keepers().collect(),
            Route::Tunnel { upstreams, .. } => upstreams.iter().map(Arc::as_ref).collect(),
            // What comes out of it is judged by itself.
            Route::Intercept { .. } | Route::RegistryBase => Vec::new(),
        };
        if let Some(closed) = keepers.iter().find(|keeper| !keeper.allows(client)) {
            return Err(respond::upstream_closed(client, closed.name.as_str()));
        }
        // Users say who they are at the door, for the registry that they name there; a way around it would let everybody in.
        let by_the_door = usize::from(matches!(route, Route::Target(_)) && is_door(uri));
        let mut around = keepers.iter().skip(by_the_door);
        if let Some(registry) = around.find(|keeper| keeper.kind == Kind::Registry)
            && !self.0.guests.is_everybody()
        {
            return Err(respond::by_the_registry_door(registry.name.as_str()));
        }
        match (guest, route) {
            (Some(guest), Route::Target(target)) => registry::leave(guest, target),
            _ => Ok(()),
        }
    }

    /// What of `entry`, stored for `target`, may be shown to whoever may use its upstream: content that got its name here while others
    /// might use the upstream that it came from is none of it.
    pub(super) fn open_to(&self, target: &Target, entry: Responses) -> Responses {
        let own = target.upstream.name.as_str();
        // An upstream that is configured no more closes nothing: it may have been renamed.
        let is_open =
            |name: &str| name == own || self.upstream(name).is_none_or(|other| self.shares(other, target));
        if entry.upstreams().all(is_open) {
            return entry;
        }
        let open = entry.responses().filter(|stored| is_open(&stored.upstream));
        Responses::new((open.collect(), entry.taught().to_vec()).into())
    }

    /// Whether whoever may use the upstream of `target` may have what comes from `other`.
    fn shares(&self, other: &Upstream, target: &Target) -> bool {
        let has_users = !self.0.guests.is_everybody();
        let is_registry = |one: &Upstream| one.kind == Kind::Registry;
        other.allows_whom(&target.upstream)
            && (!has_users || !is_registry(other) || is_registry(&target.upstream))
    }

    /// Which stored responses, by their keys, may be served as content of `target`: those of upstreams that nobody may use who may not
    /// use this one, and as a manifest, what was called one. Where one user may pull what another may not, those of the same
    /// repository: a digest is no right.
    pub(super) fn sharable(
        &self,
        target: &Target,
    ) -> impl Fn(&str, &StoredResponse) -> bool + Send + use<> + 'static {
        let upstreams = self.0.settings.upstreams.iter();
        let sharers: Vec<String> = upstreams
            .filter(|other| self.shares(other, target))
            .map(|other| other.name.to_string())
            .collect();
        let place = target.registry.as_ref();
        let is_manifest = place.is_some_and(|place| place.class.is_manifest());
        let below = place.filter(|_| self.0.guests.differ()).map(|place| {
            let base = target.key.as_str().strip_suffix(target.path.as_str());
            base.map(|base| format!("{base}v2/{}/", place.repository))
        });
        move |key, stored| {
            let is_near = match &below {
                Some(Some(repository)) => key.starts_with(repository.as_str()),
                Some(None) => false,
                None => true,
            };
            is_near
                && sharers.contains(&stored.upstream)
                && (!is_manifest || registry::is_manifest(&stored.head.headers))
        }
    }

    fn upstream(&self, name: &str) -> Option<&Upstream> {
        self.0
            .settings
            .upstreams
            .iter()
            .find(|one| one.name.as_str() == name)
    }
}

/// What a request shows of its sender, alone.
fn authorization(headers: &HeaderMap) -> HeaderMap {
    let shown = headers.get_all(header::AUTHORIZATION).iter();
    shown
        .map(|value| (header::AUTHORIZATION, value.clone()))
        .collect()
}

/// `GET /v2/`: this is a registry, and the client may use it.
pub(super) fn base() -> Answer {
    let mut response = Response::new(Payload::bytes(b"{}".to_vec()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Answer::generated(response, Outcome::Hit, "registry")
}
