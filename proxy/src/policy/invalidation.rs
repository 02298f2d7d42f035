//! What an unsafe request makes unusable: [RFC 9111 §4.4].
//!
//! [RFC 9111 §4.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.4

use http::{HeaderMap, Method, StatusCode, Uri, header};

/// The target URIs whose stored responses may not be reused without validation after this exchange.
///
/// Empty for safe methods and for error responses. "A cache MUST invalidate the target URI … when it receives a non-error
/// status code in response to an unsafe request method (including methods whose safety is unknown)"; `Location` and
/// `Content-Location` only where they have the origin of the target, since otherwise any server could evict another's entries.
///
/// `target` must be absolute (scheme and authority); relative references in the fields are resolved against it.
pub fn invalidated_targets(
    method: &Method,
    target: &Uri,
    (status, response): (StatusCode, &HeaderMap),
) -> Vec<Uri> {
    let non_error = status.is_success() || status.is_redirection();
    if method.is_safe() || !non_error {
        return Vec::new();
    }
    let mut targets = vec![target.clone()];
    let named = [header::LOCATION, header::CONTENT_LOCATION];
    for value in named.iter().flat_map(|name| response.get_all(name)) {
        if let Some(uri) = value.to_str().ok().and_then(|text| same_origin(target, text))
            && !targets.contains(&uri)
        {
            targets.push(uri);
        }
    }
    targets
}

/// `reference` resolved against `base`, where that has the same scheme, host and port.
fn same_origin(base: &Uri, reference: &str) -> Option<Uri> {
    let base = url::Url::parse(&base.to_string()).ok()?;
    let mut resolved = base.join(reference).ok()?;
    resolved.set_fragment(None);
    (resolved.origin() == base.origin()).then(|| resolved.as_str().parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_support::headers;

    fn targets(method: &Method, status: u16, fields: &[(&'static str, &str)]) -> Vec<String> {
        let target: Uri = "http://host.example/dir/page".parse().unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        invalidated_targets(method, &target, (status, &headers(fields)))
            .iter()
            .map(Uri::to_string)
            .collect()
    }

    #[test]
    fn rfc9111_s4_4_unsafe_and_unknown_methods_invalidate_their_target_on_success() {
        let unknown = Method::from_bytes(b"FOO").unwrap();
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, unknown] {
            for status in [200, 204, 301, 303] {
                assert_eq!(
                    targets(&method, status, &[]),
                    ["http://host.example/dir/page"],
                    "{method} {status}"
                );
            }
        }
    }

    #[test]
    fn rfc9111_s4_4_safe_methods_and_errors_invalidate_nothing() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
            assert!(targets(&method, 200, &[]).is_empty(), "{method}");
        }
        for status in [400, 404, 500, 503] {
            assert!(targets(&Method::POST, status, &[]).is_empty(), "{status}");
        }
    }

    #[test]
    fn rfc9111_s4_4_location_and_content_location_count_only_for_the_same_origin() {
        let fields = [
            ("location", "/other"),
            ("content-location", "sibling?x=1"),
            ("location", "http://evil.example/other"),
            ("location", "https://host.example/other"),
            ("location", "http://host.example:80/third#part"),
        ];
        assert_eq!(
            targets(&Method::POST, 201, &fields),
            [
                "http://host.example/dir/page",
                "http://host.example/other",
                "http://host.example/third",
                "http://host.example/dir/sibling?x=1",
            ]
        );
    }
}
