//! Files and folders that nobody may change, root included: `chattr +i` and `chattr +a`.
//!
//! A sealed file is neither replaced nor removed, a sealed folder gets no new names, and the kernel says so (`EPERM`) only when it is
//! tried. Asked for by `statx` (Linux 4.11); where kernel or file system do not know such flags, there are none.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx},
    io::Errno,
};

/// What keeps a file as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seal {
    /// Nothing of it may be changed.
    Immutable,
    /// Something may be added to it, and nothing else.
    AppendOnly,
}

impl Seal {
    /// As people say it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Immutable => "immutable",
            Self::AppendOnly => "append-only",
        }
    }

    /// What `chattr` is told to take it away.
    pub const fn off(self) -> &'static str {
        match self {
            Self::Immutable => "-i",
            Self::AppendOnly => "-a",
        }
    }
}

/// The seal of `path`, which is not followed; `None` also where there is nothing.
///
/// # Errors
/// When it cannot be looked at.
pub fn of(path: &Path) -> io::Result<Option<Seal>> {
    let found = match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(found) => found.stx_attributes,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NOSYS) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(if found.contains(StatxAttributes::IMMUTABLE) {
        Some(Seal::Immutable)
    } else if found.contains(StatxAttributes::APPEND) {
        Some(Seal::AppendOnly)
    } else {
        None
    })
}

/// Everything that is sealed: `path` itself and what is below it.
///
/// # Errors
/// When a folder cannot be read.
pub fn below(path: &Path) -> io::Result<Vec<(PathBuf, Seal)>> {
    let mut sealed = Vec::new();
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        sealed.extend(of(&path)?.map(|seal| (path.clone(), seal)));
        if metadata.is_dir() {
            for item in fs::read_dir(&path)? {
                left.push(item?.path());
            }
        }
    }
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_and_what_is_ordinary_have_no_seal() {
        let folder = tempfile::tempdir().unwrap();
        kato_shared::durable::write(&folder.path().join("file"), b"x", 0o644).unwrap();
        assert_eq!(of(&folder.path().join("none")).unwrap(), None);
        assert_eq!(of(&folder.path().join("file/none")).unwrap(), None);
        assert_eq!(below(folder.path()).unwrap(), []);
        assert_eq!(below(&folder.path().join("none")).unwrap(), []);
    }
}
