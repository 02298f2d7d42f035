//! Keys whose responses are not shared, so that their requests need not wait for one another.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Keys whose last response was not to be shared: their requests do not wait for one another. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct PrivateKeys(Arc<Mutex<HashMap<String, Instant>>>);

impl PrivateKeys {
    /// How long a key is remembered. Short: while it is, a response that may be stored is not.
    const LIFETIME: Duration = Duration::from_secs(10);
    /// The most keys remembered.
    const LIMIT: usize = 10_000;

    pub(super) fn contains(&self, key: &str, now: Instant) -> bool {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(key).is_some_and(|since| now < *since + Self::LIFETIME)
    }

    pub(super) fn insert(&self, key: &str, now: Instant) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= Self::LIMIT {
            keys.retain(|_, since| now < *since + Self::LIFETIME);
        }
        if keys.len() < Self::LIMIT {
            keys.insert(key.to_owned(), now);
        }
    }
}
