//! A partial download on disk: `<hex>.part`, a verified-as-it-grows prefix, and `<hex>.part.json`, what it is from.
//!
//! The file's length is the truth about how much is there; nothing else is recorded, so nothing can disagree after a
//! crash. Its digest is computed again from its bytes when it is continued.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::BytesMut;
use kato_shared::{
    Digest,
    durable::{self, DurableError},
    trust::TargetFile,
    verify::{Verifier, VerifyError},
};
use serde::{Deserialize, Serialize};

use super::{FetchError, space};

/// Received bytes are written and hashed in pieces of this size: about a millisecond of work each.
const PIECE: usize = 1024 * 1024;

/// What a partial file is from.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Origin {
    /// The strong entity tag of the representation.
    etag: Option<String>,
}

/// A partial download.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    size: u64,
    digest: Digest,
    etag: Option<String>,
    received: u64,
    /// All bytes that were taken in, also those that were thrown away since.
    taken_in: u64,
    /// Whether a prefix is from an earlier exchange, so that a wrong digest may be its fault.
    is_spliced: bool,
    buffer: BytesMut,
    written: Arc<Mutex<Written>>,
}

/// The file and the digest of what is in it.
#[derive(Debug)]
struct Written {
    file: File,
    verifier: Verifier,
}

impl Part {
    /// Opens or creates the partial file of `file` in `staging`.
    pub(super) async fn open(file: &TargetFile, staging: &Path) -> Result<Self, FetchError> {
        let (size, digest) = (file.size, file.digest);
        let path = staging.join(format!("{}.part", digest.hex()));
        blocking(move || {
            let written = reopen(&path, size, digest).map_err(FetchError::io("opening", &path))?;
            let origin: Origin = std::fs::read(origin_path(&path))
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default();
            let received = written.verifier.received();
            Ok(Self {
                path,
                size,
                digest,
                etag: origin.etag,
                received,
                taken_in: 0,
                is_spliced: received > 0,
                buffer: BytesMut::new(),
                written: Arc::new(Mutex::new(written)),
            })
        })
        .await
    }

    /// Makes sure that the rest finds room: by holding it where the file system can, by looking where it cannot.
    pub(super) async fn reserve(&self) -> Result<(), FetchError> {
        let (written, path, size, missing) = (
            Arc::clone(&self.written),
            self.path.clone(),
            self.size,
            self.missing(),
        );
        blocking(move || {
            let written = written.lock().unwrap_or_else(PoisonError::into_inner);
            match crate::space::hold(&written.file, size) {
                Ok(true) => Ok(()),
                Ok(false) => space::check(&path, missing),
                Err(error) => Err(write_failed(error, &path, missing)),
            }
        })
        .await
    }

    /// All bytes that were taken in, also those that were thrown away since.
    pub(super) const fn taken_in(&self) -> u64 {
        self.taken_in
    }

    /// The bytes that are there, buffered ones included.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// The bytes that are still to come.
    pub(super) const fn missing(&self) -> u64 {
        self.size.saturating_sub(self.received)
    }

    pub(super) fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    pub(super) const fn is_spliced(&self) -> bool {
        self.is_spliced
    }

    /// Notes that what comes now continues what is there.
    pub(super) const fn continued(&mut self) {
        self.is_spliced = self.received > 0;
    }

    /// Forgets everything, because the server sends all of it again or because it is wrong.
    ///
    /// What was held for it is given back with its content, and taken again.
    pub(super) async fn restart(&mut self) -> Result<(), FetchError> {
        self.buffer.clear();
        self.received = 0;
        self.is_spliced = false;
        self.etag = None;
        let (written, fresh) = (Arc::clone(&self.written), Verifier::new(self.size, self.digest));
        let path = self.path.clone();
        blocking(move || {
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            written
                .file
                .set_len(0)
                .map_err(FetchError::io("truncating", &path))?;
            written.verifier = fresh;
            durable::remove(&origin_path(&path)).map_err(|error| lift(error, 0))
        })
        .await?;
        self.reserve().await
    }

    /// Remembers the entity tag of what is received, for a later `If-Range`.
    pub(super) fn remember(&mut self, etag: Option<String>) -> Result<(), FetchError> {
        if self.etag != etag {
            self.etag.clone_from(&etag);
            durable::write_json(&origin_path(&self.path), &Origin { etag }, 0o644)
                .map_err(|error| lift(error, self.missing()))?;
        }
        Ok(())
    }

    /// Takes in the next bytes.
    ///
    /// # Errors
    /// [`VerifyError::TooLong`] inside [`FetchError::Size`] before a byte too many is kept; write errors.
    pub(super) async fn push(&mut self, url: &str, piece: &[u8]) -> Result<(), FetchError> {
        if piece.len() as u64 > self.missing() {
            return Err(FetchError::Size {
                url: url.to_owned(),
                source: VerifyError::TooLong { expected: self.size },
            });
        }
        self.received += piece.len() as u64;
        self.taken_in += piece.len() as u64;
        self.buffer.extend_from_slice(piece);
        if self.buffer.len() >= PIECE {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes what is buffered.
    pub(super) async fn flush(&mut self) -> Result<(), FetchError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = self.buffer.split().freeze();
        let need = self.missing() + piece.len() as u64;
        let (written, path) = (Arc::clone(&self.written), self.path.clone());
        blocking(move || {
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            durable::place::about_to_write()
                .and_then(|()| written.file.write_all(&piece))
                .map_err(|error| write_failed(error, &path, need))?;
            // The length was checked before.
            written
                .verifier
                .update(&piece)
                .map_err(|error| FetchError::io("writing", &path)(io::Error::other(error)))
        })
        .await
    }

    /// The verdict on a complete file, and its move to `to`: fsync, rename, fsync of the folder.
    ///
    /// # Errors
    /// The inner error is the verdict; the outer one is the disk's.
    pub(super) async fn commit(&mut self, to: &Path) -> Result<Result<(), VerifyError>, FetchError> {
        self.flush().await?;
        let (written, fresh) = (Arc::clone(&self.written), Verifier::new(self.size, self.digest));
        let (path, to) = (self.path.clone(), to.to_owned());
        blocking(move || {
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            let verdict = std::mem::replace(&mut written.verifier, fresh).finish();
            if verdict.is_ok() {
                durable::commit(&written.file, &path, &to).map_err(|error| lift(error, 0))?;
                durable::remove(&origin_path(&path)).map_err(|error| lift(error, 0))?;
            }
            Ok(verdict)
        })
        .await
    }

    /// Removes it: its bytes are known to be wrong.
    pub(super) fn discard(&self) -> Result<(), FetchError> {
        durable::remove(&origin_path(&self.path))
            .and_then(|()| durable::remove(&self.path))
            .map_err(|error| lift(error, 0))
    }
}

/// Holds the room for a file of `size` bytes that will be downloaded to `staging`; whether the file system can.
///
/// # Errors
/// [`FetchError::DiskFull`] when there is none.
pub(super) fn hold(digest: &Digest, size: u64, staging: &Path) -> Result<bool, FetchError> {
    let path = staging.join(format!("{}.part", digest.hex()));
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .map_err(FetchError::io("opening", &path))?;
    crate::space::hold(&file, size).map_err(|error| {
        let there = file.metadata().map_or(0, |metadata| metadata.len());
        write_failed(error, &path, size.saturating_sub(there))
    })
}

/// Gives back what is held for downloads in `staging` that did not come to their end; what was received stays. What cannot be
/// given back is taken over by the next run.
pub(super) fn give_back(staging: &Path) {
    for item in std::fs::read_dir(staging).into_iter().flatten().flatten() {
        let path = item.path();
        if path.extension().is_none_or(|extension| extension != "part") {
            continue;
        }
        let given = OpenOptions::new().write(true).open(&path).and_then(|file| {
            let length = file.metadata()?.len();
            file.set_len(length)?;
            Ok(length)
        });
        let done = match given {
            Ok(0) => durable::remove(&path).map_err(|error| error.source),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::warn!(path = %path.display(), %error, "held space could not be given back");
        }
    }
}

/// Whether `path` holds exactly what `file` promises; absent is no.
pub(super) async fn is_whole(path: &Path, file: &TargetFile) -> Result<bool, FetchError> {
    let (path, size, digest) = (path.to_owned(), file.size, file.digest);
    blocking(move || {
        let mut opened = match File::open(&path) {
            Ok(opened) => opened,
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(FetchError::io("opening", &path)(error)),
        };
        let mut verifier = Verifier::new(size, digest);
        let fed = feed(&mut opened, &mut verifier).map_err(FetchError::io("reading", &path))?;
        Ok(fed && verifier.finish().is_ok())
    })
    .await
}

/// Opens `path` for appending with the digest of what is in it; more than `size` bytes are thrown away.
fn reopen(path: &Path, size: u64, digest: Digest) -> io::Result<Written> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let mut verifier = Verifier::new(size, digest);
    if !feed(&mut file, &mut verifier)? {
        file.set_len(0)?;
        verifier = Verifier::new(size, digest);
    }
    file.seek(io::SeekFrom::End(0))?;
    Ok(Written { file, verifier })
}

/// Whether all of `file` fits what `verifier` expects.
fn feed(file: &mut File, verifier: &mut Verifier) -> io::Result<bool> {
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(true),
            count if verifier.update(piece.get(..count).unwrap_or_default()).is_err() => return Ok(false),
            _ => {}
        }
    }
}

/// Whether a file of the staging folder has a name that a download gives: `<hex>`, `<hex>.part` or `<hex>.part.json`.
pub fn is_download(name: &str) -> bool {
    let digest = name.strip_suffix(".part.json").unwrap_or(name);
    let digest = digest.strip_suffix(".part").unwrap_or(digest);
    digest.len() == 64
        && digest
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn origin_path(part: &Path) -> PathBuf {
    part.with_extension("part.json")
}

fn write_failed(error: io::Error, path: &Path, need: u64) -> FetchError {
    lift(
        DurableError {
            action: "writing",
            path: path.to_owned(),
            source: error,
        },
        need,
    )
}

/// The fetcher's error for a failed file operation; `need` bytes were still to be written.
pub(super) fn lift(error: DurableError, need: u64) -> FetchError {
    if error.is_disk_full() {
        return space::exhausted(&error.path, need);
    }
    FetchError::Io {
        action: error.action,
        path: error.path,
        source: error.source,
    }
}

/// Runs file work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(lost) => Err(FetchError::Io {
            action: "working on",
            path: PathBuf::new(),
            source: io::Error::other(lost),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn c13_a_disk_that_fills_up_during_the_download_is_named_with_what_is_missing() {
        let (size, digest) = (3 * PIECE as u64, Digest::of(b""));
        // The device that is always full: writes fail with ENOSPC like on a full disk.
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let verifier = Verifier::new(size, digest);
        let folder = tempfile::tempdir().unwrap();
        let mut part = Part {
            path: folder.path().join("x.part"),
            size,
            digest,
            etag: None,
            received: 0,
            taken_in: 0,
            is_spliced: false,
            buffer: BytesMut::new(),
            written: Arc::new(Mutex::new(Written { file, verifier })),
        };
        part.push("u", &vec![0; PIECE - 1]).await.unwrap();
        let error = part.push("u", &[0; 2]).await.unwrap_err();
        assert!(
            matches!(&error, FetchError::DiskFull { need, mount, .. } if *need == size && folder.path().starts_with(mount)),
            "{error}"
        );
        assert_eq!(error.exit(), crate::exit::Exit::Preflight);
    }
}
