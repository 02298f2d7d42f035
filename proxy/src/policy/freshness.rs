//! How long a stored response is fresh: [RFC 9111 §4.2.1] and the heuristic of §4.2.2.
//!
//! [RFC 9111 §4.2.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.1

use http::header;
use jiff::{SignedDuration, Timestamp};

use super::{
    Deviation, Overrides, Stored,
    age::current_age,
    headers::single_date,
    storable::is_heuristically_cacheable,
    targeted::{self, Effective},
};

/// A freshness lifetime and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// How long after its generation the response is fresh; never negative.
    pub duration: SignedDuration,
    /// What set it.
    pub source: LifetimeSource,
}

/// What sets a freshness lifetime, in the order of precedence for a shared cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// The `s-maxage` directive.
    SMaxage,
    /// The `max-age` directive.
    MaxAge,
    /// The `Expires` field.
    Expires,
    /// A share of the time since `Last-Modified`.
    Heuristic,
    /// Nothing: the lifetime is zero.
    Unstated,
}

/// The freshness lifetime that the response itself states or suggests.
///
/// "If the cache is shared and the s-maxage response directive is present, use its value, or if the max-age response
/// directive is present, use its value, or if the Expires response header field is present, use its value minus the
/// value of the Date response header field …, or otherwise … a heuristic freshness lifetime might be applicable" (§4.2.1).
pub fn lifetime(stored: &Stored, overrides: &Overrides) -> Lifetime {
    let Effective { directives, targeted } = targeted::effective(&stored.headers, &overrides.targeted_fields);
    let seconds = |value: u32| SignedDuration::from_secs(i64::from(value));
    if let Some(value) = directives.s_maxage {
        return Lifetime {
            duration: seconds(value),
            source: LifetimeSource::SMaxage,
        };
    }
    if let Some(value) = directives.max_age {
        return Lifetime {
            duration: seconds(value),
            source: LifetimeSource::MaxAge,
        };
    }
    if !targeted && stored.headers.contains_key(header::EXPIRES) {
        return Lifetime {
            duration: until_expires(stored),
            source: LifetimeSource::Expires,
        };
    }
    match heuristic(stored, directives.public, overrides) {
        Some(duration) => Lifetime {
            duration,
            source: LifetimeSource::Heuristic,
        },
        None => Lifetime {
            duration: SignedDuration::ZERO,
            source: LifetimeSource::Unstated,
        },
    }
}

/// The lifetime after the operator's bounds, with a [`Deviation`] where they changed it.
///
/// Errors are bounded apart: a minimum that is right for content would hide for as long that a name has come into being.
pub fn bounded_lifetime(stored: &Stored, overrides: &Overrides) -> (Lifetime, Option<Deviation>) {
    let stated = lifetime(stored, overrides);
    if stored.status.is_client_error() || stored.status.is_server_error() {
        return bounded_error(stored, stated, overrides);
    }
    let from = stated.duration;
    let with = |to| Lifetime {
        duration: to,
        source: stated.source,
    };
    match (overrides.min_freshness, overrides.max_freshness) {
        (_, Some(to)) if from > to => (with(to), Some(Deviation::FreshnessCapped { from, to })),
        (Some(to), _) if from < to => (with(to), Some(Deviation::FreshnessRaised { from, to })),
        _ => (stated, None),
    }
}

/// Whether `stored` may be reused at `now` without validation, for all that its age says and no unsafe request denies: "A fresh
/// response is one whose age has not yet exceeded its freshness lifetime" (§4.2).
pub fn is_fresh(stored: &Stored, overrides: &Overrides, now: Timestamp) -> bool {
    !stored.invalidated && bounded_lifetime(stored, overrides).0.duration > current_age(stored, now)
}

/// The most that an error is fresh, whatever it says: what it denies may exist tomorrow.
pub const NEGATIVE_MAX: SignedDuration = SignedDuration::from_hours(1);

/// An error lives as long as it says, at most [`NEGATIVE_MAX`]; one that says nothing, and whose status code allows a cache to
/// guess, as long as the operator says.
fn bounded_error(stored: &Stored, stated: Lifetime, overrides: &Overrides) -> (Lifetime, Option<Deviation>) {
    let with = |to| Lifetime {
        duration: to,
        ..stated
    };
    let is_stated = !matches!(
        stated.source,
        LifetimeSource::Unstated | LifetimeSource::Heuristic
    );
    let most = overrides.max_freshness.unwrap_or(NEGATIVE_MAX).min(NEGATIVE_MAX);
    match overrides.negative_ttl {
        Some(to) if !is_stated && to > stated.duration && is_heuristically_cacheable(stored.status) => {
            (with(to), Some(Deviation::NegativeRaised { to }))
        }
        _ if stated.duration > most => {
            let from = stated.duration;
            (with(most), Some(Deviation::FreshnessCapped { from, to: most }))
        }
        _ => (stated, None),
    }
}

/// "A cache recipient MUST interpret invalid date formats, especially the value "0", as representing a time in the past
/// (i.e., "already expired")" (§5.3). Lines that differ are as good as invalid.
fn until_expires(stored: &Stored) -> SignedDuration {
    single_date(&stored.headers, &header::EXPIRES).map_or(SignedDuration::ZERO, |expires| {
        expires.duration_since(stored.date()).max(SignedDuration::ZERO)
    })
}

/// "caches are encouraged to use a heuristic expiration value that is no more than some fraction of the interval since
/// that time. A typical setting of this fraction might be 10%" (§4.2.2).
///
/// Only for status codes that allow it or a response marked `public`, and only where the origin said when the
/// representation last changed: a guess needs a ground.
fn heuristic(stored: &Stored, public: bool, overrides: &Overrides) -> Option<SignedDuration> {
    if !public && !is_heuristically_cacheable(stored.status) {
        return None;
    }
    let modified = single_date(&stored.headers, &header::LAST_MODIFIED)?;
    let unchanged_for = stored.date().duration_since(modified);
    let share = SignedDuration::from_secs(
        unchanged_for
            .as_secs()
            .saturating_mul(i64::from(overrides.heuristic_percent))
            / 100,
    );
    (share > SignedDuration::ZERO).then_some(share.min(overrides.heuristic_max))
}

#[cfg(test)]
mod tests;
