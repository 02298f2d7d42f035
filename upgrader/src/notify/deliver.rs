//! Deliveries: each address gets its documents in their order, by a courier of its own; one that does not take them holds no
//! other up, and is tried again when there is something new.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
};

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName, HeaderValue};
use kato_shared::{chain::Chain, redact, secret::Secret};
use tokio::task::JoinSet;

use super::{Shared, settings::NotifySettings, spool::Pending};
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

    /// The documents for one address, until one is not taken: what comes after it would fare no better.
    async fn in_order(self, pending: Vec<Pending>) -> bool {
        for pending in pending {
            if let Err(error) = self.one(&pending).await {
                let url = redact::receiver(&pending.url);
                tracing::warn!(url, error = %Chain(&error), "a notification was not delivered; it is tried again later");
                return false;
            }
            pending.delivered();
        }
        true
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

/// One courier for each address that has something to get.
#[derive(Debug)]
pub(super) struct Couriers {
    delivery: Delivery,
    /// Each ends with its address, and whether everything was taken.
    under_way: JoinSet<(String, bool)>,
    busy: BTreeSet<String>,
    /// Addresses that did not take something since there was last anything new.
    closed: BTreeSet<String>,
}

impl Couriers {
    pub(super) fn new(delivery: Delivery) -> Self {
        Self {
            delivery,
            under_way: JoinSet::new(),
            busy: BTreeSet::new(),
            closed: BTreeSet::new(),
        }
    }

    /// Sends couriers to all addresses that have something to get.
    pub(super) fn send(&mut self, shared: &Shared) {
        let is_free = |pending: &Pending| {
            let address = pending.url.as_str();
            !self.busy.contains(address) && !self.closed.contains(address)
        };
        let mut by_address: BTreeMap<String, Vec<Pending>> = BTreeMap::new();
        for pending in shared.pending(is_free) {
            let address = pending.url.to_string();
            by_address.entry(address).or_default().push(pending);
        }
        for (address, pending) in by_address {
            self.busy.insert(address.clone());
            let delivery = self.delivery.clone();
            self.under_way
                .spawn(async move { (address, delivery.in_order(pending).await) });
        }
    }

    /// There is something new: every address gets another chance.
    pub(super) fn news(&mut self) {
        self.closed.clear();
    }

    /// Whether nobody is under way.
    pub(super) fn are_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Waits until a courier is back; for ever when nobody is under way.
    ///
    /// # Cancel safety
    /// Dropping the future loses nobody.
    pub(super) async fn back(&mut self) {
        match self.under_way.join_next().await {
            Some(Ok((address, all_taken))) => {
                self.busy.remove(&address);
                if !all_taken {
                    self.closed.insert(address);
                }
            }
            // A courier does not panic; one that did has told nobody where it went, so that nobody is sent there again.
            Some(Err(_lost)) => {}
            None => std::future::pending().await,
        }
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
