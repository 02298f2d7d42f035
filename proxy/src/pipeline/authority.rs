//! Requests of HTTP/2 in the form in which HTTP/1.1 would have sent them.
//!
//! HTTP/1.1 has two forms for two kinds of server: `GET /path` with `Host` for one that serves, `GET http://host/path` for a proxy. HTTP/2
//! has one for both, with the authority in a field of its own. Which is meant follows from the authority: that of an upstream is a
//! target for a proxy; any other can only be a name of ours, and the path is a mirror path.

use http::{HeaderValue, Method, Request, Uri, Version, header, uri::PathAndQuery};

use crate::route::Router;

/// A request whose authority is not clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// Brings a request of HTTP/2 into the form of HTTP/1.1; others stay as they are.
///
/// "An intermediary that converts an HTTP/2 request to HTTP/1.1 MUST create a Host header field if one is not present in a request by
/// copying the value of the ":authority" pseudo-header field" and "a server SHOULD treat a request as malformed if it contains a Host
/// header field that identifies an entity that differs from the entity in the ":authority" pseudo-header field" (RFC 9113 §8.3.1).
pub(super) fn normalise<B>(request: &mut Request<B>, router: &Router) -> Result<(), Ambiguous> {
    if request.version() != Version::HTTP_2 {
        return Ok(());
    }
    let Some(authority) = request.uri().authority().cloned() else {
        return Ok(());
    };
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => {
            let host = HeaderValue::from_str(authority.as_str()).map_err(|_not_a_value| Ambiguous)?;
            request.headers_mut().insert(header::HOST, host);
        }
        (Some(host), None)
            if host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes()) => {}
        (Some(_), _) => return Err(Ambiguous),
    }
    if request.method() != Method::CONNECT && !router.names(request.uri()) {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn normalised(method: &str, uri: &str, hosts: &[&str]) -> Result<(String, String), Ambiguous> {
        let router = Router::new(&Settings {
            upstreams: vec!["pkg=https://pkg.example/".parse().unwrap()],
            ..Settings::default()
        });
        let mut request = Request::builder()
            .version(Version::HTTP_2)
            .method(method)
            .uri(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        let mut request = request.body(()).unwrap();
        normalise(&mut request, &router)?;
        let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
        Ok((request.uri().to_string(), host))
    }

    #[test]
    fn rfc9113_s8_3_1_the_authority_of_an_upstream_is_a_target_and_any_other_a_name_of_ours() {
        for (method, uri, expected) in [
            ("GET", "https://pkg.example/a?b", "https://pkg.example/a?b"),
            ("GET", "http://pkg.example/a", "http://pkg.example/a"),
            ("GET", "https://cache.example:3143/pkg/a?b", "/pkg/a?b"),
            ("GET", "https://pkg.example:444/a", "/a"),
            ("CONNECT", "pkg.example:443", "pkg.example:443"),
        ] {
            let (uri, host) = normalised(method, uri, &[]).unwrap();
            assert_eq!(uri, expected);
            assert!(!host.is_empty());
        }
    }

    #[test]
    fn rfc9113_s8_3_1_a_host_field_that_says_otherwise_is_refused() {
        let uri = "https://pkg.example/a";
        assert!(normalised("GET", uri, &["PKG.example"]).is_ok());
        assert_eq!(normalised("GET", uri, &["other.example"]), Err(Ambiguous));
        assert_eq!(
            normalised("GET", uri, &["pkg.example", "pkg.example"]),
            Err(Ambiguous)
        );
    }
}
