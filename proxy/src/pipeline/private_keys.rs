//! Keys whose responses are not shared, so that their requests need not wait for one another.
//!
//! What a request with credentials (`Authorization`, `Cookie`) got says nothing about what others get: such a key is remembered for
//! requests with credentials alone. Otherwise any client could keep an object from being stored, with one request in ten seconds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use tokio::time::Instant;

use crate::policy::headers::has_credentials;

/// Of whom something is known, or who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Audience {
    /// Requests with credentials.
    Credentialed,
    /// Everybody.
    All,
}

impl Audience {
    /// The one that a request with these fields belongs to.
    pub(super) fn of(request: &HeaderMap) -> Self {
        if has_credentials(request) {
            Self::Credentialed
        } else {
            Self::All
        }
    }

    /// Whether what is known of `self` holds for a request with these fields.
    pub(super) fn includes(self, request: &HeaderMap) -> bool {
        self == Self::All || Self::of(request) == Self::Credentialed
    }
}

/// Keys whose last response was not to be shared: their requests do not wait for one another. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct PrivateKeys(Arc<Mutex<Known>>);

type Known = HashMap<(String, Audience), Instant>;

impl PrivateKeys {
    /// How long a key is remembered. Short: while it is, a response that may be stored is not.
    const LIFETIME: Duration = Duration::from_secs(10);
    /// The most keys remembered.
    const LIMIT: usize = 10_000;

    /// Whether a request for `key` with these fields need not wait for others.
    pub(super) fn contains(&self, key: &str, request: &HeaderMap, now: Instant) -> bool {
        let keys = self.lock();
        if keys.is_empty() {
            return false;
        }
        let is_known = |audience: Audience| {
            audience.includes(request)
                && keys
                    .get(&(key.to_owned(), audience))
                    .is_some_and(|since| now < *since + Self::LIFETIME)
        };
        is_known(Audience::All) || is_known(Audience::Credentialed)
    }

    pub(super) fn insert(&self, key: &str, audience: Audience, now: Instant) {
        let mut keys = self.lock();
        if keys.len() >= Self::LIMIT {
            keys.retain(|_, since| now < *since + Self::LIFETIME);
        }
        if keys.len() < Self::LIMIT {
            keys.insert((key.to_owned(), audience), now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn what_credentials_brought_is_known_of_requests_with_credentials_alone_and_for_a_while() {
        let (keys, now) = (PrivateKeys::default(), Instant::now());
        let plain = HeaderMap::new();
        let with = |name| HeaderMap::from_iter([(name, HeaderValue::from_static("x"))]);
        let (cookie, authorization) = (with(header::COOKIE), with(header::AUTHORIZATION));
        keys.insert("a", Audience::of(&cookie), now);
        keys.insert("b", Audience::of(&plain), now);
        for (key, request, expected) in [
            ("a", &plain, false),
            ("a", &cookie, true),
            ("a", &authorization, true),
            ("b", &plain, true),
            ("b", &cookie, true),
            ("c", &cookie, false),
        ] {
            assert_eq!(keys.contains(key, request, now), expected, "{key} {request:?}");
            assert!(!keys.contains(key, request, now + PrivateKeys::LIFETIME), "{key}");
        }
    }
}
