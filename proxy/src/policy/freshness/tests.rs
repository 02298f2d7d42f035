use proptest::prelude::*;

use super::*;
use crate::policy::test_support::{date, headers, stored, stored_for};

fn seconds_and_source(entry: &Stored) -> (i64, LifetimeSource) {
    let lifetime = lifetime(entry, &Overrides::default());
    (lifetime.duration.as_secs(), lifetime.source)
}

#[test]
fn rfc9111_s4_2_1_precedence_is_s_maxage_max_age_expires_heuristic() {
    let all = [
        ("date", date(0)),
        ("last-modified", date(-1000)),
        ("expires", date(30)),
        ("cache-control", "max-age=20".to_owned()),
        ("cache-control", "s-maxage=10".to_owned()),
    ];
    for (count, expected) in [
        (5, (10, LifetimeSource::SMaxage)),
        (4, (20, LifetimeSource::MaxAge)),
        (3, (30, LifetimeSource::Expires)),
        (2, (100, LifetimeSource::Heuristic)),
        (1, (0, LifetimeSource::Unstated)),
    ] {
        assert_eq!(
            seconds_and_source(&stored(&all[..count])),
            expected,
            "first {count}"
        );
    }
}

#[test]
fn rfc9111_s5_3_an_invalid_expires_is_in_the_past() {
    for broken in ["0", "-1", "", "soon", "Sun, 06 Nov 2094 08:49:37 UTC"] {
        let entry = stored(&[
            ("date", date(0)),
            ("expires", broken.to_owned()),
            ("last-modified", date(-9999)),
        ]);
        assert_eq!(
            seconds_and_source(&entry),
            (0, LifetimeSource::Expires),
            "{broken:?}"
        );
    }
}

#[test]
fn rfc9111_s5_3_expires_counts_from_date_and_never_below_zero() {
    assert_eq!(
        seconds_and_source(&stored(&[("date", date(-50)), ("expires", date(10))])).0,
        60
    );
    assert_eq!(
        seconds_and_source(&stored(&[("date", date(0)), ("expires", date(-10))])).0,
        0
    );
    // Without a Date the time of arrival stands in (second 0 here).
    assert_eq!(seconds_and_source(&stored(&[("expires", date(10))])).0, 10);
}

#[test]
fn rfc9111_s4_2_1_expires_lines_that_differ_are_stale() {
    assert_eq!(
        seconds_and_source(&stored(&[("expires", date(10)), ("expires", date(10))])).0,
        10
    );
    assert_eq!(
        seconds_and_source(&stored(&[("expires", date(10)), ("expires", date(20))])).0,
        0
    );
}

#[test]
fn rfc9111_s4_2_2_heuristics_need_last_modified_and_a_status_code_that_allows_them() {
    let fields = [("date", date(0)), ("last-modified", date(-600))];
    let none = headers::<&str>(&[]);
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        assert_eq!(
            seconds_and_source(&stored_for(&none, status, &fields)).0,
            60,
            "{status}"
        );
    }
    for status in [201, 302, 307, 403, 500, 503] {
        assert_eq!(
            seconds_and_source(&stored_for(&none, status, &fields)).0,
            0,
            "{status}"
        );
    }
    let public = [
        fields[0].clone(),
        fields[1].clone(),
        ("cache-control", "public".to_owned()),
    ];
    assert_eq!(seconds_and_source(&stored_for(&none, 302, &public)).0, 60);
    assert_eq!(
        seconds_and_source(&stored(&[("date", date(0)), ("last-modified", date(600))])).0,
        0
    );
}

#[test]
fn rfc9111_s4_2_2_heuristic_freshness_is_capped() {
    let entry = stored(&[("date", date(0)), ("last-modified", date(-700_000_000))]);
    assert_eq!(seconds_and_source(&entry), (86_400, LifetimeSource::Heuristic));
}

#[test]
fn bounds_of_the_operator_apply_and_are_reported() {
    let entry = stored(&[("cache-control", "max-age=60")]);
    let secs = SignedDuration::from_secs;
    for (min, max, expected, deviates) in [
        (None, None, 60, false),
        (Some(30), Some(90), 60, false),
        (Some(90), None, 90, true),
        (None, Some(30), 30, true),
    ] {
        let overrides = Overrides {
            min_freshness: min.map(secs),
            max_freshness: max.map(secs),
            ..Overrides::default()
        };
        let (lifetime, deviation) = bounded_lifetime(&entry, &overrides);
        assert_eq!(lifetime.duration.as_secs(), expected);
        assert_eq!(deviation.is_some(), deviates, "{min:?} {max:?}");
    }
}

proptest! {
    #[test]
    fn rfc9111_s4_2_1_a_lifetime_is_never_negative_and_bounds_hold(
        expires in -100_000_i64..100_000, modified in -100_000_i64..100_000, min in 0_i64..50_000, more in 0_i64..50_000,
    ) {
        let overrides = Overrides {
            min_freshness: Some(SignedDuration::from_secs(min)),
            max_freshness: Some(SignedDuration::from_secs(min + more)),
            ..Overrides::default()
        };
        for entry in [
            stored(&[("expires", date(expires)), ("last-modified", date(modified))]),
            stored(&[("last-modified", date(modified))]),
        ] {
            prop_assert!(lifetime(&entry, &overrides).duration >= SignedDuration::ZERO);
            let bounded = bounded_lifetime(&entry, &overrides).0.duration.as_secs();
            prop_assert!((min..=min + more).contains(&bounded));
        }
    }
}
