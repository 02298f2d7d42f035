use proptest::prelude::*;

use super::*;
use crate::policy::test_support::{at, headers};

fn names(map: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn rfc9110_s7_6_1_hop_by_hop_fields_and_those_that_any_connection_line_names_are_removed() {
    let mut map = headers(&[
        ("connection", "close, X-One"),
        ("connection", "x-two , bad name"),
        ("x-one", "1"),
        ("x-one", "1 again"),
        ("x-two", "2"),
        ("x-three", "3"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("cache-control", "max-age=1"),
    ]);
    strip_hop_by_hop(&mut map);
    assert_eq!(names(&map), ["cache-control", "x-three"]);
}

#[test]
fn rfc9110_s7_6_3_via_is_appended_and_recognised_again() {
    let mut map = headers(&[("via", "1.0 fred, 1.1 p.example.net (comment)")]);
    assert!(!passed_us_before(&map, "kato-core1"));
    append_via(&mut map, Version::HTTP_2, "kato-core1");
    let lines: Vec<_> = map
        .get_all(header::VIA)
        .iter()
        .map(|line| line.to_str().unwrap())
        .collect();
    assert_eq!(lines, ["1.0 fred, 1.1 p.example.net (comment)", "2 kato-core1"]);
    assert!(passed_us_before(&map, "Kato-Core1"));
    assert!(passed_us_before(&map, "fred"));
    assert!(!passed_us_before(&map, "1.1"));
}

#[test]
fn rfc9110_s7_6_2_max_forwards_counts_down_for_trace_and_options() {
    for (method, field, forwarding, left) in [
        (Method::TRACE, "3", Forwarding::Onward, "2"),
        (Method::OPTIONS, "0", Forwarding::AnswerHere, "0"),
        (Method::OPTIONS, "many", Forwarding::Onward, "many"),
        (Method::GET, "0", Forwarding::Onward, "0"),
    ] {
        let mut map = headers(&[("max-forwards", field)]);
        assert_eq!(count_forward(&method, &mut map), forwarding, "{method} {field}");
        assert_eq!(map["max-forwards"], left, "{method} {field}");
    }
}

#[test]
fn rfc9110_s5_6_7_dates_are_imf_fixdate_in_gmt() {
    assert_eq!(http_date(at(0)), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(http_date(Timestamp::MIN), "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_eq!(http_date(Timestamp::MAX).to_str().unwrap().len(), 29);
}

#[test]
fn rfc9110_s5_6_7_all_three_forms_are_read_and_nothing_else() {
    for good in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ] {
        assert_eq!(
            parse_http_date(&HeaderValue::from_static(good)),
            Some(at(0)),
            "{good}"
        );
    }
    for bad in [
        "0",
        "-1",
        "",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:38 GMT",
    ] {
        assert_eq!(parse_http_date(&HeaderValue::from_static(bad)), None, "{bad}");
    }
}

#[test]
fn rfc9110_s6_6_1_a_missing_or_broken_date_is_set_and_a_good_one_kept() {
    for (before, after) in [
        (None, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (Some("yesterday"), "Sun, 06 Nov 1994 08:49:37 GMT"),
        (
            Some("Sat, 05 Nov 1994 08:49:37 GMT"),
            "Sat, 05 Nov 1994 08:49:37 GMT",
        ),
    ] {
        let mut map = headers(
            &before
                .map(|value| ("date", value))
                .into_iter()
                .collect::<Vec<_>>(),
        );
        ensure_date(&mut map, at(0));
        assert_eq!(map["date"], after);
        assert_eq!(map.len(), 1);
    }
}

#[test]
fn rfc9111_s5_1_age_is_one_field_of_whole_seconds() {
    let mut map = headers(&[("age", "1"), ("age", "2")]);
    set_age(&mut map, SignedDuration::from_millis(2900));
    assert_eq!(map.get_all("age").iter().collect::<Vec<_>>(), ["2"]);
    set_age(&mut map, SignedDuration::from_secs(-3));
    assert_eq!(map["age"], "0");
    set_age(&mut map, SignedDuration::MAX);
    assert_eq!(map["age"], "2147483648");
}

proptest! {
    #[test]
    fn rfc9110_s5_6_7_dates_survive_a_round_trip(seconds in 0_i64..253_402_300_799) {
        let time = Timestamp::from_second(seconds).unwrap();
        prop_assert_eq!(parse_http_date(&http_date(time)), Some(time));
    }
}

#[test]
fn what_could_change_an_answer_and_not_its_key_does_not_reach_the_origin() {
    let mut map = headers(&[
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "http"),
        ("x-original-url", "/admin"),
        ("x-host", "evil.example"),
        ("forwarded", "host=evil.example"),
        ("x-http-method-override", "PUT"),
        ("x_forwarded_host", "evil.example"),
        ("transfer_encoding", "chunked"),
        ("true-client-ip", "127.0.0.1"),
        ("content-length", "5"),
        ("content-type", "application/json"),
        ("accept", "text/html"),
        ("x-hostile", "stays"),
    ]);
    strip_unkeyed(&mut map);
    assert_eq!(names(&map), ["accept", "x-hostile"]);
}
