//! Snapshots: what a store held at one moment, as a document that can be carried, compared and served from.
//!
//! ```text
//! root (JSON) → chunks (zstd JSONL, in the order of keys) → entries → content by digest
//! ```
//!
//! Flow: [`mod@collect`] walks the store's index and makes an [`Entry`] of every stored response that may leave; [`Snapshot::encode`] cuts
//! them into chunks where the digest of a key says so, so that a change stays in its chunk and the others keep their
//! digests; [`Library`] keeps roots and chunks beside the store; [`Snapshot::variants`] finds the responses of a key again.
//!
//! Invariants:
//! * the same entries make the same root, byte for byte: nothing in it depends on when or where it was made;
//! * no secret of a request is in an entry: see [`LeftOut`], and the list of header fields that may cross;
//! * what is read was checked against its digest and its limits first, since it may come from a medium.
//!
//! Deliberately absent: payloads (the store has them), signatures and media (see `bundle/`), HTTP (see `pipeline/`).

mod chunk;
mod collect;
mod entry;
mod group;
mod library;
mod secrets;
mod wanted;

pub use chunk::{ChunkRef, Encoded, MOST_CHUNKS, Root, SnapshotError};
pub use collect::{Collected, collect};
pub use entry::{Class, Entry, LeftOut, Stays};
pub use group::{Image, group, image};
pub use library::{Library, LibraryError, Record, Side};
pub use secrets::{Closed, Parameters, judge};
pub use wanted::{Wanted, WantedError, WantedUrl};

use std::collections::BTreeMap;

use kato_shared::Digest;

/// All entries of one moment, sorted by key and selecting fields, in memory: some 600 bytes each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    entries: Vec<Entry>,
}

impl Snapshot {
    /// A snapshot of `entries`, in whatever order. Of two for the same key and selecting fields the later one stays.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|one, other| one.place().cmp(&other.place()));
        // The sort is stable: the later of two equal ones stands behind.
        entries.reverse();
        entries.dedup_by(|one, kept| one.place() == kept.place());
        entries.reverse();
        Self { entries }
    }

    /// All entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries of the cache key `key`, one for each choice of selecting fields.
    pub fn variants(&self, key: &str) -> &[Entry] {
        let begin = self.entries.partition_point(|entry| entry.key.as_str() < key);
        let count = self.entries[begin..].partition_point(|entry| entry.key == key);
        &self.entries[begin..begin + count]
    }

    /// The entries whose cache keys begin with `prefix`.
    pub fn under(&self, prefix: &str) -> &[Entry] {
        let begin = self.entries.partition_point(|entry| entry.key.as_str() < prefix);
        let count = self.entries[begin..].partition_point(|entry| entry.key.starts_with(prefix));
        &self.entries[begin..begin + count]
    }

    /// The same, with the entries of `before` wherever nothing but the moment has changed since: what was merely validated is nothing new. Such an
    /// entry says when it was received then, so that its age is never told too small.
    #[must_use]
    pub fn settled_on(mut self, before: &Self) -> Self {
        for entry in &mut self.entries {
            let known = before.variants(&entry.key).iter();
            let known = known.filter(|known| known.time <= entry.time && known.says_the_same(entry));
            if let Some(known) = known.max_by_key(|known| known.time) {
                *entry = known.clone();
            }
        }
        self
    }

    /// All content that the entries name, with its size in bytes.
    pub fn contents(&self) -> BTreeMap<Digest, u64> {
        self.entries
            .iter()
            .map(|entry| (entry.digest, entry.length))
            .collect()
    }
}

#[cfg(test)]
mod tests;
