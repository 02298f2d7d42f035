//! Who may have what: the clients of an upstream, and the users of the door for container clients.
//!
//! A layer of its own behind the route: whether a client may ask follows from where the request goes. What it refuses has reached
//! neither the store nor an upstream.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version, header};
use kato_shared::api::Problem;

use super::{Answer, Inside, Pipeline};
use crate::{
    deliver::Payload,
    metrics::Outcome,
    registry::{self, is_door},
    respond,
    route::{Route, Target},
    settings::{Kind, Upstream},
    store::StoredResponse,
};

impl Pipeline {
    /// Whether `request` comes by the door for container clients, whatever its form (see `authority`).
    pub(super) fn is_at_door<B>(&self, request: &Request<B>) -> bool {
        let uri = request.uri();
        let is_own_name = request.version() == Version::HTTP_2 && !self.0.router.names(uri);
        request.extensions().get::<Inside>().is_none()
            && (is_door(uri) || is_own_name && uri.path().starts_with("/v2/"))
    }

    /// Whether the door is open for a request with `headers`; other doors ask nobody who they are.
    ///
    /// # Errors
    /// The problem that says what is missing.
    pub(super) fn at_door(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        if !is_door(uri) || self.0.guests.admit(headers) {
            Ok(())
        } else {
            Err(registry::unauthorized())
        }
    }

    /// Whether a client at `client` may go by `route`.
    ///
    /// # Errors
    /// The problem that says why not.
    pub(super) fn may_have(&self, route: &Route, uri: &Uri, client: IpAddr) -> Result<(), Problem> {
        let upstream = match route {
            Route::Target(target) => Some(&*target.upstream),
            Route::Tunnel { upstream, .. } => self.upstream(upstream),
            // What comes out of it is judged by itself.
            Route::Intercept { .. } | Route::RegistryBase => None,
        };
        let Some(upstream) = upstream else { return Ok(()) };
        if !upstream.allows(client) {
            return Err(respond::upstream_closed(client, upstream.name.as_str()));
        }
        // Users say who they are at the door; a way around it would let everybody in.
        let is_around = matches!(route, Route::Target(_)) && upstream.kind == Kind::Registry && !is_door(uri);
        if is_around && !self.0.guests.is_everybody() {
            return Err(respond::by_the_registry_door(upstream.name.as_str()));
        }
        Ok(())
    }

    /// Which stored responses may be served as content of `target`: those of upstreams that nobody may use who may not use this
    /// one, and as a manifest, what was called one.
    pub(super) fn sharable(&self, target: &Target) -> impl Fn(&StoredResponse) -> bool + Send + 'static {
        let has_users = !self.0.guests.is_everybody();
        let is_registry = |one: &Upstream| one.kind == Kind::Registry;
        let upstreams = self.0.settings.upstreams.iter();
        let sharers: Vec<String> = upstreams
            .filter(|other| other.allows_whom(&target.upstream))
            .filter(|other| !has_users || !is_registry(other) || is_registry(&target.upstream))
            .map(|other| other.name.to_string())
            .collect();
        let is_manifest = target
            .registry
            .as_ref()
            .is_some_and(|place| place.class.is_manifest());
        move |stored| {
            sharers.contains(&stored.upstream)
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

/// `GET /v2/`: this is a registry, and the client may use it.
pub(super) fn base() -> Answer {
    let mut response = Response::new(Payload::bytes(b"{}".to_vec()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Answer::generated(response, Outcome::Hit, "registry")
}
