//! Each rule on its own, then the ways in which a caller meets them.

use http::Method;

use super::*;
use crate::policy::{
    Decision, Lookup, Storability, decide, storability,
    test_support::{at, date, headers, stored_for},
};

const TIMES: fn() -> Times = || Times {
    request: at(0),
    response: at(0),
};

fn hop(status: u16, fields: &[(&'static str, &str)]) -> Hop {
    let mut headers = headers(fields);
    headers.insert(header::DATE, date(0).parse().unwrap());
    Hop {
        status: StatusCode::from_u16(status).unwrap(),
        headers,
        times: TIMES(),
    }
}

/// The header section of a 200 with `fields` behind `hops`, for a client with `client`.
fn bound(client: &HeaderMap, fields: &[(&'static str, &str)], hops: &[Hop]) -> (HeaderMap, Storability) {
    let request = Request {
        method: &Method::GET,
        headers: client,
    };
    let mut headers = headers(fields);
    headers.insert(header::DATE, date(0).parse().unwrap());
    let overrides = Overrides::default();
    let forbids = bind(
        &request,
        (StatusCode::OK, &mut headers, TIMES()),
        hops,
        &overrides,
    );
    let verdict = storability(&request, (StatusCode::OK, &headers), false, &overrides);
    assert!(forbids.is_none() || !verdict.may_store(), "{headers:?}");
    (headers, verdict)
}

fn directives(fields: &[(&'static str, &str)], hops: &[Hop]) -> String {
    let (headers, _) = bound(&HeaderMap::new(), fields, hops);
    let lines: Vec<_> = headers.get_all(header::CACHE_CONTROL).iter().collect();
    assert!(lines.len() <= 1, "{lines:?}");
    lines
        .first()
        .map_or(String::new(), |line| line.to_str().unwrap().to_owned())
}

#[test]
fn rfc9111_s4_2_1_the_part_that_is_fresh_for_the_shortest_time_counts() {
    let target = [("cache-control", "max-age=100")];
    let cases: [(Vec<Hop>, &str); 8] = [
        (vec![], "max-age=100"),
        (vec![hop(302, &[])], "max-age=0"),
        (vec![hop(307, &[("cache-control", "max-age=10")])], "max-age=10"),
        (vec![hop(303, &[("cache-control", "max-age=500")])], "max-age=100"),
        (
            vec![hop(302, &[("cache-control", "max-age=50"), ("age", "20")])],
            "max-age=30",
        ),
        (vec![hop(302, &[("expires", &date(7))])], "max-age=7"),
        (vec![hop(301, &[]), hop(308, &[])], "max-age=100"),
        (vec![hop(301, &[]), hop(302, &[])], "max-age=0"),
    ];
    for (hops, expected) in cases {
        assert_eq!(directives(&target, &hops), expected, "{hops:?}");
    }
    // What has an age already is fresh for as long from now on.
    let old = [("cache-control", "max-age=100"), ("age", "60")];
    assert_eq!(
        directives(&old, &[hop(302, &[("cache-control", "max-age=10")])]),
        "max-age=70"
    );
}

#[test]
fn rfc9111_s4_2_2_a_guess_and_an_expires_are_bound_as_well_and_nothing_is_invented() {
    let temporary = [hop(302, &[])];
    let guessed = [("last-modified", &*date(-100_000))];
    assert_eq!(directives(&guessed, &temporary), "max-age=0");
    assert_eq!(directives(&[("expires", &date(9))], &temporary), "max-age=0");
    assert_eq!(directives(&[], &temporary), "");
    // A permanent redirect is a guess of a day.
    assert_eq!(
        directives(
            &[("cache-control", "public, s-maxage=99999999")],
            &[hop(301, &[])]
        ),
        "public, s-maxage=86400"
    );
    assert_eq!(
        directives(&[("cache-control", "max-age=nonsense")], &temporary),
        "max-age=nonsense"
    );
}

#[test]
fn rfc9111_s3_what_one_redirect_forbids_is_not_stored() {
    let public = [("cache-control", "public, max-age=100")];
    for (fields, expected) in [
        (
            vec![("cache-control", "private, max-age=9")],
            NoStoreReason::Private,
        ),
        (
            vec![("cache-control", "no-store")],
            NoStoreReason::ResponseNoStore,
        ),
        (
            vec![("cache-control", "max-age=9"), ("set-cookie", "sid=1")],
            NoStoreReason::Private,
        ),
        (vec![("vary", "*")], NoStoreReason::VaryAny),
    ] {
        for hops in [
            vec![hop(302, &fields)],
            vec![hop(302, &fields), hop(301, &[])],
            vec![hop(301, &[]), hop(302, &fields)],
        ] {
            let (headers, verdict) = bound(&HeaderMap::new(), &public, &hops);
            assert_eq!(verdict, Storability::NoStore(expected), "{headers:?}");
        }
    }
}

#[test]
fn rfc9111_s3_5_each_part_must_allow_to_share_what_was_authorized() {
    let client = headers(&[("authorization", "Basic eA==")]);
    let (open, shut) = ("public, max-age=9", "max-age=9");
    for (redirect, target, may_store) in [
        (open, open, true),
        (shut, open, false),
        (open, shut, false),
        ("must-revalidate, max-age=9", shut, false),
    ] {
        let hops = [hop(302, &[("cache-control", redirect)])];
        let (_, verdict) = bound(&client, &[("cache-control", target)], &hops);
        assert_eq!(verdict.may_store(), may_store, "{redirect} then {target}");
    }
}

#[test]
fn rfc9111_s4_1_every_vary_selects() {
    let client = headers(&[("cookie", "a=1")]);
    let hops = [
        hop(302, &[("vary", "Cookie, Accept")]),
        hop(302, &[("vary", "accept")]),
    ];
    let (headers, _) = bound(&client, &[("vary", "Accept-Encoding")], &hops);
    let names: Vec<_> = headers.get_all(header::VARY).iter().collect();
    assert_eq!(names, ["Accept-Encoding", "Cookie", "Accept"]);
}

#[test]
fn rules_against_stale_use_add_up() {
    let target = [(
        "cache-control",
        "max-age=9, stale-while-revalidate=60, stale-if-error=600",
    )];
    let of = |rule| directives(&target, &[hop(302, &[("cache-control", rule)])]);
    assert_eq!(of("max-age=99"), "max-age=9, stale-if-error=600");
    assert_eq!(
        of("max-age=99, stale-while-revalidate=5, stale-if-error=6"),
        "max-age=9, stale-while-revalidate=5, stale-if-error=6"
    );
    assert!(of("max-age=99, must-revalidate").ends_with("must-revalidate"));
    assert!(of("s-maxage=99").ends_with("proxy-revalidate"));
    assert!(of("max-age=99, no-cache").contains("no-cache"));
}

#[test]
fn what_is_brought_up_to_date_by_way_of_a_redirect_is_validated_again_next_time() {
    let client = HeaderMap::new();
    let request = Request {
        method: &Method::GET,
        headers: &client,
    };
    let mut stored = stored_for(
        &client,
        200,
        &[("cache-control", "max-age=100"), ("etag", "\"a\"")],
    );
    let overrides = Overrides::default();
    let decided = |stored: &Stored| {
        let found = Lookup::Found { index: 0, stored };
        decide(&request, found, &overrides, at(1)).decision
    };
    assert!(matches!(decided(&stored), Decision::Fresh(_)));
    assert_eq!(
        bind_stored(&request, &mut stored, &[hop(302, &[])], &overrides),
        None
    );
    assert!(matches!(decided(&stored), Decision::MustValidate { .. }));
}
