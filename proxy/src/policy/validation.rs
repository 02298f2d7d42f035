//! Asking the origin whether a stored response is still good: [RFC 9111 §4.3], and the update of §3.2.
//!
//! [RFC 9111 §4.3]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{
    Overrides, Selecting, Stored, Times,
    cache_control::split_list,
    headers::{PROXY_FIELDS, single_date, strip_hop_by_hop},
    stored::kept_headers,
};

/// The client's preconditions and ranges: judged here, never sent to the origin with a fill.
const CLIENT_CONDITIONS: [HeaderName; 6] = [
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];

/// The header fields of a request to the origin that is to fill or validate the store.
///
/// Starts from the client's fields without hop-by-hop fields, proxy fields, preconditions and ranges, so that the whole
/// representation comes; adds the validators of `stored`. With several stored responses (the variants, when none of
/// them matched) all their entity tags are offered and the 304 tells which one is meant. An empty slice
/// makes an unconditional request.
///
/// `Host`, `Via` and credentials are the caller's.
pub fn origin_request_headers(client: &HeaderMap, stored: &[&Stored]) -> HeaderMap {
    let mut headers = client.clone();
    strip_hop_by_hop(&mut headers);
    for name in CLIENT_CONDITIONS.iter().chain(&PROXY_FIELDS) {
        headers.remove(name);
    }
    add_validators(&mut headers, stored);
    headers
}

/// Adds `If-None-Match` with each entity tag, and `If-Modified-Since` where there is exactly one stored response.
///
/// "One such validator is the timestamp given in a Last-Modified header field … Another is the entity tag … A cache MUST
/// send the relevant entity tags … MAY send multiple" (§4.3.1). Both are sent where both are known: an HTTP/1.0 origin reads the date.
fn add_validators(headers: &mut HeaderMap, stored: &[&Stored]) {
    let mut tags: Vec<&[u8]> = stored
        .iter()
        .filter_map(|one| entity_tag(&one.headers))
        .map(HeaderValue::as_bytes)
        .collect();
    tags.sort_unstable();
    tags.dedup();
    if let Ok(value) = HeaderValue::from_bytes(&tags.join(&b", "[..]))
        && !tags.is_empty()
    {
        headers.insert(header::IF_NONE_MATCH, value);
    }
    if let [one] = stored
        && single_date(&one.headers, &header::LAST_MODIFIED).is_some()
        && let Some(modified) = one.headers.get(header::LAST_MODIFIED)
    {
        // The origin's own text, byte for byte: some compare it as a string.
        headers.insert(header::IF_MODIFIED_SINCE, modified.clone());
    }
}

/// True where `stored` has a validator, so that asking the origin can save a transfer.
pub fn has_validator(stored: &Stored) -> bool {
    entity_tag(&stored.headers).is_some() || single_date(&stored.headers, &header::LAST_MODIFIED).is_some()
}

/// What a 304 changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freshened {
    /// The response at `index` is good again: replace its metadata by `stored`, keep its content.
    Updated {
        /// Index in the slice that was validated.
        index: usize,
        /// The stored response with its new fields and times.
        stored: Box<Stored>,
    },
    /// The 304 speaks about none of them: ask again without conditions.
    NoMatch,
}

/// Applies a 304 to the stored responses whose validators were sent ([RFC 9111 §4.3.4]).
///
/// `client` is the request that the 304 answers; a response that was selected by it also answers it from now on.
///
/// [RFC 9111 §4.3.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.4
pub fn freshen(
    client: &HeaderMap,
    (validated, not_modified): (&[&Stored], &HeaderMap),
    times: Times,
    overrides: &Overrides,
) -> Freshened {
    let Some(index) = identify(validated, not_modified) else {
        return Freshened::NoMatch;
    };
    let mut stored = validated[index].clone();
    update_headers(&mut stored.headers, &kept_headers(not_modified, times, overrides));
    stored.times = times;
    stored.invalidated = false;
    stored.selecting = Selecting::of(client, &stored.headers);
    Freshened::Updated {
        index,
        stored: Box::new(stored),
    }
}

/// Which stored response a 304 is about (§4.3.4): by strong validator, else by weak one, else the only one there is.
fn identify(validated: &[&Stored], not_modified: &HeaderMap) -> Option<usize> {
    let latest = |matches: &dyn Fn(&Stored) -> bool| {
        validated
            .iter()
            .enumerate()
            .filter(|(_, one)| matches(one))
            .max_by_key(|(_, one)| one.date())
            .map(|(index, _)| index)
    };
    let tag = entity_tag(not_modified).map(HeaderValue::as_bytes);
    let modified = not_modified.get(header::LAST_MODIFIED);
    match (tag, modified) {
        // "If the new response contains one or more strong validators, then … All the stored responses with one of those
        // same strong validators are identified for update. If none … MUST NOT use the new response to update any".
        (Some(tag), _) if !is_weak(tag) => {
            latest(&|one| entity_tag(&one.headers).is_some_and(|known| strong_match(known.as_bytes(), tag)))
        }
        // "if those validators correspond to one of the initial set's stored responses".
        (Some(tag), _) => {
            latest(&|one| entity_tag(&one.headers).is_some_and(|known| weak_match(known.as_bytes(), tag)))
        }
        (None, Some(modified)) => latest(&|one| one.headers.get(header::LAST_MODIFIED) == Some(modified)),
        // Off-spec: the RFC wants the stored response to lack validators as well. Origins that leave them out of a 304 are
        // common, and an answer to the validators of one response can be about no other.
        (None, None) => (validated.len() == 1).then_some(0),
    }
}

/// Fields of the stored response that belong to its content and that no later header section may change.
///
/// §3.2 excepts `Content-Length` by name, and allows to leave out "those fields necessary to ensure integrity of the
/// stored response": the content is kept in its coding, so that coding stays said.
const BOUND_TO_CONTENT: [HeaderName; 3] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
];

/// "the cache MUST add each header field in the provided response to the stored response, replacing field values that are
/// already present" — [RFC 9111 §3.2](https://www.rfc-editor.org/rfc/rfc9111#section-3.2). `update` is already without what must not be stored.
pub fn update_headers(stored: &mut HeaderMap, update: &HeaderMap) {
    // An Age of the first exchange says nothing about the second; where the update has one it is added below.
    stored.remove(header::AGE);
    for name in update.keys().filter(|name| !BOUND_TO_CONTENT.contains(name)) {
        stored.remove(name);
        for value in update.get_all(name) {
            stored.append(name, value.clone());
        }
    }
}

/// The head of a whole that consists of a stored beginning and a 206 with the rest ([RFC 9111 §3.4]).
///
/// "When a new partial response is received … a cache MAY combine it with the stored response if they share the same strong
/// validator … the cache MUST update the stored response's header fields using the header fields of the newly received
/// partial response". The caller has compared validators and range; `client` is the request that the 206 answers.
///
/// [RFC 9111 §3.4]: https://www.rfc-editor.org/rfc/rfc9111#section-3.4
pub fn combine(
    client: &HeaderMap,
    beginning: &Stored,
    rest: &HeaderMap,
    times: Times,
    overrides: &Overrides,
) -> Stored {
    let mut combined = beginning.clone();
    update_headers(&mut combined.headers, &kept_headers(rest, times, overrides));
    combined.times = times;
    combined.selecting = Selecting::of(client, &combined.headers);
    combined
}

/// What a response to HEAD says about the stored response to GET ([RFC 9111 §4.3.5]).
///
/// [RFC 9111 §4.3.5]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.5
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadEffect {
    /// Same validators and length: the stored response is brought up to date.
    Updated(Box<Stored>),
    /// Something differs: the stored response is to be considered stale.
    Invalidated,
    /// The response says nothing about it.
    None,
}

/// Compares a response to HEAD with the stored response that a GET would have selected.
pub fn head_effect(
    stored: &Stored,
    (status, head): (StatusCode, &HeaderMap),
    times: Times,
    overrides: &Overrides,
) -> HeadEffect {
    if status != StatusCode::OK || stored.status != StatusCode::OK {
        return HeadEffect::None;
    }
    let same = [header::ETAG, header::LAST_MODIFIED, header::CONTENT_LENGTH]
        .iter()
        .all(|name| {
            head.get(name)
                .is_none_or(|value| stored.headers.get(name) == Some(value))
        });
    if !same {
        return HeadEffect::Invalidated;
    }
    let mut updated = stored.clone();
    update_headers(&mut updated.headers, &kept_headers(head, times, overrides));
    updated.times = times;
    HeadEffect::Updated(Box::new(updated))
}

/// True for the methods whose responses the store may answer and update.
pub fn is_retrieval(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

// === entity tags (RFC 9110 §8.8.3) ===

/// A `Last-Modified` this many seconds before `Date` is strong (RFC 9110 §8.8.2.2 speaks of one minute).
const STRONG_DATE_GAP: i64 = 60;

/// A validator that `If-Range` may carry: a strong entity tag, else a strong `Last-Modified`. `None` as well where the origin
/// says that it knows no ranges.
pub fn strong_validator(headers: &HeaderMap) -> Option<HeaderValue> {
    if headers
        .get(header::ACCEPT_RANGES)
        .is_some_and(|value| value == "none")
    {
        return None;
    }
    if headers.contains_key(header::ETAG) {
        return entity_tag(headers)
            .filter(|tag| !is_weak(tag.as_bytes()))
            .cloned();
    }
    let modified = single_date(headers, &header::LAST_MODIFIED)?;
    let date = single_date(headers, &header::DATE)?;
    (date.as_second() - modified.as_second() >= STRONG_DATE_GAP)
        .then(|| headers.get(header::LAST_MODIFIED).cloned())
        .flatten()
}

/// The one entity tag of a header section; repeated fields with other values are none.
pub fn entity_tag(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(header::ETAG).iter();
    let first = lines.next()?;
    (!first.is_empty() && lines.all(|line| line == first)).then_some(first)
}

/// True for `W/"…"`.
pub fn is_weak(tag: &[u8]) -> bool {
    tag.starts_with(b"W/")
}

/// "two entity tags are equivalent if both are not weak and their opaque-tags match character-by-character" (RFC 9110 §8.8.3.2).
pub fn strong_match(a: &[u8], b: &[u8]) -> bool {
    !is_weak(a) && !is_weak(b) && a == b
}

/// "two entity tags are equivalent if their opaque-tags match character-by-character, regardless of either or both being
/// tagged as weak" (RFC 9110 §8.8.3.2).
pub fn weak_match(a: &[u8], b: &[u8]) -> bool {
    let opaque = |tag| <[u8]>::strip_prefix(tag, b"W/").unwrap_or(tag);
    opaque(a) == opaque(b)
}

/// The members of `If-None-Match` or `If-Match` over all lines; a tag may contain a comma.
pub fn tag_list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| split_list(line.as_bytes()))
        .collect()
}

#[cfg(test)]
mod tests;
