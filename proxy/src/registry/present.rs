//! The head of an answer about a registry, as clients expect it.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    Accepts, Class, Place,
    accept::media_type,
    link,
    problem::{API_VERSION, api_version, cannot_read, upstream_denied},
};
use crate::{deliver::Payload, policy::Failure, respond, route::Target};

/// The digest of the content (distribution specification, "Pulling manifests").
pub(crate) const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Finishes `response` to a request for `target` of a client that reads `accepts`.
pub(crate) fn present(target: &Target, accepts: Option<&Accepts>, response: &mut Response<Payload>) {
    let Some(place) = &target.registry else { return };
    let is_success = response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED;
    if is_success
        && let Some(accepts) = accepts
        && !accepts.allow(response.headers())
    {
        let held = media_type(response.headers()).unwrap_or_default();
        *response = respond::problem(&cannot_read(&held));
        return;
    }
    if let Some(digest) = target.digest.filter(|_| is_success)
        && matches!(place.class, Class::Manifest | Class::Blob)
        && let Ok(value) = HeaderValue::try_from(digest.to_string())
    {
        // Whatever the registry announced: what is sent has this digest.
        response.headers_mut().insert(DOCKER_CONTENT_DIGEST, value);
    }
    if place.door.is_some() {
        at_the_door(target, place, response);
    }
    if place.class.is_paged() && place.asked_here().is_some() {
        link::lead_back(place, response.headers_mut());
    }
}

/// What a registry's front end adds to every answer says nothing about its content: cookies of a login page, and for names, freshness
/// that is meant for browsers. How long a name is believed is the operator's to say (`tag_ttl`). Whether anything was taken out.
///
/// Off-spec: RFC 9111 lets the origin decide; digests and `tag_ttl` decide here, and the log says so.
pub(crate) fn strip_front_end(target: &Target, status: StatusCode, headers: &mut HeaderMap) -> bool {
    let Some(place) = target
        .registry
        .as_ref()
        .filter(|place| place.class != Class::Other)
    else {
        return false;
    };
    let is_name = matches!(place.class, Class::Tag | Class::List | Class::Referrers);
    let of_names = [header::CACHE_CONTROL, header::EXPIRES, header::PRAGMA];
    let named = of_names.iter().filter(|_| is_name && status == StatusCode::OK);
    let before = headers.len();
    headers.remove(header::SET_COOKIE);
    for name in named {
        headers.remove(name);
    }
    headers.len() < before
}

/// Says to container clients, whose people read no `Cache-Status`, that a stored response stands in for `failure`.
///
/// Off-spec: RFC 9111 has removed `Warning`; it is what is read of those who speak to registries.
pub(crate) fn warn(target: &Target, failure: Failure, response: &mut Response<Payload>) {
    let text = match failure {
        Failure::Unreachable => "111 kato \"the registry gives no usable answer\"".to_owned(),
        Failure::Status(status) => format!("299 kato \"the registry answers {}\"", status.as_u16()),
    };
    if let Ok(text) = HeaderValue::try_from(text)
        && target.registry.is_some()
    {
        response.headers_mut().insert(header::WARNING, text);
    }
}

/// What only holds for those who speak to us as to a registry.
fn at_the_door(target: &Target, place: &Place, response: &mut Response<Payload>) {
    // The challenge is for us. A client that followed it would go past this cache, and show its credentials elsewhere.
    if response.status() == StatusCode::UNAUTHORIZED {
        *response = respond::problem(&upstream_denied(&target.upstream, &place.repository));
        return;
    }
    let headers = response.headers_mut();
    headers.remove(header::WWW_AUTHENTICATE);
    headers.remove(header::SET_COOKIE);
    headers.insert(API_VERSION, api_version());
}
