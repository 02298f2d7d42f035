//! As much of HTML as index pages need: start tags with the places of their attributes' values, and character references.
//!
//! Pages are bytes: what is markup is ASCII in every encoding that pages of indexes have, and what is not is left alone.

use std::{borrow::Cow, ops::Range, str};

/// `<name attribute="value" …>`.
#[derive(Debug)]
pub(crate) struct StartTag<'t> {
    /// The name as it is written.
    pub(crate) name: &'t [u8],
    /// Where the whole tag stands, its angle brackets included.
    pub(crate) place: Range<usize>,
    attributes: Vec<(&'t [u8], Range<usize>)>,
}

impl StartTag<'_> {
    /// Where the value of the attribute `name` stands, without quotes.
    pub(crate) fn attribute(&self, name: &str) -> Option<Range<usize>> {
        let found = self
            .attributes
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, place)| place.clone())
    }
}

/// The start tags of `text` in order; comments are passed over.
pub(crate) fn start_tags(text: &[u8]) -> impl Iterator<Item = StartTag<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at += memchr::memchr(b'<', text.get(at..)?)?;
            let rest = &text[at..];
            if rest.starts_with(b"<!--") {
                at += memchr::memmem::find(rest, b"-->")? + 3;
            } else if rest.get(1).is_some_and(u8::is_ascii_alphabetic) {
                let (tag, end) = start_tag(text, at + 1);
                at = end;
                return Some(tag);
            } else {
                at += 1;
            }
        }
    })
}

/// The tag whose name begins at `start`, and where it ends.
fn start_tag(text: &[u8], start: usize) -> (StartTag<'_>, usize) {
    let scan = |from: usize, stop: &dyn Fn(u8) -> bool| {
        let ahead = text[from..].iter().position(|byte| stop(*byte));
        ahead.map_or(text.len(), |ahead| from + ahead)
    };
    let is_space = |byte: u8| byte.is_ascii_whitespace();
    let name_end = scan(start, &|byte| is_space(byte) || b"/>".contains(&byte));
    let mut tag = StartTag {
        name: &text[start..name_end],
        place: start - 1..name_end,
        attributes: Vec::new(),
    };
    let mut at = name_end;
    loop {
        at = scan(at, &|byte| !is_space(byte) && byte != b'/');
        if text.get(at).is_none_or(|byte| *byte == b'>') {
            tag.place.end = (at + 1).min(text.len());
            return (tag, at);
        }
        // A name has at least one byte, so that a stray `=` does not stop the scan.
        let name = at..scan(at + 1, &|byte| is_space(byte) || b"/>=".contains(&byte));
        at = scan(name.end, &|byte| !is_space(byte));
        let mut value = at..at;
        if text.get(at) == Some(&b'=') {
            at = scan(at + 1, &|byte| !is_space(byte));
            if let Some(quote @ (b'"' | b'\'')) = text.get(at) {
                value = at + 1..scan(at + 1, &|byte| byte == *quote);
                at = (value.end + 1).min(text.len());
            } else {
                value = at..scan(at, &|byte| is_space(byte) || byte == b'>');
                at = value.end;
            }
        }
        tag.attributes.push((&text[name], value));
    }
}

/// No reference that is known here is longer: a page of ampersands must not be searched anew from each of them.
const LONGEST_REFERENCE: usize = 16;

/// The text of an attribute's value: character references replaced. What is not UTF-8 is ISO 8859-1, in which every byte is a
/// character.
pub(crate) fn unescape(value: &[u8]) -> String {
    let value = str::from_utf8(value).map_or_else(
        |_latin| Cow::Owned(value.iter().copied().map(char::from).collect()),
        Cow::Borrowed,
    );
    let mut plain = String::with_capacity(value.len());
    let mut rest = &*value;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let reference = rest
            .bytes()
            .take(LONGEST_REFERENCE)
            .position(|byte| byte == b';')
            .and_then(|end| Some((character(&rest[1..end])?, end)));
        if let Some((character, end)) = reference {
            plain.push(character);
            rest = &rest[end + 1..];
        } else {
            plain.push('&');
            rest = &rest[1..];
        }
    }
    plain.push_str(rest);
    plain
}

fn character(reference: &str) -> Option<char> {
    match reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = reference.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

/// `text` as the value of an attribute, whatever the quotes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ampersands_without_end_are_read_once() {
        let many = "&".repeat(4 << 20);
        assert_eq!(unescape(many.as_bytes()), many);
    }

    #[test]
    fn attributes_are_found_however_they_are_quoted() {
        let text = "<p>x < y<a href=b c = 'd' e f=\"g>\"/><!-- <a> -->\u{e9}<B\u{e9} \u{e9}=1>";
        let tags: Vec<_> = start_tags(text.as_bytes()).collect();
        let names: Vec<_> = tags.iter().map(|tag| str::from_utf8(tag.name).unwrap()).collect();
        assert_eq!(&text[tags[1].place.clone()], "<a href=b c = 'd' e f=\"g>\"/>");
        assert_eq!(names, ["p", "a", "B\u{e9}"]);
        let value = |name| tags[1].attribute(name).map(|place| &text[place]);
        assert_eq!(value("HREF"), Some("b"));
        assert_eq!(value("c"), Some("d"));
        assert_eq!(value("e"), Some(""));
        assert_eq!(value("f"), Some("g>"));
        assert_eq!(value("g"), None);
    }

    #[test]
    fn references_that_are_none_stay_as_they_are() {
        assert_eq!(unescape(b"a&amp;b&#x2F;&#47;&nope;&;&"), "a&b//&nope;&;&");
    }

    #[test]
    fn a_value_that_is_not_utf_8_is_read_byte_by_byte() {
        assert_eq!(unescape(b"caf\xe9&amp;"), "caf\u{e9}&");
    }

    proptest! {
        #[test]
        fn any_text_is_scanned_to_its_end(text in prop::collection::vec(prop::sample::select(b"<>='\"/a!- \xe9&#;0".to_vec()), 0..60)) {
            for tag in start_tags(&text) {
                prop_assert!(text[tag.place.clone()].starts_with(b"<"));
                if let Some(place) = tag.attribute("a") {
                    unescape(&text[place]);
                }
            }
        }

        #[test]
        fn what_is_escaped_is_read_back(text in "\\PC{0,20}") {
            prop_assert_eq!(unescape(escape(&text).as_bytes()), text);
        }
    }
}
