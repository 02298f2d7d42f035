//! Directives, freshness, age and the decision: RFC 9111 §3 to §5.

use http::{HeaderMap, Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use kato_proxy::{
    conditional::{self, Length},
    policy::{
        Decision, Lookup, Overrides, Request, Storability, Stored, Times,
        age::current_age,
        cache_control::{RequestDirectives, ResponseDirectives},
        decide,
        freshness::{bounded_lifetime, lifetime},
        storability,
    },
};

use super::{fields, number, parts, time};

/// The status codes that the input chooses from.
const STATUSES: [u16; 8] = [200, 203, 204, 206, 301, 404, 410, 500];

/// Eight bytes of time and status, then the fields of a request and of its response, with NUL between.
pub fn cache_control(data: &[u8]) {
    let (chosen, text) = number(data);
    let [request, response] = parts(text).map(fields);
    let status = StatusCode::from_u16(STATUSES[(chosen & 7) as usize]).unwrap_or_default();
    let received = 800_000_000 + i64::try_from((chosen >> 8) & 0xffff_ffff).unwrap_or_default();
    let times = Times {
        request: time(received - i64::try_from(chosen >> 56).unwrap_or_default()),
        response: time(received),
    };
    let asked = Request {
        method: &Method::GET,
        headers: &request,
    };
    let overrides = Overrides::default();
    let stored = Stored::new(&asked, (status, &response), times, &overrides);
    never_negative(&stored, &overrides);
    let said = ResponseDirectives::of(&response);
    if said.no_store && !said.must_understand {
        let may = storability(&asked, (status, &response), false, &overrides);
        assert!(matches!(may, Storability::NoStore(_)), "no-store is honoured");
    }
    for later in [0, 1, 60, 86_400, 4_000_000_000] {
        decided(&asked, &stored, &overrides, time(received + later));
    }
    let _judged = conditional::evaluate(&asked, &stored, Length::Known(chosen));
    let _judged = conditional::evaluate(&asked, &stored, Length::Growing);
}

fn never_negative(stored: &Stored, overrides: &Overrides) {
    let most = SignedDuration::from_secs(1 << 31);
    let stated = lifetime(stored, overrides).duration;
    assert!(!stated.is_negative());
    let (bounded, deviation) = bounded_lifetime(stored, overrides);
    // Without an order of the operator only what says that there is nothing (404, 410) is cut, and that is told.
    assert!(!bounded.duration.is_negative() && bounded.duration <= stated);
    assert_eq!(deviation.is_some(), bounded.duration != stated);
    assert!(deviation.is_none() || !stored.status.is_success());
    let mut before = SignedDuration::ZERO;
    for later in [i64::MIN / 2, -1, 0, 1, 1 << 20, 1 << 33] {
        let age = current_age(
            stored,
            time(stored.times.response.as_second().saturating_add(later).max(0)),
        );
        assert!(!age.is_negative() && age <= most);
        if later >= 0 {
            assert!(age >= before, "age grows");
            before = age;
        }
    }
}

fn decided(asked: &Request<'_>, stored: &Stored, overrides: &Overrides, now: Timestamp) {
    let verdict = decide(asked, Lookup::Found { index: 0, stored }, overrides, now);
    assert!(verdict.deviations.is_empty() || !stored.status.is_success());
    let demands = RequestDirectives::of(asked.headers);
    match verdict.decision {
        Decision::Fresh(aged) => {
            assert!(aged.is_fresh() && aged.ttl() > SignedDuration::ZERO);
            assert!(!demands.no_cache && !stored.invalidated);
        }
        Decision::StaleServable { aged, .. } => {
            assert!(!aged.is_fresh());
            assert!(!ResponseDirectives::of(&stored.headers).forbids_stale());
        }
        Decision::MustValidate { aged, .. } => assert!(!aged.age.is_negative()),
        Decision::GatewayTimeout => assert!(demands.only_if_cached),
        Decision::Miss(_) | Decision::Bypass(_) => panic!("something was found"),
    }
    let nothing = decide(asked, Lookup::Absent, overrides, now).decision;
    assert!(matches!(nothing, Decision::Miss(_) | Decision::GatewayTimeout));
    assert_eq!(
        matches!(nothing, Decision::GatewayTimeout),
        demands.only_if_cached
    );
    let again = RequestDirectives::of(&HeaderMap::clone(asked.headers));
    assert_eq!(again.only_if_cached, demands.only_if_cached);
}
