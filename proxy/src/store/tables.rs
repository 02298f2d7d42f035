//! The tables of the index and the changes that are made to them, each inside one transaction.
//!
//! | table | row |
//! |---|---|
//! | `meta` | `schema`, `bytes` (of distinct content) |
//! | `responses` | cache key → the stored responses of that key, one per `Vary` selector, as JSON |
//! | `contents` | digest → size, and what eviction knows about it ([`ContentValue`]) |
//! | `references` | digest → the cache keys that name it |
//! | `pins` | what is pinned, as text ([`super::Pin`]) → since when (seconds since 1970) |
//! | `known`, `generations`, `teachers` | digests that documents teach, see `known` |
//! | `proofs` | what was promised by another function than SHA-256 → the digest of the content that is it, see `proofs` |
//!
//! Each change tells its [`Effect`]s, from which the memory of the process is kept in line after the commit.
//!
//! Invariants: each digest that a response names has a `contents` row, and each such pair a `references` row.

use std::collections::BTreeSet;

use kato_shared::Digest;
use redb::{
    MultimapTable, MultimapTableDefinition, ReadableMultimapTable, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};

use super::{
    StoreError, StoredResponse, content_row::Row, known, proofs, schema::SCHEMA, stored::put_variant,
};
pub(super) use super::{
    change::{Change, Effect},
    content_row::ContentValue,
};

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const RESPONSES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("responses");
pub(super) const CONTENTS: TableDefinition<'_, [u8; 32], Row> = TableDefinition::new("contents");
pub(super) const PINS: TableDefinition<'_, &str, u64> = TableDefinition::new("pins");
pub(super) const REFERENCES: MultimapTableDefinition<'_, [u8; 32], &str> =
    MultimapTableDefinition::new("references");

/// The most keys that may name one content: an origin that answers every URL with the same page must not grow the index
/// without bound. A further one takes the place of another.
const MAX_NAMES: u64 = 4096;

/// The open tables of one write transaction.
pub(super) struct Tables<'t> {
    transaction: &'t WriteTransaction,
    meta: Table<'t, &'static str, u64>,
    responses: Table<'t, &'static str, &'static [u8]>,
    contents: Table<'t, [u8; 32], Row>,
    references: MultimapTable<'t, [u8; 32], &'static str>,
    pins: Table<'t, &'static str, u64>,
    effects: Vec<Effect>,
}

impl<'t> Tables<'t> {
    /// Opens the tables, creating those that are missing.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            transaction,
            meta: transaction.open_table(META)?,
            responses: transaction.open_table(RESPONSES)?,
            contents: transaction.open_table(CONTENTS)?,
            references: transaction.open_multimap_table(REFERENCES)?,
            pins: transaction.open_table(PINS)?,
            effects: Vec::new(),
        })
    }

    /// What the changes since the last call did.
    pub(super) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Writes a row of an older schema.
    pub(super) fn carry_over(&mut self, digest: [u8; 32], value: ContentValue) -> Result<(), redb::Error> {
        self.contents.insert(digest, value.row())?;
        Ok(())
    }

    /// Writes the schema into a new index.
    pub(super) fn found(&mut self) -> Result<(), redb::Error> {
        self.meta.insert("schema", SCHEMA)?;
        self.meta.insert("bytes", 0)?;
        self.found_known()
    }

    /// Creates the tables of what is taught, which readers expect to be there.
    pub(super) fn found_known(&self) -> Result<(), redb::Error> {
        self.transaction.open_table(known::KNOWN)?;
        self.transaction.open_table(known::GENERATIONS)?;
        self.transaction.open_table(known::TEACHERS)?;
        self.transaction.open_table(proofs::PROOFS)?;
        Ok(())
    }

    /// Makes one change.
    pub(super) fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Put { key, response } => self.put(key, response),
            Change::Remove { key } => self.remove(key),
            Change::Evict { digest } => self.evict(digest),
            Change::Stand { digest, standing } => self.stand(digest, *standing),
            Change::Pin { pin, since } => {
                self.pins
                    .insert(pin.to_string().as_str(), since)
                    .map_err(failed("pin"))?;
                self.effects.push(Effect::Pinned(pin.clone()));
                Ok(())
            }
            Change::Unpin { pin } => {
                self.pins
                    .remove(pin.to_string().as_str())
                    .map_err(failed("unpin"))?;
                self.effects.push(Effect::Unpinned(pin.clone()));
                Ok(())
            }
            // Their tables are opened when they are needed: most changes are not about them.
            Change::Teach { number, lessons } => {
                known::teach(self.transaction, &mut self.meta, (*number, lessons))
            }
            Change::Graduate { number, generation } => known::graduate(self.transaction, *number, generation),
            Change::Forget { gone } => known::forget(self.transaction, gone),
            Change::Sweep { keys } => known::sweep(self.transaction, keys),
            Change::Prove { name, digest } => proofs::put(self.transaction, name, digest),
            Change::SweepProofs => proofs::sweep(self.transaction, &self.contents),
        }
    }

    fn put(&mut self, key: &str, response: &StoredResponse) -> Result<(), StoreError> {
        let mut variants = self.variants(key)?;
        let before = digests(&variants);
        put_variant(&mut variants, response.clone());
        let used = response.head.times.response.as_second();
        self.adopt(&response.content.digest, response.content.length, used)
            .map_err(failed("store a response"))?;
        if !before.contains(&response.content.digest) {
            self.bound_names(&response.content.digest, key)?;
        }
        self.write(key, &before, &variants)?;
        self.effects.push(Effect::Named {
            key: key.to_owned(),
            digest: response.content.digest,
            length: response.content.length,
            at: used,
        });
        Ok(())
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
                self.effects.push(Effect::Gone { key });
                continue;
            };
            let before = digests(&variants);
            variants.retain(|variant| variant.content.digest != *digest);
            self.write(&key, &before, &variants)?;
        }
        self.drop_content(digest).map_err(failed("evict content"))
    }

    fn stand(&mut self, digest: &Digest, standing: super::eviction::Standing) -> Result<(), StoreError> {
        let known = self
            .contents
            .get(digest.as_bytes())
            .map_err(failed("note a use"))?
            .map(|row| ContentValue::read(row.value()));
        if let Some(known) = known {
            self.contents
                .insert(digest.as_bytes(), ContentValue { standing, ..known }.row())
                .map_err(failed("note a use"))?;
        }
        Ok(())
    }

    fn adopt(&mut self, digest: &Digest, length: u64, at: i64) -> Result<(), redb::Error> {
        let known = self
            .contents
            .get(digest.as_bytes())?
            .map(|row| ContentValue::read(row.value()));
        let old_length = known.map_or(0, |known| known.length);
        if known.is_none_or(|known| known.length != length) {
            let value = known.map_or_else(
                || ContentValue::new(length, at),
                |known| ContentValue { length, ..known },
            );
            self.contents.insert(digest.as_bytes(), value.row())?;
            let bytes = self.bytes()?;
            self.meta
                .insert("bytes", bytes.saturating_sub(old_length).saturating_add(length))?;
        }
        Ok(())
    }

    /// Takes one of the names of `digest` away when it has as many as it may have.
    fn bound_names(&mut self, digest: &Digest, key: &str) -> Result<(), StoreError> {
        let other = {
            let mut names = self
                .references
                .get(digest.as_bytes())
                .map_err(failed("count the names of content"))?;
            if names.len() < MAX_NAMES {
                return Ok(());
            }
            names
                .find_map(|name| match name {
                    Ok(name) => (name.value() != key).then(|| Ok(name.value().to_owned())),
                    Err(error) => Some(Err(error)),
                })
                .transpose()
                .map_err(failed("count the names of content"))?
        };
        match other {
            Some(other) => self.remove(&other),
            None => Ok(()),
        }
    }

    fn drop_content(&mut self, digest: &Digest) -> Result<(), redb::Error> {
        self.references.remove_all(digest.as_bytes())?;
        let length = self
            .contents
            .remove(digest.as_bytes())?
            .map_or(0, |row| row.value().0);
        let bytes = self.bytes()?;
        self.meta.insert("bytes", bytes.saturating_sub(length))?;
        self.effects.push(Effect::Dropped { digest: *digest });
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
            self.effects.push(Effect::Gone { key: key.to_owned() });
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
            let is_orphan = self
                .references
                .get(digest.as_bytes())
                .map_err(failed("drop a reference"))?
                .is_empty();
            self.effects.push(Effect::Unnamed {
                digest: *digest,
                is_orphan,
            });
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
