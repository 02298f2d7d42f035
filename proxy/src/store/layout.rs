//! The folder of the store: where things lie, who may work on it, and what a killed process left behind.
//!
//! ```text
//! <dir>/lock                              held while a process works on the store
//! <dir>/index.redb                        the index
//! <dir>/index.redb.new                    an index that is being founded
//! <dir>/index.redb.damaged                one that could not be read
//! <dir>/content-v2/sha256/aa/bb/rest      content, where a stock cacache reader looks for it
//! <dir>/tmp/<n>.part                      a body that is being received
//! <dir>/tmp/<digest>.moving               content that enters or leaves, and the index may not know it yet
//! <dir>/tmp/<n>.batch                     a list of digests for which the same is true
//! <dir>/quarantine/<digest>               content that was found damaged, for somebody to look at
//! <dir>/reserve                           space held back for a full disk
//! ```
//!
//! Invariant: a content file that the index does not name has a `.moving` marker or is in a `.batch`, so [`Layout::recover`] finds it
//! without reading the whole folder.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use kato_shared::{
    Digest,
    durable::{self, DurableError},
};
use rustix::fs::{FlockOperation, flock};

use super::{
    OpenError,
    collect::not_open,
    index_file::{self, Beginning},
};

/// Files that may lie in a store's folder. Anything else makes it a foreign folder while it has no index.
const OURS: [&str; 14] = [
    // Of the local authority, not of the store.
    "ca",
    "lock",
    "index.redb",
    "index.redb.new",
    "index.redb.damaged",
    "content-v2",
    "tmp",
    "reserve",
    "quarantine",
    // Of bundles: see `snapshot`.
    "snapshots",
    // Of verbs beside a server: see `beside`.
    "serve.sock",
    "view",
    "lost+found",
    "CACHEDIR.TAG",
];
/// The most files that are kept in quarantine, and their bytes: enough to see what kind of damage it is.
const QUARANTINE_FILES: usize = 64;
const QUARANTINE_BYTES: u64 = 256 << 20;

/// The paths of one store, locked for this process.
#[derive(Debug)]
pub(super) struct Layout {
    dir: PathBuf,
    next_temp: AtomicU64,
    is_read_only: bool,
    /// Holds the lock until the store is dropped.
    _lock: File,
}

/// The index of a store in `dir`.
pub(super) fn index(dir: &Path) -> PathBuf {
    dir.join("index.redb")
}

/// Whether a process holds the lock of the store in `dir`.
pub(super) fn is_locked(dir: &Path) -> bool {
    let lock = File::open(dir.join("lock"));
    lock.is_ok_and(|lock| {
        flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

impl Layout {
    /// Prepares the folder `dir` and takes its lock.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let unusable = |source: io::Error| OpenError::Unusable {
            path: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(unusable)?;
        refuse_foreign(dir)?;
        let lock = dir.join("lock");
        let writable = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock);
        let (lock, is_read_only) = match writable {
            // What lies here can still be served.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                tracing::warn!(dir = %dir.display(), "the store can only be read: nothing new is kept");
                (File::open(&lock).map_err(unusable)?, true)
            }
            opened => (opened.map_err(unusable)?, false),
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::Locked { path: dir.to_owned() }),
            Err(error) => return Err(unusable(error.into())),
        }
        let layout = Self {
            dir: dir.to_owned(),
            // Beyond the names of what was not removed, should it become writable.
            next_temp: AtomicU64::new(if is_read_only { 1 << 32 } else { 0 }),
            is_read_only,
            _lock: lock,
        };
        if is_read_only {
            return Ok(layout);
        }
        durable::remove_temporary_files(dir).map_err(|failed| unusable(failed.source))?;
        for folder in [layout.temp_folder(), layout.content_folder()] {
            durable::create_folder(&folder).map_err(|failed| unusable(failed.source))?;
        }
        // Backup programs skip folders that carry this tag (bford.info/cachedir).
        let tag = dir.join("CACHEDIR.TAG");
        if !tag.exists() {
            let text = b"Signature: 8a477f597d28d172789f06886806bc55\n# A kato-proxy store.\n";
            durable::write(&tag, text, 0o644).map_err(|failed| unusable(failed.source))?;
        }
        Ok(layout)
    }

    /// Whether the file system could only be read when the store was opened.
    pub(super) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// The store's folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The index file.
    pub(super) fn index(&self) -> PathBuf {
        index(&self.dir)
    }

    /// The folder below which cacache looks for SHA-256 content.
    pub(super) fn content_folder(&self) -> PathBuf {
        self.dir.join("content-v2").join("sha256")
    }

    /// Where the content of `digest` lies.
    pub(super) fn content(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.content_folder()
            .join(&hex[..2])
            .join(&hex[2..4])
            .join(&hex[4..])
    }

    /// A name for a new temporary file.
    pub(super) fn new_temp(&self) -> PathBuf {
        let n = self.next_temp.fetch_add(1, Ordering::Relaxed);
        self.temp_folder().join(format!("{n}.part"))
    }

    /// Marks that the content of `digest` may be there without the index knowing it.
    pub(super) fn mark(&self, digest: &Digest) -> Result<Marker, DurableError> {
        let path = self.temp_folder().join(format!("{}.moving", digest.hex()));
        // Not flushed: the folder is, together with the rename that follows, and the two are in order. Two fills of the same
        // content may mark it at once; one marker serves both.
        match durable::create_new(&path) {
            Err(error) if error.source.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(_) | Err(_) => Ok(Marker(path)),
        }
    }

    /// Marks that all of `digests` may be there without the index knowing them, durably.
    pub(super) fn mark_batch<'d>(
        &self,
        digests: impl IntoIterator<Item = &'d Digest>,
    ) -> Result<Marker, DurableError> {
        let number = self.next_temp.fetch_add(1, Ordering::Relaxed);
        let path = self.temp_folder().join(format!("{number}.batch"));
        let mut list = String::new();
        for digest in digests {
            list.push_str(&digest.hex());
            list.push('\n');
        }
        let mut file = durable::create_new(&path)?;
        let marker = Marker(path);
        file.write_all(list.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|source| DurableError {
                action: "writing",
                path: marker.0.clone(),
                source,
            })?;
        durable::sync_folder(&self.temp_folder())?;
        Ok(marker)
    }

    /// Removes what a killed process left: unfinished bodies, and content that the index does not name.
    pub(super) fn recover(&self, is_known: impl Fn(&Digest) -> bool) -> io::Result<Leftovers> {
        let mut leftovers = Leftovers::default();
        if self.is_read_only {
            return Ok(leftovers);
        }
        for entry in fs::read_dir(self.temp_folder())? {
            let path = entry?.path();
            for digest in marked(&path)? {
                if !is_known(&digest) {
                    leftovers.content += u64::from(remove_if_there(&self.content(&digest))?);
                }
            }
            leftovers.temporary += u64::from(remove_if_there(&path)?);
        }
        Ok(leftovers)
    }

    /// Unfinished bodies that nobody in this process has open.
    pub(super) fn abandoned(&self) -> Vec<PathBuf> {
        let there = folder(&self.temp_folder()).unwrap_or_default();
        let bodies = there
            .into_iter()
            .map(|(_, path)| path)
            .filter(|path| path.extension().is_some_and(|kind| kind == "part"));
        not_open(bodies.collect())
    }

    /// Bytes that this user may still write, and the size of the file system.
    pub(super) fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(Space {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            size: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    /// Every content file, as digest and size; files with other names are passed over.
    pub(super) fn content_files(&self) -> io::Result<Vec<(Digest, u64)>> {
        let mut found = Vec::new();
        for (high, first) in folder(&self.content_folder())? {
            for (low, second) in folder(&first)? {
                for (rest, path) in folder(&second)? {
                    if let Ok(digest) = format!("{high}{low}{rest}").parse() {
                        found.push((digest, fs::metadata(&path)?.len()));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Whether [`Layout::flush_whole`] does what it says: the file system is one of `known`, by magic number.
    pub(super) fn can_flush_whole(&self, known: &[u64]) -> bool {
        rustix::fs::statfs(&self.dir)
            .is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| known.contains(&kind)))
    }

    /// Flushes everything that is unwritten on the file system of the store.
    pub(super) fn flush_whole(&self) -> Result<(), DurableError> {
        File::open(&self.dir)
            .and_then(|dir| Ok(rustix::fs::syncfs(&dir)?))
            .map_err(|source| DurableError {
                action: "flushing the file system of",
                path: self.dir.clone(),
                source,
            })
    }

    /// Moves the content of `digest` into the quarantine; the oldest there goes when it is full, and what is missing stays missing.
    pub(super) fn quarantine(&self, digest: &Digest) -> Result<(), DurableError> {
        let from = self.content(digest);
        let Ok(found) = fs::metadata(&from) else {
            return Ok(());
        };
        let folder = self.dir.join("quarantine");
        durable::create_folder(&folder)?;
        let mut kept: Vec<_> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .collect();
        kept.sort();
        let mut bytes: u64 = kept.iter().map(|(_, length, _)| length).sum();
        let mut count = kept.len();
        for (_, length, path) in kept {
            if count < QUARANTINE_FILES && bytes + found.len() <= QUARANTINE_BYTES {
                break;
            }
            durable::remove(&path)?;
            bytes -= length;
            count -= 1;
        }
        if found.len() > QUARANTINE_BYTES {
            return durable::remove(&from);
        }
        durable::rename(&from, &folder.join(digest.hex()))
    }

    /// The names of what lies in quarantine, sorted.
    pub(super) fn quarantined(&self) -> Vec<String> {
        let mut names: Vec<_> = folder(&self.dir.join("quarantine"))
            .unwrap_or_default()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        names.sort();
        names
    }

    /// The file that holds space back.
    pub(super) fn reserve(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    fn temp_folder(&self) -> PathBuf {
        self.dir.join("tmp")
    }
}

/// What [`Layout::recover`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Leftovers {
    /// Files in the temporary folder.
    pub(super) temporary: u64,
    /// Content files that no index row named.
    pub(super) content: u64,
}

/// Room on the file system, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    pub(super) free: u64,
    pub(super) size: u64,
}

/// A `.moving` or `.batch` file; removed when dropped, that is when the index and the folder agree again.
#[derive(Debug)]
pub(super) struct Marker(PathBuf);

impl Marker {
    /// Leaves the marker where it is, for the next start to look at.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        // A marker that stays costs one look-up at the next start.
        let _left = remove_if_there(&self.0);
    }
}

/// The digests that a file in the temporary folder marks.
fn marked(path: &Path) -> io::Result<Vec<Digest>> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if let Some(hex) = name.strip_suffix(".moving") {
        return Ok(hex.parse().into_iter().collect());
    }
    if name.strip_suffix(".batch").is_some() {
        // The last line may be torn: what it would have marked was not begun.
        let list = fs::read(path)?;
        let text = String::from_utf8_lossy(&list);
        return Ok(text.lines().filter_map(|hex| hex.parse().ok()).collect());
    }
    Ok(Vec::new())
}

/// Removes a file without flushing its folder; reports whether it was there.
pub(super) fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn folder(path: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    fs::read_dir(path)?
        .map(|entry| entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())))
        .collect()
}

/// A folder without an index of ours must hold nothing that we did not put there: an unfortunate `--cache-dir /home`
/// or another program's cacache store is left alone.
///
/// An index that begins with zeros is one that was being founded, if there is no content that it could have known: it is founded from the
/// beginning. Beside content it is not known what it was, and it stays as it is, for a person to look at.
fn refuse_foreign(dir: &Path) -> Result<(), OpenError> {
    let unusable = |source: io::Error| OpenError::Unusable {
        path: dir.to_owned(),
        source,
    };
    let foreign = |found: &str| OpenError::Foreign {
        path: dir.to_owned(),
        found: found.to_owned(),
    };
    let index = index(dir);
    let found = index_file::begins(&index).map_err(unusable)?;
    match found {
        Beginning::Redb => return Ok(()),
        Beginning::Foreign => return Err(foreign("index.redb of another program")),
        Beginning::Nothing if index.exists() => return Ok(()),
        Beginning::Nothing | Beginning::Zeros => {}
    }
    let mut has_content = false;
    for (name, path) in folder(dir).map_err(unusable)? {
        // A process that was killed in its first moments leaves no more than a temporary file.
        if !OURS.contains(&name.as_str()) && !durable::is_temporary(name.as_ref()) {
            return Err(foreign(&name));
        }
        has_content |= name == "content-v2"
            && path
                .join("sha256")
                .read_dir()
                .is_ok_and(|mut any| any.next().is_some());
    }
    if !has_content {
        Ok(())
    } else if found == Beginning::Zeros {
        Err(foreign("content-v2 and an index.redb whose beginning is lost"))
    } else if index_file::damaged(&index).exists() {
        // A process was killed between setting a damaged index aside and having founded the next.
        Ok(())
    } else {
        Err(foreign("content-v2 without index.redb"))
    }
}
