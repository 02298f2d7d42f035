use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::*;
use crate::policy::{
    select,
    test_support::{at, headers, stored},
};

const CC: &str = "cache-control";

fn decide_with(client: &[(&'static str, &str)], entry: &Stored, overrides: &Overrides, now: i64) -> Verdict {
    let client = headers(client);
    let request = Request {
        method: &Method::GET,
        headers: &client,
    };
    decide(
        &request,
        Lookup::Found {
            index: 0,
            stored: entry,
        },
        overrides,
        at(now),
    )
}

/// One word for a decision, so that tables stay readable.
fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Fresh(_) => "fresh",
        Decision::StaleServable {
            permission: StalePermission::MaxStale,
            ..
        } => "max-stale",
        Decision::StaleServable {
            permission: StalePermission::WhileRevalidate,
            ..
        } => "swr",
        Decision::MustValidate { reason, .. } => match reason {
            ValidationReason::Stale => "stale",
            ValidationReason::Invalidated => "invalidated",
            ValidationReason::ResponseNoCache => "response no-cache",
            ValidationReason::RequestNoCache => "request no-cache",
            ValidationReason::RequestMaxAge => "request max-age",
            ValidationReason::RequestMinFresh => "request min-fresh",
        },
        Decision::Miss(_) => "miss",
        Decision::GatewayTimeout => "504",
        Decision::Bypass(_) => "bypass",
    }
}

#[test]
fn rfc9111_s4_2_fresh_until_the_lifetime_is_reached() {
    let entry = stored(&[(CC, "max-age=60")]);
    for (now, expected, ttl) in [
        (0, "fresh", 60),
        (59, "fresh", 1),
        (60, "stale", 0),
        (61, "stale", -1),
    ] {
        let verdict = decide_with(&[], &entry, &Overrides::default(), now);
        assert_eq!(word(verdict.decision), expected, "{now}");
        let (Decision::Fresh(aged) | Decision::MustValidate { aged, .. }) = verdict.decision else {
            panic!("{verdict:?}")
        };
        assert_eq!(aged.ttl().as_secs(), ttl);
        assert_eq!(aged.age.as_secs(), now);
    }
}

#[test]
fn rfc9111_s5_2_1_request_directives_against_a_response_fresh_for_60_seconds() {
    for (client, now, expected) in [
        ("no-cache", 0, "request no-cache"),
        ("max-age=0", 0, "fresh"),
        ("max-age=0", 1, "request max-age"),
        ("max-age=30", 30, "fresh"),
        ("max-age=30", 31, "request max-age"),
        ("min-fresh=20", 40, "fresh"),
        ("min-fresh=20", 41, "request min-fresh"),
        ("max-stale=10", 70, "max-stale"),
        ("max-stale=10", 71, "stale"),
        ("max-stale", 9999, "max-stale"),
        ("max-age=30, max-stale=10", 31, "request max-age"),
        ("only-if-cached", 59, "fresh"),
        ("only-if-cached", 60, "504"),
        ("only-if-cached, max-stale", 60, "max-stale"),
        ("only-if-cached, no-cache", 0, "504"),
        ("no-store", 0, "fresh"),
    ] {
        let entry = stored(&[(CC, "max-age=60")]);
        let verdict = decide_with(&[(CC, client)], &entry, &Overrides::default(), now);
        assert_eq!(word(verdict.decision), expected, "{client} at {now}");
        assert!(verdict.deviations.is_empty());
    }
}

#[test]
fn rfc9111_s4_2_4_directives_that_forbid_stale_outweigh_every_permission() {
    for forbids in ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"] {
        let entry = stored(&[(CC, "max-age=60, stale-while-revalidate=100"), (CC, forbids)]);
        let verdict = decide_with(&[(CC, "max-stale")], &entry, &Overrides::default(), 61);
        assert!(
            matches!(verdict.decision, Decision::MustValidate { .. }),
            "{forbids}: {verdict:?}"
        );
    }
}

#[test]
fn rfc9111_s5_2_2_4_no_cache_needs_validation_even_when_fresh_and_its_qualified_form_does_not() {
    for (field, expected) in [
        ("no-cache", "response no-cache"),
        ("no-cache=\"x-user\"", "fresh"),
    ] {
        let entry = stored(&[(CC, "max-age=60"), (CC, field), ("x-user", "me")]);
        assert_eq!(
            word(decide_with(&[], &entry, &Overrides::default(), 0).decision),
            expected
        );
        assert_eq!(entry.headers.contains_key("x-user"), field == "no-cache");
    }
}

#[test]
fn rfc5861_s3_stale_while_revalidate_has_its_window() {
    let entry = stored(&[(CC, "max-age=60, stale-while-revalidate=30")]);
    for (client, now, expected) in [
        ("x", 60, "swr"),
        ("x", 90, "swr"),
        ("x", 91, "stale"),
        ("max-age=1", 61, "request max-age"),
    ] {
        assert_eq!(
            word(decide_with(&[(CC, client)], &entry, &Overrides::default(), now).decision),
            expected
        );
    }
}

#[test]
fn rfc9111_s4_misses_bypass_and_only_if_cached_without_a_stored_response() {
    let none = HeaderMap::new();
    let only = headers(&[(CC, "only-if-cached")]);
    let now = at(0);
    for (method, client, lookup, expected) in [
        (
            Method::GET,
            &none,
            Lookup::Absent,
            Decision::Miss(MissReason::Uri),
        ),
        (
            Method::HEAD,
            &none,
            Lookup::NoVariant,
            Decision::Miss(MissReason::Vary),
        ),
        (Method::GET, &only, Lookup::Absent, Decision::GatewayTimeout),
        (Method::GET, &only, Lookup::NoVariant, Decision::GatewayTimeout),
        (
            Method::POST,
            &only,
            Lookup::Absent,
            Decision::Bypass(BypassReason::Method),
        ),
    ] {
        let request = Request {
            method: &method,
            headers: client,
        };
        assert_eq!(
            decide(&request, lookup, &Overrides::default(), now).decision,
            expected,
            "{method}"
        );
    }
}

#[test]
fn rfc9111_s4_4_an_invalidated_response_is_validated_though_fresh() {
    let mut entry = stored(&[(CC, "max-age=60")]);
    entry.invalidated = true;
    for overrides in [
        Overrides::default(),
        Overrides {
            immutable: true,
            ..Overrides::default()
        },
    ] {
        assert_eq!(
            word(decide_with(&[], &entry, &overrides, 0).decision),
            "invalidated"
        );
    }
}

#[test]
fn a_known_digest_is_never_validated_and_says_so() {
    let mut entry = stored(&[(CC, "no-cache, max-age=0, must-revalidate")]);
    entry.known_digest = true;
    let verdict = decide_with(&[(CC, "no-cache")], &entry, &Overrides::default(), 999_999);
    assert_eq!(
        (word(verdict.decision), verdict.deviations),
        ("fresh", vec![Deviation::KnownDigest])
    );
}

#[test]
fn rfc9211_s2_4_what_is_fresh_for_ever_is_never_said_to_be_stale() {
    let immutable = Overrides {
        immutable: true,
        ..Overrides::default()
    };
    let mut known = stored(&[(CC, "max-age=60")]);
    known.known_digest = true;
    let plain = stored(&[(CC, "max-age=60")]);
    let long = 400 * 24 * 3600;
    let lasting = stored(&[(CC, &format!("max-age={long}"))]);
    for (entry, overrides, now, ttl) in [
        (&known, &Overrides::default(), 999_999, FOR_EVER.as_secs()),
        (&plain, &immutable, 61, FOR_EVER.as_secs()),
        // What the response itself promises is more.
        (&lasting, &immutable, 100, long - 100),
    ] {
        let Decision::Fresh(aged) = decide_with(&[], entry, overrides, now).decision else {
            panic!("expected fresh");
        };
        assert_eq!((aged.ttl().as_secs(), aged.age.as_secs()), (ttl, now));
        assert!(aged.is_fresh());
    }
}

#[test]
fn bounds_on_freshness_change_the_outcome_and_are_reported() {
    let entry = stored(&[(CC, "max-age=60")]);
    let secs = SignedDuration::from_secs;
    let raised = Overrides {
        min_freshness: Some(secs(90)),
        ..Overrides::default()
    };
    let verdict = decide_with(&[], &entry, &raised, 89);
    assert_eq!(word(verdict.decision), "fresh");
    assert_eq!(
        verdict.deviations,
        [Deviation::FreshnessRaised {
            from: secs(60),
            to: secs(90)
        }]
    );

    let capped = Overrides {
        max_freshness: Some(secs(30)),
        ..Overrides::default()
    };
    let verdict = decide_with(&[], &entry, &capped, 31);
    assert_eq!(word(verdict.decision), "stale");
    assert_eq!(
        verdict.deviations,
        [Deviation::FreshnessCapped {
            from: secs(60),
            to: secs(30)
        }]
    );
}

#[test]
fn passing_over_a_clients_wish_is_reported_where_it_mattered() {
    let entry = stored(&[(CC, "max-age=60")]);
    let deaf = Overrides {
        ignore_client_no_cache: true,
        ..Overrides::default()
    };
    let immutable = Overrides {
        immutable: true,
        ..Overrides::default()
    };
    for (overrides, client, now, deviations) in [
        (&deaf, "no-cache", 0, &[Deviation::ClientDirectivesIgnored][..]),
        (&deaf, "max-age=5", 9, &[Deviation::ClientDirectivesIgnored]),
        (&deaf, "x", 0, &[]),
        (&immutable, "no-cache", 99, &[Deviation::ImmutablePath]),
    ] {
        let verdict = decide_with(&[(CC, client)], &entry, overrides, now);
        assert_eq!(word(verdict.decision), "fresh", "{client}");
        assert_eq!(verdict.deviations, deviations, "{client}");
    }
}

proptest! {
    /// The one property that a cache lives by: nothing goes out unvalidated after its lifetime unless somebody allowed it.
    #[test]
    fn rfc9111_s4_2_4_without_permission_nothing_stale_is_served(
        max_age in 0_i64..200, now in 0_i64..400, client in "(max-age=[0-9]{1,3}|min-fresh=[0-9]{1,3}|no-cache|x)",
    ) {
        let variants = [stored(&[(CC, format!("max-age={max_age}"))])];
        let client = headers(&[(CC, client)]);
        let request = Request { method: &Method::GET, headers: &client };
        let verdict = decide(&request, select(&request, &variants), &Overrides::default(), at(now));
        match verdict.decision {
            Decision::Fresh(_) => prop_assert!(now < max_age),
            Decision::MustValidate { aged, .. } => prop_assert_eq!(aged.age.as_secs(), now),
            Decision::StaleServable { .. }
            | Decision::Miss(_)
            | Decision::GatewayTimeout
            | Decision::Bypass(_) => prop_assert!(false, "{:?}", verdict),
        }
    }
}
