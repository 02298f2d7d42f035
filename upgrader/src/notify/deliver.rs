//! Deliveries: each address gets its documents in their order; one that does not take them holds no other up.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName, HeaderValue};
use kato_shared::{chain::Chain, redact, secret::Secret};
use tokio::task::JoinSet;

use super::{settings::NotifySettings, spool::Pending};
use crate::fetch::{FetchError, post::Poster};

/// Settings with which nothing can be delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliverError {
    /// A file of the settings cannot be used.
    #[error("reading `{path}` of `[notify].{key}` failed")]
    File {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An empty secret signs nothing.
    #[error("`{path}` of `[notify].secret_file` is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Client(#[from] FetchError),
}

/// What deliveries need.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    poster: Poster,
    secret: Option<Secret>,
}

impl Delivery {
    pub(super) fn new(settings: &NotifySettings) -> Result<Self, DeliverError> {
        let read = |key, path: &Option<PathBuf>| {
            let read = |path: &PathBuf| {
                fs::read(path).map_err(|source| DeliverError::File {
                    key,
                    path: path.clone(),
                    source,
                })
            };
            path.as_ref().map(read).transpose()
        };
        let secret = match (read("secret_file", &settings.secret_file)?, &settings.secret_file) {
            (Some(bytes), Some(path)) => {
                Some(trimmed(&bytes).ok_or_else(|| DeliverError::Empty { path: path.clone() })?)
            }
            _ => None,
        };
        let authorities = read("ca_file", &settings.ca_file)?;
        Ok(Self {
            poster: Poster::new(settings.timeout.get(), authorities.as_deref())?,
            secret,
        })
    }

    /// Tries everything in `pending` once; what is delivered is removed from the spool.
    pub(super) async fn round(&self, pending: Vec<Pending>) {
        let mut by_address: BTreeMap<String, Vec<Pending>> = BTreeMap::new();
        for pending in pending {
            let address = pending.url.to_string();
            by_address.entry(address).or_default().push(pending);
        }
        let mut tasks = JoinSet::new();
        for pending in by_address.into_values() {
            tasks.spawn(self.clone().in_order(pending));
        }
        while tasks.join_next().await.is_some() {}
    }

    /// The documents for one address, until one is not taken: what comes after it would fare no better.
    async fn in_order(self, pending: Vec<Pending>) {
        for pending in pending {
            if let Err(error) = self.one(&pending).await {
                let url = redact::url(&pending.url);
                tracing::warn!(url, error = %Chain(&error), "a notification was not delivered; it is tried again by the next run");
                return;
            }
            pending.delivered();
        }
    }

    async fn one(&self, pending: &Pending) -> Result<(), FetchError> {
        // The same document has the same bytes, so that a signature may be kept beside it.
        let body = serde_json::to_vec(&pending.document).unwrap_or_default();
        let document = &pending.document;
        let mut headers = HeaderMap::new();
        let mut with = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        with("content-type", "application/json");
        with("x-kato-event", document.event.name());
        with("x-kato-delivery", &document.id);
        if let Some(secret) = &self.secret {
            with("x-kato-signature-256", &signature(secret, &body));
        }
        self.poster.post(&pending.url, headers, body).await
    }
}

/// A secret without the newline at the end of its file.
fn trimmed(bytes: &[u8]) -> Option<Secret> {
    let secret = Secret::new(bytes.trim_ascii().to_vec());
    (!secret.is_empty()).then_some(secret)
}

/// `sha256=<HMAC-SHA-256 in hexadecimal digits>`.
pub(super) fn signature(secret: &Secret, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose()), body);
    let mut text = String::from("sha256=");
    for byte in tag.as_ref() {
        text.extend(char::from_digit(u32::from(byte >> 4), 16));
        text.extend(char::from_digit(u32::from(byte & 0xf), 16));
    }
    text
}
