//! Which content of ours is what was promised by another function than SHA-256: `sha512:…` → `sha256:…`.
//!
//! Flow: content that has come under such a promise is verified by who fetched it, then noted here ([`Store::note_proof`]); from then
//! on a key about which the promise is taught is one with a known SHA-256 ([`Proofs::resolve`]), and everything that holds for known digests
//! holds for it.
//!
//! A row is true for ever, whatever becomes of the content, since both digests were computed from the same bytes; it goes when the content is
//! gone. Where the function proves nothing against malice, the row is about one key alone ([`name`]).
//!
//! Bounded in memory by [`MOST`]; what is forgotten there is found in the index, and what never came there is computed again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use kato_shared::{Digest, chain::Chain};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::{Store, StoreError, Taught, blocking, change::Change, content_row::Row};
use crate::ecosystem::{Integrity, Known};

/// What was promised, see [`name`] → the SHA-256 of the content that is it.
pub(super) const PROOFS: TableDefinition<'_, &str, [u8; 32]> = TableDefinition::new("proofs");

/// The most proofs in memory, each some 250 bytes.
const MOST: usize = 16 << 10;

/// The proofs of this process, which are noted before they are durable.
#[derive(Debug, Default)]
pub(super) struct Proofs(Mutex<HashMap<String, Digest>>);

impl Proofs {
    fn add(&self, name: String, digest: Digest) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(name, digest);
    }

    fn get(&self, name: &str) -> Option<Digest> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).copied()
    }

    /// Puts the SHA-256 in the place of promises about `key` that were kept.
    pub(super) fn resolve(&self, key: &str, taught: &mut [Taught]) {
        for taught in taught {
            if taught.known.digest().is_none()
                && let Some(digest) = self.get(&name(key, &taught.known.integrity))
            {
                taught.known.integrity = digest.into();
            }
        }
    }
}

/// Under which name it is noted that content is `integrity`: for all keys, or for `key` alone.
fn name(key: &str, integrity: &Integrity) -> String {
    if integrity.is_proof() {
        integrity.to_string()
    } else {
        format!("{integrity} {key}")
    }
}

/// What is known about `key`, with the SHA-256 where the index has it.
pub(super) fn resolved(transaction: &ReadTransaction, key: &str, known: Known) -> Result<Known, redb::Error> {
    if known.digest().is_some() {
        return Ok(known);
    }
    let found = transaction
        .open_table(PROOFS)?
        .get(name(key, &known.integrity).as_str())?;
    let digest = found.map(|row| Digest::from_bytes(row.value()));
    Ok(digest.map_or(known, |digest| Known::sha256(digest, known.size)))
}

/// Writes a proof down.
pub(super) fn put(transaction: &WriteTransaction, name: &str, digest: &Digest) -> Result<(), StoreError> {
    let write = || -> Result<(), redb::Error> {
        transaction.open_table(PROOFS)?.insert(name, digest.as_bytes())?;
        Ok(())
    };
    write().map_err(StoreError::index("write down that a promise was kept"))
}

/// Removes the proofs of content that is gone.
pub(super) fn sweep(
    transaction: &WriteTransaction,
    contents: &impl ReadableTable<[u8; 32], Row>,
) -> Result<(), StoreError> {
    let write = || -> Result<(), redb::Error> {
        let mut proofs = transaction.open_table(PROOFS)?;
        let mut gone = Vec::new();
        for row in proofs.iter()? {
            let (name, digest) = row?;
            if contents.get(digest.value())?.is_none() {
                gone.push(name.value().to_owned());
            }
        }
        for name in gone {
            proofs.remove(name.as_str())?;
        }
        Ok(())
    };
    write().map_err(StoreError::index("remove proofs of content that is gone"))
}

impl Store {
    /// Notes that the content `digest`, stored under `key`, is what `integrity` promises: at once, and durably soon after.
    pub async fn note_proof(&self, key: &str, integrity: Integrity, digest: Digest) {
        let name = name(key, &integrity);
        self.0.proofs.add(name.clone(), digest);
        self.0.hot.forget([key]);
        let store = self.clone();
        // Whether it becomes durable or not, it is true; what is not found after a restart is computed again.
        let sent = blocking(move || {
            drop(store.0.index.submit(vec![Change::Prove { name, digest }]));
            Ok(())
        });
        if let Err(error) = sent.await {
            tracing::debug!(error = %Chain(&error), "a proof is kept in memory alone");
        }
    }

    /// The content that is what `integrity` promises about `key`, if some such was noted.
    pub async fn proved(&self, key: &str, integrity: Integrity) -> Option<Digest> {
        let known = Known {
            integrity,
            size: None,
        };
        if let Some(digest) = self.0.proofs.get(&name(key, &integrity)) {
            return Some(digest);
        }
        let (store, key) = (self.clone(), key.to_owned());
        let read = blocking(move || {
            let read = |transaction: &ReadTransaction| resolved(transaction, &key, known);
            store.0.index.handle().read("look for a proof", read)
        });
        read.await.ok()?.digest()
    }
}
