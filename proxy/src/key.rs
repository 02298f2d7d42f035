//! The primary cache key: which stored responses can answer a request at all ([RFC 9111 §2]).
//!
//! A key is the class of the method (GET and HEAD share one) and the target URI, normalised only where RFC 3986 §6.2.2 and
//! RFC 9110 §4.2.3 say that two spellings are equal: scheme and host in lower case, no default port, `/` for an empty path,
//! `%` escapes in upper case, unreserved characters unescaped. Anything further (dot segments, order of the query,
//! a trailing dot) is left alone, since servers differ about it: a needless miss is harmless.
//!
//! The secondary key, from `Vary`, is [`crate::policy::Selecting`].
//!
//! [RFC 9111 §2]: https://www.rfc-editor.org/rfc/rfc9111#section-2

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    str::FromStr,
};

use http::{Method, Uri};
use kato_shared::redact;
use url::Url;

/// A normalised target URI for retrieval. Display is `GET http://host/path?query`, stable across versions, ASCII, and
/// read back by [`FromStr`]; keys sort by scheme, host and path, so that a host's keys stand together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey {
    /// `GET ` and the URI.
    text: String,
}

/// The class of methods that share a key, as keys are written.
const CLASS: &str = "GET ";

/// Why a request has no cache key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Only GET and HEAD are answered from the store.
    #[error("expected the method GET or HEAD, got {0}")]
    Method(Method),
    /// The target has no scheme or no host.
    #[error("expected an absolute URI, got {0}")]
    NotAbsolute(Uri),
    /// The target carries user information, which RFC 9110 §4.2.4 forbids in `http` URIs.
    #[error("expected a URI without user information for host {host}")]
    UserInformation {
        /// The host; the rest may be secret.
        host: String,
    },
    /// A stored text that is no key.
    #[error("expected a cache key such as GET http://host/path, got {0:?}")]
    Text(String),
}

impl CacheKey {
    /// The key of a request for `target`, which must be absolute.
    ///
    /// # Errors
    /// [`KeyError`] with the part that is missing or refused.
    pub fn new(method: &Method, target: &Uri) -> Result<Self, KeyError> {
        if method != Method::GET && method != Method::HEAD {
            return Err(KeyError::Method(method.clone()));
        }
        let (Some(scheme), Some(authority)) = (target.scheme_str(), target.authority()) else {
            return Err(KeyError::NotAbsolute(target.clone()));
        };
        if authority.as_str().contains('@') {
            return Err(KeyError::UserInformation {
                host: authority.host().to_owned(),
            });
        }
        let scheme = scheme.to_ascii_lowercase();
        let host = normalise_escapes(authority.host()).to_ascii_lowercase();
        let port = authority
            .port_u16()
            .filter(|port| Some(*port) != default_port(&scheme));
        let path = Some(target.path()).filter(|path| !path.is_empty()).unwrap_or("/");
        let path = normalise_escapes(path);
        let query = target.query().map(normalise_escapes);
        let length = CLASS.len()
            + scheme.len()
            + host.len()
            + path.len()
            + query.as_ref().map_or(0, |query| query.len());
        let mut text = String::with_capacity(length + "://:65535?".len());
        for part in [CLASS, &scheme, "://", &host] {
            text.push_str(part);
        }
        if let Some(port) = port {
            // Writing to a `String` cannot fail.
            let _infallible = write!(text, ":{port}");
        }
        text.push_str(&path);
        if let Some(query) = &query {
            text.push('?');
            text.push_str(query);
        }
        Ok(Self { text })
    }

    /// The target URI for logs: without the values of its query, since signatures stand there.
    pub fn shown(&self) -> String {
        Url::parse(self.uri()).map_or_else(|_no_url| "-".to_owned(), |url| redact::url(&url))
    }

    /// The normalised target URI.
    pub fn uri(&self) -> &str {
        &self.text[CLASS.len()..]
    }

    /// The key as it is stored, the same as its Display.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for CacheKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let broken = || KeyError::Text(text.to_owned());
        let target = text.strip_prefix(CLASS).ok_or_else(broken)?;
        let target: Uri = target.parse().ok().ok_or_else(broken)?;
        Self::new(&Method::GET, &target)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Unescapes unreserved characters, writes other escapes in upper case, escapes bytes outside ASCII.
///
/// A text with a `%` that begins no escape is no URI; its escapes are left alone, since unescaping beside the stray `%` could
/// make an escape that was not there (`%%30a` is not `%0a`).
pub(crate) fn normalise_escapes(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii() && byte != b'%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let escape_at = |at: usize| bytes.get(at + 1..at + 3).and_then(escaped_byte);
    let is_valid = (0..bytes.len()).all(|at| bytes[at] != b'%' || escape_at(at).is_some());
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = (is_valid && *byte == b'%').then(|| escape_at(at)).flatten();
        match escaped {
            Some(plain) if is_unreserved(plain) => out.push(char::from(plain)),
            Some(plain) => push_escaped(&mut out, plain),
            None if byte.is_ascii() => out.push(char::from(*byte)),
            None => push_escaped(&mut out, *byte),
        }
        at += if escaped.is_some() { 3 } else { 1 };
    }
    Cow::Owned(out)
}

/// Appends `%XX`, in upper case.
pub(crate) fn push_escaped(out: &mut String, byte: u8) {
    out.push('%');
    for digit in [byte >> 4, byte & 0xF] {
        out.extend(char::from_digit(u32::from(digit), 16).map(|digit| digit.to_ascii_uppercase()));
    }
}

fn escaped_byte(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    let [high, low] = digits else { return None };
    Some(value(*high)? << 4 | value(*low)?)
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(uri: &str) -> CacheKey {
        CacheKey::new(&Method::GET, &uri.parse().unwrap()).unwrap()
    }

    #[test]
    fn rfc3986_s6_2_2_equal_spellings_share_a_key() {
        for (a, b) in [
            ("HTTP://Host.Example", "http://host.example/"),
            ("http://host.example:80/a", "http://host.example/a"),
            ("https://host.example:443/a", "https://host.example/a"),
            ("http://host.example:/a", "http://host.example/a"),
            ("http://host.example/%7euser/%41", "http://host.example/~user/A"),
            (
                "http://host.example/a%2fb?q=%c3%a9",
                "http://host.example/a%2Fb?q=%C3%A9",
            ),
            ("http://[2001:DB8::1]/a", "http://[2001:db8::1]/a"),
        ] {
            assert_eq!(key(a), key(b), "{a} and {b}");
        }
    }

    #[test]
    fn rfc3986_s6_2_2_different_targets_have_different_keys() {
        for (a, b) in [
            ("http://host.example/a", "https://host.example/a"),
            ("http://host.example:443/a", "https://host.example/a"),
            ("http://host.example:8080/a", "http://host.example/a"),
            ("http://host.example/a%2Fb", "http://host.example/a/b"),
            ("http://host.example/A", "http://host.example/a"),
            ("http://host.example/a?", "http://host.example/a"),
            ("http://host.example/a?x=1&y=2", "http://host.example/a?y=2&x=1"),
            ("http://host.example/a%zz", "http://host.example/a%ZZ"),
            ("http://host.example/%%30a", "http://host.example/%0a"),
        ] {
            assert_ne!(key(a), key(b), "{a} and {b}");
        }
    }

    #[test]
    fn rfc9111_s2_get_and_head_share_a_key_and_other_methods_have_none() {
        let uri: Uri = "http://host.example/a".parse().unwrap();
        assert_eq!(
            CacheKey::new(&Method::HEAD, &uri),
            CacheKey::new(&Method::GET, &uri)
        );
        assert_eq!(
            CacheKey::new(&Method::POST, &uri),
            Err(KeyError::Method(Method::POST))
        );
    }

    #[test]
    fn rfc9110_s4_2_4_targets_with_user_information_or_without_host_are_refused_without_showing_the_secret() {
        let secret: Uri = "http://user:secret@host.example/a".parse().unwrap();
        let refused = CacheKey::new(&Method::GET, &secret).unwrap_err();
        assert!(!refused.to_string().contains("secret"), "{refused}");
        let origin_form: Uri = "/a".parse().unwrap();
        assert!(matches!(
            CacheKey::new(&Method::GET, &origin_form),
            Err(KeyError::NotAbsolute(_))
        ));
    }

    proptest! {
        #[test]
        fn a_key_reads_back_from_its_text_and_is_normalised_once(path in "(/|%[0-9a-fA-F]{2}|[a-zA-Z~.]|%){0,20}", port in 1_u16..) {
            let key = key(&format!("http://Host.example:{port}/{path}?{path}"));
            let again: CacheKey = key.to_string().parse().unwrap();
            prop_assert_eq!(again, key);
        }
    }
}
