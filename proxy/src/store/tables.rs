//! The tables of the index and the changes that are made to them, each inside one transaction.
//!
//! | table | row |
//! |---|---|
//! | `meta` | `schema`, `bytes` (of distinct content) |
//! | `responses` | cache key → the stored responses of that key, one per `Vary` selector, as JSON |
//! | `content` | digest → size, last use (seconds since 1970) |
//! | `references` | digest → the cache keys that name it |
//!
//! Invariant: each digest that a response names has a `content` row, and each such pair a `references` row.

use std::collections::BTreeSet;

use kato_shared::Digest;
use redb::{
    MultimapTable, MultimapTableDefinition, ReadableMultimapTable, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};

use super::{StoreError, StoredResponse, stored::put_variant};

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const RESPONSES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("responses");
pub(super) const CONTENT: TableDefinition<'_, [u8; 32], (u64, i64)> = TableDefinition::new("content");
pub(super) const REFERENCES: MultimapTableDefinition<'_, [u8; 32], &str> =
    MultimapTableDefinition::new("references");

/// The version of the tables above.
pub(super) const SCHEMA: u64 = 1;

/// One change to the index.
#[derive(Debug)]
pub(super) enum Change {
    /// Stores a response under a key, in the place of the one with the same selector.
    Put {
        key: String,
        response: Box<StoredResponse>,
    },
    /// Forgets all responses of a key.
    Remove { key: String },
    /// Forgets content and every response that names it.
    Evict { digest: Digest },
    /// Notes that content was used, in seconds since 1970.
    Touch { digest: Digest, at: i64 },
}

/// The open tables of one write transaction.
pub(super) struct Tables<'t> {
    meta: Table<'t, &'static str, u64>,
    responses: Table<'t, &'static str, &'static [u8]>,
    content: Table<'t, [u8; 32], (u64, i64)>,
    references: MultimapTable<'t, [u8; 32], &'static str>,
}

impl<'t> Tables<'t> {
    /// Opens the tables, creating those that are missing.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            responses: transaction.open_table(RESPONSES)?,
            content: transaction.open_table(CONTENT)?,
            references: transaction.open_multimap_table(REFERENCES)?,
        })
    }

    /// Writes the schema into a new index.
    pub(super) fn found(&mut self) -> Result<(), redb::Error> {
        self.meta.insert("schema", SCHEMA)?;
        self.meta.insert("bytes", 0)?;
        Ok(())
    }

    /// Makes one change.
    pub(super) fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Put { key, response } => self.put(key, response),
            Change::Remove { key } => self.remove(key),
            Change::Evict { digest } => self.evict(digest),
            Change::Touch { digest, at } => self.touch(digest, *at),
        }
    }

    fn put(&mut self, key: &str, response: &StoredResponse) -> Result<(), StoreError> {
        let mut variants = self.variants(key)?;
        let before = digests(&variants);
        put_variant(&mut variants, response.clone());
        let used = response.head.times.response.as_second();
        self.adopt(&response.content.digest, response.content.length, used)
            .map_err(failed("store a response"))?;
        self.write(key, &before, &variants)
    }

    fn remove(&mut self, key: &str) -> Result<(), StoreError> {
        // A row that cannot be read can still be removed; its references then go when their content is evicted.
        let before = self
            .variants(key)
            .map(|variants| digests(&variants))
            .unwrap_or_default();
        self.write(key, &before, &[])
    }

    fn evict(&mut self, digest: &Digest) -> Result<(), StoreError> {
        let keys = self.keys_of(digest).map_err(failed("evict content"))?;
        for key in keys {
            let Ok(mut variants) = self.variants(&key) else {
                self.responses
                    .remove(key.as_str())
                    .map_err(failed("evict content"))?;
                continue;
            };
            let before = digests(&variants);
            variants.retain(|variant| variant.content.digest != *digest);
            self.write(&key, &before, &variants)?;
        }
        self.drop_content(digest).map_err(failed("evict content"))
    }

    fn touch(&mut self, digest: &Digest, at: i64) -> Result<(), StoreError> {
        let known = self
            .content
            .get(digest.as_bytes())
            .map_err(failed("note a use"))?
            .map(|row| row.value());
        if let Some((length, before)) = known {
            self.content
                .insert(digest.as_bytes(), (length, at.max(before)))
                .map_err(failed("note a use"))?;
        }
        Ok(())
    }

    fn adopt(&mut self, digest: &Digest, length: u64, used: i64) -> Result<(), redb::Error> {
        let known = self.content.get(digest.as_bytes())?.map(|row| row.value());
        let (old_length, old_use) = known.unwrap_or((0, 0));
        self.content
            .insert(digest.as_bytes(), (length, used.max(old_use)))?;
        let bytes = self.bytes()?;
        self.meta
            .insert("bytes", bytes.saturating_sub(old_length).saturating_add(length))?;
        Ok(())
    }

    fn drop_content(&mut self, digest: &Digest) -> Result<(), redb::Error> {
        self.references.remove_all(digest.as_bytes())?;
        let length = self
            .content
            .remove(digest.as_bytes())?
            .map_or(0, |row| row.value().0);
        let bytes = self.bytes()?;
        self.meta.insert("bytes", bytes.saturating_sub(length))?;
        Ok(())
    }

    fn bytes(&self) -> Result<u64, redb::Error> {
        Ok(self.meta.get("bytes")?.map_or(0, |row| row.value()))
    }

    fn variants(&self, key: &str) -> Result<Vec<StoredResponse>, StoreError> {
        match self.responses.get(key).map_err(failed("read a response"))? {
            Some(row) => decode(key, row.value()),
            None => Ok(Vec::new()),
        }
    }

    fn keys_of(&self, digest: &Digest) -> Result<Vec<String>, redb::Error> {
        self.references
            .get(digest.as_bytes())?
            .map(|key| Ok(key?.value().to_owned()))
            .collect()
    }

    /// Writes the row of `key` and brings the references in line.
    fn write(
        &mut self,
        key: &str,
        before: &BTreeSet<Digest>,
        variants: &[StoredResponse],
    ) -> Result<(), StoreError> {
        let after = digests(variants);
        if variants.is_empty() {
            self.responses.remove(key).map_err(failed("remove a response"))?;
        } else {
            let row = serde_json::to_vec(variants).map_err(|source| StoreError::Row {
                key: key.to_owned(),
                source: source.into(),
            })?;
            self.responses
                .insert(key, row.as_slice())
                .map_err(failed("store a response"))?;
        }
        for digest in before.difference(&after) {
            self.references
                .remove(digest.as_bytes(), key)
                .map_err(failed("drop a reference"))?;
        }
        for digest in after.difference(before) {
            self.references
                .insert(digest.as_bytes(), key)
                .map_err(failed("add a reference"))?;
        }
        Ok(())
    }
}

/// Reads a row of `responses`.
pub(super) fn decode(key: &str, row: &[u8]) -> Result<Vec<StoredResponse>, StoreError> {
    serde_json::from_slice(row).map_err(|source| StoreError::Row {
        key: key.to_owned(),
        source: source.into(),
    })
}

fn digests(variants: &[StoredResponse]) -> BTreeSet<Digest> {
    variants.iter().map(|variant| variant.content.digest).collect()
}

fn failed<E: Into<redb::Error>>(action: &'static str) -> impl FnOnce(E) -> StoreError {
    StoreError::index(action)
}
