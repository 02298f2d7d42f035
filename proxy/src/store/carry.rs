//! What a bundle needs of the store: which content is here and where, and names for content that came by another way than a request.
//!
//! Content that came on a medium has the name [`carried_key`], below one prefix that is pinned: a snapshot stays whole whatever clients
//! ask for. Who removes a snapshot removes these names.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use kato_shared::{Digest, durable::DurableError};

use super::{
    ContentRef, NoRoom, Pin, Store, StoreError, StoredResponse, Temporary, blocking, tables::Change,
};

/// How the names of content begin that came on a medium. No request can ask for them.
pub const CARRIED: &str = "GET bundle://sha256/";

/// Rows of one transaction: others wait for it.
const BATCH: usize = 2048;

/// The name of content that came on a medium.
pub fn carried_key(digest: &Digest) -> String {
    format!("{CARRIED}{}", digest.hex())
}

impl Store {
    /// Those of `contents` that are not stored, or with another size.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be read.
    pub async fn missing(&self, contents: Vec<ContentRef>) -> Result<Vec<ContentRef>, StoreError> {
        let store = self.clone();
        blocking(move || {
            store.0.behind.settle_all();
            store.0.index.handle().lengths(&contents).map(|lengths| {
                contents
                    .into_iter()
                    .zip(lengths)
                    .filter(|(content, length)| *length != Some(content.length))
                    .map(|(content, _)| content)
                    .collect()
            })
        })
        .await
    }

    /// Where the content of `digest` lies if it is stored: for reading and for links, never for writing.
    pub fn content_path(&self, digest: &Digest) -> PathBuf {
        self.0.layout.content(digest)
    }

    /// Bytes that may be written on the file system of the store, after evicting all that is not pinned: the smaller of what the quota and
    /// the disk allow.
    ///
    /// # Errors
    /// [`StoreError`] when the index or the file system cannot be asked.
    pub fn room(&self) -> Result<u64, StoreError> {
        let pinned = self.pinned_total();
        let stored = self.totals()?.bytes;
        let space = self.0.layout.space().map_err(|source| StoreError::Read {
            path: self.dir().to_owned(),
            source: Arc::new(source),
        })?;
        let evictable = stored.saturating_sub(pinned.bytes);
        Ok(pinned
            .max_size
            .saturating_sub(pinned.bytes)
            .min(space.free.saturating_add(evictable)))
    }

    /// Keeps from eviction what comes by [`carried_key`].
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be changed.
    pub async fn hold_carried(&self) -> Result<(), StoreError> {
        self.pin(Pin::Prefix(CARRIED.to_owned())).await.map(drop)
    }

    /// Stores each response whose content is here under its key, in the place of an older one; what is newer here stays. Returns how many
    /// were stored.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be changed.
    pub async fn put_heads(&self, rows: Vec<(String, StoredResponse)>) -> Result<u64, StoreError> {
        let store = self.clone();
        blocking(move || {
            store.0.behind.settle_all();
            let _no_eviction = store
                .0
                .moving
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut count = 0;
            for rows in rows.chunks(BATCH) {
                let contents: Vec<ContentRef> = rows.iter().map(|(_, response)| response.content).collect();
                let lengths = store.0.index.handle().lengths(&contents)?;
                let mut changes = Vec::new();
                for ((key, response), length) in rows.iter().zip(lengths) {
                    if length == Some(response.content.length) && !store.has_newer(key, response)? {
                        changes.push(Change::Put {
                            key: key.clone(),
                            response: Box::new(response.clone()),
                        });
                    }
                }
                count += changes.len() as u64;
                if !changes.is_empty() {
                    store.0.index.submit_blocking(changes)?;
                }
                store.0.hot.forget(rows.iter().map(|(key, _)| key.as_str()));
            }
            Ok(count)
        })
        .await
    }

    /// Whether the response that is stored for the same choice is as new as `response`, and as good.
    fn has_newer(&self, key: &str, response: &StoredResponse) -> Result<bool, StoreError> {
        let known = self.0.index.responses(key)?;
        Ok(known.iter().any(|known| {
            known.head.selecting == response.head.selecting
                && known.head.times.response >= response.head.times.response
                && !known.head.invalidated
        }))
    }

    /// A body that is whole already, in the file at `path` on the same file system: the file gets a second name, and the first stays
    /// for the caller to remove.
    ///
    /// # Errors
    /// [`NoRoom`] when the link cannot be made.
    pub fn adopt(&self, path: &Path, length: u64) -> Result<Temporary, NoRoom> {
        Temporary::link(self, path, length).map_err(|source: io::Error| {
            NoRoom::Disk(
                DurableError {
                    action: "linking",
                    path: path.to_owned(),
                    source,
                }
                .into(),
            )
        })
    }
}
