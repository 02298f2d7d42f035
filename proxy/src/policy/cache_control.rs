//! The `Cache-Control` parser: field lines in, typed directives out ([RFC 9111 §5.2]).
//!
//! Parsing never fails. A directive that is unknown is kept by name and otherwise ignored (§5.2.3); one that is known but
//! malformed is read in the restrictive direction, which each field's documentation states. Of repeated directives with
//! different values the first is used (§4.2.1); repeated field lists add up.
//!
//! [RFC 9111 §5.2]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2

use http::{HeaderMap, HeaderName, header};

/// The greatest number of seconds that we represent.
///
/// "If a cache receives a delta-seconds value greater than the greatest integer it can represent, or if any of its subsequent
/// calculations overflows, the cache MUST consider the value to be 2147483648 (2^31) or the greatest positive integer it
/// can conveniently represent." — [RFC 9111 §1.2.2](https://www.rfc-editor.org/rfc/rfc9111#section-1.2.2). We take 2^31 to the letter.
pub const MAX_DELTA_SECONDS: u32 = 1 << 31;

/// Which fields of a response `no-cache` or `private` speaks about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FieldScope {
    /// The directive is absent.
    #[default]
    Absent,
    /// The directive stands alone and covers the whole response; also what an unreadable field list means.
    Whole,
    /// The qualified form: only these fields, never empty.
    Fields(Vec<HeaderName>),
}

impl FieldScope {
    /// The fields of the qualified form, empty in the other two cases.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(fields) => fields,
            Self::Absent | Self::Whole => &[],
        }
    }

    /// Takes in one more occurrence: the whole response covers any list, and lists add up.
    fn widen(&mut self, argument: Option<&Argument>) {
        let added = match argument {
            None => Self::Whole,
            Some(argument) => argument.field_names().map_or(Self::Whole, Self::Fields),
        };
        *self = match (std::mem::take(self), added) {
            (Self::Absent, added) => added,
            (Self::Fields(mut all), Self::Fields(more)) => {
                all.extend(
                    more.into_iter()
                        .filter(|name| !all.contains(name))
                        .collect::<Vec<_>>(),
                );
                Self::Fields(all)
            }
            (Self::Whole, _) | (_, Self::Whole) => Self::Whole,
            (fields @ Self::Fields(_), Self::Absent) => fields,
        };
    }
}

/// The directives of a response ([RFC 9111 §5.2.2], RFC 5861, RFC 8246).
///
/// [RFC 9111 §5.2.2]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each directive without an argument is one"
)]
pub struct ResponseDirectives {
    /// Nothing of the response may be stored.
    pub no_store: bool,
    /// Not to be reused without successful validation, or only not these fields.
    pub no_cache: FieldScope,
    /// Not for a shared cache, or only not these fields.
    pub private: FieldScope,
    /// May be stored where it otherwise could not be.
    pub public: bool,
    /// Once stale, never reused without successful validation.
    pub must_revalidate: bool,
    /// As `must_revalidate`, for shared caches.
    pub proxy_revalidate: bool,
    /// To be stored only by a cache that knows the status code; then `no-store` beside it does not count.
    pub must_understand: bool,
    /// The content may not be transformed.
    pub no_transform: bool,
    /// The origin promises not to change the representation while it is fresh (RFC 8246).
    pub immutable: bool,
    /// Seconds; 0 where the argument is missing or no number, since that is to be considered stale.
    pub max_age: Option<u32>,
    /// Seconds, for shared caches; 0 where the argument is missing or no number.
    pub s_maxage: Option<u32>,
    /// Seconds after becoming stale in which a validation in the background is enough; malformed is absent.
    pub stale_while_revalidate: Option<u32>,
    /// Seconds after becoming stale in which it may stand in for an error; malformed is absent.
    pub stale_if_error: Option<u32>,
    /// Names of directives that we do not know, in order, lower case.
    pub unknown: Vec<String>,
}

impl ResponseDirectives {
    /// Parses all `Cache-Control` lines of a response.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for directive in parse_lines(headers) {
            directives.take_in(&directive.name, directive.argument.as_ref());
        }
        directives
    }

    /// True where freshness is stated by a directive, even one that says zero.
    pub fn has_explicit_lifetime(&self) -> bool {
        self.s_maxage.is_some() || self.max_age.is_some()
    }

    /// True where a stale response must never be sent without validation by a shared cache.
    ///
    /// `s-maxage` "incorporates the semantics of the proxy-revalidate response directive" —
    /// [RFC 9111 §5.2.2.10](https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.10).
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate
            || self.proxy_revalidate
            || self.s_maxage.is_some()
            || self.no_cache == FieldScope::Whole
    }

    /// Takes in one directive, shared with the targeted fields of RFC 9213.
    pub(super) fn take_in(&mut self, name: &str, argument: Option<&Argument>) {
        let delta = || argument.and_then(Argument::delta_seconds);
        match name {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache.widen(argument),
            "private" => self.private.widen(argument),
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "no-transform" => self.no_transform = true,
            "immutable" => self.immutable = true,
            "max-age" => self.max_age = self.max_age.or(Some(delta().unwrap_or(0))),
            "s-maxage" => self.s_maxage = self.s_maxage.or(Some(delta().unwrap_or(0))),
            "stale-while-revalidate" => self.stale_while_revalidate = self.stale_while_revalidate.or(delta()),
            "stale-if-error" => self.stale_if_error = self.stale_if_error.or(delta()),
            other => self.unknown.push(other.to_owned()),
        }
    }
}

/// How much staleness a client accepts with `max-stale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxStale {
    /// Any age: the directive came without an argument.
    Any,
    /// At most this many seconds beyond the freshness lifetime.
    Seconds(u32),
}

/// The directives of a request ([RFC 9111 §5.2.1](https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1), RFC 5861).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each directive without an argument is one"
)]
pub struct RequestDirectives {
    /// Wants no stored response without validation.
    pub no_cache: bool,
    /// Wants nothing of the request or its response stored.
    pub no_store: bool,
    /// Wants no transformation.
    pub no_transform: bool,
    /// Wants a stored response or a 504.
    pub only_if_cached: bool,
    /// Greatest age accepted, in seconds; 0 where malformed.
    pub max_age: Option<u32>,
    /// Least remaining freshness accepted, in seconds; malformed is absent.
    pub min_fresh: Option<u32>,
    /// Staleness accepted; malformed is absent.
    pub max_stale: Option<MaxStale>,
    /// Seconds of staleness accepted in place of an error (RFC 5861 §4); malformed is absent.
    pub stale_if_error: Option<u32>,
}

impl RequestDirectives {
    /// Parses all `Cache-Control` lines of a request, or `Pragma: no-cache` where there are none.
    ///
    /// Off-spec: RFC 9111 §5.4 deprecates `Pragma`, but deployed clients still send it alone to ask for validation.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            directives.no_cache = headers
                .get_all(header::PRAGMA)
                .iter()
                .any(|line| split_list(line.as_bytes()).any(|item| item.eq_ignore_ascii_case(b"no-cache")));
        }
        for directive in parse_lines(headers) {
            directives.take_in(&directive);
        }
        directives
    }

    fn take_in(&mut self, directive: &Directive) {
        let argument = directive.argument.as_ref();
        let delta = || argument.and_then(Argument::delta_seconds);
        match directive.name.as_str() {
            "no-cache" => self.no_cache = true,
            "no-store" => self.no_store = true,
            "no-transform" => self.no_transform = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => self.max_age = self.max_age.or(Some(delta().unwrap_or(0))),
            "min-fresh" => self.min_fresh = self.min_fresh.or(delta()),
            "stale-if-error" => self.stale_if_error = self.stale_if_error.or(delta()),
            "max-stale" if argument.is_none() => self.max_stale = self.max_stale.or(Some(MaxStale::Any)),
            "max-stale" => self.max_stale = self.max_stale.or(delta().map(MaxStale::Seconds)),
            _ => {}
        }
    }
}

// === syntax ===

/// One `name[=argument]`, the name in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) argument: Option<Argument>,
}

/// A directive's argument with quotes and escapes undone. "A cache ought to accept both" the token and the quoted form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argument(pub(super) Vec<u8>);

impl Argument {
    /// Digits only, saturating at [`MAX_DELTA_SECONDS`]; `None` for anything else, a sign included.
    pub(super) fn delta_seconds(&self) -> Option<u32> {
        if self.0.is_empty() || !self.0.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let seconds = self.0.iter().fold(0_u32, |sum, digit| {
            sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
        });
        Some(seconds.min(MAX_DELTA_SECONDS))
    }

    /// The field names listed; `None` where there is none or one is no field name.
    fn field_names(&self) -> Option<Vec<HeaderName>> {
        let names: Vec<_> = split_list(&self.0)
            .map(HeaderName::from_bytes)
            .collect::<Result<_, _>>()
            .ok()?;
        (!names.is_empty()).then_some(names)
    }
}

fn parse_lines(headers: &HeaderMap) -> impl Iterator<Item = Directive> {
    headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .flat_map(|line| split_list(line.as_bytes()))
        .map(parse_directive)
}

pub(super) fn parse_directive(item: &[u8]) -> Directive {
    let (name, argument) = match item.iter().position(|byte| *byte == b'=') {
        Some(at) => (&item[..at], Some(Argument(unquote(&item[at + 1..])))),
        None => (item, None),
    };
    Directive {
        name: String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase(),
        argument,
    }
}

/// The text of a quoted string; anything that is not exactly one quoted string is returned as it stands.
fn unquote(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
    else {
        return value.to_vec();
    };
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        text.extend(if *byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    text
}

/// The members of a comma-separated list, trimmed, the empty ones left out; a comma inside a quoted string does not part.
///
/// A quote that is never closed counts as an ordinary character, so that it cannot hide a `no-store` behind it.
pub(crate) fn split_list(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = member_end(rest);
            let member = rest[..end].trim_ascii();
            rest = rest.get(end + 1..).unwrap_or_default();
            if !member.is_empty() {
                return Some(member);
            }
        }
        None
    })
}

/// Where the first member of `list` ends: at a comma outside quotes, or at the end.
fn member_end(list: &[u8]) -> usize {
    let mut at = 0;
    while at < list.len() {
        match list[at] {
            b',' => return at,
            b'"' => at = quoted_end(list, at).unwrap_or(at),
            _ => {}
        }
        at += 1;
    }
    list.len()
}

/// The position of the quote that closes the one at `open`.
fn quoted_end(list: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    while at < list.len() {
        match list[at] {
            b'\\' => at += 1,
            b'"' => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests;
