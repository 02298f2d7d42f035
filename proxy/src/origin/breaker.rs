//! Which origins did not answer a moment ago, so that a request that has something else to show need not wait for them again.
//!
//! It never makes an answer worse: requests without a stored response to stand in ask the origin all the same, and the first
//! answer clears the mark.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use url::Url;

/// How long a failure counts. Long enough that a burst of requests pays once for a connect timeout, short enough that a
/// restarted origin is seen soon.
const MEMORY: Duration = Duration::from_secs(5);

/// Failures by origin (scheme, host and port); clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Breaker(Arc<Mutex<HashMap<String, Instant>>>);

impl Breaker {
    /// Whether `url`'s origin failed a moment before `now`.
    pub(super) fn is_open(&self, url: &Url, now: Instant) -> bool {
        let failures = self.lock();
        let failed = failures.get(&url.origin().ascii_serialization());
        failed.is_some_and(|since| now < *since + MEMORY)
    }

    /// Notes that `url`'s origin did not answer. The map is bounded by the hosts of upstreams and their redirects: what is
    /// over is dropped when it grows.
    pub(super) fn failed(&self, url: &Url, now: Instant) {
        let mut failures = self.lock();
        failures.retain(|_, since| now < *since + MEMORY);
        failures.insert(url.origin().ascii_serialization(), now);
    }

    /// Notes that `url`'s origin answered.
    pub(super) fn answered(&self, url: &Url) {
        let mut failures = self.lock();
        if !failures.is_empty() {
            failures.remove(&url.origin().ascii_serialization());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_counts_for_its_origin_and_for_a_while() {
        let breaker = Breaker::default();
        let (one, same, other) = (
            "http://a.example/x",
            "http://a.example:80/y",
            "http://a.example:81/x",
        );
        let url = |text: &str| Url::parse(text).unwrap();
        let now = Instant::now();
        breaker.failed(&url(one), now);
        assert!(breaker.is_open(&url(same), now));
        assert!(!breaker.is_open(&url(other), now));
        assert!(!breaker.is_open(&url(one), now + MEMORY));
        breaker.answered(&url(same));
        assert!(!breaker.is_open(&url(one), now));
    }
}
