//! Makes many small bodies durable with few flushes.
//!
//! Order: room is made; a marker that lists the batch is flushed (a kill or a power cut from here on leaves something to find); the
//! files are written where they belong; they are flushed together; the index names them in one transaction; the marker goes.
//!
//! Invariant: the index names nothing before the flush has returned.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, atomic::Ordering},
};

use kato_shared::{
    Digest,
    durable::{self, DurableError},
};

use super::{
    Store, StoreError, behind::Item, content::NoRoom, layout::remove_if_there, quota::Need, tables::Change,
};

/// Up to this many files are flushed one by one: what else is unwritten on the file system then does not matter.
const FEW: usize = 4;

/// With more than this many bytes of downloads on their way to the disk, flushing the whole file system would wait for them.
const BUSY: u64 = 32 << 20;

/// File systems whose `syncfs(2)` flushes what belongs to them and reports errors, by their magic numbers: ext2 to ext4, XFS, btrfs, F2FS,
/// tmpfs, overlayfs. Others, FUSE among them, are flushed file by file.
const WHOLE: [u64; 6] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0xF2F5_2010,
    0x0102_1994,
    0x794C_7630,
];

impl Store {
    /// Makes the bodies of `batch` durable and stores the responses that name them.
    pub(super) fn make_durable(&self, batch: &[Arc<Item>]) -> Result<(), NoRoom> {
        let bodies: BTreeMap<Digest, &Item> = batch
            .iter()
            .map(|item| (item.response.content.digest, &**item))
            .collect();
        self.make_room_for(Need {
            bytes: bodies.values().map(|item| item.body.len() as u64).sum(),
            objects: batch.len() as u64,
        })?;
        let _no_eviction = self.0.moving.read().unwrap_or_else(PoisonError::into_inner);
        let marker = self
            .0
            .layout
            .mark_batch(bodies.keys())
            .map_err(|error| NoRoom::Disk(error.into()))?;
        let outcome = self.place_all(&bodies).map_err(StoreError::from).and_then(|()| {
            let put = |item: &Arc<Item>| Change::Put {
                key: item.key.clone(),
                response: Box::new(item.response.clone()),
            };
            self.0.index.submit_blocking(batch.iter().map(put).collect())
        });
        if let Err(error) = outcome {
            if !self.take_back(bodies.keys()) {
                marker.keep();
            }
            return Err(NoRoom::Disk(error));
        }
        Ok(())
    }

    fn place_all(&self, bodies: &BTreeMap<Digest, &Item>) -> Result<(), DurableError> {
        let mut placed = Vec::with_capacity(bodies.len());
        for (digest, item) in bodies {
            let path = self.0.layout.content(digest);
            let file = create(&path).and_then(|file| write(&file, &path, &item.body).map(|()| file));
            match file {
                Ok(file) => placed.push((file, path)),
                // The same content under another name; it may not have been flushed yet.
                Err(error)
                    if is_there(&error)
                        && let Some(file) = same(&path, &item.body) =>
                {
                    placed.push((file, path));
                }
                // This body was verified just now, and that one has been damaged since. Who reads the old file keeps it.
                Err(error) if is_there(&error) => {
                    let temporary = self.0.layout.new_temp();
                    let replaced = durable::create_new(&temporary).and_then(|file| {
                        write(&file, &temporary, &item.body)?;
                        durable::commit(&file, &temporary, &path)
                    });
                    if replaced.is_err() {
                        // What stays is removed at the next start.
                        let _left = remove_if_there(&temporary);
                    }
                    replaced?;
                }
                Err(error) => return Err(error),
            }
        }
        self.flush_files(&placed)
    }

    fn flush_files(&self, placed: &[(File, PathBuf)]) -> Result<(), DurableError> {
        let under_way = self.0.written.load(Ordering::Relaxed);
        if placed.len() > FEW && under_way < BUSY && self.0.layout.can_flush_whole(&WHOLE) {
            return self.0.layout.flush_whole();
        }
        let mut folders = BTreeSet::new();
        for (file, path) in placed {
            file.sync_all().map_err(failed("flushing", path))?;
            // The file's folder, and the two above it, which may be new.
            folders.extend(path.ancestors().skip(1).take(3));
        }
        folders.into_iter().rev().try_for_each(durable::sync_folder)
    }

    /// Removes the files of a batch that failed, except what the index knows from before. False when the index does not say.
    fn take_back<'d>(&self, digests: impl IntoIterator<Item = &'d Digest>) -> bool {
        let mut is_certain = true;
        for digest in digests {
            match self.0.index.content_length(digest) {
                Ok(None) => is_certain &= remove_if_there(&self.0.layout.content(digest)).is_ok(),
                Ok(Some(_)) => {}
                Err(_unknown) => is_certain = false,
            }
        }
        is_certain
    }
}

/// A new file at `path`, with the folders above it.
fn create(path: &Path) -> Result<File, DurableError> {
    match durable::create_new(path) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(path);
            std::fs::create_dir_all(folder).map_err(failed("creating the folder", folder))?;
            durable::create_new(path)
        }
        outcome => outcome,
    }
}

fn is_there(error: &DurableError) -> bool {
    error.source.kind() == io::ErrorKind::AlreadyExists
}

/// The file at `path`, if it holds exactly `body`.
fn same(path: &Path, body: &[u8]) -> Option<File> {
    let file = File::open(path).ok()?;
    if file.metadata().ok()?.len() != body.len() as u64 {
        return None;
    }
    let mut found = vec![0; body.len()];
    file.read_exact_at(&mut found, 0).ok()?;
    (found == body).then_some(file)
}

fn write(mut file: &File, path: &Path, body: &[u8]) -> Result<(), DurableError> {
    file.write_all(body).map_err(failed("writing", path))
}

fn failed<'p>(action: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> DurableError + 'p {
    move |source| DurableError {
        action,
        path: path.to_owned(),
        source,
    }
}
