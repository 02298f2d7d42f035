//! A response that came by way of redirects: what all of them together allow.
//!
//! We follow redirects ourselves and answer for the URL asked first. That answer is two statements in one, "you find it there"
//! and "there it is", and each has its own rules. It may be stored only where every part of it may, it is fresh as long as the
//! part that is so for the shortest time ([RFC 9111 §4.2.1]), and it is selected by the `Vary` of each (§4.1).
//!
//! [`bind`] writes this into the header section, so that everything after it, caches behind this one included, reads one
//! response with one set of rules. A redirect without a stated lifetime is good for this once where it is temporary ("the
//! client ought to continue to use the original URI", [RFC 9110 §15.4.3]), and as long as we dare to guess where it is permanent.
//!
//! [RFC 9111 §4.2.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.1
//! [RFC 9110 §15.4.3]: https://www.rfc-editor.org/rfc/rfc9110#section-15.4.3

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::{SignedDuration, Timestamp};

use super::{
    NoStoreReason, Overrides, Request, Selecting, SetCookie, Stored, Times,
    age::current_age,
    cache_control::{Argument, Directive, FieldScope, MAX_DELTA_SECONDS, parse_directive, split_list},
    freshness::{LifetimeSource, lifetime},
    storable::forbidden,
    targeted,
};

/// A redirect that was followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its status code.
    pub status: StatusCode,
    /// Its header section.
    pub headers: HeaderMap,
    /// When it was asked for and when it came.
    pub times: Times,
}

/// Writes into the header section of the response that came in the end what the redirects before it demand. Tells why nothing
/// may be stored, if one of them forbids it; the header section forbids it then, too.
pub fn bind(
    request: &Request<'_>,
    (status, headers, times): (StatusCode, &mut HeaderMap, Times),
    hops: &[Hop],
    overrides: &Overrides,
) -> Option<NoStoreReason> {
    let bounds = hops.iter().map(|hop| Bounds::of(request, hop, overrides));
    let bounds = bounds.reduce(|all, one| all.and(&one))?;
    let own = Stored::for_first_client(request, (status, headers), times);
    let own_lifetime = lifetime(&own, overrides);
    // The bound as a lifetime: counted, like every lifetime, from the generation of the response in the end.
    let left = bounds
        .until
        .duration_since(times.response)
        .max(SignedDuration::ZERO);
    let bound = current_age(&own, times.response).saturating_add(left);
    let not_storable = forbidden(request, status, headers, overrides);
    let rules = Rules {
        seconds: u32::try_from(bound.as_secs()).map_or(MAX_DELTA_SECONDS, |secs| secs.min(MAX_DELTA_SECONDS)),
        // What says nothing itself and may be stored all the same must not be guessed at beyond the bound.
        is_stated: own_lifetime.duration > bound && not_storable.is_none(),
        // What the response in the end forbids stays forbidden under the directives that are added.
        forbids: bounds
            .forbids
            .or(not_storable.filter(|reason| *reason != NoStoreReason::NotCacheableByDefault)),
        bounds: &bounds,
    };
    let is_targeted = targeted::effective(headers, &overrides.targeted_fields).targeted;
    for name in &overrides.targeted_fields {
        if headers.contains_key(name) {
            rules.write_into(headers, name, rules.is_stated && is_targeted);
        }
    }
    rules.write_into(headers, &header::CACHE_CONTROL, rules.is_stated && !is_targeted);
    for hop in hops {
        add_vary(headers, &hop.headers);
    }
    bounds.forbids
}

/// [`bind`] for a stored response that the answer at the end of `hops` brought up to date.
pub fn bind_stored(
    request: &Request<'_>,
    stored: &mut Stored,
    hops: &[Hop],
    overrides: &Overrides,
) -> Option<NoStoreReason> {
    let parts = (stored.status, &mut stored.headers, stored.times);
    let forbids = bind(request, parts, hops, overrides);
    if !hops.is_empty() {
        stored.selecting = Selecting::of(request.headers, &stored.headers);
    }
    forbids
}

/// What redirects demand.
#[derive(Debug)]
struct Bounds {
    /// When the first of them is stale.
    until: Timestamp,
    /// Seconds in which all may be used while they are validated.
    while_revalidate: u32,
    /// Seconds in which they may stand in for errors, where one says so.
    if_error: Option<u32>,
    no_cache: bool,
    /// The strictest directive against stale use.
    revalidate: Option<&'static [u8]>,
    forbids: Option<NoStoreReason>,
}

impl Bounds {
    fn of(request: &Request<'_>, hop: &Hop, overrides: &Overrides) -> Self {
        let stored = Stored::for_first_client(request, (hop.status, &hop.headers), hop.times);
        let stated = lifetime(&stored, overrides);
        let directives = targeted::effective(&hop.headers, &overrides.targeted_fields).directives;
        let is_guessed =
            matches!(hop.status.as_u16(), 301 | 308) && stated.source == LifetimeSource::Unstated;
        let lasts = if is_guessed {
            overrides.heuristic_max
        } else {
            stated.duration
        };
        let left = lasts.saturating_sub(current_age(&stored, hop.times.response));
        let now = hop.times.response;
        Self {
            until: now.saturating_add(left).unwrap_or(now),
            while_revalidate: match directives.stale_while_revalidate {
                Some(seconds) => seconds,
                None if is_guessed => MAX_DELTA_SECONDS,
                None => 0,
            },
            if_error: directives.stale_if_error,
            no_cache: directives.no_cache == FieldScope::Whole,
            revalidate: if directives.must_revalidate {
                Some(b"must-revalidate")
            } else if directives.forbids_stale() {
                Some(b"proxy-revalidate")
            } else {
                None
            },
            forbids: forbids(request, hop, overrides),
        }
    }

    fn and(self, other: &Self) -> Self {
        Self {
            until: self.until.min(other.until),
            while_revalidate: self.while_revalidate.min(other.while_revalidate),
            if_error: [self.if_error, other.if_error].into_iter().flatten().min(),
            no_cache: self.no_cache || other.no_cache,
            // "must-revalidate" is the smaller text and the stricter rule.
            revalidate: [self.revalidate, other.revalidate].into_iter().flatten().min(),
            // `no-store` forbids the caches of clients as well.
            forbids: [self.forbids, other.forbids]
                .into_iter()
                .flatten()
                .max_by_key(|reason| *reason == NoStoreReason::ResponseNoStore),
        }
    }
}

/// Why a redirect may not become part of what is stored. A cookie comes with a redirect where somebody is logged in: what is
/// behind it was made for that client, whatever lifetime is stated.
fn forbids(request: &Request<'_>, hop: &Hop, overrides: &Overrides) -> Option<NoStoreReason> {
    let cookie = hop.headers.contains_key(header::SET_COOKIE) && overrides.set_cookie != SetCookie::Always;
    forbidden(request, hop.status, &hop.headers, overrides)
        // Without a stated lifetime it is stale at once, which is bound enough.
        .filter(|reason| *reason != NoStoreReason::NotCacheableByDefault)
        .or(cookie.then_some(NoStoreReason::SetCookie))
}

/// [`Bounds`] as directives.
#[derive(Debug)]
struct Rules<'b> {
    /// The longest freshness lifetime.
    seconds: u32,
    is_stated: bool,
    forbids: Option<NoStoreReason>,
    bounds: &'b Bounds,
}

impl Rules<'_> {
    /// Tightens the directives in the field `name`; with `is_stated`, the lifetime stands there in the end. A field that demands as
    /// much already stays as it is, byte for byte.
    fn write_into(&self, headers: &mut HeaderMap, name: &HeaderName, is_stated: bool) {
        let before: Vec<Vec<u8>> = headers
            .get_all(name)
            .iter()
            .flat_map(|line| split_list(line.as_bytes()))
            .map(<[u8]>::to_vec)
            .collect();
        let mut after: Vec<Vec<u8>> = before
            .iter()
            .filter_map(|member| self.tightened(member))
            .collect();
        let has = |after: &[Vec<u8>], wanted| after.iter().any(|one| parse_directive(one).name == wanted);
        if is_stated && !has(&after, "max-age") && !has(&after, "s-maxage") {
            after.push(format!("max-age={}", self.seconds).into_bytes());
        }
        if let Some(seconds) = self.bounds.if_error
            && !has(&after, "stale-if-error")
        {
            after.push(format!("stale-if-error={seconds}").into_bytes());
        }
        let no_cache = self.bounds.no_cache.then_some(&b"no-cache"[..]);
        for word in [self.forbidding(), no_cache, self.bounds.revalidate]
            .into_iter()
            .flatten()
        {
            if !after.iter().any(|member| member.eq_ignore_ascii_case(word)) {
                after.push(word.to_vec());
            }
        }
        // Every byte was in a field value, or is visible ASCII.
        if after != before
            && let Ok(value) = HeaderValue::from_bytes(&after.join(&b", "[..]))
        {
            headers.insert(name, value);
        }
    }

    fn forbidding(&self) -> Option<&'static [u8]> {
        match self.forbids? {
            // `Vary` says it.
            NoStoreReason::VaryAny => None,
            NoStoreReason::Private | NoStoreReason::Authorization | NoStoreReason::SetCookie => {
                Some(b"private")
            }
            NoStoreReason::Method
            | NoStoreReason::NotFinal
            | NoStoreReason::NotModified
            | NoStoreReason::Partial
            | NoStoreReason::RequestNoStore
            | NoStoreReason::ResponseNoStore
            | NoStoreReason::NotUnderstood
            | NoStoreReason::Network
            | NoStoreReason::Unusable
            | NoStoreReason::NotCacheableByDefault => Some(b"no-store"),
        }
    }

    /// A directive within the bounds; `None` where nothing is left of it.
    fn tightened(&self, member: &[u8]) -> Option<Vec<u8>> {
        let Directive { name, argument } = parse_directive(member);
        let at_most = |most: u32| {
            let argument = argument.as_ref();
            // What is no number counts as zero already; with parameters (RFC 9213) it may count as the number before them.
            let has_parameters = argument.is_some_and(|argument| argument.0.contains(&b';'));
            match argument.and_then(Argument::delta_seconds) {
                Some(stated) if stated > most => format!("{name}={most}").into_bytes(),
                None if has_parameters => format!("{name}=0").into_bytes(),
                _ => member.to_vec(),
            }
        };
        match name.as_str() {
            "max-age" | "s-maxage" => Some(at_most(self.seconds)),
            "stale-while-revalidate" => {
                (self.bounds.while_revalidate > 0).then(|| at_most(self.bounds.while_revalidate))
            }
            "stale-if-error" => Some(self.bounds.if_error.map_or_else(|| member.to_vec(), at_most)),
            "public" => self.forbids.is_none().then(|| member.to_vec()),
            _ => Some(member.to_vec()),
        }
    }
}

/// Adds the members of `from`'s `Vary` that `headers` does not have yet.
fn add_vary(headers: &mut HeaderMap, from: &HeaderMap) {
    for line in from.get_all(header::VARY) {
        for member in split_list(line.as_bytes()) {
            if !super::headers::list_contains(headers, &header::VARY, member)
                && let Ok(value) = HeaderValue::from_bytes(member)
            {
                headers.append(header::VARY, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
