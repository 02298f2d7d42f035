//! One stored response in a snapshot.

use std::{collections::BTreeMap, fmt};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use kato_shared::Digest;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{group::group, secrets};
use crate::{
    policy::{Selecting, Stored, Times},
    store::{ContentRef, StoredResponse},
};

/// A stored response: which request it answers, its head, and which content it has. One line of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The cache key, e.g. `GET https://host/path`.
    #[serde(rename = "k")]
    pub key: String,
    /// The request fields that `Vary` named, with their values then; none where the request had no such field.
    #[serde(rename = "v", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vary: BTreeMap<String, Option<String>>,
    /// The status code.
    #[serde(rename = "s")]
    pub status: u16,
    /// The header fields in the order received, repeats included. Values are written with one character per byte (ISO 8859-1).
    #[serde(rename = "h")]
    pub headers: Vec<(String, String)>,
    /// The content.
    #[serde(rename = "b")]
    pub digest: Digest,
    /// Its size in bytes.
    #[serde(rename = "n")]
    pub length: u64,
    /// When it was received or last validated.
    #[serde(rename = "t")]
    pub time: Timestamp,
    /// How it may change.
    #[serde(rename = "cls")]
    pub class: Class,
    /// What belongs together on a medium, see [`group`].
    #[serde(rename = "grp")]
    pub group: String,
    /// The name of the upstream that it came from.
    #[serde(rename = "src")]
    pub upstream: String,
    /// Where redirects led, if that matters for addresses inside the content.
    #[serde(rename = "at", default, skip_serializing_if = "Option::is_none")]
    pub found_at: Option<Url>,
}

/// How a response may change at its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// It may be another one tomorrow.
    Mutable,
    /// Its digest was known before it was asked for.
    Immutable,
    /// It says that there is nothing.
    Negative,
}

/// Why a stored response does not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftOut {
    /// Its URL, or where it redirects to, carries a signature or a token in its query.
    SignedUrl,
    /// It was chosen by who asked.
    Credentials,
    /// An unsafe request has changed the resource since.
    Invalidated,
    /// It is no response to a client: a row of our own.
    Internal,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SignedUrl => "the URL carries a signature or token",
            Self::Credentials => "chosen by credentials of a request",
            Self::Invalidated => "invalidated since",
            Self::Internal => "not a response",
        })
    }
}

impl Entry {
    /// The entry of what is stored as `response` under `key`.
    ///
    /// # Errors
    /// [`LeftOut`] for what must not cross.
    pub fn new(key: &str, response: &StoredResponse) -> Result<Self, LeftOut> {
        let url = key
            .strip_prefix("GET ")
            .filter(|url| url.starts_with("http://") || url.starts_with("https://"))
            .ok_or(LeftOut::Internal)?;
        let head = &response.head;
        if secrets::is_signed(url) || secrets::leads_to_signed(&head.headers) {
            return Err(LeftOut::SignedUrl);
        }
        if head.invalidated {
            return Err(LeftOut::Invalidated);
        }
        let pairs = head.selecting.pairs();
        if pairs
            .iter()
            .any(|(name, value)| value.is_some() && secrets::is_credential(name))
        {
            return Err(LeftOut::Credentials);
        }
        Ok(Self {
            key: key.to_owned(),
            vary: pairs.iter().cloned().collect(),
            status: head.status.as_u16(),
            headers: carried(&head.headers),
            digest: response.content.digest,
            length: response.content.length,
            time: head.times.response,
            class: class(url, head, &response.content.digest),
            group: group(url),
            upstream: response.upstream.clone(),
            found_at: head.found_at.clone(),
        })
    }

    /// The target URI.
    pub fn url(&self) -> &str {
        self.key.strip_prefix("GET ").unwrap_or(&self.key)
    }

    /// The response as a store has it. Fields that are no field lines any more are left out; an impossible status code becomes
    /// 502, so that damage is never shown as success.
    pub fn response(&self) -> StoredResponse {
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let bytes: Option<Vec<u8>> = value.chars().map(|letter| u8::try_from(letter).ok()).collect();
            let name = HeaderName::from_bytes(name.as_bytes()).ok();
            let value = bytes.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok());
            if let Some((name, value)) = name
                .zip(value)
                .filter(|(name, _)| secrets::may_cross(name.as_str()))
            {
                headers.append(name, value);
            }
        }
        StoredResponse {
            head: Stored {
                status: StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY),
                headers,
                times: Times {
                    request: self.time,
                    response: self.time,
                },
                selecting: Selecting::from_pairs(self.vary.clone()),
                known_digest: self.class == Class::Immutable,
                invalidated: false,
                found_at: self.found_at.clone(),
            },
            content: ContentRef {
                digest: self.digest,
                length: self.length,
            },
            upstream: self.upstream.clone(),
        }
    }

    /// The first value of the header field `name`, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Where it stands in a snapshot.
    pub(super) fn place(&self) -> (&str, &BTreeMap<String, Option<String>>) {
        (&self.key, &self.vary)
    }
}

/// The fields that cross, with their values as text.
fn carried(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, value)| secrets::may_cross(name.as_str()) && !secrets::names_signed(value.as_bytes()))
        .map(|(name, value)| {
            let text = value.as_bytes().iter().copied().map(char::from).collect();
            (name.as_str().to_owned(), text)
        })
        .collect()
}

fn class(url: &str, head: &Stored, digest: &Digest) -> Class {
    if head.status.is_client_error() || head.status.is_server_error() {
        Class::Negative
    } else if head.status == StatusCode::OK && (head.known_digest || url.contains(&digest.hex())) {
        Class::Immutable
    } else {
        Class::Mutable
    }
}
