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
