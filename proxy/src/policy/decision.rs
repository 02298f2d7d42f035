//! The decision about one request: may the stored response be sent as it is, and if not, why.
//!
//! [`decide`] follows [RFC 9111 §4] from top to bottom; the order of the branches is the order of precedence: what makes
//! the cache stand aside, then what makes the stored response unusable, then freshness, then permission to be stale.
//!
//! [RFC 9111 §4]: https://www.rfc-editor.org/rfc/rfc9111#section-4

use jiff::{SignedDuration, Timestamp};

use super::{
    Deviation, Lookup, Overrides, Request, Stored,
    age::current_age,
    cache_control::{FieldScope, MaxStale, RequestDirectives, ResponseDirectives},
    freshness::bounded_lifetime,
    targeted,
    validation::is_retrieval,
};

/// What to do with a request, and every deviation that led there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What to do.
    pub decision: Decision,
    /// Where the operator's knowledge changed the outcome; to be logged.
    pub deviations: Vec<Deviation>,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send the stored response.
    Fresh(Aged),
    /// Send the stored response although it is stale.
    StaleServable {
        /// Its age.
        aged: Aged,
        /// Who permits it. For [`StalePermission::WhileRevalidate`] start a validation in the background.
        permission: StalePermission,
    },
    /// Ask the origin before the stored response may be sent (with its validators if it has any).
    MustValidate {
        /// Its age.
        aged: Aged,
        /// Why.
        reason: ValidationReason,
    },
    /// Nothing stored answers the request: fetch.
    Miss(MissReason),
    /// The client wants a stored response only and there is none it may have: answer 504.
    GatewayTimeout,
    /// The cache has no part in this request: forward it.
    Bypass(BypassReason),
}

/// Age and freshness lifetime of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aged {
    /// Current age (§4.2.3), for the `Age` field.
    pub age: SignedDuration,
    /// Freshness lifetime (§4.2.1) after the operator's bounds.
    pub lifetime: SignedDuration,
}

impl Aged {
    /// What is left of the freshness lifetime; negative is how long it has been stale. RFC 9211 calls it `ttl`.
    pub fn ttl(self) -> SignedDuration {
        self.lifetime.saturating_sub(self.age)
    }

    /// `response_is_fresh = (freshness_lifetime > current_age)` (§4.2).
    pub fn is_fresh(self) -> bool {
        self.lifetime > self.age
    }
}

/// Who permits a stale response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StalePermission {
    /// The client, with `max-stale`.
    MaxStale,
    /// The response, with `stale-while-revalidate` (RFC 5861 §3).
    WhileRevalidate,
}

/// Why a stored response needs validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidationReason {
    /// It is stale.
    Stale,
    /// An unsafe request invalidated it.
    Invalidated,
    /// The response says `no-cache`.
    ResponseNoCache,
    /// The client says `no-cache`.
    RequestNoCache,
    /// The client's `max-age` is smaller than the age.
    RequestMaxAge,
    /// The client's `min-fresh` is greater than the freshness left.
    RequestMinFresh,
}

/// Why nothing stored was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissReason {
    /// Nothing under the cache key.
    Uri,
    /// Nothing with these selecting fields.
    Vary,
}

/// Why the cache stands aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BypassReason {
    /// The method is neither GET nor HEAD.
    Method,
}

/// Decides about `request` given what [`select`](super::select) found.
///
/// Deterministic in its arguments; `now` is the time of the decision by the clock that stamped the stored response.
pub fn decide(request: &Request<'_>, lookup: Lookup<'_>, overrides: &Overrides, now: Timestamp) -> Verdict {
    let plain = |decision| Verdict {
        decision,
        deviations: Vec::new(),
    };
    if !is_retrieval(request.method) {
        return plain(Decision::Bypass(BypassReason::Method));
    }
    let wishes = RequestDirectives::of(request.headers);
    let stored = match lookup {
        // "a cache SHOULD either respond using a stored response consistent with the other constraints of the request or
        // respond with a 504 (Gateway Timeout) status code" (§5.2.1.7).
        Lookup::Absent | Lookup::NoVariant if wishes.only_if_cached => {
            return plain(Decision::GatewayTimeout);
        }
        Lookup::Absent => return plain(Decision::Miss(MissReason::Uri)),
        Lookup::NoVariant => return plain(Decision::Miss(MissReason::Vary)),
        Lookup::Found { stored, .. } => stored,
    };
    let mut verdict = reuse(&wishes, stored, overrides, now);
    if wishes.only_if_cached && matches!(verdict.decision, Decision::MustValidate { .. }) {
        verdict.decision = Decision::GatewayTimeout;
    }
    verdict
}

fn reuse(wishes: &RequestDirectives, stored: &Stored, overrides: &Overrides, now: Timestamp) -> Verdict {
    let (lifetime, bound) = bounded_lifetime(stored, overrides);
    let aged = Aged {
        age: current_age(stored, now),
        lifetime: lifetime.duration,
    };
    if let Some(deviation) = beyond_doubt(stored, overrides) {
        let aged = Aged {
            lifetime: aged.lifetime.max(aged.age.saturating_add(FOR_EVER)),
            ..aged
        };
        return Verdict {
            decision: Decision::Fresh(aged),
            deviations: vec![deviation],
        };
    }
    let mut deviations: Vec<_> = bound.into_iter().collect();
    let directives = targeted::effective(&stored.headers, &overrides.targeted_fields).directives;
    let decision = match unusable(stored, &directives) {
        Some(reason) => Decision::MustValidate { aged, reason },
        None => by_freshness(
            wishes,
            &directives,
            aged,
            (overrides.ignore_client_no_cache, &mut deviations),
        ),
    };
    Verdict { decision, deviations }
}

/// What is said to be left of what is fresh for ever: a year, the longest that origins are used to promise. What the response says of itself,
/// which may be nothing, is about its name and not about its content.
const FOR_EVER: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Content that cannot have changed needs no validation, whatever either side says.
fn beyond_doubt(stored: &Stored, overrides: &Overrides) -> Option<Deviation> {
    if stored.known_digest {
        return Some(Deviation::KnownDigest);
    }
    (overrides.immutable && stored.status == http::StatusCode::OK && !stored.invalidated)
        .then_some(Deviation::ImmutablePath)
}

/// What rules a stored response out at any age.
fn unusable(stored: &Stored, directives: &ResponseDirectives) -> Option<ValidationReason> {
    if stored.invalidated {
        return Some(ValidationReason::Invalidated);
    }
    // "the stored response does not contain the no-cache directive, unless it is successfully validated" (§4).
    (directives.no_cache == FieldScope::Whole).then_some(ValidationReason::ResponseNoCache)
}

/// Fresh, permitted to be stale, or neither; what the client asks for comes before what the response allows.
fn by_freshness(
    wishes: &RequestDirectives,
    directives: &ResponseDirectives,
    aged: Aged,
    (ignore_client, deviations): (bool, &mut Vec<Deviation>),
) -> Decision {
    if let Some(reason) = client_refuses(wishes, aged) {
        if !ignore_client {
            return Decision::MustValidate { aged, reason };
        }
        deviations.push(Deviation::ClientDirectivesIgnored);
    }
    if aged.is_fresh() {
        return Decision::Fresh(aged);
    }
    match stale_permission(wishes, directives, aged) {
        Some(permission) => Decision::StaleServable { aged, permission },
        None => Decision::MustValidate {
            aged,
            reason: ValidationReason::Stale,
        },
    }
}

/// The client's own bounds (§5.2.1): `no-cache`, `max-age`, `min-fresh`.
fn client_refuses(wishes: &RequestDirectives, aged: Aged) -> Option<ValidationReason> {
    let seconds = |value: u32| SignedDuration::from_secs(i64::from(value));
    if wishes.no_cache {
        return Some(ValidationReason::RequestNoCache);
    }
    // "the client prefers a response whose age is less than or equal to the specified number of seconds. Unless the max-stale
    // request directive is also present, the client does not wish to receive a stale response" (§5.2.1.1).
    if wishes.max_age.is_some_and(|limit| aged.age > seconds(limit)) {
        return Some(ValidationReason::RequestMaxAge);
    }
    // "the client prefers a response whose freshness lifetime is no less than its current age plus the specified time" (§5.2.1.3).
    wishes
        .min_fresh
        .is_some_and(|least| aged.ttl() < seconds(least))
        .then_some(ValidationReason::RequestMinFresh)
}

/// "A cache MUST NOT generate a stale response if it is prohibited by an explicit in-protocol directive … unless it is
/// disconnected or doing so is explicitly permitted by the client or origin server" (§4.2.4).
fn stale_permission(
    wishes: &RequestDirectives,
    directives: &ResponseDirectives,
    aged: Aged,
) -> Option<StalePermission> {
    if directives.forbids_stale() {
        return None;
    }
    let stale_for = SignedDuration::ZERO.saturating_sub(aged.ttl());
    let within = |limit: u32| stale_for <= SignedDuration::from_secs(i64::from(limit));
    let max_stale = match wishes.max_stale {
        Some(MaxStale::Any) => true,
        Some(MaxStale::Seconds(limit)) => within(limit),
        None => false,
    };
    if max_stale {
        return Some(StalePermission::MaxStale);
    }
    // A client that set its own max-age did not ask for less than that.
    let revalidate = wishes.max_age.is_none() && directives.stale_while_revalidate.is_some_and(within);
    revalidate.then_some(StalePermission::WhileRevalidate)
}

#[cfg(test)]
mod tests;
