//! Content that leaves: eviction for room, and files that nobody names.
//!
//! Order of a removal, each step closing one race: a marker is made (a kill from here on leaves something to find), the
//! index forgets durably (nobody new can be sent to the file), the file is unlinked (who reads it keeps it), the marker
//! goes.

use std::{collections::HashSet, sync::PoisonError, sync::atomic::Ordering};

use kato_shared::{Digest, chain::Chain};

use super::{
    Store, StoreError,
    content::NoRoom,
    layout::{Space, remove_if_there},
    ledger::Excess,
    quota::{Need, Usage, Verdict},
    tables::Change,
};

/// Free bytes that the index needs to write a change down, generously.
const INDEX_ROOM: u64 = 1 << 20;

/// Rows that one transaction writes down at most: others wait for it.
const ROWS_AT_ONCE: usize = 4096;

impl Store {
    /// Whether anything can be stored now.
    ///
    /// # Errors
    /// [`NoRoom`] when the disk has less than the floor of free space, and nothing to evict for it, or too little even for the
    /// index to write down what is evicted.
    pub fn check_room(&self) -> Result<(), NoRoom> {
        let usage = self.usage()?;
        if usage.space.free < INDEX_ROOM && !self.0.layout.reserve().exists() {
            return Err(NoRoom::Quota { needed: INDEX_ROOM });
        }
        let (pinned, _) = self.0.index.ledger().pinned();
        match self.0.quota.judge(Need { bytes: 1, objects: 1 }, usage) {
            Verdict::After { excess, .. } if excess.bytes > usage.stored.saturating_sub(pinned) => {
                Err(self.no_room(excess.bytes))
            }
            Verdict::Fits | Verdict::After { .. } => Ok(()),
        }
    }

    /// Makes sure that `needed` bytes may be written, evicting for them if it must.
    pub(super) fn make_room(&self, needed: u64) -> Result<(), NoRoom> {
        self.make_room_for(Need {
            bytes: needed,
            objects: 1,
        })
    }

    /// [`Self::make_room`] for several bodies.
    pub(super) fn make_room_for(&self, need: Need) -> Result<(), NoRoom> {
        match self.0.quota.judge(need, self.usage()?) {
            Verdict::Fits => Ok(()),
            // Just after a start what may go is not known yet: the quota waits a moment, and no client does.
            Verdict::After { is_disk: false, .. } if !self.0.index.ledger().is_loaded() => Ok(()),
            Verdict::After { excess, .. } => self.evict(excess),
        }
    }

    /// Evicts what is stored beyond the quota: a body of unknown length was larger than its room, the settings have
    /// changed, or the quota had to wait.
    pub(super) fn trim(&self) -> Result<(), NoRoom> {
        let need = Need { bytes: 0, objects: 0 };
        match self.0.quota.judge(need, self.usage()?) {
            Verdict::After { excess, .. } if self.0.index.ledger().is_loaded() => self.evict(excess),
            Verdict::Fits | Verdict::After { .. } => Ok(()),
        }
    }

    /// Evicts at least `bytes` bytes of content, or nothing.
    pub(super) fn evict_for(&self, bytes: u64) -> Result<(), NoRoom> {
        self.evict(Excess { bytes, contents: 0 })
    }

    fn evict(&self, excess: Excess) -> Result<(), NoRoom> {
        let ledger = self.0.index.ledger();
        let _no_commit = self.0.moving.write().unwrap_or_else(PoisonError::into_inner);
        let taken = ledger
            .take(excess, &self.0.in_use.now())
            .ok_or_else(|| self.no_room(excess.bytes))?;
        // Not before: where nothing can go, the space that is held back stays so.
        self.make_index_room();
        tracing::info!(
            contents = taken.len(),
            bytes = taken.iter().map(|(_, length)| length).sum::<u64>(),
            "evicting content"
        );
        let digests: Vec<Digest> = taken.iter().map(|(digest, _)| *digest).collect();
        match self.discard(&digests) {
            Ok(()) => {
                ledger.note_evicted(&taken);
                self.restore_reserve();
                Ok(())
            }
            Err(error) => {
                ledger.give_back(taken);
                Err(NoRoom::Disk(error))
            }
        }
    }

    /// Why there is no room for `needed` bytes.
    fn no_room(&self, needed: u64) -> NoRoom {
        let (pinned, _) = self.0.index.ledger().pinned();
        if pinned > 0 && pinned.saturating_add(needed) > self.0.quota.max_size {
            NoRoom::Pinned {
                needed,
                pinned,
                max_size: self.0.quota.max_size,
            }
        } else {
            NoRoom::Quota { needed }
        }
    }

    /// Gives up the space that is held back when nothing else is left: a change that frees space, or that must not be lost, has to
    /// be written down.
    pub(super) fn make_index_room(&self) {
        let is_full = self.0.layout.space().is_ok_and(|space| space.free < INDEX_ROOM);
        if is_full && self.0.reserve.give_up() {
            tracing::info!("the disk is full; the space that was held back is used to make room");
        }
    }

    /// Holds space back again.
    pub(super) fn restore_reserve(&self) {
        if let Ok(space) = self.0.layout.space() {
            self.0.reserve.make(space);
        }
    }

    /// What is done now and then, and at the end: writes down what eviction has learned, and removes content that lost its
    /// last name while it was being read.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be changed; it is tried again the next time.
    pub fn upkeep(&self) -> Result<(), StoreError> {
        loop {
            let rows = self.0.index.ledger().changes(ROWS_AT_ONCE);
            if rows.is_empty() {
                break;
            }
            let changes = rows
                .iter()
                .map(|(digest, standing)| Change::Stand {
                    digest: *digest,
                    standing: *standing,
                })
                .collect();
            if let Err(error) = self.0.index.submit_blocking(changes) {
                self.0.index.ledger().note_unwritten(&rows);
                return Err(error);
            }
        }
        self.reap()?;
        if let Err(error) = self.trim() {
            crate::seldom::warn_seldom!(error = %Chain(&error), "the store is above its quota");
        }
        Ok(())
    }

    /// Removes content files that the index does not name; `named` are known to be named already.
    pub(super) fn sweep(&self, named: &HashSet<Digest>) -> Result<Vec<Digest>, StoreError> {
        let mut unnamed = Vec::new();
        let files = self.0.layout.content_files().map_err(|source| StoreError::Read {
            path: self.0.layout.content_folder(),
            source: source.into(),
        })?;
        for (digest, _) in files {
            let _no_commit = self.0.moving.write().unwrap_or_else(PoisonError::into_inner);
            // What was evicted since the folder was read is gone from both.
            if !named.contains(&digest)
                && self.0.index.content_length(&digest)?.is_none()
                && self.0.layout.content(&digest).exists()
            {
                self.discard(&[digest])?;
                unnamed.push(digest);
            }
        }
        Ok(unnamed)
    }

    /// The caller holds `moving` for itself.
    pub(super) fn discard(&self, digests: &[Digest]) -> Result<(), StoreError> {
        let markers = digests
            .iter()
            .map(|digest| self.0.layout.mark(digest))
            .collect::<Result<Vec<_>, _>>();
        // On a disk so full that no marker can be made, freeing space matters more than finding a leftover after a kill.
        let markers = markers.unwrap_or_default();
        let changes = digests
            .iter()
            .map(|digest| Change::Evict { digest: *digest })
            .collect();
        let outcome = self.0.index.submit_blocking(changes);
        self.0.hot.forget_all();
        outcome?;
        for digest in digests {
            self.0.hot.release(digest);
            let path = self.0.layout.content(digest);
            if let Err(error) = remove_if_there(&path) {
                tracing::warn!(path = %path.display(), %error, "evicted content cannot be removed");
            }
        }
        drop(markers);
        Ok(())
    }

    fn usage(&self) -> Result<Usage, NoRoom> {
        let space = self.0.layout.space().map_err(|source| {
            NoRoom::Disk(StoreError::Read {
                path: self.0.layout.dir().to_owned(),
                source: source.into(),
            })
        })?;
        let totals = self.totals().map_err(NoRoom::Disk)?;
        Ok(Usage {
            stored: totals.bytes,
            objects: totals.responses.max(totals.contents),
            reserved: self.0.reserved.load(Ordering::Relaxed),
            written: self.0.written.load(Ordering::Relaxed),
            space: Space { ..space },
        })
    }
}
