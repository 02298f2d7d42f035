//! What a token is asked for (distribution specification, "Token scope"). Pure.
//!
//! A challenge names the repository in the client's own words, since whoever has not shown who it is shall not learn what is
//! configured here; which repository that is, is found out when the token is made.

use http::Uri;
use percent_encoding::percent_decode_str;

/// The scope of lists of repositories.
pub(crate) const CATALOG: &str = "registry:catalog:*";

/// What stands behind the name of a repository in a path.
const ENDPOINTS: [&str; 4] = ["/manifests/", "/blobs/", "/tags/list", "/referrers/"];

/// The scope that a request for `uri` at the door needs; `None` where it needs no more than a user.
pub(crate) fn scope(uri: &Uri) -> Option<String> {
    let path = uri.path().strip_prefix("/v2/")?;
    if path == "_catalog" || path.ends_with("/_catalog") {
        return Some(CATALOG.to_owned());
    }
    let end = ENDPOINTS
        .iter()
        .filter_map(|endpoint| path.rfind(endpoint))
        .max()?;
    let mut query = uri.query().unwrap_or_default().split('&');
    let namespace = query.find_map(|part| part.strip_prefix("ns="));
    let name = match namespace {
        Some(namespace) => format!(
            "{}/{}",
            percent_decode_str(namespace).decode_utf8().ok()?,
            &path[..end]
        ),
        None => path[..end].to_owned(),
    };
    // What is written between quotation marks has none in it, and no spaces, which separate scopes.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:[]".contains(&byte);
    name.bytes()
        .all(is_plain)
        .then(|| format!("repository:{name}:pull"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_names_the_repository_as_the_client_does() {
        for (uri, expected) in [
            ("/v2/", None),
            ("/v2/_catalog?n=1", Some(CATALOG)),
            ("/v2/hub/_catalog", Some(CATALOG)),
            (
                "/v2/hub.example/lab/app/manifests/v1",
                Some("repository:hub.example/lab/app:pull"),
            ),
            (
                "/v2/10.0.0.1:5000/app/blobs/sha256:00",
                Some("repository:10.0.0.1:5000/app:pull"),
            ),
            (
                "/v2/lab/app/tags/list?n=1&ns=hub.example%3A5000",
                Some("repository:hub.example:5000/lab/app:pull"),
            ),
            (
                "/v2/a/manifests/b/referrers/x",
                Some("repository:a/manifests/b:pull"),
            ),
            ("/v2/a%22b/manifests/v1", None),
            ("/v2/a/manifests/v1?ns=%22", None),
        ] {
            assert_eq!(scope(&uri.parse().unwrap()).as_deref(), expected, "{uri}");
        }
    }
}
