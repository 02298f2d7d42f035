//! Content that leaves: eviction for room, healing of what is damaged, and the scrub that looks for it.
//!
//! Order of a removal, each step closing one race: a marker is made (a kill from here on leaves something to find), the
//! index forgets durably (nobody new can be sent to the file), the file is unlinked (who reads it keeps it), the marker
//! goes.

use std::{collections::HashSet, fs::File, io::Read, path::Path, sync::PoisonError, sync::atomic::Ordering};

use kato_shared::{Digest, chain::Chain, digest::Hasher};

use super::{
    Store, StoreError,
    content::NoRoom,
    layout::{Space, remove_if_there},
    quota::{Usage, Verdict, victims},
    tables::Change,
};

/// Free bytes that the index needs to write a change down, generously.
const INDEX_ROOM: u64 = 1 << 20;

/// What [`Store::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Content files read.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Content that was missing or other than its digest; removed from the store.
    pub damaged: Vec<Digest>,
    /// Content files that the index does not name; removed.
    pub unnamed: Vec<Digest>,
}

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
        match self.0.quota.judge(1, usage) {
            Verdict::After(bytes) if bytes > usage.stored => Err(NoRoom::Quota { needed: bytes }),
            Verdict::Fits | Verdict::After(_) => Ok(()),
        }
    }

    /// Makes sure that `needed` bytes may be written, evicting for them if it must.
    pub(super) fn make_room(&self, needed: u64) -> Result<(), NoRoom> {
        match self.0.quota.judge(needed, self.usage()?) {
            Verdict::Fits => Ok(()),
            Verdict::After(bytes) => self.evict_for(bytes),
        }
    }

    /// Evicts at least `bytes` bytes of content, or nothing.
    pub(super) fn evict_for(&self, bytes: u64) -> Result<(), NoRoom> {
        self.make_index_room();
        // Last-use times that only this process knows must count.
        self.flush_uses().map_err(NoRoom::Disk)?;
        let _no_commit = self.0.moving.write().unwrap_or_else(PoisonError::into_inner);
        let rows = self.0.index.content().map_err(NoRoom::Disk)?;
        let chosen = victims(rows, bytes, &self.0.in_use.now()).ok_or(NoRoom::Quota { needed: bytes })?;
        let freed: u64 = chosen.iter().map(|row| row.length).sum();
        let digests: Vec<Digest> = chosen.iter().map(|row| row.digest).collect();
        tracing::info!(
            contents = digests.len(),
            bytes = freed,
            "evicting the least recently used content"
        );
        self.discard(&digests).map_err(NoRoom::Disk)?;
        self.restore_reserve();
        Ok(())
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

    /// Forgets one content that turned out to be damaged or missing.
    pub(super) fn forget_content(&self, digest: &Digest) {
        let _no_commit = self.0.moving.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.discard(&[*digest]) {
            tracing::warn!(%digest, error = %Chain(&error), "damaged content could not be forgotten");
        }
    }

    /// Writes the last-use times that have come together. Called now and then, before an eviction, and at the end.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be changed; the times are then kept for the next call.
    pub fn flush_uses(&self) -> Result<(), StoreError> {
        let touched = std::mem::take(&mut *self.0.touched.lock().unwrap_or_else(PoisonError::into_inner));
        if touched.is_empty() {
            return Ok(());
        }
        let changes = touched
            .iter()
            .map(|(digest, at)| Change::Touch {
                digest: *digest,
                at: *at,
            })
            .collect();
        let outcome = self.0.index.submit_blocking(changes);
        if outcome.is_err() {
            let mut newer = self.0.touched.lock().unwrap_or_else(PoisonError::into_inner);
            for (digest, at) in touched {
                newer.entry(digest).or_insert(at);
            }
        }
        outcome
    }

    /// Reads all content, removes what is not what its digest says, and files that the index does not name.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the folder cannot be read.
    pub fn verify(&self) -> Result<Verification, StoreError> {
        self.0.behind.settle_all();
        let mut found = Verification::default();
        let mut named = HashSet::new();
        for row in self.0.index.content()? {
            named.insert(row.digest);
            let in_use = self.0.in_use.take(row.digest);
            found.checked += 1;
            found.bytes += row.length;
            if digest_of(&self.0.layout.content(&row.digest)).is_none_or(|digest| digest != row.digest) {
                drop(in_use);
                self.forget_content(&row.digest);
                found.damaged.push(row.digest);
            }
        }
        found.unnamed = self.sweep(&named)?;
        Ok(found)
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
            if !named.contains(&digest) && self.0.index.content_length(&digest)?.is_none() {
                self.discard(&[digest])?;
                unnamed.push(digest);
            }
        }
        Ok(unnamed)
    }

    /// The caller holds `moving` for itself.
    fn discard(&self, digests: &[Digest]) -> Result<(), StoreError> {
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
        Ok(Usage {
            stored: self.totals().map_err(NoRoom::Disk)?.bytes,
            reserved: self.0.reserved.load(Ordering::Relaxed),
            written: self.0.written.load(Ordering::Relaxed),
            space: Space { ..space },
        })
    }
}

fn digest_of(path: &Path) -> Option<Digest> {
    let mut file = File::open(path).ok()?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0_u8; 256 << 10];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}
