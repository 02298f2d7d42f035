//! Whether a download fits, before it starts and when it does not go on.

use std::path::Path;

use super::FetchError;
use crate::space::mount_of;

/// Refuses when the file system of `path` has less than `need` bytes free for this user.
///
/// # Errors
/// [`FetchError::DiskFull`] with the mount point; [`FetchError::Io`] when it cannot be asked.
pub(super) fn check(path: &Path, need: u64) -> Result<(), FetchError> {
    let mount = mount_of(path).map_err(FetchError::io("asking for the free space of", path))?;
    if mount.free < need {
        return Err(exhausted(path, need));
    }
    Ok(())
}

/// The error for a file that finds no room.
pub(super) fn exhausted(path: &Path, need: u64) -> FetchError {
    // A quota may be exhausted while the file system is not; what the file system says is what the operator sees, too.
    let (mount, have, inodes) = mount_of(path).map_or_else(
        |_unknown| (path.to_owned(), 0, None),
        |mount| (mount.point, mount.free, mount.free_inodes),
    );
    FetchError::DiskFull {
        path: path.to_owned(),
        mount,
        need,
        have,
        inodes,
    }
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
