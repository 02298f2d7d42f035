//! The backup that is taken before the first change: one archive of everything that the upgrade replaces, with a manifest
//! of digests, and what the platform saves of its own state.
//!
//! `backup/<attempt>/files.tar.zst`, `manifest.json`, `platform/`. It is written as `<attempt>.part` and renamed when it is
//! whole. A second run of the same upgrade keeps the first one's backup: by then the node may be half new.
//!
//! Invariant: only the owner can look into a backup. What was readable by few on the node would else be readable by all here.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::{
    Digest,
    digest::Hasher,
    durable::{self, DurableError},
    release::Version,
};
use serde::{Deserialize, Serialize};

use crate::{
    failpoint,
    module::tree::{self, Entry, Kind},
    paths::NodePaths,
};

/// The version of the manifest's format.
pub const SCHEMA: u32 = 1;

/// A backup that failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be read or the archive not written.
    #[error("{action} `{path}` failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A durable operation failed.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl BackupError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => durable::is_disk_full(source),
            Self::Durable(error) => error.is_disk_full(),
        }
    }
}

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// The upgrade that it was taken for.
    pub attempt: String,
    /// The release that the node had.
    pub from: Option<Version>,
    /// The release that was to come.
    pub to: Version,
    /// When it was taken.
    pub time: Timestamp,
    /// The digest of `files.tar.zst`.
    pub archive: Digest,
    /// Everything in the archive; paths are below the node's root.
    pub entries: Vec<Entry>,
}

/// Where the backup of an upgrade is.
pub fn folder(paths: &NodePaths, attempt: &str) -> PathBuf {
    paths.backups().join(attempt)
}

/// The folder that a backup is written to before it is whole; what a killed run left there is removed.
///
/// # Errors
/// [`BackupError`].
pub fn begin(paths: &NodePaths, attempt: &str) -> Result<PathBuf, BackupError> {
    let part = paths.backups().join(format!("{attempt}.part"));
    tree::remove(&part).map_err(failed("removing", &part))?;
    durable::create_folder(&part)?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o700))
        .map_err(failed("setting the mode of", &part))?;
    Ok(part)
}

/// Writes the archive and the manifest of `what`, paths below the node's root, into `part`, and makes the backup whole.
///
/// # Errors
/// [`BackupError`].
pub fn finish(
    paths: &NodePaths,
    part: &Path,
    what: &BTreeSet<PathBuf>,
    head: impl FnOnce(Digest, Vec<Entry>) -> Manifest,
) -> Result<(), BackupError> {
    let file = part.join("files.tar.zst");
    let (archive, entries) = write_archive(paths.root(), what, &file)?;
    failpoint::hit("backup.archive");
    let manifest = head(archive, entries);
    durable::write_json(&part.join("manifest.json"), &manifest, 0o600)?;
    failpoint::hit("backup.manifest");
    durable::rename(part, &folder(paths, &manifest.attempt))?;
    failpoint::hit("backup.committed");
    Ok(())
}

/// Removes all but the newest `keep` backups and everything that is not whole.
///
/// # Errors
/// [`BackupError::Io`].
pub fn retain(paths: &NodePaths, keep: u32) -> Result<(), BackupError> {
    let backups = paths.backups();
    let Ok(listing) = fs::read_dir(&backups) else {
        return Ok(());
    };
    let mut whole = Vec::new();
    for item in listing.flatten() {
        let path = item.path();
        match crate::document::read::<Manifest>(&path.join("manifest.json"), "the manifest of a backup") {
            Ok(Some(manifest)) if path.extension().is_none_or(|end| end != "part") => {
                whole.push((manifest.time, path));
            }
            // Somebody else's folder, or a damaged manifest: not ours to remove.
            Ok(None) | Err(_) if path.extension().is_none_or(|end| end != "part") => {}
            _ => tree::remove(&path).map_err(failed("removing", &path))?,
        }
    }
    whole.sort_unstable();
    let keep = usize::try_from(keep.max(1)).unwrap_or(usize::MAX);
    for (_, old) in whole.iter().rev().skip(keep) {
        tree::remove(old).map_err(failed("removing", old))?;
    }
    Ok(())
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BackupError + 'a {
    move |source| BackupError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

fn write_archive(
    root: &Path,
    what: &BTreeSet<PathBuf>,
    file: &Path,
) -> Result<(Digest, Vec<Entry>), BackupError> {
    let write = |source| failed("writing", file)(source);
    let archive = durable::create_new(file)?;
    archive
        .set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(failed("setting the mode of", file))?;
    let out = Hashing {
        inner: archive,
        hasher: Hasher::new(),
    };
    let zstd = zstd::Encoder::new(out, 3).map_err(write)?;
    let mut tar = tar::Builder::new(zstd);
    tar.follow_symlinks(false);
    let mut entries = Vec::new();
    for path in what {
        let below = path.strip_prefix("/").unwrap_or(path);
        add(&mut tar, root, below, &mut entries)?;
    }
    let out = tar.into_inner().and_then(zstd::Encoder::finish).map_err(write)?;
    durable::flush(&out.inner, file)?;
    Ok((out.hasher.finish(), entries))
}

fn add<W: Write>(
    tar: &mut tar::Builder<W>,
    root: &Path,
    below: &Path,
    entries: &mut Vec<Entry>,
) -> Result<(), BackupError> {
    let path = root.join(below);
    let failed = |source| failed("saving", &path)(source);
    let Ok(metadata) = fs::symlink_metadata(&path) else {
        return Ok(());
    };
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    let kind = if metadata.is_symlink() {
        let to = fs::read_link(&path).map_err(failed)?;
        tar.append_link(&mut header, below, &to).map_err(failed)?;
        Kind::Link { to }
    } else if metadata.is_dir() {
        tar.append_data(&mut header, below, io::empty()).map_err(failed)?;
        Kind::Folder
    } else if metadata.is_file() {
        let mut content = Hashing {
            inner: File::open(&path).map_err(failed)?,
            hasher: Hasher::new(),
        };
        // A file that grows meanwhile is saved as long as it was; one that shrinks is padded, so that the archive stays sound.
        let padded = (&mut content).chain(io::repeat(0)).take(metadata.len());
        tar.append_data(&mut header, below, padded).map_err(failed)?;
        Kind::File {
            sha256: content.hasher.finish(),
            mode: header.mode().unwrap_or(0) & 0o7777,
        }
    } else {
        return Ok(());
    };
    let is_folder = kind.is_folder();
    entries.push(Entry {
        path: below.to_owned(),
        kind,
    });
    if is_folder {
        let mut inside: Vec<_> = fs::read_dir(&path)
            .and_then(|listing| {
                listing
                    .map(|item| item.map(|item| item.file_name()))
                    .collect::<Result<_, _>>()
            })
            .map_err(failed)?;
        inside.sort_unstable();
        for name in inside {
            add(tar, root, &below.join(name), entries)?;
        }
    }
    Ok(())
}

/// Hashes what passes through.
struct Hashing<T> {
    inner: T,
    hasher: Hasher,
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        durable::place::about_to_write()?;
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(paths: &NodePaths, attempt: &str, second: i64) -> Manifest {
        let part = begin(paths, attempt).unwrap();
        let what = ["/s/etc", "/s/link", "/s/missing"].map(PathBuf::from).into();
        finish(paths, &part, &what, |archive, entries| Manifest {
            schema: SCHEMA,
            attempt: attempt.into(),
            from: None,
            to: Version::new(2, 0, 0),
            time: Timestamp::from_second(second).unwrap(),
            archive,
            entries,
        })
        .unwrap();
        crate::document::read(&folder(paths, attempt).join("manifest.json"), "manifest")
            .unwrap()
            .unwrap()
    }

    #[test]
    fn r39_a_backup_holds_what_its_manifest_says_and_old_ones_go() {
        let root = tempfile::tempdir().unwrap();
        let paths = NodePaths::new(root.path(), Path::new("/var/kato"));
        fs::create_dir_all(root.path().join("s/etc/d")).unwrap();
        durable::write(&root.path().join("s/etc/d/a"), b"content", 0o640).unwrap();
        durable::symlink(Path::new("etc"), &root.path().join("s/link")).unwrap();

        let manifest = take(&paths, "one", 1);
        let archive = folder(&paths, "one").join("files.tar.zst");
        assert_eq!(tree::digest(&archive).unwrap(), manifest.archive);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder(&paths, "one")), mode(&archive)), (0o700, 0o600));
        let names: Vec<_> = manifest
            .entries
            .iter()
            .map(|entry| entry.path.to_str().unwrap())
            .collect();
        assert_eq!(names, ["s/etc", "s/etc/d", "s/etc/d/a", "s/link"]);
        let restored = tempfile::tempdir().unwrap();
        tar::Archive::new(zstd::Decoder::new(File::open(&archive).unwrap()).unwrap())
            .unpack(restored.path())
            .unwrap();
        assert_eq!(
            tree::scan(&restored.path().join("s")).unwrap(),
            tree::scan(&root.path().join("s")).unwrap()
        );

        take(&paths, "two", 2);
        take(&paths, "three", 3);
        begin(&paths, "killed").unwrap();
        retain(&paths, 2).unwrap();
        let mut left: Vec<_> = fs::read_dir(paths.backups())
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["three", "two"]);
    }
}
