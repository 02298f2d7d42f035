//! Writes the archive of a backup: tar (with PAX records for what tar has no field for) through zstd.
//!
//! Saved are content, mode, owner, time, symbolic links, hard links, extended attributes (ACLs and capabilities are such),
//! pipes and devices. Holes of sparse files cost nothing: they compress to nothing, and are made anew by the restoration.
//! Sockets are skipped and listed: whoever listens makes them anew.
//!
//! A file that changes while it is read is read again; one that never stands still is saved as it was found and listed.
//! A file that cannot be read is an error: a backup with a gap that nobody knows of is worse than none.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use kato_shared::{Digest, digest::Hasher, durable};

use super::{BackupError, failed};
use crate::module::tree::{Entry, Kind};

/// How the names of extended attributes begin in PAX records, as GNU tar and bsdtar write them.
pub(super) const XATTR: &str = "SCHILY.xattr.";
/// The PAX record of the time of the last change.
pub(super) const MTIME: &str = "mtime";
/// Up to this size a file is read as a whole before it is written, so that it can be read again.
const AT_ONCE: u64 = 8 * 1024 * 1024;
/// How often a file that changes is read.
const TRIES: u32 = 3;

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Everything in the archive.
    pub(super) entries: Vec<Entry>,
    /// Files that changed while they were read.
    pub(super) unsettled: Vec<PathBuf>,
    /// Sockets, and what else cannot be saved.
    pub(super) skipped: Vec<PathBuf>,
}

/// Writes the archive of `what`, paths below `root`, to `file`; nothing below `without` is saved unless it is named itself.
pub(super) fn write(
    root: &Path,
    what: &BTreeSet<PathBuf>,
    without: &Path,
    file: &Path,
) -> Result<(Digest, Written), BackupError> {
    let wrong = |source| failed("writing", file)(source);
    let archive = durable::create_new(file)?;
    archive
        .set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(failed("setting the mode of", file))?;
    let out = Hashing::new(archive);
    let mut tar = tar::Builder::new(zstd::Encoder::new(out, 3).map_err(wrong)?);
    tar.follow_symlinks(false);
    let mut writer = Writer {
        tar,
        root,
        without,
        names: HashMap::new(),
        written: Written::default(),
    };
    for path in what {
        // Second names are only known within one path: each can be restored by itself.
        writer.names.clear();
        writer.add(path.strip_prefix("/").unwrap_or(path))?;
    }
    let out = writer
        .tar
        .into_inner()
        .and_then(zstd::Encoder::finish)
        .map_err(wrong)?;
    durable::flush(&out.inner, file)?;
    Ok((out.hasher.finish(), writer.written))
}

struct Writer<'a, W: Write> {
    tar: tar::Builder<W>,
    root: &'a Path,
    without: &'a Path,
    /// Files with several names that are saved already, by device and inode.
    names: HashMap<(u64, u64), (PathBuf, Kind)>,
    written: Written,
}

impl<W: Write> Writer<'_, W> {
    fn add(&mut self, below: &Path) -> Result<(), BackupError> {
        let path = self.root.join(below);
        let wrong = |source| failed("saving", &path)(source);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(wrong(error)),
        };
        let kind = metadata.file_type();
        if kind.is_socket() {
            self.written.skipped.push(below.to_owned());
            return Ok(());
        }
        let saved = if kind.is_file() {
            self.file(&path, below, &metadata)?
        } else {
            self.attributes(&path, &metadata)?;
            let mut header = header(&metadata).map_err(wrong)?;
            if kind.is_symlink() {
                let to = fs::read_link(&path).map_err(wrong)?;
                self.tar.append_link(&mut header, below, &to).map_err(wrong)?;
                Kind::Link { to }
            } else {
                self.tar
                    .append_data(&mut header, below, io::empty())
                    .map_err(wrong)?;
                if kind.is_dir() {
                    Kind::FOLDER
                } else {
                    Kind::Special
                }
            }
        };
        let is_folder = saved.is_folder();
        self.written.entries.push(Entry {
            path: below.to_owned(),
            kind: saved,
        });
        if is_folder {
            for name in names(&path).map_err(wrong)? {
                let inside = below.join(name);
                if self.root.join(&inside) != self.without {
                    self.add(&inside)?;
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, below: &Path, metadata: &Metadata) -> Result<Kind, BackupError> {
        let wrong = |source| failed("saving", path)(source);
        let identity = (metadata.dev(), metadata.ino());
        if let Some((first, kind)) = self.names.get(&identity) {
            let (first, kind) = (first.clone(), kind.clone());
            // Its attributes and its time came with its first name.
            let mut header = header(metadata).map_err(wrong)?;
            header.set_entry_type(tar::EntryType::Link);
            header.set_size(0);
            self.tar.append_link(&mut header, below, &first).map_err(wrong)?;
            return Ok(kind);
        }
        self.attributes(path, metadata)?;
        let (sha256, is_settled) = if metadata.len() <= AT_ONCE {
            let (bytes, metadata, is_settled) = read_still(path).map_err(wrong)?;
            let mut header = header(&metadata).map_err(wrong)?;
            header.set_size(u64::try_from(bytes.len()).unwrap_or(0));
            self.tar
                .append_data(&mut header, below, bytes.as_slice())
                .map_err(wrong)?;
            (Digest::of(&bytes), is_settled)
        } else {
            let mut content = Hashing::new(File::open(path).map_err(wrong)?);
            let before = content.inner.metadata().map_err(wrong)?;
            let mut header = header(&before).map_err(wrong)?;
            // A file that grows meanwhile is saved as long as it was; one that shrinks is padded, so that the archive stays sound.
            let mut padded = Hashing::new((&mut content).chain(io::repeat(0)).take(before.len()));
            self.tar
                .append_data(&mut header, below, &mut padded)
                .map_err(wrong)?;
            let sha256 = padded.hasher.finish();
            let after = content.inner.metadata().map_err(wrong)?;
            (sha256, stamp(&before) == stamp(&after))
        };
        if !is_settled {
            self.written.unsettled.push(below.to_owned());
        }
        let kind = Kind::File {
            sha256,
            mode: metadata.mode() & 0o7777,
        };
        if metadata.nlink() > 1 {
            self.names.insert(identity, (below.to_owned(), kind.clone()));
        }
        Ok(kind)
    }

    /// Writes the extended attributes of `path` in front of its entry.
    fn attributes(&mut self, path: &Path, metadata: &Metadata) -> Result<(), BackupError> {
        let wrong = |source| failed("reading the attributes of", path)(source);
        records(&mut self.tar, path, time(metadata).as_deref()).map_err(wrong)
    }
}

/// Writes what the header of the entry at `path` has no field for in front of it: its extended attributes, and its `time` if given.
fn records<W: Write>(tar: &mut tar::Builder<W>, path: &Path, time: Option<&str>) -> io::Result<()> {
    let found = attributes(path)?;
    let records = found
        .iter()
        .map(|(name, value)| (format!("{XATTR}{name}"), value.as_slice()))
        .chain(time.map(|time| (MTIME.to_owned(), time.as_bytes())))
        .collect::<Vec<_>>();
    tar.append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), *value)))
}

/// Writes the extended attributes of `path` in front of its entry.
///
/// # Errors
/// The error of reading or writing them.
pub(crate) fn save_attributes<W: Write>(tar: &mut tar::Builder<W>, path: &Path) -> io::Result<()> {
    records(tar, path, None)
}

/// The time of the last change as PAX writes it, where the header's whole seconds since 1970 do not say it.
fn time(metadata: &Metadata) -> Option<String> {
    let (secs, nanos) = (metadata.mtime(), metadata.mtime_nsec());
    match (secs, nanos) {
        (0.., 0) => None,
        (_, 0) => Some(secs.to_string()),
        (0.., _) => Some(format!("{secs}.{nanos:09}")),
        // Nanoseconds count forwards, decimal places of a negative number backwards.
        _ => Some(format!("-{}.{:09}", -(secs + 1), 1_000_000_000 - nanos)),
    }
}

/// A header with what `metadata` says that has a field in it.
fn header(metadata: &Metadata) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    // Before 1970 there is no such number; `time` says it.
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    let kind = metadata.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        header.set_device_major(rustix::fs::major(metadata.rdev()))?;
        header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
    }
    Ok(header)
}

fn names(folder: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .map(|item| item.map(|item| item.file_name()))
        .collect::<io::Result<_>>()?;
    names.sort_unstable();
    Ok(names)
}

/// What changes when a file does.
fn stamp(metadata: &Metadata) -> (u64, i64, i64, i64, i64) {
    (
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}

/// The content of a file, read until it did not change meanwhile; `false` when it never stood still.
fn read_still(path: &Path) -> io::Result<(Vec<u8>, Metadata, bool)> {
    let mut tries = 1;
    loop {
        let mut file = File::open(path)?;
        let before = file.metadata()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let after = file.metadata()?;
        let is_settled = stamp(&before) == stamp(&after);
        if is_settled || tries == TRIES {
            return Ok((bytes, after, is_settled));
        }
        tries += 1;
    }
}

/// The extended attributes of `path` itself; none where the file system has none.
///
/// # Errors
/// The error of reading them.
pub(crate) fn attributes(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut list = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::llistxattr(path, list.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = std::ffi::OsStr::from_bytes(name);
        let mut value = vec![0_u8; 64 * 1024];
        match rustix::fs::lgetxattr(path, name, value.as_mut_slice()) {
            Ok(length) => value.truncate(length),
            // Removed meanwhile, or not for us to read.
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::PERM) => continue,
            Err(error) => return Err(error.into()),
        }
        if let Some(name) = name.to_str() {
            found.push((name.to_owned(), value));
        }
    }
    Ok(found)
}

/// Hashes what passes through.
struct Hashing<T> {
    inner: T,
    hasher: Hasher,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
        }
    }
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
