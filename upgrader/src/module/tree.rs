//! What is in a folder: files with digest and permission bits, symbolic links, and folders.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use kato_shared::{Digest, digest::Hasher};
use serde::{Deserialize, Serialize};

/// One thing in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// Its path below the folder.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// What it is.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What a thing is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Kind {
    /// A file.
    File {
        /// The digest of its content.
        sha256: Digest,
        /// Its permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        #[serde(with = "crate::path_text")]
        to: PathBuf,
    },
    /// A folder.
    Folder {
        /// Its permission bits, where they count; a folder that many write to has those that it has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
    /// A device, socket or pipe; modules do not install these, but they may be found.
    Special,
}

impl Kind {
    /// Whether both are files of equal content or links to the same place; permission bits do not count.
    pub fn same_content(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { sha256: one, .. }, Self::File { sha256: two, .. }) => one == two,
            (Self::Link { to: one }, Self::Link { to: two }) => one == two,
            (Self::Folder { .. }, Self::Folder { .. }) => true,
            _ => false,
        }
    }

    /// A folder whose permission bits do not count.
    pub const FOLDER: Self = Self::Folder { mode: None };

    /// Whether it is a folder.
    pub const fn is_folder(&self) -> bool {
        matches!(self, Self::Folder { .. })
    }

    /// The same as it is at `path`, with its permission bits where it is a folder.
    #[must_use]
    pub fn with_mode_of(self, path: &Path) -> Self {
        match self {
            Self::Folder { .. } => Self::Folder {
                mode: fs::symlink_metadata(path)
                    .ok()
                    .map(|metadata| metadata.permissions().mode() & 0o7777),
            },
            other @ (Self::File { .. } | Self::Link { .. } | Self::Special) => other,
        }
    }
}

/// The digest of a file's content.
///
/// # Errors
/// The error of opening or reading.
pub fn digest(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut piece = vec![0; 128 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&piece[..read]),
        }
    }
}

/// What `path` is, without following a symbolic link; `None` when there is nothing.
///
/// # Errors
/// The error of reading it.
pub fn look(path: &Path) -> io::Result<Option<Kind>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let kind = metadata.file_type();
    Ok(Some(if kind.is_symlink() {
        Kind::Link {
            to: fs::read_link(path)?,
        }
    } else if kind.is_dir() {
        Kind::FOLDER
    } else if kind.is_file() {
        Kind::File {
            sha256: digest(path)?,
            mode: metadata.permissions().mode() & 0o7777,
        }
    } else {
        Kind::Special
    }))
}

/// Everything below `folder`, sorted by path. A missing folder is empty.
///
/// # Errors
/// The error of reading the folder or one of its files.
pub fn scan(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let listing = match fs::read_dir(folder.join(&below)) {
            Ok(listing) => listing,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound && below.as_os_str().is_empty() => {
                break;
            }
            Err(error) => return Err(error),
        };
        for item in listing {
            let path = below.join(item?.file_name());
            // A file that goes away while we look was not there.
            let Some(kind) = look(&folder.join(&path))? else {
                continue;
            };
            if kind.is_folder() {
                folders.push(path.clone());
            }
            entries.push(Entry { path, kind });
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

/// The bytes of all files below `path`, or of the file itself; 0 when there is nothing.
///
/// # Errors
/// The error of reading a folder.
pub fn size(path: &Path) -> io::Result<u64> {
    Ok(measure(path)?.0)
}

/// The bytes of all files below `path`, and how many files, links and folders there are with itself.
fn measure(path: &Path) -> io::Result<(u64, u64)> {
    let (mut bytes, mut entries) = (0, 0);
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        entries += 1;
        if metadata.is_dir() {
            for item in fs::read_dir(&path)? {
                left.push(item?.path());
            }
        } else {
            bytes += metadata.size();
        }
    }
    Ok((bytes, entries))
}

/// What an entry takes in a backup beside its content, in bytes at most: its headers in the archive, and its line in the
/// manifest.
const SAVED: u64 = 2048;

/// The bytes that a backup of everything at `path` takes at most, itself included; 0 when there is nothing.
///
/// # Errors
/// The error of reading a folder.
pub fn saved_size(path: &Path) -> io::Result<u64> {
    let (bytes, entries) = measure(path)?;
    Ok(bytes.saturating_add(entries.saturating_mul(SAVED)))
}

/// Removes whatever is at `path`; nothing there is fine. A symbolic link is removed, not followed.
///
/// # Errors
/// The error of the removal.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_file_or_link) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use kato_shared::durable;

    use super::*;

    #[test]
    fn a_folder_is_listed_with_digests_modes_and_links_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("b")).unwrap();
        durable::write(&root.join("b/x"), b"x", 0o755).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("a")).unwrap();
        let found = scan(root).unwrap();
        let paths: Vec<_> = found.iter().map(|entry| entry.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["a", "b", "b/x"]);
        assert_eq!(
            found[2].kind,
            Kind::File {
                sha256: Digest::of(b"x"),
                mode: 0o755
            }
        );
        assert_eq!(
            size(root).unwrap() - fs::symlink_metadata(root.join("a")).unwrap().size(),
            1
        );
        remove(&root.join("a")).unwrap();
        assert!(Path::new("/etc").exists());
        assert!(scan(&root.join("none")).unwrap().is_empty());
    }
}
