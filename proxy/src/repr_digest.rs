//! The digest of a representation as a field: `Repr-Digest` and who wants it (RFC 9530 §3, §4), by SHA-256 alone.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use kato_shared::Digest;

/// The request field that wants it.
pub(crate) const WANTED: HeaderName = HeaderName::from_static("want-repr-digest");
/// The response field that has it.
pub(crate) const FIELD: HeaderName = HeaderName::from_static("repr-digest");
/// What the request field says: SHA-256, and nothing else.
pub(crate) const SHA256_ALONE: HeaderValue = HeaderValue::from_static("sha-256=1");

/// The value of [`FIELD`]: `sha-256=:…:`.
pub(crate) fn value(digest: &Digest) -> HeaderValue {
    let text = format!("sha-256=:{}:", STANDARD.encode(digest.as_bytes()));
    // Base64 has no byte that a field cannot have.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// The SHA-256 digest that `headers` say; none where they say nothing of it, or something else than a digest.
pub(crate) fn of(headers: &HeaderMap) -> Option<Digest> {
    let lines = headers
        .get_all(FIELD)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let encoded = lines.flat_map(|line| line.split(',')).find_map(|item| {
        let (name, value) = item.trim().split_once('=')?;
        let inner = value.strip_prefix(':')?.strip_suffix(':')?;
        (name == "sha-256").then_some(inner)
    })?;
    Some(Digest::from_bytes(
        STANDARD.decode(encoded).ok()?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_other_functions_are_passed_over() {
        let digest = Digest::of(b"hello");
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers), None);
        headers.append(FIELD, HeaderValue::from_static("sha-512=:AAAA:, sha-256=?1"));
        assert_eq!(of(&headers), None);
        headers.append(FIELD, value(&digest));
        assert_eq!(of(&headers), Some(digest));
    }
}
