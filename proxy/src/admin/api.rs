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

/// Entries of one page, unless fewer are asked for.
const PAGE: usize = 1000;

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
    /// The request fields that select it, with their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vary: Vec<(String, Option<String>)>,
    /// The stored fields.
    pub headers: Vec<(String, String)>,
}

/// The answer of `POST /-/api/purge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeReport {
    /// The version of this document; 1.
    pub schema: u32,
    /// URLs whose responses were forgotten.
    pub purged: u64,
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
    fn of(url: &str, response: &StoredResponse) -> Self {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            url: url.to_owned(),
            upstream: response.upstream.clone(),
            status: response.head.status.as_u16(),
            length: response.content.length,
            digest: response.content.digest,
            validated: response.head.times.response,
            invalidated: response.head.invalidated,
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

    pub(super) async fn entries(&self, query: &Query) -> Result<EntryPage, Problem> {
        let limit = query.get("limit").parse().unwrap_or(PAGE).clamp(1, PAGE);
        let prefix = format!("GET {}", query.get("prefix"));
        let after = Some(query.get("after")).filter(|after| !after.is_empty());
        let after = after.map_or_else(String::new, |after| format!("GET {after}"));
        let rows = self
            .pipeline
            .store()
            .list(prefix, after, limit)
            .await
            .map_err(|error| store_failed(&error))?;
        let url = |key: &str| key.strip_prefix("GET ").unwrap_or(key).to_owned();
        let next = (rows.len() == limit)
            .then(|| rows.last().map(|(key, _)| url(key)))
            .flatten();
        let entries = rows
            .iter()
            .flat_map(|(key, responses)| {
                responses
                    .iter()
                    .map(|response| EntryView::of(&url(key), response))
            })
            .collect();
        Ok(EntryPage {
            schema: 1,
            entries,
            next,
        })
    }

    pub(super) async fn purge(&self, query: &Query) -> Result<PurgeReport, Problem> {
        let prefix = query.get("prefix");
        if prefix.is_empty() {
            return Err(respond::describe(
                "bad-query",
                "what to purge?",
                StatusCode::BAD_REQUEST,
                "purge needs a prefix".into(),
                Some("?prefix=http purges everything".into()),
            ));
        }
        let mut purged = 0;
        loop {
            let page = self
                .pipeline
                .store()
                .list(format!("GET {prefix}"), String::new(), PAGE)
                .await;
            let keys: Vec<String> = page
                .map_err(|error| store_failed(&error))?
                .into_iter()
                .map(|(key, _)| key)
                .collect();
            if keys.is_empty() {
                return Ok(PurgeReport { schema: 1, purged });
            }
            purged += keys.len() as u64;
            self.pipeline
                .store()
                .remove(keys)
                .await
                .map_err(|error| store_failed(&error))?;
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
fn store_failed(error: &StoreError) -> Problem {
    respond::describe(
        "store",
        "store not usable",
        StatusCode::INTERNAL_SERVER_ERROR,
        Chain(error).to_string(),
        None,
    )
}
