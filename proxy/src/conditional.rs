//! A client's own preconditions, judged on the stored response that would be sent: [RFC 9110 §13.2.2] and
//! [RFC 9111 §4.3.2].
//!
//! Flow: the pipeline has chosen a stored response (fresh, or validated just now); [`evaluate`] says whether the client gets
//! 200, 206, 304, 412 or 416. [`not_modified_headers`] gives the fields of a 304.
//!
//! Deliberately absent: preconditions of unsafe methods, which go to the origin unread.
//!
//! [RFC 9110 §13.2.2]: https://www.rfc-editor.org/rfc/rfc9110#section-13.2.2
//! [RFC 9111 §4.3.2]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.2

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use crate::{
    policy::{
        Request, Stored,
        headers::{parse_http_date, single_date},
        validation::{entity_tag, is_weak, strong_match, tag_list, weak_match},
    },
    range::{ByteRange, Growing, RangeRequest, Resolved},
};

/// The length of a stored representation, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Complete, or announced by the origin: this many bytes.
    Known(u64),
    /// A fill without `Content-Length` is still under way.
    Growing,
}

/// What to send to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole stored response, with its own status code.
    Whole,
    /// 206 with these parts of a representation of known length (one, or several as multipart).
    Partial(Vec<ByteRange>),
    /// 206 with this part once its bytes are there; the length is not known (see [`Growing::Within`]).
    PartialOfGrowing(ByteRange),
    /// The range can be resolved only when the length is known: wait for it, or send the whole.
    RangeNeedsLength,
    /// 304 with [`not_modified_headers`].
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416 with `Content-Range: bytes */length`.
    RangeNotSatisfiable {
        /// Length of the representation in bytes.
        length: u64,
    },
}

/// Judges the preconditions of `request` on `stored` in the order of RFC 9110 §13.2.2.
///
/// Preconditions count only where the answer would be a 2xx ("A server MUST ignore all received preconditions if its
/// response to the same request without those conditions, prior to processing the request content, would have been a
/// status code other than a 2xx", §13.2.1), and only for GET and HEAD.
pub fn evaluate(request: &Request<'_>, stored: &Stored, length: Length) -> Outcome {
    let retrieval = request.method == Method::GET || request.method == Method::HEAD;
    if !retrieval || !stored.status.is_success() {
        return Outcome::Whole;
    }
    // Steps 1 and 2: If-Match, else If-Unmodified-Since.
    if !still_as_expected(request.headers, stored) {
        return Outcome::PreconditionFailed;
    }
    // Steps 3 and 4: If-None-Match, else If-Modified-Since.
    if client_has_it(request.headers, stored) {
        return Outcome::NotModified;
    }
    // Step 5: Range, unless If-Range says that the client's parts are of another representation.
    match RangeRequest::of(request.method, request.headers) {
        Some(range) if stored.status == StatusCode::OK && if_range_holds(request.headers, stored) => {
            ranged(&range, length)
        }
        _ => Outcome::Whole,
    }
}

fn ranged(range: &RangeRequest, length: Length) -> Outcome {
    match length {
        Length::Known(length) => match range.resolve(length) {
            Resolved::Partial(parts) => Outcome::Partial(parts),
            Resolved::Whole => Outcome::Whole,
            Resolved::Unsatisfiable => Outcome::RangeNotSatisfiable { length },
        },
        Length::Growing => match range.resolve_growing() {
            Growing::Within(part) => Outcome::PartialOfGrowing(part),
            Growing::NeedsLength => Outcome::RangeNeedsLength,
        },
    }
}

/// `If-Match` by strong comparison (§13.1.1), or `If-Unmodified-Since` (§13.1.4). True where neither is there.
fn still_as_expected(request: &HeaderMap, stored: &Stored) -> bool {
    if request.contains_key(header::IF_MATCH) {
        return any_tag(request, &header::IF_MATCH, stored, strong_match);
    }
    let Some(since) = single_date(request, &header::IF_UNMODIFIED_SINCE) else {
        return true;
    };
    // "A recipient MUST ignore … if the resource does not have a modification date available" (§13.1.4).
    single_date(&stored.headers, &header::LAST_MODIFIED).is_none_or(|modified| modified <= since)
}

/// `If-None-Match` by weak comparison (§13.1.2), or `If-Modified-Since` (§13.1.3).
fn client_has_it(request: &HeaderMap, stored: &Stored) -> bool {
    // "A recipient MUST ignore If-Modified-Since if the request contains an If-None-Match header field" (§13.1.3).
    if request.contains_key(header::IF_NONE_MATCH) {
        return any_tag(request, &header::IF_NONE_MATCH, stored, weak_match);
    }
    // "If the selected stored response does not have a Last-Modified field, then … the cache uses Date, or the time the
    // response was received" (RFC 9111 §4.3.2).
    let modified = || single_date(&stored.headers, &header::LAST_MODIFIED).unwrap_or_else(|| stored.date());
    single_date(request, &header::IF_MODIFIED_SINCE).is_some_and(|since| modified() <= since)
}

/// True where the field is `*` or lists a tag that `compare`s equal to the stored one.
fn any_tag(
    request: &HeaderMap,
    name: &HeaderName,
    stored: &Stored,
    compare: fn(&[u8], &[u8]) -> bool,
) -> bool {
    let tags = tag_list(request, name);
    if tags == [b"*"] {
        return true;
    }
    entity_tag(&stored.headers).is_some_and(|known| tags.iter().any(|tag| compare(tag, known.as_bytes())))
}

/// `If-Range` (§13.1.5): true where it is absent, or its validator is strong and exactly the stored one.
fn if_range_holds(request: &HeaderMap, stored: &Stored) -> bool {
    let mut lines = request.get_all(header::IF_RANGE).iter();
    let Some(validator) = lines.next() else {
        return true;
    };
    if lines.next().is_some() {
        return false;
    }
    if validator.as_bytes().starts_with(b"\"") || is_weak(validator.as_bytes()) {
        return entity_tag(&stored.headers)
            .is_some_and(|known| strong_match(validator.as_bytes(), known.as_bytes()));
    }
    // "If the HTTP-date validator provided is not a strong validator …, the condition is false. … exactly matches the
    // Last-Modified field value" (§13.1.5); a date is strong when it is a second or more before Date (§8.8.2.2).
    let modified = single_date(&stored.headers, &header::LAST_MODIFIED);
    match (parse_http_date(validator), modified) {
        (Some(wanted), Some(modified)) => wanted == modified && modified < stored.date(),
        _ => false,
    }
}

/// The fields of a 304 made from a stored response: those that RFC 9110 §15.4.5 requires, and what is not representation
/// metadata.
///
/// "a sender SHOULD NOT generate representation metadata other than the above listed fields unless said metadata exists
/// for the purpose of guiding cache updates".
pub fn not_modified_headers(stored: &HeaderMap) -> HeaderMap {
    const METADATA: [HeaderName; 5] = [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_RANGE,
    ];
    let mut headers = stored.clone();
    for name in METADATA {
        headers.remove(name);
    }
    // The date guides cache updates only where there is no entity tag.
    if entity_tag(stored).is_some() {
        headers.remove(header::LAST_MODIFIED);
    }
    headers
}

#[cfg(test)]
mod tests;
