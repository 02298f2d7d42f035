use http::Method;

use super::*;
use crate::policy::test_support::{at, headers, stored, stored_for};

const CC: &str = "cache-control";

fn refusal_of(
    client: &str,
    response: &str,
    failure: Failure,
    overrides: &Overrides,
    now: i64,
) -> Option<StaleRefusal> {
    let client = headers(&[(CC, client)]);
    let request = Request {
        method: &Method::GET,
        headers: &client,
    };
    match on_failure(
        &request,
        &stored(&[(CC, response)]),
        failure,
        (overrides, at(now)),
    ) {
        FailureAnswer::ServeStale(aged) => {
            assert_eq!(aged.age.as_secs(), now);
            None
        }
        FailureAnswer::PassFailure(refusal) => Some(refusal),
    }
}

#[test]
fn rfc9111_s4_3_3_a_stale_response_stands_in_for_an_origin_that_fails() {
    let plain = Overrides::default();
    assert_eq!(
        refusal_of("x", "max-age=1", Failure::Unreachable, &plain, 99_999),
        None
    );
    for (status, expected) in [
        (500, None),
        (502, None),
        (503, None),
        (504, None),
        (501, Some(StaleRefusal::NotAFailure)),
        (404, Some(StaleRefusal::NotAFailure)),
        (200, Some(StaleRefusal::NotAFailure)),
    ] {
        let failure = Failure::Status(StatusCode::from_u16(status).unwrap());
        assert_eq!(
            refusal_of("x", "max-age=1", failure, &plain, 99),
            expected,
            "{status}"
        );
    }
}

#[test]
fn rfc9111_s5_2_2_2_directives_that_forbid_stale_forbid_it_for_failures_too() {
    let plain = Overrides::default();
    for forbids in ["must-revalidate", "proxy-revalidate", "s-maxage=1", "no-cache"] {
        let response = format!("max-age=1, stale-if-error=9999, {forbids}");
        let refused = refusal_of("x", &response, Failure::Unreachable, &plain, 99);
        assert_eq!(refused, Some(StaleRefusal::Forbidden), "{forbids}");
    }
    let refused = refusal_of("no-cache", "max-age=1", Failure::Unreachable, &plain, 99);
    assert_eq!(refused, Some(StaleRefusal::RequestNoCache));
}

#[test]
fn rfc5861_s4_the_window_is_the_requests_else_the_responses_else_the_operators() {
    let overrides = Overrides {
        stale_if_error: Some(SignedDuration::from_secs(30)),
        ..Overrides::default()
    };
    let table = [
        ("stale-if-error=10", "max-age=0, stale-if-error=20", 10),
        ("x", "max-age=0, stale-if-error=20", 20),
        ("x", "max-age=0", 30),
    ];
    for (client, response, window) in table {
        let at = |now| refusal_of(client, response, Failure::Unreachable, &overrides, now);
        assert_eq!(at(window), None, "{client} {response}");
        assert_eq!(
            at(window + 1),
            Some(StaleRefusal::TooStale),
            "{client} {response}"
        );
    }
}

#[test]
fn rfc9111_s4_4_an_invalidated_response_does_not_stand_in() {
    let mut entry = stored(&[(CC, "max-age=60")]);
    entry.invalidated = true;
    let client = headers::<&str>(&[]);
    let request = Request {
        method: &Method::GET,
        headers: &client,
    };
    let answer = on_failure(
        &request,
        &entry,
        Failure::Unreachable,
        (&Overrides::default(), at(1)),
    );
    assert_eq!(answer, FailureAnswer::PassFailure(StaleRefusal::Invalidated));
}

#[test]
fn rfc5861_s4_an_error_never_stands_in_for_an_origin_that_can_be_asked() {
    let client = headers(&[(CC, "x")]);
    let request = Request {
        method: &Method::GET,
        headers: &client,
    };
    let unavailable = Failure::Status(StatusCode::SERVICE_UNAVAILABLE);
    for (status, failure, after, may) in [
        (404, Failure::Unreachable, 9, true),
        (410, Failure::Unreachable, 24 * 3600, true),
        (404, Failure::Unreachable, 24 * 3600 + 1, false),
        (403, Failure::Unreachable, 9, false),
        (404, unavailable, 9, false),
        (500, Failure::Unreachable, 9, false),
        (301, Failure::Unreachable, 48 * 3600, true),
    ] {
        let stored = stored_for(&client, status, &[(CC, "max-age=1, stale-if-error=600000")]);
        let verdict = on_failure(&request, &stored, failure, (&Overrides::default(), at(after)));
        let refused = FailureAnswer::PassFailure(StaleRefusal::Unusable);
        assert_eq!(verdict != refused, may, "{status} after {failure:?}: {verdict:?}");
    }
}
