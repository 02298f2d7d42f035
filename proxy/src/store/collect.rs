//! Garbage: content that nobody can ask for, answers that nobody wants, files that nobody writes, pages that nobody uses.
//!
//! Everything here works from what the store itself knows; nothing is asked of an upstream, and nothing that could still be served
//! is given up.

use std::{collections::HashSet, fs, path::PathBuf, sync::PoisonError};

use kato_shared::{Digest, chain::Chain};

use super::{Store, StoreError, StoredResponse, tables::Change};

/// Names or contents that one transaction removes at most: others wait for it.
const AT_ONCE: usize = 1024;

/// What [`Store::collect`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Contents that no stored response named.
    pub contents: u64,
    /// Their bytes.
    pub content_bytes: u64,
    /// Stored responses that said that there is nothing, and are stale.
    pub negatives: u64,
    /// Keys about which no document that is stored teaches anything any more.
    pub lessons: u64,
    /// Temporary files that nobody writes or reads.
    pub temporary: u64,
    /// Their bytes.
    pub temporary_bytes: u64,
    /// The size of the index file before, in bytes.
    pub index_before: u64,
    /// And after.
    pub index_after: u64,
}

/// What left the store with the names that were removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Stored responses, by cache key.
    pub keys: u64,
    /// Contents that had no other name.
    pub contents: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Store {
    /// Collects garbage. `is_expired` tells which stored responses may go because they are negative and stale. Blocks, and
    /// lookups wait while the index file is compacted.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be read or changed; what was removed until then is gone.
    pub fn collect(
        &self,
        is_expired: impl Fn(&str, &StoredResponse) -> bool,
    ) -> Result<Collected, StoreError> {
        self.0.behind.settle_all();
        let mut collected = Collected::default();
        let mut expired = Vec::new();
        self.0.index.handle().for_each("", |key, responses| {
            if responses.iter().all(|response| is_expired(key, response)) {
                expired.push(key.to_owned());
            }
        })?;
        for keys in expired.chunks(AT_ONCE) {
            collected.negatives += keys.len() as u64;
            let removed = self.remove_blocking(keys)?;
            collected.contents += removed.contents;
            collected.content_bytes += removed.bytes;
        }
        let unnamed: Vec<Digest> = self
            .0
            .index
            .handle()
            .unnamed()?
            .into_iter()
            .map(|(digest, _)| digest)
            .collect();
        for digests in unnamed.chunks(AT_ONCE) {
            let (contents, bytes) = self.discard_unnamed(digests.iter().copied().collect())?;
            collected.contents += contents;
            collected.content_bytes += bytes;
        }
        collected.lessons = self.forget_lessons()?.keys;
        (collected.temporary, collected.temporary_bytes) = self.sweep_temporary();
        (collected.index_before, collected.index_after) = self.0.index.handle().compact()?;
        Ok(collected)
    }

    /// Forgets `keys`, and the content that no other key names and nobody reads; content that is being read follows when that
    /// ends.
    pub(super) fn remove_blocking(&self, keys: &[String]) -> Result<Removed, StoreError> {
        self.0.behind.settle(keys.iter().map(String::as_str), None);
        self.make_index_room();
        let changes = keys
            .iter()
            .map(|key| Change::Remove { key: key.clone() })
            .collect();
        let outcome = self.0.index.submit_blocking(changes);
        self.0.hot.forget(keys.iter().map(String::as_str));
        outcome?;
        let (contents, bytes) = self.reap()?;
        Ok(Removed {
            keys: keys.len() as u64,
            contents,
            bytes,
        })
    }

    /// Removes content by digest, with every stored response that names it, unless it is being read.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be changed.
    pub fn remove_content(&self, digest: &Digest) -> Result<Removed, StoreError> {
        self.0.behind.settle([], Some(digest));
        self.make_index_room();
        let _no_commit = self.0.moving.write().unwrap_or_else(PoisonError::into_inner);
        let keys = self.0.index.handle().keys_of(digest)?;
        let Some(bytes) = self.0.index.content_length(digest)? else {
            return Ok(Removed::default());
        };
        let is_read = self.0.in_use.now().contains(digest);
        if is_read {
            let changes = keys.iter().map(|key| Change::Remove { key: key.clone() });
            let outcome = self.0.index.submit_blocking(changes.collect());
            self.0.hot.forget(keys.iter().map(String::as_str));
            outcome?;
        } else {
            self.discard(&[*digest])?;
        }
        Ok(Removed {
            keys: keys.len() as u64,
            contents: u64::from(!is_read),
            bytes: if is_read { 0 } else { bytes },
        })
    }

    /// Removes what has lost its last name since the last call, but for what is being read; tells how many contents and bytes.
    /// Also brings pins in line with names that went.
    pub(super) fn reap(&self) -> Result<(u64, u64), StoreError> {
        let ledger = self.0.index.ledger();
        for digest in ledger.take_doubtful() {
            ledger.weigh(&digest, self.0.index.handle())?;
        }
        let orphans = ledger.take_orphans();
        if orphans.is_empty() {
            return Ok((0, 0));
        }
        let all = orphans.clone();
        self.discard_unnamed(orphans)
            .inspect_err(|_| ledger.keep_orphans(all))
    }

    /// Removes those of `digests` that no response names, no pin holds and nobody reads; the latter wait for [`Store::reap`].
    fn discard_unnamed(&self, digests: HashSet<Digest>) -> Result<(u64, u64), StoreError> {
        let ledger = self.0.index.ledger();
        let _no_commit = self.0.moving.write().unwrap_or_else(PoisonError::into_inner);
        let in_use = self.0.in_use.now();
        let (mut gone, mut bytes, mut wait) = (Vec::new(), 0, Vec::new());
        for digest in digests {
            let Some(length) = self.0.index.content_length(&digest)? else {
                continue;
            };
            if ledger.is_content_pinned(&digest) || self.0.index.key_of(&digest)?.is_some() {
                continue;
            }
            if in_use.contains(&digest) {
                wait.push(digest);
            } else {
                gone.push(digest);
                bytes += length;
            }
        }
        ledger.keep_orphans(wait);
        if !gone.is_empty() {
            self.discard(&gone)?;
        }
        Ok((gone.len() as u64, bytes))
    }

    /// Removes unfinished bodies that this process does not hold open: it is the only one that works on the store.
    fn sweep_temporary(&self) -> (u64, u64) {
        let (mut files, mut bytes) = (0, 0);
        for path in self.0.layout.abandoned() {
            let length = fs::metadata(&path).map_or(0, |found| found.len());
            match fs::remove_file(&path) {
                Ok(()) => {
                    files += 1;
                    bytes += length;
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), error = %Chain(&error), "a temporary file cannot be removed");
                }
            }
        }
        (files, bytes)
    }
}

/// The files among `there` that this process does not hold open; all of them must have been there before the call, so that one
/// whose writer is at work is open already.
pub(super) fn not_open(there: Vec<PathBuf>) -> Vec<PathBuf> {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        // Without knowing, nothing goes; the next start clears the folder.
        return Vec::new();
    };
    let open: HashSet<PathBuf> = descriptors
        .filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok())
        .collect();
    there
        .into_iter()
        .filter(|path| !open.contains(&fs::canonicalize(path).unwrap_or_else(|_gone| path.clone())))
        .collect()
}
