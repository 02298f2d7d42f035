//! A file of zeros that holds space back, so that a disk on which nothing is left can still be written the few pages that an
//! eviction needs: the index cannot forget anything without writing.
//!
//! Flow: made at the start; given up when a change of the index must go through on a full disk; made again as soon as there is space.

use std::{fs::File, path::PathBuf};

use kato_shared::durable;
use rustix::fs::{FallocateFlags, fallocate};

use super::layout::{Space, remove_if_there};

/// The size of the file in bytes, on a file system that is not small.
const SIZE: u64 = 2 << 20;

/// The part of the file system that the file may take at most.
const DIVISOR: u64 = 16;

/// The file.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    size: u64,
}

impl Reserve {
    /// The reserve at `path` on a file system of this size; [`Reserve::make`] makes it.
    pub(super) fn new(path: PathBuf, space: Space) -> Self {
        Self {
            path,
            size: SIZE.min(space.size / DIVISOR),
        }
    }

    /// Makes the file unless it is there, or taking the space would fill the disk again.
    pub(super) fn make(&self, space: Space) {
        if self.path.exists() || space.free < 2 * self.size {
            return;
        }
        let made = durable::create_new(&self.path)
            .map_err(|error| error.source)
            .and_then(|file: File| Ok(fallocate(&file, FallocateFlags::empty(), 0, self.size)?));
        if let Err(error) = made {
            // A file system without such files: a full disk then needs somebody's help.
            tracing::debug!(path = %self.path.display(), %error, "no space can be held back");
            let _left = remove_if_there(&self.path);
        }
    }

    /// Gives the space up. Whether there was any.
    pub(super) fn give_up(&self) -> bool {
        remove_if_there(&self.path).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_held_back_once_and_given_up_once_and_not_taken_from_a_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reserve");
        let space = |free| Space { free, size: 1 << 30 };
        let reserve = Reserve::new(path.clone(), space(0));
        reserve.make(space(SIZE));
        assert!(!path.exists() && !reserve.give_up());
        reserve.make(space(2 * SIZE));
        reserve.make(space(2 * SIZE));
        assert_eq!(path.metadata().unwrap().len(), SIZE);
        assert!(reserve.give_up() && !path.exists());
    }
}
