//! The head of an answer about a registry, as clients expect it.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    Accepts, Class, Place,
    accept::media_type,
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
    if place.class.is_paged()
        && let Some(link) = headers.remove(header::LINK)
        && let Some(own) = link.to_str().ok().and_then(|link| own_link(place, link))
    {
        headers.insert(header::LINK, own);
    }
}

/// `</v2/…?…>; rel="next"` of the upstream as a link to the same page here. One that leads anywhere else is left out.
fn own_link(place: &Place, link: &str) -> Option<HeaderValue> {
    let door = place.door.as_ref()?;
    let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.replace([' ', '"'], "").contains("rel=next");
    let (path, query) = url.split_once('?')?;
    let endpoint = |path: &str| path.rsplit('/').next().map(str::to_owned);
    if !is_next || endpoint(path) != endpoint(&door.path) {
        return None;
    }
    // Which registry is meant is for the client to say, not for the registry.
    let page: Vec<_> = query.split('&').filter(|part| !part.starts_with("ns=")).collect();
    let mut own = format!("<{}?{}", door.path, page.join("&"));
    if let Some(namespace) = &door.namespace {
        // Writing to a `String` cannot fail.
        let _infallible = write!(own, "&ns={namespace}");
    }
    own.push_str(">; rel=\"next\"");
    HeaderValue::try_from(own).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Door;

    #[test]
    fn links_to_the_next_page_lead_back_here() {
        let place = |path: &str, namespace: Option<&str>| Place {
            door: Some(Door {
                path: path.into(),
                namespace: namespace.map(str::to_owned),
            }),
            ..Place::of("v2/library/app/tags/list")
        };
        let by_name = place("/v2/hub.example/app/tags/list", None);
        let by_query = place("/v2/app/tags/list", Some("hub.example%3A5000"));
        for (place, link, expected) in [
            (
                &by_name,
                "</v2/library/app/tags/list?last=b&n=2>; rel=\"next\"",
                Some("</v2/hub.example/app/tags/list?last=b&n=2>; rel=\"next\""),
            ),
            (
                &by_query,
                "<https://upstream.example/v2/library/app/tags/list?last=b&n=2>;rel=next",
                Some("</v2/app/tags/list?last=b&n=2&ns=hub.example%3A5000>; rel=\"next\""),
            ),
            (
                &by_name,
                "</v2/library/app/tags/list?ns=evil.example&last=b&n=2>; rel=\"next\"",
                Some("</v2/hub.example/app/tags/list?last=b&n=2>; rel=\"next\""),
            ),
            (
                &by_query,
                "</v2/library/app/tags/list?last=b&ns=evil.example>; rel=\"next\"",
                Some("</v2/app/tags/list?last=b&ns=hub.example%3A5000>; rel=\"next\""),
            ),
            (&by_name, "</elsewhere?n=2>; rel=\"next\"", None),
            (&by_name, "</v2/library/app/tags/list?n=2>; rel=\"first\"", None),
            (&by_name, "nonsense", None),
        ] {
            let own = own_link(place, link);
            assert_eq!(own.as_ref().map(|own| own.to_str().unwrap()), expected, "{link}");
        }
    }
}
