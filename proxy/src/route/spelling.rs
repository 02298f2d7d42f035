//! How paths are spelled, and how servers may read them. Pure.
//!
//! Two spellings are one path where [RFC 3986 §6.2.2] says so: [`below`] finds a base path above another by that, and so decides whose a
//! target is. Servers go further, each in its own way: they read `%2F` and `\` as slashes, two slashes as one, `a;b` as `a`, `A` as `a`. A
//! [`Reading`] is the most generous of them. It decides nothing but what is refused, and who has a say: what any server could take for
//! something closed is closed.
//!
//! Deliberately absent: a second round of unescaping (`%252e`), which no server does that does the first one right.
//!
//! [RFC 3986 §6.2.2]: https://www.rfc-editor.org/rfc/rfc3986#section-6.2.2

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::key::normalise_escapes;

/// What is left of `path` below `base`, which ends with a slash; as it is spelled.
pub(crate) fn below<'p>(path: &'p str, base: &str) -> Option<&'p str> {
    if let Some(rest) = path.strip_prefix(base) {
        return Some(rest);
    }
    let mut rest = path;
    for wanted in base.split_inclusive('/') {
        let (segment, behind) = rest.split_at(rest.find('/')? + 1);
        if normalise_escapes(segment) != normalise_escapes(wanted) {
            return None;
        }
        rest = behind;
    }
    Some(rest)
}

/// The segments of a path as the most generous server reads them, each followed by a slash: none of them has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    segments: Vec<u8>,
    depth: usize,
}

impl Reading {
    /// The reading of `path`; `None` where some server would find a dot segment in it, which leads nobody knows where.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let plain: Cow<'_, [u8]> = percent_decode_str(path).into();
        let mut read = Self {
            segments: Vec::with_capacity(plain.len() + 1),
            depth: 0,
        };
        for written in plain.split(|byte| matches!(byte, b'/' | b'\\')) {
            let segment = segment(written)?;
            if !segment.is_empty() {
                read.segments.extend(segment.iter().map(u8::to_ascii_lowercase));
                read.segments.push(b'/');
                read.depth += 1;
            }
        }
        Some(read)
    }

    /// Whether it is `base`, or something below it.
    pub(crate) fn is_below(&self, base: &Self) -> bool {
        self.segments.starts_with(&base.segments)
    }

    /// How many segments it has.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }
}

/// One segment: without parameters (`a;v=1`), what follows a NUL, and the dots and blanks at its end, which some file systems pass over.
/// `None` for a dot segment.
fn segment(written: &[u8]) -> Option<&[u8]> {
    let name = written
        .split(|byte| matches!(byte, b';' | 0))
        .next()
        .unwrap_or_default();
    let name = name.trim_ascii_end();
    if matches!(name, b"." | b"..") {
        return None;
    }
    let is_passed_over = |byte: &u8| *byte == b'.' || byte.is_ascii_whitespace();
    let end = name.iter().rposition(|byte| !is_passed_over(byte));
    Some(&name[..end.map_or(0, |last| last + 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3986_s6_2_2_a_base_is_found_above_equal_spellings_and_above_no_others() {
        for (path, base, rest) in [
            ("/a/b", "/", Some("a/b")),
            ("/secret/x", "/secret/", Some("x")),
            ("/%73ecret/%78", "/secret/", Some("%78")),
            ("/%53ECRET/x", "/SECRET/", Some("x")),
            ("/a%2fb/x", "/a%2Fb/", Some("x")),
            ("/~a/%7eb", "/%7Ea/", Some("%7eb")),
            ("/secret", "/secret/", None),
            ("/secrets/x", "/secret/", None),
            ("//secret/x", "/secret/", None),
            ("/secret%2fx", "/secret/", None),
            ("/Secret/x", "/secret/", None),
            ("/a/b/x", "/a%2Fb/", None),
        ] {
            assert_eq!(below(path, base), rest, "{path} {base}");
        }
    }

    #[test]
    fn c02_whatever_some_server_reads_as_a_closed_path_is_read_so() {
        let closed = Reading::of("/secret/").unwrap();
        for path in [
            "/secret",
            "/secret/x",
            "//secret//x",
            "/%73ecret/x",
            "/SECRET/x",
            "/secret%2Fx",
            "/%2fsecret/x",
            "/secret%5cx",
            "/%5Csecret/x",
            "/secret;v=1/x",
            "/;/secret/x",
            "/secret%3Bv/x",
            "/secret./x",
            "/secret%20/x",
            "/secret%00.html",
        ] {
            assert!(
                Reading::of(path).is_some_and(|read| read.is_below(&closed)),
                "{path}"
            );
        }
        for path in [
            "/",
            "/secrets/x",
            "/a/secret/x",
            "/%2573ecret/x",
            "/secre/t",
            "/se;cret/x",
        ] {
            assert!(!Reading::of(path).unwrap().is_below(&closed), "{path}");
        }
    }

    #[test]
    fn c02_no_path_with_a_dot_segment_in_any_reading_is_read() {
        for path in [
            "/pub/../secret",
            "/pub/./x",
            "/pub/..",
            "/pub/%2e%2e/x",
            "/pub/..%2fsecret/x",
            "/pub/%2e%2e%2Fsecret/x",
            "/pub/a/..%2f..%2fsecret/x",
            "/pub/a%2f../x",
            "/pub/..%5csecret",
            "/pub/..\\secret",
            "/pub%5c..%5csecret",
            "/pub/..;/secret",
            "/pub/..;a=b/secret",
            "/pub/%2e%2e%3b/secret",
            "/pub/..%00/secret",
            "/pub/..%20/secret",
            "/pub/..%09/secret",
            "/pub/%2E/x",
        ] {
            assert_eq!(Reading::of(path), None, "{path}");
        }
        for path in [
            "/pub/a..b/x",
            "/pub/...x",
            "/pub/..x/y",
            "/pub/.hidden",
            "/pub/%252e%252e%252fx",
            "/pub/a%2fb",
        ] {
            assert!(Reading::of(path).is_some(), "{path}");
        }
    }
}
