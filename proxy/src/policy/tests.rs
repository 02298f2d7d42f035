//! What crosses the modules: a response on its way into the store.

use http::{HeaderMap, Method, StatusCode};

use super::{
    Overrides, Request, Stored, Times,
    test_support::{at, date, headers, stored},
};

#[test]
fn rfc9111_s3_1_what_belongs_to_a_hop_or_a_proxy_or_one_user_is_not_stored_and_repeated_lines_are() {
    let entry = stored(&[
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("proxy-authenticate", "Basic"),
        ("transfer-encoding", "chunked"),
        (
            "cache-control",
            "private=\"x-user\", no-cache=\"set-cookie\", max-age=60",
        ),
        ("x-user", "me"),
        ("set-cookie", "a=1"),
        ("link", "</a>"),
        ("link", "</b>"),
    ]);
    let mut names: Vec<_> = entry.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["cache-control", "date", "link"]);
    assert_eq!(entry.headers.get_all("link").iter().count(), 2);
}

#[test]
fn rfc9110_s6_6_1_a_response_without_date_gets_the_time_of_its_arrival() {
    let client = HeaderMap::new();
    let request = Request {
        method: &Method::GET,
        headers: &client,
    };
    let times = Times {
        request: at(5),
        response: at(7),
    };
    let make = |fields: &[(&'static str, String)]| {
        Stored::new(
            &request,
            (StatusCode::OK, &headers(fields)),
            times,
            &Overrides::default(),
        )
    };
    assert_eq!(make(&[]).headers["date"], date(7).as_str());
    assert_eq!(make(&[("date", "0".to_owned())]).date(), at(7));
    assert_eq!(make(&[("date", date(3))]).date(), at(3));
}

#[test]
fn rfc9111_s5_2_2_7_fields_for_one_user_reach_that_user_and_nobody_else() {
    let client = HeaderMap::new();
    let request = Request {
        method: &Method::GET,
        headers: &client,
    };
    let times = Times {
        request: at(0),
        response: at(0),
    };
    let received = headers(&[
        (
            "cache-control",
            "private=\"x-user\", no-cache=\"set-cookie\", max-age=60",
        ),
        ("x-user", "me"),
        ("set-cookie", "a=1"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ]);
    let first = Stored::for_first_client(&request, (StatusCode::OK, &received), times);
    assert_eq!(
        (&first.headers["x-user"], &first.headers["set-cookie"]),
        (&received["x-user"], &received["set-cookie"])
    );
    assert!(!first.headers.contains_key("x-hop"));
    let kept = Stored::new(
        &request,
        (StatusCode::OK, &received),
        times,
        &Overrides::default(),
    );
    assert!(!kept.headers.contains_key("x-user") && !kept.headers.contains_key("set-cookie"));
}
