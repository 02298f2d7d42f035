//! Whether an archive holds exactly what the signed release lists, without unpacking it.
//!
//! Flow: entry by entry, in the order of the archive; the first one that the release does not speak of is the error. What is
//! read is bounded by what the release promises, so that an archive that unpacks to more than that costs no more either.
//!
//! Deliberately absent: the targets of symbolic links. They are content, which the archive's own digest covers, and nothing is
//! written through them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use kato_shared::{
    Digest,
    chain::Chain,
    release::{FileEntry, Module},
};
use tar::EntryType;

use super::{Archive, UnpackError, list::digest, plain_relative};

/// What tar itself may take beside the files' content, in bytes: folders, links, headers, long names, the filling of blocks.
const AROUND: u64 = 64 << 20;
/// The same for each file.
const AROUND_FILE: u64 = 8 << 10;

/// A reader that gives `left` bytes at most.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let Some(left) = self.left.checked_sub(read as u64) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it unpacks to more than the release lists",
            ));
        };
        self.left = left;
        Ok(read)
    }
}

/// What was found so far.
struct Seen<'m> {
    listed: BTreeMap<&'m Path, &'m FileEntry>,
    unpacked_size: u64,
    bytes: u64,
    files: BTreeMap<PathBuf, (Digest, u32)>,
    links: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

/// Whether `archive` has exactly the files of `module`, with the content and the permission bits that are listed, of its `unpacked_size` at
/// most, and beside them folders and links only, each path once and none through another.
///
/// The archive's own digest is not compared: it was when the archive was staged, and is again when it is unpacked.
///
/// # Errors
/// [`UnpackError::Disagrees`] names the entry and what was expected; [`UnpackError::Entry`] one whose name leads out;
/// [`UnpackError::Read`].
pub fn agrees(archive: &Archive, module: &Module) -> Result<(), UnpackError> {
    let disagrees = |entry: &Path, problem: String| UnpackError::Disagrees {
        archive: module.artifact.clone(),
        entry: entry.to_owned(),
        problem,
    };
    let unreadable = |source: io::Error| {
        if is_of_disk(&source) {
            let path = archive.path.clone();
            return UnpackError::Read { path, source };
        }
        let problem = format!("expected a tar compressed with zstd, found `{}`", Chain(&source));
        disagrees(Path::new("."), problem)
    };
    let files = &module.files;
    let around = AROUND.saturating_add(AROUND_FILE.saturating_mul(files.len() as u64));
    let file = File::open(&archive.path).map_err(unreadable)?;
    let plain = Bounded {
        inner: zstd::stream::read::Decoder::new(file).map_err(unreadable)?,
        left: module.unpacked_size.saturating_add(around),
    };
    let mut seen = Seen {
        listed: files.iter().map(|file| (file.path.as_path(), file)).collect(),
        unpacked_size: module.unpacked_size,
        bytes: 0,
        files: BTreeMap::new(),
        links: BTreeSet::new(),
        folders: BTreeSet::new(),
    };
    let mut tar = tar::Archive::new(plain);
    for entry in tar.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = plain_relative(&entry.path().map_err(unreadable)?)?;
        if path.as_os_str().is_empty() && entry.header().entry_type().is_dir() {
            continue;
        }
        if let Some(problem) = seen.add(&mut entry, &path).map_err(unreadable)? {
            return Err(disagrees(&path, problem));
        }
    }
    let missing = seen.listed.keys().find(|path| !seen.files.contains_key(**path));
    missing.map_or(Ok(()), |path| {
        Err(disagrees(
            path,
            "expected a file, the archive has none".to_owned(),
        ))
    })
}

impl Seen<'_> {
    /// Takes one entry in; says what is wrong with it.
    fn add(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> io::Result<Option<String>> {
        let kind = entry.header().entry_type();
        if let Some(problem) = self.misplaced(path, kind) {
            return Ok(Some(problem));
        }
        self.folders.extend(above(path).map(Path::to_owned));
        if kind.is_dir() {
            self.folders.insert(path.to_owned());
            return Ok(None);
        }
        let Some(listed) = self.listed.get(path).copied() else {
            // A link is content of its folder; the list has files alone.
            let is_link = kind.is_symlink() && self.links.insert(path.to_owned());
            let problem = if plain(kind) {
                "the release does not list it"
            } else {
                "expected files, folders and links only"
            };
            return Ok((!is_link).then(|| problem.to_owned()));
        };
        let found = match self.content(entry, kind)? {
            Ok(found) => found,
            Err(problem) => return Ok(Some(problem)),
        };
        self.files.insert(path.to_owned(), found);
        Ok(differs(listed, found))
    }

    /// Why nothing of this kind may be at `path`, after what the archive had before it.
    fn misplaced(&self, path: &Path, kind: EntryType) -> Option<String> {
        let is_taken = |path: &Path| self.files.contains_key(path) || self.links.contains(path);
        if is_taken(path) || (!kind.is_dir() && self.folders.contains(path)) {
            return Some("expected each path once".to_owned());
        }
        let through = above(path).find(|above| is_taken(above))?;
        Some(format!("expected `{}` to be a folder", through.display()))
    }

    /// Digest and permission bits of a file, or why it is none.
    fn content(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        kind: EntryType,
    ) -> io::Result<Result<(Digest, u32), String>> {
        if kind.is_hard_link() {
            let target = entry.link_name()?.unwrap_or_default();
            let first = self.files.get(target.as_ref()).copied();
            return Ok(first.ok_or_else(|| {
                format!(
                    "expected a hard link to a file before it in the archive, found one to `{}`",
                    target.display()
                )
            }));
        }
        if !plain(kind) {
            return Ok(Err("expected a file, found something else".to_owned()));
        }
        self.bytes = self.bytes.saturating_add(entry.size());
        if self.bytes > self.unpacked_size {
            return Ok(Err(format!(
                "expected {} bytes unpacked in all, found {} up to here",
                self.unpacked_size, self.bytes
            )));
        }
        let mode = entry.header().mode()? & 0o7777;
        Ok(Ok((digest(entry)?, mode)))
    }
}

/// Whether the machine failed to read, rather than the archive to be one.
fn is_of_disk(error: &io::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let known = error.downcast_ref::<io::Error>();
        if known.is_some_and(|error| error.raw_os_error().is_some()) {
            return true;
        }
        cause = match known.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// The folders above `path`, the one of the module left out.
fn above(path: &Path) -> impl Iterator<Item = &Path> {
    path.ancestors()
        .skip(1)
        .filter(|above| !above.as_os_str().is_empty())
}

/// Whether unpacking makes a file of it.
fn plain(kind: EntryType) -> bool {
    kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() || kind.is_hard_link()
}

/// How what was `found` is not what is `listed`.
fn differs(listed: &FileEntry, (sha256, mode): (Digest, u32)) -> Option<String> {
    let expected = listed.mode & 0o7777;
    if listed.sha256 != sha256 {
        return Some(format!(
            "expected content with the digest {}, found {sha256}",
            listed.sha256
        ));
    }
    (expected != mode).then(|| format!("expected the mode {expected:04o}, found {mode:04o}"))
}
