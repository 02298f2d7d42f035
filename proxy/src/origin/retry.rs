//! How often and how long one request is tried: pure decisions, by the class of the failure.
//!
//! | what came | next URL of the upstream | the same again |
//! |---|---|---|
//! | no connection, no answer, cut off | yes | after a pause, at most `attempts` rounds |
//! | TLS fails, credentials refused | yes | no |
//! | 429, 503 with `Retry-After` | yes | after that time, if it fits into `retry_wait` |
//! | 500, 502, 503, 504 | yes | no: the origin has spoken |
//! | guarded address, unusable redirect | no | no |
//!
//! All of it for safe methods alone, and without pauses where a stored response can stand in.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use kato_shared::backoff::Backoff;

use crate::{policy::headers::single_date, settings::Origins};

/// Bounds on attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    /// Rounds over all URLs.
    pub(super) rounds: u32,
    /// The most time in pauses.
    pub(super) wait: Duration,
    /// The longest `Retry-After` that is believed.
    pub(super) longest_retry_after: Duration,
}

impl Policy {
    /// As the settings say.
    pub(super) const fn of(origins: &Origins) -> Self {
        Self {
            rounds: origins.attempts,
            wait: origins.retry_wait.get(),
            longest_retry_after: origins.longest_retry_after.get(),
        }
    }

    /// What `Retry-After` asks for (RFC 9110 §10.2.3: seconds or a date), bounded. `None` without one.
    pub(super) fn retry_after(&self, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
        let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
        let wait = match text.parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_no_number) => {
                let until = single_date(headers, &header::RETRY_AFTER)?;
                Duration::try_from(until.duration_since(now)).unwrap_or_default()
            }
        };
        Some(self.bounded(wait))
    }

    /// As much of `wait` as is believed.
    pub(super) fn bounded(&self, wait: Duration) -> Duration {
        wait.min(self.longest_retry_after)
    }
}

/// What is left of a request's attempts.
#[derive(Debug)]
pub(super) struct Budget {
    policy: Policy,
    rounds_made: u32,
    wait_left: Duration,
}

impl Budget {
    /// All of `policy`, or with `is_once` a single round.
    pub(super) const fn new(policy: Policy, is_once: bool) -> Self {
        let policy = if is_once {
            Policy { rounds: 1, ..policy }
        } else {
            policy
        };
        Self {
            policy,
            rounds_made: 0,
            wait_left: policy.wait,
        }
    }

    /// The pause before the next round, if there is one: at least `hint`, which must fit into what is left.
    pub(super) fn pause(&mut self, hint: Option<Duration>) -> Option<Duration> {
        self.rounds_made += 1;
        if self.rounds_made >= self.policy.rounds {
            return None;
        }
        // Full jitter above the hint, so that all who got the same hint do not come back together.
        let spread = Backoff::NETWORK.wait_jittered(self.rounds_made - 1);
        let wanted = match hint {
            Some(hint) if hint > self.wait_left => return None,
            Some(hint) => hint + spread,
            None => spread,
        };
        let pause = wanted.min(self.wait_left.max(hint.unwrap_or_default()));
        self.wait_left = self.wait_left.saturating_sub(pause);
        Some(pause)
    }

    pub(super) const fn rounds_made(&self) -> u32 {
        self.rounds_made
    }
}

/// Whether `status` answers a range, a condition or an upgrade that the request did not have: taken for an answer, it would be a
/// part or nothing in the place of the whole. We never ask for another protocol, so 101 is never an answer (RFC 9110 §15.2.2).
pub(super) fn is_unasked(request: &HeaderMap, status: StatusCode) -> bool {
    let has = |names: &[header::HeaderName]| names.iter().any(|name| request.contains_key(name));
    match status {
        StatusCode::PARTIAL_CONTENT => !has(&[header::RANGE]),
        StatusCode::NOT_MODIFIED => !has(&[header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE]),
        _ => status.is_informational(),
    }
}

/// Whether another URL of the upstream may answer better.
pub(super) fn is_overloaded(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502..=504)
}

/// Whether `Retry-After` counts with this status code.
pub(super) fn is_asking_for_patience(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 503)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const POLICY: Policy = Policy {
        rounds: 3,
        wait: Duration::from_secs(10),
        longest_retry_after: Duration::from_secs(300),
    };

    #[test]
    fn parts_conditions_and_other_protocols_are_answers_to_those_who_asked() {
        let asked = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=1-"))]);
        for (status, of_a_range, of_nothing) in [(101, true, true), (206, false, true), (304, true, true)] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_unasked(&asked, status), of_a_range, "{status}");
            assert_eq!(is_unasked(&HeaderMap::new(), status), of_nothing, "{status}");
        }
        assert!(!is_unasked(&HeaderMap::new(), StatusCode::OK));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let of = |text: &'static str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(text))]);
            POLICY.retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(of("7"), Some(7));
        assert_eq!(of("Thu, 01 Jan 2026 00:01:00 GMT"), Some(60));
        assert_eq!(of("Wed, 31 Dec 2025 00:01:00 GMT"), Some(0));
        assert_eq!(of("99999999"), Some(300));
        assert_eq!(of("soon"), None);
        assert_eq!(POLICY.retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn rounds_and_pauses_are_bounded() {
        let mut budget = Budget::new(POLICY, false);
        assert!(budget.pause(None).is_some());
        assert!(budget.pause(None).is_some());
        assert_eq!(budget.pause(None), None);
        let mut hinted = Budget::new(POLICY, false);
        let six = Duration::from_secs(6);
        assert!(hinted.pause(Some(six)).is_some_and(|pause| pause >= six));
        assert_eq!(hinted.pause(Some(six)), None, "more than is left");
        assert_eq!(Budget::new(POLICY, true).pause(None), None);
    }
}
