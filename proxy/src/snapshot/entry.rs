//! One stored response in a snapshot.

use std::{collections::BTreeMap, fmt};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use kato_shared::Digest;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    group::group,
    secrets::{self, Closed, Parameters},
};
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

/// Fields that say when a response was made and until when it is fresh, and nothing about what it is.
const MOMENTS: [&str; 3] = ["age", "date", "expires"];

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
    /// Its URL, or where it redirects to, has a parameter in its query that is not known and not allowed.
    UnknownParameter,
    /// It is no response to a client: a row of our own.
    Internal,
    /// For a reason that a newer program has.
    #[serde(other)]
    Other,
}

/// That a response stays here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stays {
    /// Why.
    pub reason: LeftOut,
    /// The parameter that is not known, where that is the reason.
    pub parameter: Option<String>,
}

impl From<LeftOut> for Stays {
    fn from(reason: LeftOut) -> Self {
        Self {
            reason,
            parameter: None,
        }
    }
}

impl From<Closed> for Stays {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Secret => LeftOut::SignedUrl.into(),
            Closed::Unknown(parameter) => Self {
                reason: LeftOut::UnknownParameter,
                parameter: Some(parameter),
            },
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SignedUrl => "the URL carries a signature or token",
            Self::Credentials => "chosen by credentials of a request",
            Self::Invalidated => "invalidated since",
            Self::UnknownParameter => "the query has a parameter that is not known to be harmless",
            Self::Internal => "not a response",
            Self::Other => "for another reason",
        })
    }
}

impl Entry {
    /// The entry of what is stored as `response` under `key`; `parameters` of queries may cross beside those that are known.
    ///
    /// # Errors
    /// [`Stays`] for what must not cross.
    pub fn new(key: &str, response: &StoredResponse, parameters: &Parameters) -> Result<Self, Stays> {
        let url = key
            .strip_prefix("GET ")
            .filter(|url| url.starts_with("http://") || url.starts_with("https://"))
            .ok_or(LeftOut::Internal)?;
        let head = &response.head;
        let allowed = parameters.by_name(&response.upstream);
        secrets::judge(url, allowed)?;
        secrets::judge_redirect(&head.headers, allowed)?;
        if head.invalidated {
            return Err(LeftOut::Invalidated.into());
        }
        let pairs = head.selecting.pairs();
        if pairs
            .iter()
            .any(|(name, value)| value.is_some() && secrets::is_credential(name))
        {
            return Err(LeftOut::Credentials.into());
        }
        Ok(Self {
            key: key.to_owned(),
            vary: pairs.iter().cloned().collect(),
            status: head.status.as_u16(),
            headers: carried(&head.headers, allowed),
            digest: response.content.digest,
            length: response.content.length,
            time: head.times.response,
            class: class(url, head, &response.content.digest),
            group: group(url),
            upstream: response.upstream.clone(),
            found_at: head.found_at.as_ref().map(secrets::place),
        })
    }

    /// Whether it may cross as it is where the settings allow `parameters`: an entry that left before was judged by what held then.
    pub fn is_open(&self, parameters: &Parameters) -> bool {
        let allowed = parameters.by_name(&self.upstream);
        let is_open = |(name, value): &(String, String)| {
            HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| {
                secrets::may_cross(name.as_str()) && secrets::is_open(&name, value.as_bytes(), allowed)
            })
        };
        secrets::judge(self.url(), allowed).is_ok()
            && self.headers.iter().all(is_open)
            && self.found_at.as_ref().is_none_or(|at| secrets::place(at) == *at)
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

    /// Whether it says the same as `other` but for the moment: as after a validation that found nothing changed.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let lasting = |entry: &Self| {
            let mut fields: Vec<(String, String)> = entry.headers.clone();
            fields.retain(|(name, _)| !MOMENTS.contains(&name.as_str()));
            // The order of fields of different names means nothing (RFC 9110 §5.3); an update may change it.
            fields.sort_by(|one, other| one.0.cmp(&other.0));
            Self {
                headers: fields,
                time: Timestamp::UNIX_EPOCH,
                ..entry.clone()
            }
        };
        self.digest == other.digest && lasting(self) == lasting(other)
    }

    /// Where it stands in a snapshot.
    pub(super) fn place(&self) -> (&str, &BTreeMap<String, Option<String>>) {
        (&self.key, &self.vary)
    }
}

/// The fields that cross, with their values as text.
fn carried(headers: &HeaderMap, allowed: &[String]) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, value)| {
            secrets::may_cross(name.as_str()) && secrets::is_open(name, value.as_bytes(), allowed)
        })
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
