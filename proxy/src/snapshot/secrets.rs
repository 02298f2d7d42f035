//! What must not cross: which header fields may, and which URLs carry a secret in their query.
//!
//! Fields are a list of what may cross rather than of what may not: a field that nobody has thought of stays here. What no client of
//! a mirror needs is no loss; `Set-Cookie`, `Authorization` and whatever a vendor calls its token are.

use http::{HeaderMap, header};
use url::Url;

/// Response fields about the representation, which clients of mirrors read.
const CARRIED: [&str; 26] = [
    "accept-ranges",
    "age",
    "allow",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-type",
    "date",
    "digest",
    "etag",
    "expires",
    "last-modified",
    "link",
    "location",
    "repr-digest",
    "retry-after",
    "vary",
    "warning",
    "x-checksum-sha256",
    "x-content-type-options",
    "x-pypi-last-serial",
    "x-repodata-version",
];

/// Families of such fields: of registries for container images.
const CARRIED_FAMILIES: [&str; 2] = ["docker-", "oci-"];

/// Parameters of a query that make a URL a secret, in lower case.
const SECRET_PARAMETERS: [&str; 12] = [
    "sig",
    "sign",
    "signature",
    "key-pair-id",
    "policy",
    "token",
    "auth",
    "hmac",
    "jwt",
    "password",
    "pwd",
    "apikey",
];

/// Parts of the name of such a parameter.
const SECRET_PARTS: [&str; 8] = [
    "x-amz-",
    "x-goog-",
    "signature",
    "credential",
    "secret",
    "token",
    "api_key",
    "access_key",
];

/// Parts of the names of request fields that say who asks.
const CREDENTIAL_PARTS: [&str; 7] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "session",
    "api-key",
    "credential",
];

/// Whether the response field `name`, in lower case, crosses.
pub(super) fn may_cross(name: &str) -> bool {
    CARRIED.contains(&name) || CARRIED_FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Whether the request field `name`, in lower case, says who asks.
pub(super) fn is_credential(name: &str) -> bool {
    CREDENTIAL_PARTS.iter().any(|part| name.contains(part))
}

/// Whether `url` carries a secret: a password, or a signature or token in its query.
pub(super) fn is_signed(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else {
        // What cannot be read cannot be judged.
        return url.contains('?') || url.contains('@');
    };
    let is_secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        SECRET_PARAMETERS.contains(&name.as_str()) || SECRET_PARTS.iter().any(|part| name.contains(part))
    };
    url.password().is_some()
        || !url.username().is_empty()
        || url.query_pairs().any(|(name, _)| is_secret(&name))
}

/// Whether a redirect leads to such a URL.
pub(super) fn leads_to_signed(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::LOCATION)
        .iter()
        .any(|place| names_signed(place.as_bytes()))
}

/// Whether the value of a field names such a URL, absolute or relative.
pub(super) fn names_signed(value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value);
    text.split(['<', '>', '"', ' ', '\t', ','])
        .filter(|part| part.contains('?') || part.contains("://"))
        .any(|part| {
            if part.contains("://") {
                is_signed(part)
            } else {
                is_signed(&format!(
                    "http://relative.example/{}",
                    part.trim_start_matches('/')
                ))
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_signatures_tokens_or_passwords_are_known() {
        for url in [
            "https://cdn.example/a?X-Amz-Signature=1&X-Amz-Expires=2",
            "https://cdn.example/a?se=2026&sp=r&sig=abc",
            "https://cdn.example/a?Expires=1&Signature=x&Key-Pair-Id=y",
            "https://cdn.example/a?access_token=1",
            "https://cdn.example/a?verify=1&Token=2",
            "https://user:pass@cdn.example/a",
        ] {
            assert!(is_signed(url), "{url}");
        }
        for url in [
            "https://mirror.example/a",
            "https://mirror.example/v2/a/tags/list?n=100&last=b",
            "https://mirror.example/simple/?format=json",
        ] {
            assert!(!is_signed(url), "{url}");
        }
    }

    #[test]
    fn fields_that_name_signed_urls_are_known_wherever_the_url_stands() {
        assert!(names_signed(b"</next?token=abc>; rel=\"next\""));
        assert!(names_signed(b"https://cdn.example/a?sig=1"));
        assert!(!names_signed(b"</v2/a/tags/list?n=2>; rel=\"next\""));
        assert!(!names_signed(b"text/html; charset=utf-8"));
    }

    #[test]
    fn only_fields_about_the_representation_cross() {
        for name in [
            "set-cookie",
            "authorization",
            "x-vendor-token",
            "www-authenticate",
            "server",
        ] {
            assert!(!may_cross(name), "{name}");
        }
        for name in ["etag", "docker-content-digest", "content-type", "oci-subject"] {
            assert!(may_cross(name), "{name}");
        }
        assert!(is_credential("authorization") && is_credential("x-session-id") && !is_credential("accept"));
    }
}
