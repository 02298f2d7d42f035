//! The facts: a request as the policy sees it, and what the index keeps of a stored response.

use http::{HeaderMap, HeaderName, Method, StatusCode};
use jiff::Timestamp;
use url::Url;

use super::{Selecting, headers, overrides::Overrides, targeted};

/// The parts of a request on which caching depends.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The header fields as the client sent them.
    pub headers: &'a HeaderMap,
}

/// When the exchange with the origin happened, by our clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the request was sent.
    pub request: Timestamp,
    /// When the response's header section arrived.
    pub response: Timestamp,
}

/// A stored response without its content: every later decision needs only this.
///
/// The fields are public so that the index can write them as it likes and build the value again from what it read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The status code received.
    pub status: StatusCode,
    /// The header fields kept, as [`Stored::new`] leaves them.
    pub headers: HeaderMap,
    /// When it was received or last validated.
    pub times: Times,
    /// The request fields that `Vary` named, with their values then.
    pub selecting: Selecting,
    /// True where the content was checked against a digest that was known before it was asked for.
    pub known_digest: bool,
    /// True after an unsafe request changed the resource: not to be reused without validation (RFC 9111 §4.4).
    pub invalidated: bool,
    /// Where redirects led, if it was asked for elsewhere and its content has addresses that are relative to where it stands. Without a
    /// query, which may hold a signature.
    pub found_at: Option<Url>,
}

impl Stored {
    /// What is kept of a response to `request` that [`storability`](super::storability) allowed to be stored.
    ///
    /// Leaves out hop-by-hop and proxy fields (RFC 9111 §3.1) and the fields that `private="…"` and `no-cache="…"`
    /// list; adds `Date` where the origin sent none (RFC 9110 §6.6.1).
    pub fn new(
        request: &Request<'_>,
        (status, response): (StatusCode, &HeaderMap),
        times: Times,
        overrides: &Overrides,
    ) -> Self {
        Self {
            status,
            headers: kept_headers(response, times, overrides),
            times,
            selecting: Selecting::of(request.headers, response),
            known_digest: false,
            invalidated: false,
            found_at: None,
        }
    }

    /// The response for the client that caused it: as [`Stored::new`], with the fields that `private="…"` and `no-cache="…"`
    /// list, since they are meant for that client. Never to be stored or shown to another.
    pub fn for_first_client(
        request: &Request<'_>,
        (status, response): (StatusCode, &HeaderMap),
        times: Times,
    ) -> Self {
        Self {
            status,
            headers: forwarded_headers(response, times),
            times,
            selecting: Selecting::of(request.headers, response),
            known_digest: false,
            invalidated: false,
            found_at: None,
        }
    }

    /// The `Date` of the response, or when it arrived if that field is missing or broken.
    pub fn date(&self) -> Timestamp {
        headers::single_date(&self.headers, &http::header::DATE).unwrap_or(self.times.response)
    }
}

/// The header fields of a response that may be stored, see [`Stored::new`].
pub(super) fn kept_headers(response: &HeaderMap, times: Times, overrides: &Overrides) -> HeaderMap {
    let mut kept = forwarded_headers(response, times);
    for name in withheld(response, overrides) {
        kept.remove(name);
    }
    kept
}

/// Whether [`Stored::new`] leaves out fields that [`Stored::for_first_client`] has.
pub fn withholds(response: &HeaderMap, overrides: &Overrides) -> bool {
    withheld(response, overrides)
        .iter()
        .any(|name| response.contains_key(name))
}

/// "the cache MUST NOT store the listed fields" (§5.2.2.7) and must not reuse them unvalidated (§5.2.2.4): a field that is not stored is
/// never reused by mistake.
fn withheld(response: &HeaderMap, overrides: &Overrides) -> Vec<HeaderName> {
    let directives = targeted::effective(response, &overrides.targeted_fields).directives;
    [directives.private.fields(), directives.no_cache.fields()].concat()
}

/// The header fields of a response that go further than the hop they came over, with a `Date`.
fn forwarded_headers(response: &HeaderMap, times: Times) -> HeaderMap {
    let mut forwarded = response.clone();
    headers::strip_hop_by_hop(&mut forwarded);
    for name in headers::PROXY_FIELDS {
        forwarded.remove(name);
    }
    headers::ensure_date(&mut forwarded, times.response);
    forwarded
}
