//! Reads the archive of a backup: to compare it with its manifest, and to put single entries somewhere.
//!
//! Invariant: nothing is written through a symbolic link. An entry is only put into a folder that the same extraction has made.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use kato_shared::{Digest, digest::Hasher, durable};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid};

use super::{
    BackupError, Manifest,
    archive::{MTIME, XATTR},
    failed,
};
use crate::module::tree::{Entry, Kind};

/// Bytes by entry.
pub type Sizes = BTreeMap<PathBuf, u64>;

/// Compares the archive with the manifest, entry by entry, and calls `put` with where each entry is wanted.
///
/// `place` says where an entry goes; `None` for one that is only compared. Gives the bytes of each file.
///
/// # Errors
/// [`BackupError::Altered`] with the first difference, [`BackupError::Io`].
pub(super) fn read(
    archive: &Path,
    manifest: &Manifest,
    mut place: impl FnMut(&Path) -> Option<PathBuf>,
) -> Result<Sizes, BackupError> {
    let unreadable = |source| failed("reading", archive)(source);
    let altered = |entry: &Path, problem: &'static str| BackupError::Altered {
        path: archive.join(entry),
        problem,
    };
    let mut expected: BTreeMap<&Path, &Kind> = manifest
        .entries
        .iter()
        .map(|entry| (entry.path.as_path(), &entry.kind))
        .collect();
    let plain = zstd::Decoder::new(File::open(archive).map_err(unreadable)?).map_err(unreadable)?;
    let mut tar = tar::Archive::new(plain);
    let mut staged = Staged::default();
    let mut sizes = Sizes::new();
    for entry in tar.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(altered(&path, "its name leads elsewhere"));
        }
        let Some(kind) = expected.remove(path.as_path()) else {
            return Err(altered(&path, "the manifest does not know it"));
        };
        sizes.insert(path.clone(), entry.size());
        let at = place(&path);
        let found = staged.put(&mut entry, &path, at.as_deref())?;
        let is_right = match (kind, found) {
            (Kind::File { sha256, .. }, Found::Content(content)) => *sha256 == content,
            (Kind::File { .. }, Found::SecondName)
            | (Kind::Folder { .. }, Found::Folder)
            | (Kind::Special, Found::Special) => true,
            (Kind::Link { to }, Found::Link(target)) => *to == target,
            _ => false,
        };
        if !is_right {
            return Err(altered(&path, "it is not what the manifest says"));
        }
    }
    if let Some(missing) = expected.keys().next() {
        return Err(altered(missing, "it is missing"));
    }
    staged.finish()?;
    Ok(sizes)
}

/// What an entry is.
enum Found {
    Content(Digest),
    SecondName,
    Link(PathBuf),
    Folder,
    Special,
}

/// What the PAX records of `entry` say: extended attributes, and the time where the header cannot.
#[expect(clippy::type_complexity, reason = "two things that are in one list")]
fn records(
    entry: &mut tar::Entry<'_, impl Read>,
) -> io::Result<(Vec<(String, Vec<u8>)>, Option<(i64, i64)>)> {
    let (mut attributes, mut time) = (Vec::new(), None);
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        let Ok(key) = record.key() else { continue };
        if let Some(name) = key.strip_prefix(XATTR) {
            attributes.push((name.to_owned(), record.value_bytes().to_vec()));
        } else if key == MTIME {
            time = record.value().ok().and_then(time_of);
        }
    }
    Ok((attributes, time))
}

/// The extended attributes that were saved with `entry`.
///
/// # Errors
/// The error of reading them.
pub(crate) fn saved_attributes(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Vec<(String, Vec<u8>)>> {
    Ok(records(entry)?.0)
}

/// Seconds and nanoseconds of a time as PAX writes it, e.g. `-1.25`.
fn time_of(text: &str) -> Option<(i64, i64)> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = places.chars().chain(std::iter::repeat('0')).take(9).collect();
    let (secs, nanos): (i64, i64) = (whole.parse().ok()?, digits.parse().ok()?);
    Some(if whole.starts_with('-') && nanos > 0 {
        (secs - 1, 1_000_000_000 - nanos)
    } else {
        (secs, nanos)
    })
}

/// What an extraction has made so far.
#[derive(Default)]
struct Staged {
    /// Archive path → where it was put, for second names.
    files: BTreeMap<PathBuf, PathBuf>,
    /// Folders, with what is set when everything in them is there.
    folders: BTreeMap<PathBuf, Marks>,
    roots: BTreeSet<PathBuf>,
}

/// What is known of an entry beside its content.
struct Marks {
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds.
    time: (i64, i64),
    attributes: Vec<(String, Vec<u8>)>,
}

impl Marks {
    fn of(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Self> {
        let (attributes, exact) = records(entry)?;
        let header = entry.header();
        let time = match exact {
            Some(time) => time,
            None => (i64::try_from(header.mtime()?).unwrap_or(0), 0),
        };
        Ok(Self {
            mode: header.mode()? & 0o7777,
            owner: (
                u32::try_from(header.uid()?).unwrap_or(0),
                u32::try_from(header.gid()?).unwrap_or(0),
            ),
            time,
            attributes,
        })
    }

    /// Sets everything on `path` itself, never on what a link points to.
    fn set(&self, path: &Path, is_link: bool) -> io::Result<()> {
        let (user, group) = self.owner;
        rustix::fs::chownat(
            CWD,
            path,
            Some(Uid::from_raw(user)),
            Some(Gid::from_raw(group)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        for (name, value) in &self.attributes {
            rustix::fs::lsetxattr(path, name.as_str(), value, rustix::fs::XattrFlags::empty())?;
        }
        if !is_link {
            // After the owner, because changing it clears the set-user-ID bit.
            fs::set_permissions(path, fs::Permissions::from_mode(self.mode))?;
        }
        let time = Timespec {
            tv_sec: self.time.0,
            tv_nsec: self.time.1,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        Ok(rustix::fs::utimensat(
            CWD,
            path,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

impl Staged {
    /// Reads `entry`, and puts it to `at` if it is wanted there.
    fn put(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        name: &Path,
        at: Option<&Path>,
    ) -> Result<Found, BackupError> {
        let wrong = |source| failed("restoring", at.unwrap_or(name))(source);
        if let Some(at) = at {
            self.is_reachable(at)?;
        }
        let marks = Marks::of(entry).map_err(wrong)?;
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            if let Some(at) = at {
                fs::create_dir(at).map_err(wrong)?;
                self.folders.insert(at.to_owned(), marks);
            }
            return Ok(Found::Folder);
        }
        if kind.is_symlink() {
            let to = entry.link_name().map_err(wrong)?.unwrap_or_default().into_owned();
            if let Some(at) = at {
                std::os::unix::fs::symlink(&to, at).map_err(wrong)?;
                marks.set(at, true).map_err(wrong)?;
            }
            return Ok(Found::Link(to));
        }
        if kind.is_hard_link() {
            let first = entry.link_name().map_err(wrong)?.unwrap_or_default().into_owned();
            if let Some(at) = at {
                let Some(first) = self.files.get(&first) else {
                    return Err(BackupError::SecondName {
                        path: name.to_owned(),
                        first,
                    });
                };
                fs::hard_link(first, at).map_err(wrong)?;
            }
            return Ok(Found::SecondName);
        }
        if kind.is_file() {
            let digest = content(entry, at).map_err(wrong)?;
            if let Some(at) = at {
                marks.set(at, false).map_err(wrong)?;
                self.files.insert(name.to_owned(), at.to_owned());
            }
            return Ok(Found::Content(digest));
        }
        if let Some(at) = at {
            special(entry, kind, at).map_err(wrong)?;
            marks.set(at, false).map_err(wrong)?;
        }
        Ok(Found::Special)
    }

    /// The folder of `at` was made by us, or `at` is the first thing that is put there.
    fn is_reachable(&mut self, at: &Path) -> Result<(), BackupError> {
        let folder = at.parent().unwrap_or(Path::new("/"));
        if self.folders.contains_key(folder) || self.roots.contains(folder) {
            return Ok(());
        }
        let is_folder = fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir());
        // Only the staging folders themselves were there before; what is below them is made here.
        let is_staging = folder
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(super::STAGING.as_bytes()));
        if is_folder && is_staging {
            self.roots.insert(folder.to_owned());
            return Ok(());
        }
        Err(BackupError::Altered {
            path: at.to_owned(),
            problem: "its folder is not in the archive",
        })
    }

    /// Sets what the folders are like, the deepest first, and flushes them.
    fn finish(self) -> Result<(), BackupError> {
        for (path, marks) in self.folders.iter().rev() {
            marks.set(path, false).map_err(failed("restoring", path))?;
        }
        for path in self.folders.keys().rev().chain(&self.roots) {
            durable::sync_folder(path)?;
        }
        Ok(())
    }
}

/// Reads the content of `entry`, writes it to `at` with holes where it is zero for long, and gives its digest.
fn content(entry: &mut impl Read, at: Option<&Path>) -> io::Result<Digest> {
    const PIECE: usize = 64 * 1024;
    let mut file = match at {
        Some(at) => Some(
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(at)?,
        ),
        None => None,
    };
    let mut hasher = Hasher::new();
    let mut piece = vec![0; PIECE];
    let mut length = 0_u64;
    loop {
        let mut filled = 0;
        while filled < PIECE {
            match entry.read(&mut piece[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            break;
        }
        let bytes = &piece[..filled];
        hasher.update(bytes);
        length += u64::try_from(filled).unwrap_or(0);
        if let Some(file) = &mut file {
            if filled == PIECE && bytes.iter().all(|byte| *byte == 0) {
                file.seek(io::SeekFrom::Current(i64::try_from(filled).unwrap_or(0)))?;
            } else {
                durable::place::about_to_write()?;
                file.write_all(bytes)?;
            }
        }
    }
    if let Some((file, at)) = file.zip(at) {
        file.set_len(length)?;
        durable::flush(&file, at).map_err(|error| error.source)?;
    }
    Ok(hasher.finish())
}

fn special(entry: &tar::Entry<'_, impl Read>, kind: tar::EntryType, at: &Path) -> io::Result<()> {
    let header = entry.header();
    let device = rustix::fs::makedev(
        header.device_major()?.unwrap_or(0),
        header.device_minor()?.unwrap_or(0),
    );
    let kind = if kind.is_fifo() {
        FileType::Fifo
    } else if kind.is_character_special() {
        FileType::CharacterDevice
    } else if kind.is_block_special() {
        FileType::BlockDevice
    } else {
        return Err(io::Error::other("an entry of an unknown kind"));
    };
    Ok(rustix::fs::mknodat(
        CWD,
        at,
        kind,
        Mode::from_raw_mode(0o600),
        device,
    )?)
}

/// The entries of the folder `folder`, for the manifest.
///
/// # Errors
/// [`BackupError::Io`].
pub(super) fn listed(folder: &Path) -> Result<Vec<Entry>, BackupError> {
    crate::module::tree::scan(folder).map_err(failed("reading", folder))
}
