//! Pins as operations of the store: durable in the index, in force in memory, counted.

use std::collections::HashMap;

use super::{Pin, Store, StoreError, blocking, tables::Change};

/// One pin and what it holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The pin.
    pub pin: Pin,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Contents that it covers now.
    pub contents: u64,
    /// Their bytes. Content under two pins counts with both.
    pub bytes: u64,
}

/// All pins together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PinnedTotal {
    /// Bytes that are pinned, each content once.
    pub bytes: u64,
    /// The quota in bytes.
    pub max_size: u64,
}

impl PinnedTotal {
    /// Whether pinned content alone is more than the quota: nothing else can be stored then.
    pub fn is_over_quota(&self) -> bool {
        self.bytes > self.max_size
    }
}

impl Store {
    /// Pins what is there and what comes later; durable when it returns. Pinning twice changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be changed.
    pub async fn pin(&self, pin: Pin) -> Result<Pinned, StoreError> {
        let store = self.clone();
        blocking(move || {
            store.settle_pins();
            let _one_at_a_time = store.0.pinning.lock();
            let known = store.0.index.handle().pins()?;
            let since = known
                .into_iter()
                .find(|(known, _)| *known == pin)
                .map(|(_, since)| since);
            let since =
                since.unwrap_or_else(|| u64::try_from(store.0.clock.now().as_second()).unwrap_or_default());
            store.0.index.submit_blocking(vec![Change::Pin {
                pin: pin.clone(),
                since,
            }])?;
            store.weigh(&pin)?;
            store.describe(pin, since)
        })
        .await
    }

    /// Takes a pin away; `None` when there was none. What no other pin covers may be evicted again.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be changed.
    pub async fn unpin(&self, pin: Pin) -> Result<Option<Pinned>, StoreError> {
        let store = self.clone();
        blocking(move || {
            store.settle_pins();
            let _one_at_a_time = store.0.pinning.lock();
            let known = store.0.index.handle().pins()?;
            let Some((_, since)) = known.into_iter().find(|(known, _)| *known == pin) else {
                return Ok(None);
            };
            let gone = store.describe(pin.clone(), since)?;
            store
                .0
                .index
                .submit_blocking(vec![Change::Unpin { pin: pin.clone() }])?;
            store.weigh(&pin)?;
            Ok(Some(gone))
        })
        .await
    }

    /// All pins, sorted, and what they take together.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be read.
    pub async fn pins(&self) -> Result<(Vec<Pinned>, PinnedTotal), StoreError> {
        let store = self.clone();
        blocking(move || {
            store.settle_pins();
            let known = store.0.index.handle().pins()?;
            let pins: Result<Vec<Pinned>, StoreError> = known
                .into_iter()
                .map(|(pin, since)| store.describe(pin, since))
                .collect();
            Ok((pins?, store.pinned_total()))
        })
        .await
    }

    /// What all pins take together; too little just after a start.
    pub fn pinned_total(&self) -> PinnedTotal {
        PinnedTotal {
            bytes: self.0.index.ledger().pinned().0,
            max_size: self.0.quota.max_size,
        }
    }

    /// Whether what `key` names is kept from eviction by a pin.
    pub fn is_pinned(&self, key: &str, digest: &kato_shared::Digest) -> bool {
        self.0.index.ledger().is_pinned(key, digest)
    }

    /// Waits until what is stored now is in the index and in the ledger, so that pins and figures mean all of it.
    fn settle_pins(&self) {
        self.0.behind.settle_all();
        self.0.index.ledger().wait();
    }

    /// Brings what `pin` covers in line with all pins.
    fn weigh(&self, pin: &Pin) -> Result<(), StoreError> {
        let index = self.0.index.handle();
        for digest in index.covered(pin)? {
            self.0.index.ledger().weigh(&digest, index)?;
        }
        Ok(())
    }

    fn describe(&self, pin: Pin, since: u64) -> Result<Pinned, StoreError> {
        let index = self.0.index.handle();
        let mut sizes = HashMap::new();
        for digest in index.covered(&pin)? {
            if let Some(length) = self.0.index.content_length(&digest)? {
                sizes.insert(digest, length);
            }
        }
        Ok(Pinned {
            pin,
            since,
            contents: sizes.len() as u64,
            bytes: sizes.values().sum(),
        })
    }
}
