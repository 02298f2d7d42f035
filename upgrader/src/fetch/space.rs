//! How much room a file system has, and which one it is.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::FetchError;

/// Refuses when the file system of `path`'s folder has less than `need` bytes free for this user.
///
/// # Errors
/// [`FetchError::DiskFull`] with the mount point; [`FetchError::Io`] when it cannot be asked.
pub(super) fn check(path: &Path, need: u64) -> Result<(), FetchError> {
    let folder = path.parent().unwrap_or(path);
    let have = free(folder).map_err(FetchError::io("asking for the free space of", folder))?;
    if have < need {
        return Err(full(path, need, have));
    }
    Ok(())
}

/// The error for a write that found no room.
pub(super) fn exhausted(path: &Path, need: u64) -> FetchError {
    // A quota may be exhausted while the file system is not; what statvfs says is what the operator sees, too.
    let have = free(path.parent().unwrap_or(path)).unwrap_or(0);
    full(path, need, have)
}

fn full(path: &Path, need: u64, have: u64) -> FetchError {
    FetchError::DiskFull {
        path: path.to_owned(),
        mount: mount_point(path),
        need,
        have,
    }
}

fn free(folder: &Path) -> io::Result<u64> {
    let facts = rustix::fs::statvfs(folder)?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// The topmost folder above `path` that is on the same device.
fn mount_point(path: &Path) -> PathBuf {
    let folder = path.parent().unwrap_or(path);
    let Ok(folder) = folder.canonicalize() else {
        return folder.to_owned();
    };
    let device = |path: &Path| path.metadata().ok().map(|facts| facts.dev());
    let own = device(&folder);
    folder
        .ancestors()
        .take_while(|above| device(above) == own)
        .last()
        .map_or_else(|| folder.clone(), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c13_a_file_that_cannot_fit_is_refused_with_mount_need_and_have() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.part");
        check(&path, 1).unwrap();
        let error = check(&path, u64::MAX).unwrap_err();
        assert!(
            matches!(&error, FetchError::DiskFull { mount, have, .. } if folder.path().starts_with(mount) && *have > 0)
        );
        assert!(error.hint().contains("free space on /"), "{}", error.hint());
    }
}
