use http::Method;
use proptest::prelude::*;

use super::*;
use crate::policy::test_support::{date, headers, selecting, stored, stored_for};

fn same(vary: &str, a: &[(&'static str, &str)], b: &[(&'static str, &str)]) -> bool {
    selecting(&headers(a), vary).matches(&headers(b))
}

#[test]
fn rfc9111_s4_1_a_repeated_request_field_is_compared_with_all_its_lines() {
    let one = [("x-tenant", "a")];
    let two = [("x-tenant", "a"), ("x-tenant", "b")];
    assert!(!same("X-Tenant", &one, &two));
    assert!(!same("X-Tenant", &two, &one));
    assert!(same("X-Tenant", &two, &two));
    assert!(
        same("X-Tenant", &two, &[("x-tenant", "a, b")]),
        "combined lines are equal"
    );
    assert!(
        !same("X-Tenant", &two, &[("x-tenant", "b"), ("x-tenant", "a")]),
        "order may matter"
    );
}

#[test]
fn rfc9111_s4_1_an_absent_field_matches_only_an_absent_field() {
    let none: [(&str, &str); 0] = [];
    assert!(same("X-Tenant", &none, &none));
    assert!(!same("X-Tenant", &none, &[("x-tenant", "")]));
    assert!(!same("X-Tenant", &[("x-tenant", "")], &none));
}

#[test]
fn rfc9111_s4_1_space_case_and_order_are_evened_out_only_where_they_mean_nothing() {
    for (name, a, b, equal) in [
        ("accept-encoding", "gzip, BR", "br,gzip", true),
        ("accept-encoding", "gzip ; q=1", "gzip;q=1", true),
        ("accept-encoding", "gzip", "br", false),
        ("accept-language", "en-GB,  de", "en-gb, de", true),
        ("accept-language", "en, de", "de, en", false),
        ("accept", "text/html,text/plain", "text/html, text/plain", true),
        ("accept", "text/html;level=A", "text/html;level=a", false),
        ("user-agent", "Apt/1", "apt/1", false),
        ("user-agent", "a,b", "a, b", false),
        ("user-agent", " Apt ", "Apt", true),
    ] {
        assert_eq!(
            same(name, &[(name, a)], &[(name, b)]),
            equal,
            "{name}: {a:?} and {b:?}"
        );
    }
}

#[test]
fn rfc9111_s4_1_all_vary_lines_select_and_their_order_does_not_matter() {
    let client = headers(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let lines = Selecting::of(&client, &headers(&[("vary", "B, a"), ("vary", "c, A")]));
    assert_eq!(lines, selecting(&client, "a, b, c"));
    assert_eq!(lines.to_string(), "a: 1\nb: 2\nc: 3");
    assert_eq!(selecting(&client, "zz").to_string(), "zz");
}

#[test]
fn rfc9111_s4_1_the_most_recent_match_is_chosen() {
    let german = headers(&[("accept-language", "de")]);
    let english = headers(&[("accept-language", "en")]);
    let fields = |seconds| vec![("date", date(seconds)), ("vary", "accept-language".to_owned())];
    let variants = [
        stored_for(&german, 200, &fields(0)),
        stored_for(&english, 200, &fields(50)),
        stored_for(&german, 200, &fields(20)),
        stored_for(&german, 200, &fields(10)),
    ];
    let request = Request {
        method: &Method::GET,
        headers: &german,
    };
    assert!(matches!(
        select(&request, &variants),
        Lookup::Found { index: 2, .. }
    ));
    let request = Request {
        method: &Method::GET,
        headers: &headers::<&str>(&[]),
    };
    assert!(matches!(select(&request, &variants), Lookup::NoVariant));
    assert!(matches!(select(&request, &[]), Lookup::Absent));
}

#[test]
fn rfc9111_s4_1_vary_any_never_matches() {
    let request = Request {
        method: &Method::GET,
        headers: &headers::<&str>(&[]),
    };
    for lines in [&[("vary", "*")][..], &[("vary", "accept"), ("vary", "*")]] {
        assert!(matches!(select(&request, &[stored(lines)]), Lookup::NoVariant));
    }
}

proptest! {
    #[test]
    fn rfc9111_s4_1_a_request_matches_itself_and_its_stored_pairs(
        values in proptest::collection::vec("[ -~]{0,12}", 0..4), vary in "(accept|accept-encoding|x-a)(, (x-b|accept-language))?",
    ) {
        let fields: Vec<_> = ["accept", "accept-encoding", "x-a", "accept-language"].into_iter().zip(&values).collect();
        let client = headers(&fields);
        let selecting = selecting(&client, &vary);
        prop_assert!(selecting.matches(&client));
        prop_assert_eq!(Selecting::from_pairs(selecting.pairs().to_vec()), selecting);
    }

    #[test]
    fn rfc9111_s4_1_different_opaque_values_never_match(a in "[!-~]{1,12}", b in "[!-~]{1,12}") {
        prop_assume!(a != b);
        prop_assert!(!same("x-a", &[("x-a", a.as_str())], &[("x-a", b.as_str())]));
    }
}

#[test]
fn rfc9110_s12_5_5_a_member_that_is_no_field_name_selects_nothing() {
    for vary in ["*", "accept, *", "accept, \"x, y", "accept encoding", "a:b"] {
        let head = stored(&[("vary", vary), ("cache-control", "max-age=60")]);
        let request = HeaderMap::new();
        let request = Request {
            method: &Method::GET,
            headers: &request,
        };
        assert!(matches!(select(&request, &[head]), Lookup::NoVariant), "{vary}");
    }
}
