//! Unpacks a module's archive (tar, compressed with zstd) into a new folder.
//!
//! Every access goes through `cap-std`, which resolves paths below the folder and nowhere else: no `..`, absolute name or
//! symbolic link in the archive leads out of it. The archive's bytes are verified again on the way, and what was unpacked
//! is flushed to the disk before this returns.
//!
//! Deliberately absent: owners, extended attributes, devices. A module's files belong to whoever runs the upgrade.

mod agree;
mod list;

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use cap_std::{ambient_authority, fs::Dir};
use kato_shared::{
    Digest, durable,
    verify::{Verifier, VerifyError},
};
use tokio::time::Instant;

pub use self::{agree::agrees, list::list};
use super::tree;

/// An archive that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive cannot be read.
    #[error("reading the archive `{path}` failed")]
    Read {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive is not what the release promises.
    #[error("the archive `{path}` was altered after its download")]
    Altered {
        /// The archive.
        path: PathBuf,
        /// How it differs.
        #[source]
        source: VerifyError,
    },
    /// An entry may not be in a module.
    #[error("the archive has the entry `{entry}`, {problem}")]
    Entry {
        /// The entry.
        entry: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The archive holds something else than the release lists.
    #[error("the archive {archive} is not what the release lists: `{entry}`: {problem}")]
    Disagrees {
        /// The archive, by the name that the release has for it.
        archive: String,
        /// The entry.
        entry: PathBuf,
        /// What was expected, and what was found.
        problem: String,
    },
    /// An entry cannot be written.
    #[error("unpacking `{entry}` into `{into}` failed")]
    Write {
        /// The folder.
        into: PathBuf,
        /// The entry.
        entry: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took longer than the module may take.
    #[error("unpacking into `{into}` took longer than the module's timeout")]
    Timeout {
        /// The folder.
        into: PathBuf,
    },
}

/// An archive with what the release says about it.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The file.
    pub path: PathBuf,
    /// Its digest.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Counts and hashes what is read, so that the archive is verified in the same pass.
struct Verified<R> {
    inner: R,
    verifier: Verifier,
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.verifier.update(&buffer[..read]).map_err(io::Error::other)?;
        Ok(read)
    }
}

/// The mode of a folder that the archive says nothing about, whatever the umask of whoever runs `kato`.
const FOLDER_MODE: u32 = 0o755;

/// Unpacks `archive` into the folder `into`, which must not exist; gives the permission bits that the archive has for the folder
/// itself. Most archives have none: the folder has [`FOLDER_MODE`] then.
///
/// # Errors
/// [`UnpackError`]; what was unpacked until then is gone again, so that nobody is left with a disk that it has filled.
pub fn unpack(archive: &Archive, into: &Path, deadline: Instant) -> Result<Option<u32>, UnpackError> {
    let unpacked = unpack_all(archive, into, deadline);
    if unpacked.is_err()
        && let Err(error) = tree::remove(into)
    {
        // The next try removes it first; what failed is the news.
        tracing::warn!(%error, folder = %into.display(), "what was unpacked in part cannot be removed");
    }
    unpacked
}

fn unpack_all(archive: &Archive, into: &Path, deadline: Instant) -> Result<Option<u32>, UnpackError> {
    let unreadable = |source| UnpackError::Read {
        path: archive.path.clone(),
        source,
    };
    let unwritable = |entry: &Path| {
        let (into, entry) = (into.to_owned(), entry.to_owned());
        move |source| UnpackError::Write { into, entry, source }
    };
    fs::create_dir_all(into).map_err(unwritable(Path::new(".")))?;
    let dir = Dir::open_ambient_dir(into, ambient_authority()).map_err(unwritable(Path::new(".")))?;
    let file = File::open(&archive.path).map_err(unreadable)?;
    let mut verified = Verified {
        inner: file,
        verifier: Verifier::new(archive.size, archive.sha256),
    };
    let top = {
        let plain = zstd::stream::read::Decoder::new(&mut verified).map_err(unreadable)?;
        let mut tar = tar::Archive::new(plain);
        let (mut folders, mut top) = (Vec::new(), None);
        for entry in tar.entries().map_err(unreadable)? {
            if Instant::now() > deadline {
                return Err(UnpackError::Timeout {
                    into: into.to_owned(),
                });
            }
            let mut entry = entry.map_err(unreadable)?;
            let name = entry.path().map_err(unreadable)?.into_owned();
            let path = plain_relative(&name)?;
            put(&dir, &mut entry, &path).map_err(|error| error.located(into, &path))?;
            if entry.header().entry_type().is_dir() {
                let mode = entry.header().mode().map_err(unreadable)? & 0o7777 | 0o700;
                if path.as_os_str().is_empty() {
                    top = Some(mode);
                } else {
                    folders.push((path, mode));
                }
            }
        }
        // Only now, and the deepest first: a folder may be closed to whoever fills it.
        for (path, mode) in folders.iter().rev() {
            let mode = fs::Permissions::from_mode(*mode);
            dir.set_permissions(path, cap_std::fs::Permissions::from_std(mode))
                .map_err(unwritable(path))?;
        }
        top
    };
    fs::set_permissions(into, fs::Permissions::from_mode(top.unwrap_or(FOLDER_MODE)))
        .map_err(unwritable(Path::new(".")))?;
    // The decoder stops at the end of its frame; what follows must be nothing, and the verifier must see it.
    io::copy(&mut verified, &mut io::sink()).map_err(unreadable)?;
    verified
        .verifier
        .finish()
        .map_err(|source| UnpackError::Altered {
            path: archive.path.clone(),
            source,
        })?;
    flush_folders(into).map_err(unwritable(Path::new(".")))?;
    Ok(top)
}

enum PutError {
    Refused(&'static str),
    Io(io::Error),
}

impl PutError {
    fn located(self, into: &Path, entry: &Path) -> UnpackError {
        let entry = entry.to_owned();
        match self {
            Self::Refused(problem) => UnpackError::Entry { entry, problem },
            Self::Io(source) => UnpackError::Write {
                into: into.to_owned(),
                entry,
                source,
            },
        }
    }
}

impl From<io::Error> for PutError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn put(dir: &Dir, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> Result<(), PutError> {
    let kind = entry.header().entry_type();
    if path.as_os_str().is_empty() {
        // The folder itself, written as `./` by some archivers.
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        dir.create_dir_all(parent)?;
    }
    if kind.is_dir() {
        return Ok(dir.create_dir_all(path)?);
    }
    if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
        let mode = entry.header().mode()? & 0o7777;
        let mut options = cap_std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        durable::place::about_to_write()?;
        let mut file = dir.open_with(path, &options)?.into_std();
        io::copy(entry, &mut file)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        return Ok(durable::flush(&file, path).map_err(|failed| failed.source)?);
    }
    let target = entry.link_name()?;
    match target {
        // The target is content; nothing is resolved through it while unpacking, because cap-std checks each step.
        Some(target) if kind.is_symlink() => Ok(dir.symlink_contents(target, path)?),
        Some(target) if kind.is_hard_link() => Ok(dir.hard_link(&target, dir, path)?),
        _ => Err(PutError::Refused("expected files, folders and links only")),
    }
}

fn plain_relative(name: &Path) -> Result<PathBuf, UnpackError> {
    let mut path = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(UnpackError::Entry {
                    entry: name.to_owned(),
                    problem: "expected a relative path without `..`",
                });
            }
        }
    }
    Ok(path)
}

/// Files were flushed one by one; their names are durable only when their folders are.
fn flush_folders(folder: &Path) -> io::Result<()> {
    for item in fs::read_dir(folder)? {
        let item = item?;
        if item.file_type()?.is_dir() {
            flush_folders(&item.path())?;
        }
    }
    durable::sync_folder(folder).map_err(|failed| failed.source)
}

#[cfg(test)]
mod tests;
