//! The folder of snapshots beside a store: roots and chunks by digest, and which of them are which.
//!
//! ```text
//! <cache>/snapshots/blobs/sha256/<hex>              roots and chunks
//! <cache>/snapshots/exported/<series>/<seq>.json    what left, so that `--since <seq>` knows what the other side has
//! <cache>/snapshots/imported/<series>/<seq>.json    what came and is closed: everything that it names is here
//! <cache>/snapshots/pending/<series>/<seq>.json     what came and lacks something
//! <cache>/snapshots/parts/                          parts of large content, until all are here
//! <cache>/snapshots/keyrings/                       keys of archives that operators have named here
//! <cache>/snapshots/active.json                     the one that is served
//! ```
//!
//! Each document is replaced in one step, so that a reader sees the old one or the new one. Payloads are in the store.
//!
//! Invariant: a record is written only when its root and all its chunks are durably here.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::{
    Digest,
    durable::{self, DurableError},
};
use serde::{Deserialize, Serialize};

use super::{Encoded, Root, Snapshot, SnapshotError};

/// The folder of snapshots beside a store.
#[derive(Debug, Clone)]
pub struct Library {
    folder: PathBuf,
}

/// On which side of the gap a record was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It left from here.
    Exported,
    /// It came here, and all that it names is here.
    Imported,
    /// It came here, and something is missing.
    Pending,
}

impl Side {
    const fn folder(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Imported => "imported",
            Self::Pending => "pending",
        }
    }
}

/// A snapshot by its place in a series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The series.
    pub series: String,
    /// Which series of that name: drawn by chance when it begins.
    pub series_id: String,
    /// The place, from 1 on.
    pub seq: u64,
    /// The root of the snapshot.
    pub root: Digest,
    /// When it was made.
    pub created: Timestamp,
}

/// Why the library cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// A file.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A file that cannot be read.
    #[error("reading `{path}` failed")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A document that is none.
    #[error("`{path}` is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The document that says which snapshot is served.
    #[error(
        "`{path}`, which says which snapshot is served, is damaged\nhint: move it away and import the newest bundle once more: what is stored is not read again; until then `serve --snapshot N` serves snapshot N"
    )]
    Active {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A snapshot that cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl Library {
    /// The library of the store in `cache`; its folder is made when something is put into it.
    pub fn new(cache: &Path) -> Self {
        Self {
            folder: cache.join("snapshots"),
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the root or chunk `digest` is here.
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob(digest).is_file()
    }

    /// The bytes of the root or chunk `digest`, if it is here and whole.
    pub fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        fs::read(self.blob(digest))
            .ok()
            .filter(|bytes| Digest::of(bytes) == *digest)
    }

    /// Keeps `bytes`, a root or chunk, durably.
    ///
    /// # Errors
    /// [`LibraryError::Durable`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, LibraryError> {
        let digest = Digest::of(bytes);
        if self.get(&digest).is_none() {
            let path = self.blob(&digest);
            durable::create_folder(path.parent().unwrap_or(&path))?;
            durable::write(&path, bytes, 0o644)?;
        }
        Ok(digest)
    }

    /// Keeps a snapshot: its chunks first, its root last.
    ///
    /// # Errors
    /// [`LibraryError::Durable`].
    pub fn keep(&self, snapshot: &Encoded) -> Result<(), LibraryError> {
        for (_, bytes) in &snapshot.chunks {
            self.put(bytes)?;
        }
        self.put(&snapshot.root_bytes)?;
        Ok(())
    }

    /// The root `digest`.
    ///
    /// # Errors
    /// [`SnapshotError`] when it is missing or damaged.
    pub fn root(&self, digest: Digest) -> Result<Root, SnapshotError> {
        let bytes = self
            .get(&digest)
            .ok_or(SnapshotError::Missing { what: "root", digest })?;
        Root::decode(digest, &bytes)
    }

    /// The snapshot with the root `digest`.
    ///
    /// # Errors
    /// [`SnapshotError`] when a part of it is missing or damaged.
    pub fn load(&self, digest: Digest) -> Result<Snapshot, SnapshotError> {
        Snapshot::decode(digest, |digest| self.get(digest))
    }

    /// The records of `series` on `side`, in order.
    ///
    /// # Errors
    /// [`LibraryError`] with the document that cannot be read.
    pub fn records(&self, side: Side, series: &str) -> Result<Vec<Record>, LibraryError> {
        let folder = self.folder.join(side.folder()).join(series);
        let mut records = Vec::new();
        for path in listing(&folder)? {
            if path.extension().is_some_and(|kind| kind == "json") {
                records.extend(read::<Record>(&path)?);
            }
        }
        records.sort_by_key(|record| record.seq);
        Ok(records)
    }

    /// Where the records of `series` are that left from here.
    pub fn exported(&self, series: &str) -> PathBuf {
        self.folder.join(Side::Exported.folder()).join(series)
    }

    /// The names of all series on `side`.
    ///
    /// # Errors
    /// [`LibraryError::Read`].
    pub fn series(&self, side: Side) -> Result<Vec<String>, LibraryError> {
        let folders = listing(&self.folder.join(side.folder()))?;
        let mut names: Vec<String> = folders
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Writes `record` down.
    ///
    /// # Errors
    /// [`LibraryError::Durable`].
    pub fn note(&self, side: Side, record: &Record) -> Result<(), LibraryError> {
        let path = self.record(side, &record.series, record.seq);
        durable::create_folder(path.parent().unwrap_or(&path))?;
        Ok(durable::write_json(&path, record, 0o644)?)
    }

    /// Removes the record of `seq` in `series`; its roots and chunks stay until [`Library::sweep`].
    ///
    /// # Errors
    /// [`LibraryError::Durable`].
    pub fn forget(&self, side: Side, series: &str, seq: u64) -> Result<(), LibraryError> {
        Ok(durable::remove(&self.record(side, series, seq))?)
    }

    /// The snapshot that is served, if one was ever activated.
    ///
    /// # Errors
    /// [`LibraryError`] when the document is damaged.
    pub fn active(&self) -> Result<Option<Record>, LibraryError> {
        read(&self.folder.join("active.json")).map_err(|error| match error {
            LibraryError::Damaged { path, source } => LibraryError::Active { path, source },
            other @ (LibraryError::Durable(_)
            | LibraryError::Read { .. }
            | LibraryError::Active { .. }
            | LibraryError::Snapshot(_)) => other,
        })
    }

    /// Makes `record` the one that is served.
    ///
    /// # Errors
    /// [`LibraryError::Durable`]; the one before then stays.
    pub fn activate(&self, record: &Record) -> Result<(), LibraryError> {
        durable::create_folder(&self.folder)?;
        Ok(durable::write_json(
            &self.folder.join("active.json"),
            record,
            0o644,
        )?)
    }

    /// Keeps a copy of the keyring at `path`, of an archive whose packages are held: when its keys expire is told from it later.
    ///
    /// # Errors
    /// [`LibraryError`] when it cannot be read or kept.
    pub fn keep_keyring(&self, path: &Path) -> Result<(), LibraryError> {
        let bytes = fs::read(path).map_err(|source| LibraryError::Read {
            path: path.to_owned(),
            source,
        })?;
        let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or("gpg");
        let folder = self.folder.join("keyrings");
        let own = folder.join(format!("{}.{kind}", Digest::of(&bytes).hex()));
        if !own.exists() {
            durable::create_folder(&folder)?;
            durable::write(&own, &bytes, 0o644)?;
        }
        Ok(())
    }

    /// The keyrings that were kept, in the order of their digests.
    ///
    /// # Errors
    /// [`LibraryError::Read`].
    pub fn keyrings(&self) -> Result<Vec<PathBuf>, LibraryError> {
        let mut files = listing(&self.folder.join("keyrings"))?;
        files.sort();
        Ok(files)
    }

    /// Removes roots and chunks that no record on any side names; returns how many.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn sweep(&self) -> Result<u64, LibraryError> {
        let mut named = std::collections::HashSet::new();
        for side in [Side::Exported, Side::Imported, Side::Pending] {
            for series in self.series(side)? {
                for record in self.records(side, &series)? {
                    named.insert(record.root);
                    if let Ok(root) = self.root(record.root) {
                        named.extend(root.chunks.iter().map(|chunk| chunk.digest));
                    }
                }
            }
        }
        let mut removed = 0;
        for path in listing(&self.folder.join("blobs").join("sha256"))? {
            let digest = path
                .file_name()
                .and_then(|name| name.to_str()?.parse::<Digest>().ok());
            if digest.is_none_or(|digest| !named.contains(&digest)) {
                durable::remove(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join("sha256").join(digest.hex())
    }

    fn record(&self, side: Side, series: &str, seq: u64) -> PathBuf {
        self.folder
            .join(side.folder())
            .join(series)
            .join(format!("{seq:06}.json"))
    }
}

/// What lies in `folder`; nothing where there is none.
fn listing(folder: &Path) -> Result<Vec<PathBuf>, LibraryError> {
    let failed = |source| LibraryError::Read {
        path: folder.to_owned(),
        source,
    };
    match fs::read_dir(folder) {
        Ok(listing) => listing.map(|item| Ok(item.map_err(failed)?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

/// The document at `path`, if there is one.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, LibraryError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(LibraryError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| LibraryError::Damaged {
            path: path.to_owned(),
            source,
        })
}
