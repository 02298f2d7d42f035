//! What the index keeps about one response: the facts that caching decisions need, and which content belongs to it.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use kato_shared::Digest;
use serde::{Deserialize, Serialize};
use url::Url;

use super::Taught;
use crate::{
    policy::{Selecting, Stored, Times},
    recent::Held,
};

/// A stored response (RFC 9111 §3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Row", into = "Row")]
pub struct StoredResponse {
    /// Status, fields, times and selecting fields.
    pub head: Stored,
    /// The content.
    pub content: ContentRef,
    /// The name of the upstream that it came from.
    pub upstream: String,
}

/// Content by identity and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRef {
    /// What the bytes are.
    pub digest: Digest,
    /// How many there are.
    pub length: u64,
}

/// The most `Vary` selectors kept per key; the oldest goes first, so that a hostile client cannot grow a row.
const MAX_VARIANTS: usize = 16;

/// Puts `response` in the place of the one with the same selector.
pub(super) fn put_variant(variants: &mut Vec<StoredResponse>, response: StoredResponse) {
    variants.retain(|variant| variant.head.selecting != response.head.selecting);
    variants.push(response);
    if variants.len() > MAX_VARIANTS {
        variants.remove(0);
    }
}

/// The stored responses of one cache key, heads and contents at the same places.
#[derive(Debug, Default)]
pub struct Entry {
    heads: Vec<Stored>,
    rest: Vec<(ContentRef, String)>,
    taught: Box<[Taught]>,
}

impl Entry {
    /// The heads, for [`crate::policy::select`].
    pub fn heads(&self) -> &[Stored] {
        &self.heads
    }

    /// The content of the response at `index`.
    pub fn content(&self, index: usize) -> ContentRef {
        self.rest[index].0
    }

    /// The response at `index`.
    pub fn response(&self, index: usize) -> StoredResponse {
        StoredResponse {
            head: self.heads[index].clone(),
            content: self.rest[index].0,
            upstream: self.rest[index].1.clone(),
        }
    }

    /// The names of the upstreams from which the contents came: not the key's own for what got another name.
    pub fn upstreams(&self) -> impl Iterator<Item = &str> {
        self.rest.iter().map(|(_, upstream)| upstream.as_str())
    }

    /// What documents teach about the key, the latest first.
    pub fn taught(&self) -> &[Taught] {
        &self.taught
    }

    /// The responses whose content is `digest`, alone.
    pub fn only(&self, digest: &Digest) -> Vec<StoredResponse> {
        self.responses()
            .filter(|response| response.content.digest == *digest)
            .collect()
    }

    /// Whether some response, and no other than such, has the content `digest`.
    pub fn is_only(&self, digest: &Digest) -> bool {
        !self.rest.is_empty() && self.rest.iter().all(|(content, _)| content.digest == *digest)
    }

    /// The entry as it is for those who ask `upstream`, where that differs: documents of other upstreams have no say in it. Content
    /// that the key itself carries the digest of, as `is_for_good` says, is known to all.
    pub fn for_upstreams(&self, is_of: impl Fn(&Taught) -> bool, is_for_good: bool) -> Option<Held<Self>> {
        if self.taught.iter().all(&is_of) {
            return None;
        }
        let taught: Vec<_> = self
            .taught
            .iter()
            .filter(|taught| is_of(taught))
            .cloned()
            .collect();
        let responses = self.responses().map(|mut response| {
            response.head.known_digest &= is_for_good;
            response
        });
        Some((responses.collect(), taught).into())
    }

    /// All responses.
    pub fn responses(&self) -> impl Iterator<Item = StoredResponse> {
        (0..self.heads.len()).map(|index| self.response(index))
    }
}

impl From<(Vec<StoredResponse>, Vec<Taught>)> for Held<Entry> {
    /// Content that is as it was taught is known: for as long as it is taught, which is why this is not written down.
    fn from((responses, taught): (Vec<StoredResponse>, Vec<Taught>)) -> Self {
        let is_taught = |digest: &Digest| taught.iter().any(|taught| taught.known.digest() == Some(*digest));
        let (heads, rest) = responses
            .into_iter()
            .map(|response| {
                let mut head = response.head;
                head.known_digest |= head.status == StatusCode::OK && is_taught(&response.content.digest);
                (head, (response.content, response.upstream))
            })
            .unzip();
        Self::new(Entry {
            heads,
            rest,
            taught: taught.into(),
        })
    }
}

/// The written form. Fields that later versions add must have a serde default.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    status: u16,
    /// In the order received, repeats included. Field values are bytes; they are written as text with one character per
    /// byte (ISO 8859-1), which is reversible.
    headers: Vec<(String, String)>,
    request_time: Timestamp,
    response_time: Timestamp,
    digest: Digest,
    length: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    selecting: Vec<(String, Option<String>)>,
    #[serde(default)]
    known_digest: bool,
    #[serde(default)]
    invalidated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    found_at: Option<Url>,
    upstream: String,
}

impl From<StoredResponse> for Row {
    fn from(response: StoredResponse) -> Self {
        let text = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect();
        let head = response.head;
        Self {
            status: head.status.as_u16(),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), text(value)))
                .collect(),
            request_time: head.times.request,
            response_time: head.times.response,
            digest: response.content.digest,
            length: response.content.length,
            selecting: head.selecting.pairs().to_vec(),
            known_digest: head.known_digest,
            invalidated: head.invalidated,
            found_at: head.found_at,
            upstream: response.upstream,
        }
    }
}

/// Why a written row is not a response.
#[derive(Debug, thiserror::Error)]
#[error("the stored head is damaged")]
pub(super) struct DamagedRow;

impl TryFrom<Row> for StoredResponse {
    type Error = DamagedRow;

    fn try_from(row: Row) -> Result<Self, DamagedRow> {
        let mut headers = HeaderMap::with_capacity(row.headers.len());
        for (name, text) in row.headers {
            let bytes: Option<Vec<u8>> = text.chars().map(|letter| u8::try_from(letter).ok()).collect();
            let value = bytes.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok());
            let name = HeaderName::from_bytes(name.as_bytes()).ok();
            let (name, value) = name.zip(value).ok_or(DamagedRow)?;
            headers.append(name, value);
        }
        Ok(Self {
            head: Stored {
                status: StatusCode::from_u16(row.status).ok().ok_or(DamagedRow)?,
                headers,
                times: Times {
                    request: row.request_time,
                    response: row.response_time,
                },
                selecting: Selecting::from_pairs(row.selecting),
                known_digest: row.known_digest,
                invalidated: row.invalidated,
                found_at: row.found_at,
            },
            content: ContentRef {
                digest: row.digest,
                length: row.length,
            },
            upstream: row.upstream,
        })
    }
}

#[cfg(test)]
pub(crate) fn sample(content: &[u8]) -> StoredResponse {
    let mut headers = HeaderMap::new();
    headers.append(HeaderName::from_static("link"), HeaderValue::from_static("</a>"));
    headers.append(HeaderName::from_static("link"), HeaderValue::from_static("</b>"));
    headers.append(
        HeaderName::from_static("x-bytes"),
        HeaderValue::from_bytes(b"caf\xe9").unwrap(),
    );
    StoredResponse {
        head: Stored {
            status: StatusCode::OK,
            headers,
            times: Times {
                request: Timestamp::UNIX_EPOCH,
                response: Timestamp::UNIX_EPOCH,
            },
            selecting: Selecting::default(),
            known_digest: false,
            invalidated: false,
            found_at: Some(Url::parse("https://elsewhere.example/a/").unwrap()),
        },
        content: ContentRef {
            digest: Digest::of(content),
            length: content.len() as u64,
        },
        upstream: "pkg".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_response_round_trips_with_repeats_and_bytes_that_are_not_text() {
        let response = sample(b"abc");
        let json = serde_json::to_vec(&response).unwrap();
        assert_eq!(serde_json::from_slice::<StoredResponse>(&json).unwrap(), response);
    }
}
