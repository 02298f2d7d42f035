//! What the admin API tells about the store and the requests, and its wire types.

use http::StatusCode;
use jiff::Timestamp;
use kato_shared::{Digest, api::Problem, chain::Chain};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::{Admin, Query};
use crate::{
    respond,
    store::{Damage, StoreError, StoredResponse},
};

/// The answer of `GET /-/api/requests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestsPage {
    /// The version of this document; 1.
    pub schema: u32,
    /// Sorted by URL. Counts begin with the process; beyond 65536 URLs new ones are not counted one by one.
    pub requests: Vec<UrlView>,
}

/// Requests for one URL since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlView {
    /// The target URI, the same for all doors.
    pub url: String,
    /// Requests of clients.
    pub requests: u64,
    /// Requests that went to the upstream for it.
    pub origin_requests: u64,
    /// Body bytes sent to clients.
    pub bytes: u64,
}

/// The answer of `GET /-/api/entries`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryPage {
    /// The version of this document; 1.
    pub schema: u32,
    /// Sorted by URL.
    pub entries: Vec<EntryView>,
    /// What to ask for as `after` to get the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One stored response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// The target URI.
    pub url: String,
    /// The upstream that it came from.
    pub upstream: String,
    /// The status code.
    pub status: u16,
    /// The size of the content in bytes.
    pub length: u64,
    /// The content.
    pub digest: Digest,
    /// When it was received or last validated.
    pub validated: Timestamp,
    /// Whether an unsafe request made it unusable without validation.
    pub invalidated: bool,
    /// Whether a pin keeps it from eviction.
    #[serde(default)]
    pub pinned: bool,
    /// Of a tag or a list of a registry: until when it is believed, or was (`tag_ttl`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub believed_until: Option<Timestamp>,
    /// The request fields that select it, with their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vary: Vec<(String, Option<String>)>,
    /// The stored fields.
    pub headers: Vec<(String, String)>,
}

/// The answer of `POST /-/api/verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The version of this document; 1.
    pub schema: u32,
    /// Content files read.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Content that was damaged or missing and is forgotten; what there was of it is in quarantine.
    pub damaged: Vec<DamageView>,
    /// Content that the index does not name and that was removed.
    pub unnamed: Vec<Digest>,
}

/// Damaged content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageView {
    /// What it should have been.
    pub digest: Digest,
    /// The URLs that it was stored for; they are fetched anew when somebody asks for them.
    pub urls: Vec<String>,
}

impl EntryView {
    /// As it is stored; whether it is pinned the store tells, and how long it is believed the settings.
    pub(super) fn of(url: &str, response: &StoredResponse) -> Self {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            url: url.to_owned(),
            upstream: response.upstream.clone(),
            status: response.head.status.as_u16(),
            length: response.content.length,
            digest: response.content.digest,
            validated: response.head.times.response,
            invalidated: response.head.invalidated,
            pinned: false,
            believed_until: None,
            vary: response.head.selecting.pairs().to_vec(),
            headers: response
                .head
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
        }
    }
}

impl From<Damage> for DamageView {
    fn from(damage: Damage) -> Self {
        let url = |key: String| key.strip_prefix("GET ").map(str::to_owned).unwrap_or(key);
        Self {
            digest: damage.digest,
            urls: damage.keys.into_iter().map(url).collect(),
        }
    }
}

impl Admin {
    pub(super) fn requests(&self, query: &Query) -> RequestsPage {
        let counted = self.pipeline.metrics().urls(query.get("prefix"));
        RequestsPage {
            schema: 1,
            requests: counted
                .into_iter()
                .map(|(url, counts)| UrlView {
                    url,
                    requests: counts.requests,
                    origin_requests: counts.origin_requests,
                    bytes: counts.bytes,
                })
                .collect(),
        }
    }

    pub(super) async fn verify(&self) -> Result<VerifyReport, Problem> {
        let store = self.pipeline.store().clone();
        let found = spawn_blocking(move || store.verify())
            .await
            .unwrap_or(Err(StoreError::Closing));
        let found = found.map_err(|error| store_failed(&error))?;
        Ok(VerifyReport {
            schema: 1,
            checked: found.checked,
            bytes: found.bytes,
            damaged: found.damaged.into_iter().map(DamageView::from).collect(),
            unnamed: found.unnamed,
        })
    }
}

/// The operator's own listener: here the cause is told.
pub(super) fn store_failed(error: &StoreError) -> Problem {
    respond::describe(
        "store",
        "store not usable",
        StatusCode::INTERNAL_SERVER_ERROR,
        Chain(error).to_string(),
        None,
    )
}

/// A query that cannot be understood.
pub(super) fn bad_query(detail: String, hint: &str) -> Problem {
    respond::describe(
        "bad-query",
        "query not understood",
        StatusCode::BAD_REQUEST,
        detail,
        Some(hint.to_owned()),
    )
}
