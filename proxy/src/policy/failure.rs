//! The origin failed while a stored response waited for validation: may that response stand in?
//!
//! [RFC 9111 §4.3.3](https://www.rfc-editor.org/rfc/rfc9111#section-4.3.3): on a 5xx a cache "can either forward this response to the requesting client or act as if
//! the server failed to respond. In the latter case, the cache can send a previously stored response, subject to its
//! constraints on doing so (see Section 4.2.4)". RFC 5861 §4 bounds this by `stale-if-error`.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::{
    Aged, Overrides, Request, Stored, age::current_age, cache_control::RequestDirectives,
    freshness::bounded_lifetime, targeted,
};

/// How long "not found" stands in for an origin that does not answer. Clients go on with what there is instead: `apt` takes `Release` where
/// `InRelease` is missing, and would end with an error where nobody says so.
const NOT_FOUND_STANDS_IN: SignedDuration = SignedDuration::from_hours(24);

/// How the origin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No response: refused, timed out, cut off, name not found.
    Unreachable,
    /// A final response with this status code.
    Status(StatusCode),
}

/// The answer to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureAnswer {
    /// Send the stored response, stale.
    ServeStale(Aged),
    /// Send the failure: the origin's own response, or 502/504 where there is none.
    PassFailure(StaleRefusal),
}

/// Why a stored response may not stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleRefusal {
    /// The status code is an answer, not a failure.
    NotAFailure,
    /// `must-revalidate`, `proxy-revalidate`, `s-maxage` or `no-cache` forbids it.
    Forbidden,
    /// An unsafe request invalidated it.
    Invalidated,
    /// It is an error itself: "a stale response that is otherwise usable" (RFC 5861 §4) is none.
    Unusable,
    /// The client asked for validation with `no-cache`.
    RequestNoCache,
    /// It has been stale for longer than allowed.
    TooStale,
}

/// Decides whether `stored` may answer `request` after `failure`.
///
/// Only 500, 502, 503 and 504 count as failures of the origin (RFC 5861 §4), and what [`Overrides::serve_gone`] adds. The window is the request's
/// `stale-if-error`, else the response's, else [`Overrides::stale_if_error`].
pub fn on_failure(
    request: &Request<'_>,
    stored: &Stored,
    failure: Failure,
    (overrides, now): (&Overrides, Timestamp),
) -> FailureAnswer {
    let aged = Aged {
        age: current_age(stored, now),
        lifetime: bounded_lifetime(stored, overrides).0.duration,
    };
    match refusal(request, stored, failure, (overrides, aged)) {
        Some(refusal) => FailureAnswer::PassFailure(refusal),
        None => FailureAnswer::ServeStale(aged),
    }
}

fn refusal(
    request: &Request<'_>,
    stored: &Stored,
    failure: Failure,
    (overrides, aged): (&Overrides, Aged),
) -> Option<StaleRefusal> {
    let counts = |status: StatusCode| match status.as_u16() {
        500 | 502..=504 => true,
        404 | 410 | 429 => overrides.serve_gone,
        _ => false,
    };
    if let Failure::Status(status) = failure
        && !counts(status)
    {
        return Some(StaleRefusal::NotAFailure);
    }
    if stored.known_digest {
        return None;
    }
    if is_unusable(stored, failure, aged) {
        return Some(StaleRefusal::Unusable);
    }
    let wishes = RequestDirectives::of(request.headers);
    let directives = targeted::effective(&stored.headers, &overrides.targeted_fields).directives;
    if directives.forbids_stale() {
        return Some(StaleRefusal::Forbidden);
    }
    if stored.invalidated {
        return Some(StaleRefusal::Invalidated);
    }
    if wishes.no_cache && !overrides.ignore_client_no_cache {
        return Some(StaleRefusal::RequestNoCache);
    }
    let seconds = |value: u32| SignedDuration::from_secs(i64::from(value));
    let window = wishes
        .stale_if_error
        .or(directives.stale_if_error)
        .map(seconds)
        .or(overrides.stale_if_error);
    let stale_for = SignedDuration::ZERO.saturating_sub(aged.ttl());
    window
        .is_some_and(|window| stale_for > window)
        .then_some(StaleRefusal::TooStale)
}

/// Whether `stored` is an error that says nothing about now.
fn is_unusable(stored: &Stored, failure: Failure, aged: Aged) -> bool {
    let is_not_found = matches!(stored.status, StatusCode::NOT_FOUND | StatusCode::GONE);
    match failure {
        Failure::Unreachable if is_not_found => aged.age > NOT_FOUND_STANDS_IN,
        // Who can ask hears what is so now.
        Failure::Unreachable | Failure::Status(_) => {
            stored.status.is_client_error() || stored.status.is_server_error()
        }
    }
}

#[cfg(test)]
mod tests;
