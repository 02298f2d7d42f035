use super::*;
use crate::policy::test_support::{at, date, headers, selecting, stored, stored_for};

fn freshen_one(before: &Stored, fields: &[(&'static str, &str)]) -> Freshened {
    freshen_of(&[before], fields)
}

fn freshen_of(before: &[&Stored], fields: &[(&'static str, &str)]) -> Freshened {
    let times = Times {
        request: at(100),
        response: at(101),
    };
    freshen(
        &HeaderMap::new(),
        (before, &headers(fields)),
        times,
        &Overrides::default(),
    )
}

fn updated(freshened: Freshened) -> (usize, Stored) {
    match freshened {
        Freshened::Updated { index, stored } => (index, *stored),
        Freshened::NoMatch => panic!("expected an update"),
    }
}

#[test]
fn rfc9111_s4_3_1_both_validators_are_sent_and_the_clients_own_conditions_are_not() {
    let modified = date(-60);
    let entry = stored(&[
        ("etag", "W/\"a\"".to_owned()),
        ("last-modified", modified.clone()),
    ]);
    let client = headers(&[
        ("if-none-match", "\"mine\""),
        ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("if-match", "*"),
        ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("if-range", "\"mine\""),
        ("range", "bytes=0-1"),
        ("proxy-authorization", "Basic Zm9v"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("accept", "a/b"),
        ("accept", "c/d"),
    ]);
    let sent = origin_request_headers(&client, &[&entry]);
    assert_eq!(sent["if-none-match"], "W/\"a\"");
    assert_eq!(sent["if-modified-since"], modified.as_str());
    assert_eq!(sent.get_all("accept").iter().collect::<Vec<_>>(), ["a/b", "c/d"]);
    assert_eq!(sent.len(), 4, "{sent:?}");
    let unconditional = origin_request_headers(&client, &[]);
    assert_eq!(unconditional.len(), 2, "{unconditional:?}");
}

#[test]
fn rfc9111_s4_3_1_the_tags_of_all_variants_are_offered_without_a_date() {
    let a = stored(&[("etag", "\"a,1\"".to_owned()), ("last-modified", date(-60))]);
    let b = stored(&[("etag", "\"b\"".to_owned())]);
    let sent = origin_request_headers(&HeaderMap::new(), &[&b, &a, &b]);
    assert_eq!(sent["if-none-match"], "\"a,1\", \"b\"");
    assert!(!sent.contains_key("if-modified-since"));
    assert_eq!(
        tag_list(&sent, &header::IF_NONE_MATCH),
        [b"\"a,1\"", &b"\"b\""[..]]
    );
}

#[test]
fn rfc9111_s4_3_1_a_broken_last_modified_is_no_validator() {
    let entry = stored(&[("last-modified", "yesterday")]);
    assert!(!has_validator(&entry));
    assert!(origin_request_headers(&HeaderMap::new(), &[&entry]).is_empty());
}

#[test]
fn rfc9111_s3_2_a_304_replaces_all_lines_of_its_fields_and_leaves_the_contents_own() {
    let before = stored(&[
        ("etag", "\"a\""),
        ("content-length", "10"),
        ("content-encoding", "gzip"),
        ("link", "</old>"),
        ("link", "</older>"),
        ("x-kept", "1"),
        ("age", "50"),
    ]);
    let fields = [
        ("etag", "\"a\""),
        ("content-length", "0"),
        ("content-encoding", "br"),
        ("link", "</new>"),
        ("link", "</newer>"),
        ("cache-control", "max-age=60"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ];
    let (_, after) = updated(freshen_one(&before, &fields));
    assert_eq!(after.headers["content-length"], "10");
    assert_eq!(after.headers["content-encoding"], "gzip");
    assert_eq!(
        after.headers.get_all("link").iter().collect::<Vec<_>>(),
        ["</new>", "</newer>"]
    );
    assert_eq!(after.headers["x-kept"], "1");
    assert_eq!(after.headers["cache-control"], "max-age=60");
    assert!(!after.headers.contains_key("x-hop") && !after.headers.contains_key("age"));
    assert_eq!(after.times.response, at(101));
    assert_eq!(
        after.date(),
        at(101),
        "a 304 without Date was made when it arrived"
    );
}

#[test]
fn rfc9111_s4_3_4_a_304_updates_only_what_its_validators_identify() {
    type Row<'a> = (&'a Stored, &'a [(&'static str, &'a str)], bool);
    let modified = date(-60);
    let strong = stored(&[("etag", "\"a\"".to_owned()), ("last-modified", modified.clone())]);
    let weak = stored(&[("etag", "W/\"a\"")]);
    let dated = stored(&[("last-modified", modified.clone())]);
    let other_date = date(-30);
    let table: [Row<'_>; 9] = [
        (&strong, &[("etag", "\"a\"")], true),
        (&strong, &[("etag", "\"b\"")], false),
        (&strong, &[("etag", "\"b\""), ("last-modified", &modified)], false),
        (&strong, &[("etag", "W/\"a\"")], true),
        (&weak, &[("etag", "\"a\"")], false),
        (&weak, &[("etag", "W/\"a\"")], true),
        (&dated, &[("last-modified", &modified)], true),
        (&dated, &[("last-modified", &other_date)], false),
        (&strong, &[], true),
    ];
    for (before, fields, matches) in table {
        let freshened = freshen_one(before, fields);
        assert_eq!(
            matches!(freshened, Freshened::Updated { .. }),
            matches,
            "{:?} by {fields:?}",
            before.headers
        );
    }
    assert_eq!(
        freshen_of(&[&strong, &dated], &[]),
        Freshened::NoMatch,
        "about which of the two?"
    );
}

#[test]
fn rfc9111_s4_3_4_among_variants_the_one_with_the_tag_is_updated_and_then_selected_by_this_request() {
    let german = headers(&[("accept-language", "de")]);
    let a = stored_for(&german, 200, &[("etag", "\"a\""), ("vary", "accept-language")]);
    let b = stored_for(&german, 200, &[("etag", "\"b\""), ("vary", "accept-language")]);
    let swiss = headers(&[("accept-language", "de-CH")]);
    let times = Times {
        request: at(1),
        response: at(1),
    };
    let freshened = freshen(
        &swiss,
        (&[&a, &b], &headers(&[("etag", "\"b\"")])),
        times,
        &Overrides::default(),
    );
    let (index, after) = updated(freshened);
    assert_eq!(index, 1);
    assert_eq!(after.selecting, selecting(&swiss, "accept-language"));
}

#[test]
fn rfc9111_s4_3_4_a_successful_validation_ends_an_invalidation() {
    let mut before = stored(&[("etag", "\"a\"")]);
    before.invalidated = true;
    assert!(!updated(freshen_one(&before, &[("etag", "\"a\"")])).1.invalidated);
}

#[test]
fn rfc9111_s4_3_5_a_head_updates_or_invalidates() {
    let before = stored(&[("etag", "\"a\""), ("content-length", "10")]);
    let times = Times {
        request: at(9),
        response: at(9),
    };
    let effect = |status: u16, fields: &[(&'static str, &str)]| {
        let status = StatusCode::from_u16(status).unwrap();
        head_effect(&before, (status, &headers(fields)), times, &Overrides::default())
    };
    let HeadEffect::Updated(after) = effect(
        200,
        &[("etag", "\"a\""), ("content-length", "10"), ("x-new", "1")],
    ) else {
        panic!("expected an update")
    };
    assert_eq!(after.headers["x-new"], "1");
    assert_eq!(after.times, times);
    assert_eq!(effect(200, &[("content-length", "11")]), HeadEffect::Invalidated);
    assert_eq!(effect(200, &[("etag", "\"b\"")]), HeadEffect::Invalidated);
    assert_eq!(effect(404, &[("etag", "\"b\"")]), HeadEffect::None);
}

#[test]
fn rfc9110_s8_8_3_2_strong_and_weak_comparison_as_in_the_table_of_the_rfc() {
    for (a, b, strong, weak) in [
        ("W/\"1\"", "W/\"1\"", false, true),
        ("W/\"1\"", "W/\"2\"", false, false),
        ("W/\"1\"", "\"1\"", false, true),
        ("\"1\"", "\"1\"", true, true),
    ] {
        assert_eq!(strong_match(a.as_bytes(), b.as_bytes()), strong, "{a} {b}");
        assert_eq!(weak_match(a.as_bytes(), b.as_bytes()), weak, "{a} {b}");
        assert_eq!(weak_match(b.as_bytes(), a.as_bytes()), weak, "{b} {a}");
    }
}
