//! Which of several stored responses answers a request: `Vary` and [RFC 9111 §4.1].
//!
//! Values are compared after the changes that the RFC allows: field lines are combined, white space around list members
//! and letter case are evened out where the field's own definition makes them meaningless. A field that we do not
//! know is compared as it stands, all its lines: a needless miss is harmless, a wrong hit is not.
//!
//! [RFC 9111 §4.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.1

use std::fmt::{self, Write as _};

use http::{HeaderMap, HeaderName, header};
use kato_shared::Digest;

use super::{Request, Stored, cache_control::split_list};
use crate::key::push_escaped;

/// The secondary cache key: the request fields that a response's `Vary` names, with their normalised values.
///
/// Sorted by name, so that two equal selections have equal text; Display is that text, one field to a line, stable across
/// versions and fit to be stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selecting(Vec<(String, Option<String>)>);

impl Selecting {
    /// Takes from `request` the values of the fields that `response`'s `Vary` lines name.
    pub fn of(request: &HeaderMap, response: &HeaderMap) -> Self {
        let mut names: Vec<HeaderName> = response
            .get_all(header::VARY)
            .iter()
            .flat_map(|line| split_list(line.as_bytes()))
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .collect();
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Self(
            names
                .into_iter()
                .map(|name| (name.as_str().to_owned(), normalised(request, &name)))
                .collect(),
        )
    }

    /// Rebuilds a selection from the pairs that [`Selecting::pairs`] gave.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, Option<String>)>) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort();
        Self(pairs)
    }

    /// Field name and normalised value, `None` where the request had no such field.
    pub fn pairs(&self) -> &[(String, Option<String>)] {
        &self.0
    }

    /// True where nothing varies.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True where `request` has the same value in each of these fields, or lacks it too.
    ///
    /// "If a header field is absent from a request, it can only match another request if it is also absent there" (§4.1).
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| {
            HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| normalised(request, &name) == *value)
        })
    }
}

impl fmt::Display for Selecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_char('\n')?;
            }
            f.write_str(name)?;
            if let Some(value) = value {
                write!(f, ": {value}")?;
            }
        }
        Ok(())
    }
}

/// True where `Vary` says that more than request fields selects the response: `*`, or a member that is no field name. What is
/// not understood cannot be compared, so it matches nothing.
pub fn varies_beyond_fields(response: &HeaderMap) -> bool {
    response
        .get_all(header::VARY)
        .iter()
        .flat_map(|line| split_list(line.as_bytes()))
        .any(|member| member == b"*" || HeaderName::from_bytes(member).is_err())
}

/// The result of looking for a stored response under one cache key.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// Nothing is stored under the key.
    Absent,
    /// Something is stored, but for other values of the selecting fields.
    NoVariant,
    /// The stored response that `request` selects, and its place in the slice.
    Found {
        /// Index in the slice given to [`select`].
        index: usize,
        /// The response.
        stored: &'a Stored,
    },
}

/// Selects among the responses stored under one cache key.
///
/// "If multiple stored responses match, the cache will need to choose one to use …; the most recent (as determined by the
/// Date header field)" (§4, §4.1). `Vary: *` matches nothing.
pub fn select<'a>(request: &Request<'_>, variants: &'a [Stored]) -> Lookup<'a> {
    if variants.is_empty() {
        return Lookup::Absent;
    }
    variants
        .iter()
        .enumerate()
        .filter(|(_, stored)| {
            !varies_beyond_fields(&stored.headers) && stored.selecting.matches(request.headers)
        })
        // Of one alone nothing has to be read.
        .max_by(|(_, one), (_, other)| {
            (one.date(), one.times.response).cmp(&(other.date(), other.times.response))
        })
        .map_or(Lookup::NoVariant, |(index, stored)| Lookup::Found {
            index,
            stored,
        })
}

/// Fields whose values are secrets: what is kept of them is a digest, which selects as well and tells nothing.
const CREDENTIALS: [&HeaderName; 3] = [
    &header::AUTHORIZATION,
    &header::COOKIE,
    &header::PROXY_AUTHORIZATION,
];

/// How a field's value may be changed without changing its meaning.
enum Syntax {
    /// Unknown: combine lines, nothing else.
    Opaque,
    /// A list whose white space means nothing.
    List,
    /// A list without meaning in white space and case.
    CaselessList,
    /// A list without meaning in white space, case and order.
    CaselessSet,
}

fn syntax(name: &HeaderName) -> Syntax {
    match name.as_str() {
        "accept" => Syntax::List,
        // The order of languages with equal weight is a preference to many servers: not evened out (RFC 9110 §12.5.4).
        "accept-language" => Syntax::CaselessList,
        "accept-encoding" | "accept-charset" => Syntax::CaselessSet,
        _ => Syntax::Opaque,
    }
}

/// All lines of a field as one value, or `None` where the request has no such field.
fn normalised(request: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<&[u8]> = request
        .get_all(name)
        .iter()
        .map(|line| line.as_bytes().trim_ascii())
        .collect();
    if lines.is_empty() {
        return None;
    }
    let members = || {
        lines
            .iter()
            .flat_map(|line| split_list(line))
            .map(without_inner_space)
    };
    let caseless = || members().map(|member| member.to_ascii_lowercase());
    let value = match syntax(name) {
        Syntax::Opaque => lines.join(&b", "[..]),
        Syntax::List => members().collect::<Vec<_>>().join(&b", "[..]),
        Syntax::CaselessList => caseless().collect::<Vec<_>>().join(&b", "[..]),
        Syntax::CaselessSet => {
            let mut members: Vec<_> = caseless().collect();
            members.sort();
            members.dedup();
            members.join(&b", "[..])
        }
    };
    if CREDENTIALS.contains(&name) {
        return Some(Digest::of(&value).to_string());
    }
    Some(printable(&value))
}

/// `gzip ; q=1` and `gzip;q=1` are the same; white space inside quotes stays.
fn without_inner_space(member: &[u8]) -> Vec<u8> {
    if member.contains(&b'"') {
        return member.to_vec();
    }
    let parts: Vec<&[u8]> = member
        .split(|byte| *byte == b';')
        .map(<[u8]>::trim_ascii)
        .collect();
    parts.join(&b";"[..])
}

/// Text that keeps different bytes different: anything but visible ASCII and space, and `%`, becomes `%XX`.
fn printable(value: &[u8]) -> String {
    value
        .iter()
        .fold(String::with_capacity(value.len()), |mut text, byte| {
            if (b' '..=b'~').contains(byte) && *byte != b'%' {
                text.push(char::from(*byte));
            } else {
                push_escaped(&mut text, *byte);
            }
            text
        })
}

#[cfg(test)]
mod tests;
