//! Which form of a document a client prefers, said to origins in one way by all clients: each version of each client words its
//! `Accept` differently, and an origin that varies by it would have to be asked once for each.

use http::{HeaderMap, HeaderValue, header};

/// For pip's pages: JSON where it can be had.
const SIMPLE_JSON: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.1, text/html;q=0.01";
/// For pip's pages: JSON or nothing.
const SIMPLE_JSON_ALONE: &str = "application/vnd.pypi.simple.v1+json";
/// For pip's pages: as every client understands them.
const SIMPLE_HTML: &str = "text/html";
/// For packuments: what an installation needs.
const ABBREVIATED: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";
/// For packuments: all of it.
const WHOLE: &str = "application/json";

/// How somebody who asks for a page of the simple API is understood.
pub(super) fn simple(headers: &HeaderMap) -> HeaderValue {
    let json = ["v1", "latest"]
        .iter()
        .filter_map(|version| quality(headers, &format!("application/vnd.pypi.simple.{version}+json")))
        .max();
    let html = [
        "text/html",
        "application/vnd.pypi.simple.v1+html",
        "text/*",
        "*/*",
    ]
    .iter()
    .filter_map(|name| quality(headers, name))
    .max();
    HeaderValue::from_static(match (json, html) {
        (Some(json), Some(html)) if json >= html => SIMPLE_JSON,
        (Some(_), None) => SIMPLE_JSON_ALONE,
        _ => SIMPLE_HTML,
    })
}

/// How somebody who asks for a packument is understood.
pub(super) fn packument(headers: &HeaderMap) -> HeaderValue {
    let wants_abbreviated = quality(headers, "application/vnd.npm.install-v1+json").is_some();
    HeaderValue::from_static(if wants_abbreviated { ABBREVIATED } else { WHOLE })
}

/// In thousandths how much `Accept` wants exactly this media type (RFC 9110 §12.5.1); `None` where it does not name it or does
/// not want it.
fn quality(headers: &HeaderMap, media_type: &str) -> Option<u16> {
    let lines = headers.get_all(header::ACCEPT).iter();
    let items = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    items
        .filter_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let is_it = parts.next()?.eq_ignore_ascii_case(media_type);
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            is_it.then(|| weight.map_or(1000, thousandths))
        })
        .filter(|quality| *quality > 0)
        .max()
}

/// `0.25` as 250; what is no weight counts as one.
fn thousandths(weight: &str) -> u16 {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    match (whole.parse::<u16>(), digits.parse::<u16>()) {
        (Ok(0), Ok(thousandths)) => thousandths,
        _ => 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))])
    }

    #[test]
    fn every_version_of_a_client_asks_in_one_way() {
        for (asked, understood) in [
            // pip 22.2 and later; uv.
            (
                "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01",
                SIMPLE_JSON,
            ),
            (
                "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01",
                SIMPLE_JSON,
            ),
            // pip before that, and browsers.
            ("text/html", SIMPLE_HTML),
            ("text/html,application/xhtml+xml,*/*;q=0.8", SIMPLE_HTML),
            ("application/vnd.pypi.simple.v1+json", SIMPLE_JSON_ALONE),
            ("application/vnd.pypi.simple.v1+json;q=0, text/html", SIMPLE_HTML),
            (
                "application/vnd.pypi.simple.v1+json;q=0.1, text/html",
                SIMPLE_HTML,
            ),
        ] {
            assert_eq!(simple(&accept(asked)), understood, "{asked}");
        }
        assert_eq!(simple(&HeaderMap::new()), SIMPLE_HTML);
        assert_eq!(packument(&accept(ABBREVIATED)), ABBREVIATED);
        assert_eq!(packument(&accept("application/json")), WHOLE);
        assert_eq!(packument(&HeaderMap::new()), WHOLE);
    }
}
