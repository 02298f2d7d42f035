use super::*;
use crate::policy::test_support::{at, date, headers, stored, stored_for};

fn entry() -> Stored {
    stored(&[
        ("etag", "\"a\"".to_owned()),
        ("last-modified", date(-60)),
        ("date", date(0)),
    ])
}

fn judge(client: &[(&'static str, &str)], entry: &Stored) -> Outcome {
    let client = headers(client);
    evaluate(
        &Request {
            method: &Method::GET,
            headers: &client,
        },
        entry,
        Length::Known(100),
    )
}

fn part(first: u64, last: u64) -> Outcome {
    Outcome::Partial(vec![ByteRange::new(first, last).unwrap()])
}

#[test]
fn rfc9110_s13_1_2_if_none_match_compares_weakly_over_all_lines() {
    for (client, expected) in [
        (&[("if-none-match", "\"a\"")][..], Outcome::NotModified),
        (&[("if-none-match", "W/\"a\"")], Outcome::NotModified),
        (&[("if-none-match", "\"x\", \"a\"")], Outcome::NotModified),
        (
            &[("if-none-match", "\"x\""), ("if-none-match", "\"a\"")],
            Outcome::NotModified,
        ),
        (&[("if-none-match", "*")], Outcome::NotModified),
        (&[("if-none-match", "\"x\"")], Outcome::Whole),
        (&[("if-none-match", "a")], Outcome::Whole),
    ] {
        assert_eq!(judge(client, &entry()), expected, "{client:?}");
    }
}

#[test]
fn rfc9110_s13_1_3_if_modified_since_counts_only_without_if_none_match() {
    let (same, before, after) = (date(-60), date(-61), date(0));
    for (client, expected) in [
        (&[("if-modified-since", same.as_str())][..], Outcome::NotModified),
        (&[("if-modified-since", after.as_str())], Outcome::NotModified),
        (&[("if-modified-since", before.as_str())], Outcome::Whole),
        (&[("if-modified-since", "0")], Outcome::Whole),
        (
            &[("if-modified-since", same.as_str()), ("if-none-match", "\"x\"")],
            Outcome::Whole,
        ),
    ] {
        assert_eq!(judge(client, &entry()), expected, "{client:?}");
    }
}

#[test]
fn rfc9111_s4_3_2_without_last_modified_the_date_of_the_response_is_compared() {
    let dated = stored(&[("date", date(0))]);
    assert_eq!(
        judge(&[("if-modified-since", &date(0))], &dated),
        Outcome::NotModified
    );
    assert_eq!(judge(&[("if-modified-since", &date(-1))], &dated), Outcome::Whole);
}

#[test]
fn rfc9110_s13_1_1_if_match_compares_strongly_and_comes_first() {
    let (before, same) = (date(-61), date(-60));
    for (client, expected) in [
        (&[("if-match", "\"x\", \"a\"")][..], Outcome::Whole),
        (&[("if-match", "*")], Outcome::Whole),
        (&[("if-match", "W/\"a\"")], Outcome::PreconditionFailed),
        (
            &[("if-match", "\"x\""), ("if-none-match", "\"a\"")],
            Outcome::PreconditionFailed,
        ),
        (
            &[("if-unmodified-since", before.as_str())],
            Outcome::PreconditionFailed,
        ),
        (&[("if-unmodified-since", same.as_str())], Outcome::Whole),
        (
            &[("if-unmodified-since", before.as_str()), ("if-match", "\"a\"")],
            Outcome::Whole,
        ),
    ] {
        assert_eq!(judge(client, &entry()), expected, "{client:?}");
    }
}

#[test]
fn rfc9110_s13_1_5_if_range_wants_exactly_the_stored_strong_validator() {
    let (same, other) = (date(-60), date(-59));
    for (validator, expected) in [
        ("\"a\"", part(0, 9)),
        ("\"x\"", Outcome::Whole),
        ("W/\"a\"", Outcome::Whole),
        (same.as_str(), part(0, 9)),
        (other.as_str(), Outcome::Whole),
        ("soon", Outcome::Whole),
    ] {
        assert_eq!(
            judge(&[("range", "bytes=0-9"), ("if-range", validator)], &entry()),
            expected,
            "{validator}"
        );
    }
    let weak = stored(&[("etag", "W/\"a\"")]);
    assert_eq!(
        judge(&[("range", "bytes=0-9"), ("if-range", "W/\"a\"")], &weak),
        Outcome::Whole
    );
    let just_made = stored(&[("last-modified", date(0)), ("date", date(0))]);
    assert_eq!(
        judge(&[("range", "bytes=0-9"), ("if-range", &date(0))], &just_made),
        Outcome::Whole
    );
}

#[test]
fn rfc9110_s13_2_2_ranges_come_last() {
    for (client, expected) in [
        (&[("range", "bytes=0-9")][..], part(0, 9)),
        (
            &[("range", "bytes=0-9"), ("if-none-match", "\"a\"")],
            Outcome::NotModified,
        ),
        (
            &[("range", "bytes=100-")],
            Outcome::RangeNotSatisfiable { length: 100 },
        ),
        (&[("range", "bytes=100-"), ("if-range", "\"x\"")], Outcome::Whole),
        (&[("range", "lines=0-9")], Outcome::Whole),
    ] {
        assert_eq!(judge(client, &entry()), expected, "{client:?}");
    }
}

#[test]
fn rfc9110_s14_2_ranges_of_a_growing_response_wait_for_what_they_need() {
    for (range, expected) in [
        (
            "bytes=5-9",
            Outcome::PartialOfGrowing(ByteRange::new(5, 9).unwrap()),
        ),
        ("bytes=5-", Outcome::RangeNeedsLength),
    ] {
        let client = headers(&[("range", range)]);
        let request = Request {
            method: &Method::GET,
            headers: &client,
        };
        assert_eq!(evaluate(&request, &entry(), Length::Growing), expected, "{range}");
    }
}

#[test]
fn rfc9110_s13_2_1_preconditions_count_only_where_the_answer_would_be_a_success() {
    let client = headers::<&str>(&[]);
    let missing = stored_for(&client, 404, &[("etag", "\"a\"")]);
    for condition in [
        ("if-none-match", "\"a\""),
        ("if-match", "\"x\""),
        ("range", "bytes=0-1"),
    ] {
        assert_eq!(judge(&[condition], &missing), Outcome::Whole, "{condition:?}");
    }
    let post = headers(&[("if-none-match", "\"a\"")]);
    let request = Request {
        method: &Method::POST,
        headers: &post,
    };
    assert_eq!(evaluate(&request, &entry(), Length::Known(100)), Outcome::Whole);
}

#[test]
fn rfc9110_s15_4_5_a_304_has_what_guides_a_cache_and_not_what_describes_content() {
    let entry = stored(&[
        ("cache-control", "max-age=5".to_owned()),
        ("content-location", "/a".to_owned()),
        ("date", date(0)),
        ("etag", "\"a\"".to_owned()),
        ("expires", date(5)),
        ("vary", "accept".to_owned()),
        ("last-modified", date(-1)),
        ("content-type", "text/plain".to_owned()),
        ("content-length", "5".to_owned()),
        ("content-encoding", "gzip".to_owned()),
    ]);
    let mut names: Vec<_> = not_modified_headers(&entry.headers)
        .keys()
        .map(|name| name.as_str().to_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "cache-control",
            "content-location",
            "date",
            "etag",
            "expires",
            "vary"
        ]
    );
    let dated = stored(&[("last-modified", date(-1))]);
    assert!(not_modified_headers(&dated.headers).contains_key("last-modified"));
    assert_eq!(dated.times.response, at(0));
}
