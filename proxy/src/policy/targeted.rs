//! Targeted cache control ([RFC 9213]): a field such as `CDN-Cache-Control` that speaks to our class of cache in place of
//! `Cache-Control` and `Expires`.
//!
//! The list of field names is an operator's choice and empty by default. The syntax is a Structured Fields dictionary
//! (RFC 8941), stricter than `Cache-Control`: a field that does not parse is ignored as a whole, and the next applies.
//!
//! [RFC 9213]: https://www.rfc-editor.org/rfc/rfc9213

use http::{HeaderMap, HeaderName};

use super::cache_control::{Argument, ResponseDirectives, split_list};

/// The directives that govern a response, and whether they came from a targeted field (then `Expires` does not count).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The directives.
    pub directives: ResponseDirectives,
    /// True where a targeted field spoke.
    pub targeted: bool,
}

/// Picks the first field of `targets` that is present, valid and not empty; else `Cache-Control`.
///
/// "If the field value is invalid or empty, cache(s) MUST ignore the field" — RFC 9213 §2.2.
pub fn effective(headers: &HeaderMap, targets: &[HeaderName]) -> Effective {
    targets.iter().find_map(|name| parse(headers, name)).map_or_else(
        || Effective {
            directives: ResponseDirectives::of(headers),
            targeted: false,
        },
        |directives| Effective {
            directives,
            targeted: true,
        },
    )
}

fn parse(headers: &HeaderMap, name: &HeaderName) -> Option<ResponseDirectives> {
    let mut members: Vec<(String, Member)> = Vec::new();
    for line in headers.get_all(name) {
        for item in split_list(line.as_bytes()) {
            let (key, member) = parse_member(item)?;
            // RFC 8941 §3.2: of a repeated key the last value counts.
            members.retain(|(known, _)| *known != key);
            members.push((key, member));
        }
    }
    if members.is_empty() {
        return None;
    }
    let mut directives = ResponseDirectives::default();
    for (key, member) in &members {
        match member {
            Member::False => {}
            Member::True => directives.take_in(key, None),
            Member::Value(value) => directives.take_in(key, Some(&Argument(value.clone()))),
        }
    }
    Some(directives)
}

/// A dictionary member's value as far as a directive needs it.
enum Member {
    True,
    False,
    Value(Vec<u8>),
}

fn parse_member(item: &[u8]) -> Option<(String, Member)> {
    let key_end = item
        .iter()
        .position(|byte| matches!(byte, b'=' | b';'))
        .unwrap_or(item.len());
    let key = &item[..key_end];
    let starts_well = key
        .first()
        .is_some_and(|byte| byte.is_ascii_lowercase() || *byte == b'*');
    let is_key = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(byte);
    if !starts_well || !key.iter().all(is_key) {
        return None;
    }
    let key = String::from_utf8_lossy(key).into_owned();
    let member = match item.get(key_end) {
        Some(b'=') => parse_bare_item(&item[key_end + 1..])?,
        _ => Member::True,
    };
    Some((key, member))
}

/// The bare item before any parameters: boolean, string, integer or token. Byte sequences and decimals mean nothing here.
fn parse_bare_item(value: &[u8]) -> Option<Member> {
    let end = bare_item_end(value)?;
    let bare = &value[..end];
    match bare {
        b"?1" => Some(Member::True),
        b"?0" => Some(Member::False),
        [b'"', inner @ .., b'"'] => Some(Member::Value(inner.to_vec())),
        [first, ..] if first.is_ascii_alphanumeric() || matches!(first, b'-' | b'*') => {
            let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(byte);
            bare.iter().all(is_token).then(|| Member::Value(bare.to_vec()))
        }
        _ => None,
    }
}

fn bare_item_end(value: &[u8]) -> Option<usize> {
    if value.first() == Some(&b'"') {
        let close = value.iter().skip(1).position(|byte| *byte == b'"')? + 2;
        return matches!(value.get(close), None | Some(b';')).then_some(close);
    }
    Some(value.iter().position(|byte| *byte == b';').unwrap_or(value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_support::headers;

    const CDN: HeaderName = HeaderName::from_static("cdn-cache-control");

    #[test]
    fn rfc9213_s2_2_a_valid_targeted_field_replaces_cache_control() {
        let map = headers(&[
            ("cache-control", "no-store"),
            ("cdn-cache-control", "max-age=60, no-cache=?0"),
        ]);
        let effective = effective(&map, &[CDN]);
        assert!(effective.targeted);
        assert_eq!(effective.directives.max_age, Some(60));
        assert!(!effective.directives.no_store);
        assert_eq!(
            effective.directives.no_cache,
            crate::policy::cache_control::FieldScope::Absent
        );
    }

    #[test]
    fn rfc9213_s2_2_an_invalid_or_empty_targeted_field_is_ignored() {
        for bad in ["", "MAX-AGE=60", "max-age=60, &&", "max-age=\"60"] {
            let map = headers(&[("cache-control", "max-age=5"), ("cdn-cache-control", bad)]);
            let effective = effective(&map, &[CDN]);
            assert!(!effective.targeted, "{bad:?}");
            assert_eq!(effective.directives.max_age, Some(5), "{bad:?}");
        }
    }

    #[test]
    fn rfc9213_s2_2_without_a_target_list_the_field_means_nothing() {
        let map = headers(&[("cdn-cache-control", "max-age=60")]);
        assert_eq!(effective(&map, &[]).directives.max_age, None);
    }
}
