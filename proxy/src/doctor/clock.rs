//! Clocks: this machine's beside the server's, and beside those of upstreams. Pure.

use http::header;
use jiff::Timestamp;
use kato_shared::api::Problem;

use super::Check;
use crate::{origin::Probed, policy::headers::single_date};

/// apt refuses what was signed more than this in its future.
const APT_TOLERANCE_SECONDS: i64 = 10;
/// Certificates and signatures begin to fail somewhere here.
const CLOCK_TOLERANCE_SECONDS: i64 = 300;

/// This machine's clock, so many seconds ahead of the server's.
pub(super) fn clock(ahead: i64) -> Check {
    let said = match ahead {
        0 => "as the server's".to_owned(),
        1.. => format!("{ahead} s ahead of the server's"),
        ..0 => format!("{} s behind the server's", -ahead),
    };
    let hint = "set the clock of this machine or of the server";
    if ahead.abs() > CLOCK_TOLERANCE_SECONDS {
        Check::failed("clock", said, hint)
    } else if ahead.abs() > APT_TOLERANCE_SECONDS {
        Check::warning("clock", said, hint)
    } else {
        Check::ok("clock", said)
    }
}

/// How far, in seconds, this machine's clock is ahead of the upstream's, where the answer is one of the upstream: `Date` says when it was
/// made, and `Age` how long ago that is (RFC 9111 §4.2.3).
pub(super) fn upstream_clock(answer: &Probed, now: Timestamp) -> Option<i64> {
    // A problem of the cache has its own date.
    if serde_json::from_slice::<Problem>(&answer.body).is_ok_and(|problem| problem.is_own()) {
        return None;
    }
    let date = single_date(&answer.headers, &header::DATE)?;
    let age = answer.headers.get(header::AGE);
    let age = age.and_then(|age| age.to_str().ok()?.parse::<i64>().ok());
    Some(now.as_second() - date.as_second().saturating_add(age.unwrap_or(0)))
}

/// What is to be said about that.
pub(super) fn skewed(subject: &str, ahead: i64) -> Option<Check> {
    let said = match ahead {
        0.. => format!("the upstream's clock is {ahead} s behind this machine's"),
        ..0 => format!("the upstream's clock is {} s ahead of this machine's", -ahead),
    };
    let hint = "signatures and certificates of the upstream are judged by this machine's clock: set it, or have the upstream's set";
    (ahead.abs() > CLOCK_TOLERANCE_SECONDS).then(|| Check::warning(format!("{subject} clock"), said, hint))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::{super::State, *};

    #[test]
    fn a_clock_that_apt_refuses_is_a_warning_and_one_that_tls_refuses_a_failure() {
        for (ahead, state) in [
            (0, State::Ok),
            (-10, State::Ok),
            (11, State::Warning),
            (-301, State::Failed),
        ] {
            assert_eq!(clock(ahead).state, state, "{ahead}");
        }
    }

    #[test]
    fn an_upstream_with_another_time_is_named_whatever_the_age_of_its_answer() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        for (date, age, body, expected) in [
            ("Thu, 01 Jan 2026 12:00:00 GMT", None, "", None),
            ("Thu, 01 Jan 2026 11:00:00 GMT", Some("3600"), "", None),
            ("Thu, 01 Jan 2026 11:00:00 GMT", None, "", Some("behind")),
            ("Thu, 01 Jan 2026 12:30:00 GMT", Some("60"), "", Some("ahead")),
        ] {
            let mut headers = http::HeaderMap::new();
            headers.insert(header::DATE, date.parse().unwrap());
            if let Some(age) = age {
                headers.insert(header::AGE, age.parse().unwrap());
            }
            let answer = Probed {
                status: StatusCode::OK,
                headers,
                body: body.into(),
            };
            let check = upstream_clock(&answer, now).and_then(|ahead| skewed("upstream a", ahead));
            assert_eq!(check.is_some(), expected.is_some(), "{date} {age:?}");
            if let (Some(check), Some(word)) = (check, expected) {
                assert!(check.said.contains(word), "{}", check.said);
            }
        }
    }
}
