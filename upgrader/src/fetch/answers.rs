//! Where answers came from: the cache's store or its upstream, as its `Cache-Status` field says (RFC 9211).

use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use url::Url;

/// Where the body of an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The cache had it, and at most asked whether it is still valid.
    Store,
    /// It crossed the WAN; also when there is no cache on the way.
    Upstream,
}

/// One good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What was asked for, without the cache's part.
    pub url: Url,
    /// Where it came from.
    pub source: Source,
    /// Its size in bytes, when the answer said it.
    pub bytes: Option<u64>,
}

/// Keeps all answers of a [`super::Fetcher`]; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Answers(Arc<Mutex<Vec<Seen>>>);

impl Answers {
    /// All answers so far, in the order of their heads.
    pub fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note(&self, url: &Url, source: Source, bytes: Option<u64>) {
        let seen = Seen {
            url: url.clone(),
            source,
            bytes,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }
}

/// Where the answer with these fields came from.
///
/// "The first member of the list represents the cache closest to the origin server, and the last member of the list
/// represents the cache closest to the user" (RFC 9211 §2): what the last one did is what this request cost.
pub(super) fn source(headers: &HeaderMap) -> Source {
    let fields = headers.get_all("cache-status").iter();
    let Some(field) = fields.filter_map(|field| field.to_str().ok()).next_back() else {
        return Source::Upstream;
    };
    let last = split(field, ',').pop().unwrap_or_default();
    let parameters = split(last, ';').split_off(1);
    let has = |wanted: &str| parameters.iter().any(|parameter| parameter.trim() == wanted);
    // "fwd-status": a forwarded request that was answered with 304 was answered from the store (§2.4).
    if has("hit") || has("hit=?1") || has("fwd-status=304") {
        Source::Store
    } else {
        Source::Upstream
    }
}

/// Splits at `mark` outside quoted strings (RFC 9651 §3.3.3).
fn split(text: &str, mark: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == mark && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(fields: &[&'static str]) -> Source {
        let name = http::HeaderName::from_static("cache-status");
        let pairs = fields
            .iter()
            .map(|field| (name.clone(), HeaderValue::from_static(field)));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        source(&headers)
    }

    #[test]
    fn rfc9211_s2_the_last_member_says_what_the_request_cost() {
        for field in [
            "kato-proxy; hit",
            "kato-proxy;hit;ttl=30",
            "kato-proxy; fwd=stale; fwd-status=304",
            "origin; fwd=uri-miss, kato-proxy; hit",
            "kato-proxy; detail=\"a, b; fwd=uri-miss\"; hit",
        ] {
            assert_eq!(of(&[field]), Source::Store, "{field}");
        }
        for field in [
            "kato-proxy; fwd=uri-miss; stored",
            "kato-proxy; fwd=uri-miss; collapsed",
            "kato-proxy; fwd=stale; fwd-status=200; stored",
            "origin; hit, kato-proxy; fwd=uri-miss",
            "kato-proxy; detail=\"; hit\"; fwd=uri-miss",
            "hit",
        ] {
            assert_eq!(of(&[field]), Source::Upstream, "{field}");
        }
        assert_eq!(of(&[]), Source::Upstream);
        assert_eq!(of(&["origin; fwd=uri-miss", "kato-proxy; hit"]), Source::Store);
    }
}
