//! Ranges: what a client wants of a representation, which bytes that is, and how the answer looks ([RFC 9110 §14]).
//!
//! Flow: [`RangeRequest::of`] reads the field, [`RangeRequest::resolve`] applies it to a known length (or
//! [`RangeRequest::resolve_growing`] to a fill whose length is not known yet), and the result carries what a 206 or 416 needs.
//! [`multipart::Layout`] lists the segments of a `multipart/byteranges` body so that the sender only copies.
//!
//! Deliberately absent: units other than bytes (ignored, as §14.2 wants) and any reading of content.
//!
//! Invariant: resolved ranges lie inside the representation, are not empty, keep the order of the request and do not
//! overlap; their sum is therefore never greater than the representation (§17.15: a small request cannot demand
//! more than the whole).
//!
//! [RFC 9110 §14]: https://www.rfc-editor.org/rfc/rfc9110#section-14

use std::fmt;

use http::{HeaderMap, HeaderValue, Method, header};

use crate::policy::cache_control::split_list;

pub mod multipart;

/// More ranges than this in one request and the field is ignored ("a server … ought to ignore, coalesce, or reject
/// egregious range requests, such as requests for more than two overlapping ranges or for many small ranges", §17.15).
/// Readers of indexes (zsync, zchunk) ask for some dozens.
pub const MAX_RANGES: usize = 64;

/// Ranges with a gap not above this are sent as one: a part's own header section is about as long (§15.3.7.2).
const COALESCE_GAP_BYTES: u64 = 80;

/// A part of a representation: `first..=last`, in bytes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    first: u64,
    last: u64,
}

impl ByteRange {
    /// `None` where `last` is before `first`.
    pub fn new(first: u64, last: u64) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Position of the first byte.
    pub fn first(self) -> u64 {
        self.first
    }

    /// Position of the last byte, which belongs to the range.
    pub fn last(self) -> u64 {
        self.last
    }

    /// Number of bytes, at least 1, saturating.
    pub fn size(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// The `Content-Range` of a part of `complete` bytes, `None` where the length is not known yet.
    pub fn content_range(self, complete: Option<u64>) -> HeaderValue {
        let complete = complete.map_or_else(|| "*".to_owned(), |length| length.to_string());
        ascii(&format!("bytes {self}/{complete}"))
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// First and last byte and complete length of a 206's `Content-Range`, as in `bytes 5-9/10` (RFC 9110 §14.4).
pub fn parse_content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, complete) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let complete = match complete.trim() {
        "*" => None,
        number => Some(number.parse().ok()?),
    };
    let fits = first <= last && complete.is_none_or(|complete: u64| last < complete);
    fits.then_some((first, last, complete))
}

/// The `Content-Range` of a 416 for a representation of `complete` bytes.
pub fn unsatisfied_content_range(complete: u64) -> HeaderValue {
    ascii(&format!("bytes */{complete}"))
}

/// A header value from digits and fixed text.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("bytes */*"))
}

/// One member of a `Range` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spec {
    /// `first-last` and `first-`.
    From { first: u64, last: Option<u64> },
    /// `-length`: the end.
    Suffix(u64),
}

/// A `Range` field that we understand, with 1 to [`MAX_RANGES`] members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest(Vec<Spec>);

/// What a range request means for a representation of known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// Send 206 with these parts: one range is sent plain, several as `multipart/byteranges`.
    Partial(Vec<ByteRange>),
    /// Send the whole with 200: the ranges overlap too much or name all of it many times.
    Whole,
    /// Send 416 with [`unsatisfied_content_range`].
    Unsatisfiable,
}

/// What a range request means while the length is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growing {
    /// Can be sent once the bytes up to [`ByteRange::last`] have arrived, with `Content-Range: bytes a-b/*`. Should the
    /// representation end earlier, resolve again with its length.
    Within(ByteRange),
    /// Cannot be answered before the length is known: wait for it, or send the whole with 200.
    NeedsLength,
}

impl RangeRequest {
    /// Reads the `Range` field of a request. `None` where it is absent or to be ignored: another method than GET ("A server MUST
    /// ignore a Range header field received with a request method that is unrecognized or for which range handling is not
    /// defined", §14.2), another unit, broken syntax, repeated, or more members than [`MAX_RANGES`].
    pub fn of(method: &Method, headers: &HeaderMap) -> Option<Self> {
        if method != Method::GET {
            return None;
        }
        let mut lines = headers.get_all(header::RANGE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return None;
        };
        Self::parse(line.as_bytes())
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let equals = value.iter().position(|byte| *byte == b'=')?;
        if !value[..equals].eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let specs: Vec<_> = split_list(&value[equals + 1..])
            .take(MAX_RANGES + 1)
            .map(parse_spec)
            .collect::<Option<_>>()?;
        (1..=MAX_RANGES).contains(&specs.len()).then_some(Self(specs))
    }

    /// Applies the ranges to a representation of `length` bytes.
    ///
    /// Ranges beyond the end are dropped; "If none … is satisfiable, the server SHOULD send 416" (§14.2). Ranges that
    /// overlap or nearly touch their neighbour are sent as one.
    pub fn resolve(&self, length: u64) -> Resolved {
        let satisfiable: Vec<_> = self.0.iter().filter_map(|spec| within(*spec, length)).collect();
        if satisfiable.is_empty() {
            return Resolved::Unsatisfiable;
        }
        let parts = coalesce(satisfiable);
        match parts.as_slice() {
            // All of it, asked for in pieces: a plain 200 is smaller. A single range stays a 206, as clients that test for
            // range support expect.
            [one] if one.size() == length && self.0.len() > 1 => Resolved::Whole,
            _ => Resolved::Partial(parts),
        }
    }

    /// Applies the ranges to a representation that is still arriving and whose length is not known.
    pub fn resolve_growing(&self) -> Growing {
        match self.0.as_slice() {
            [
                Spec::From {
                    first,
                    last: Some(last),
                },
            ] => ByteRange::new(*first, *last).map_or(Growing::NeedsLength, Growing::Within),
            _ => Growing::NeedsLength,
        }
    }
}

/// `first-last`, `first-` or `-suffix`; numbers that overflow are as far as a number can be.
fn parse_spec(spec: &[u8]) -> Option<Spec> {
    let dash = spec.iter().position(|byte| *byte == b'-')?;
    match (&spec[..dash], &spec[dash + 1..]) {
        ([], suffix) => Some(Spec::Suffix(number(suffix)?)),
        (first, []) => Some(Spec::From {
            first: number(first)?,
            last: None,
        }),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            // "An int-range is invalid if the last-pos value is present and less than first-pos" (§14.1.1).
            (first <= last).then_some(Spec::From {
                first,
                last: Some(last),
            })
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0_u64, |sum, digit| {
        sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    }))
}

fn within(spec: Spec, length: u64) -> Option<ByteRange> {
    let end = length.checked_sub(1)?;
    match spec {
        Spec::From { first, last } => ByteRange::new(first, last.unwrap_or(end).min(end)),
        Spec::Suffix(0) => None,
        Spec::Suffix(size) => ByteRange::new(length.saturating_sub(size), end),
    }
}

/// Joins each range with those it overlaps or nearly touches; the joint range stands where the first of them stood.
fn coalesce(ranges: Vec<ByteRange>) -> Vec<ByteRange> {
    let mut parts: Vec<ByteRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut joint = range;
        let mut place = None;
        // Each join can bring the joint range next to another part: repeat until nothing joins.
        while let Some(near) = parts.iter().position(|part| nearly_touch(*part, joint)) {
            let part = parts.remove(near);
            joint = ByteRange {
                first: joint.first.min(part.first),
                last: joint.last.max(part.last),
            };
            place = Some(place.map_or(near, |known: usize| known.min(near)));
        }
        parts.insert(place.unwrap_or(parts.len()), joint);
    }
    parts
}

fn nearly_touch(a: ByteRange, b: ByteRange) -> bool {
    let reach = |end: u64| end.saturating_add(COALESCE_GAP_BYTES + 1);
    a.first <= reach(b.last) && b.first <= reach(a.last)
}

#[cfg(test)]
mod tests;
