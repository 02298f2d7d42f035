//! Free space, per mount: what an upgrade needs where, against what there is; then held, so that nobody takes it meanwhile.
//!
//! A need is in bytes and in files; what it takes is counted in blocks ([`Need::on`]), because a file system gives no less than
//! one to each file and folder, however small.
//!
//! Flow: needs of the plan → [`judge`] against each mount → [`hold`] for downloads, in the files themselves, and
//! [`reserve`] for everything that comes later, given back step by step. [`users`] says who else is on a mount.

pub mod reserve;
pub mod users;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use kato_shared::settings::byte_size::human;
use rustix::{
    fs::{FallocateFlags, StatVfsMountFlags, fallocate},
    io::Errno,
};
use serde::Serialize;

/// Bytes and files that are needed somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The path that is written to.
    pub path: PathBuf,
    /// How many bytes.
    pub bytes: u64,
    /// How many files and folders are made: each takes an inode.
    pub inodes: u64,
    /// What for.
    pub purpose: &'static str,
}

impl Need {
    /// The bytes that it takes at most on a file system with blocks of `block` bytes: the last block of each file and folder is
    /// counted as a whole one.
    pub const fn on(&self, block: u64) -> u64 {
        self.bytes.saturating_add(self.inodes.saturating_mul(block))
    }
}

/// A mount without enough space.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortfall {
    /// There is no room for the bytes.
    #[error(
        "not enough space on `{mount}`: need {} ({need} bytes: {purposes}), have {} ({have} bytes), {} short",
        human(*need), human(*have), human(need.saturating_sub(*have))
    )]
    Bytes {
        /// The mount point.
        mount: PathBuf,
        /// Bytes that are needed.
        need: u64,
        /// Bytes that are free.
        have: u64,
        /// What for.
        purposes: String,
    },
    /// There is room, but the file system can hold no more files.
    #[error(
        "not enough inodes on `{mount}`: need {need} (files and folders: {purposes}), have {have}, {} short",
        need.saturating_sub(*have)
    )]
    Inodes {
        /// The mount point.
        mount: PathBuf,
        /// Inodes that are needed.
        need: u64,
        /// Inodes that are free.
        have: u64,
        /// What for.
        purposes: String,
    },
}

impl Shortfall {
    /// The mount point.
    pub fn mount(&self) -> &Path {
        match self {
            Self::Bytes { mount, .. } | Self::Inodes { mount, .. } => mount,
        }
    }
}

/// One mount's free space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its device number, which tells mounts apart.
    pub device: u64,
    /// The mount point.
    pub point: PathBuf,
    /// Bytes that are free for this user.
    pub free: u64,
    /// Inodes that are free for this user; `None` where the file system makes as many as are wanted.
    pub free_inodes: Option<u64>,
    /// The size of its blocks in bytes: each file and folder takes whole ones.
    pub block: u64,
    /// Whether nothing can be written there.
    pub is_read_only: bool,
}

/// The mount that `path` is on or, where it does not exist yet, will be on.
///
/// # Errors
/// When not even the root can be read.
pub fn mount_of(path: &Path) -> io::Result<Mount> {
    let mut existing = path;
    let metadata = loop {
        match (fs::metadata(existing), existing.parent()) {
            // Folders only: on an overlay file system each file has the device of the layer that it is in.
            (Ok(metadata), _) if metadata.is_dir() => break metadata,
            (_, Some(parent)) => existing = parent,
            (Ok(metadata), None) => break metadata,
            (Err(error), None) => return Err(error),
        }
    };
    let device = metadata.dev();
    let mut point = existing.canonicalize()?;
    while let Some(parent) = point.parent() {
        if fs::metadata(parent)?.dev() != device {
            break;
        }
        point = parent.to_path_buf();
    }
    let space = rustix::fs::statvfs(existing)?;
    Ok(Mount {
        device,
        point,
        free: space.f_bavail.saturating_mul(space.f_frsize),
        // Those that do not count them (btrfs) say that there are none at all.
        free_inodes: (space.f_files > 0).then_some(space.f_favail),
        block: space.f_frsize,
        is_read_only: space.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

/// Holds the blocks of the first `size` bytes of `file`, whose length stays; whether the file system can do so.
///
/// # Errors
/// When there is no room (`ENOSPC`, `EDQUOT`), or the disk fails.
pub fn hold(file: &File, size: u64) -> io::Result<bool> {
    if size == 0 {
        return Ok(true);
    }
    // In vain it would take all that is left first, and others would find the disk full for that moment.
    let space = rustix::fs::fstatvfs(file)?;
    let own = file.metadata()?.blocks().saturating_mul(512);
    if size > own.saturating_add(space.f_bavail.saturating_mul(space.f_frsize)) {
        return Err(Errno::NOSPC.into());
    }
    loop {
        match fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            // Also where a file of this size could never be: then there is no room for it, as a look will tell.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::FBIG) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The bytes of `path` that take room on the disk, held ones included; 0 when it is not there.
pub fn taken_by(path: &Path) -> u64 {
    // `st_blocks` counts in units of 512 bytes whatever the file system's own are (inode(7)).
    fs::metadata(path).map_or(0, |metadata| metadata.blocks().saturating_mul(512))
}

/// What is needed on one mount.
#[derive(Debug, Default)]
struct Sum {
    bytes: u64,
    inodes: u64,
    purposes: Vec<&'static str>,
}

/// Adds the needs up per mount and compares them with what is free; the first mount that is short is the error.
///
/// # Errors
/// [`Shortfall`].
pub fn judge<'a>(needs: impl IntoIterator<Item = (&'a Need, Mount)>) -> Result<(), Shortfall> {
    let mut mounts: BTreeMap<u64, (Mount, Sum)> = BTreeMap::new();
    for (need, mount) in needs {
        let block = mount.block;
        let (_, sum) = mounts.entry(mount.device).or_insert((mount, Sum::default()));
        sum.bytes = sum.bytes.saturating_add(need.on(block));
        sum.inodes = sum.inodes.saturating_add(need.inodes);
        if need.on(block) > 0 && !sum.purposes.contains(&need.purpose) {
            sum.purposes.push(need.purpose);
        }
    }
    for (mount, sum) in mounts.into_values() {
        let purposes = sum.purposes.join(", ");
        if sum.bytes > mount.free {
            return Err(Shortfall::Bytes {
                mount: mount.point,
                need: sum.bytes,
                have: mount.free,
                purposes,
            });
        }
        if let Some(have) = mount.free_inodes.filter(|have| sum.inodes > *have) {
            return Err(Shortfall::Inodes {
                mount: mount.point,
                need: sum.inodes,
                have,
                purposes,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(bytes: u64, purpose: &'static str) -> Need {
        Need {
            path: "/x".into(),
            bytes,
            inodes: bytes / 100,
            purpose,
        }
    }

    fn mount(device: u64, free: u64) -> Mount {
        Mount {
            device,
            point: format!("/m{device}").into(),
            free,
            free_inodes: Some(10),
            block: 0,
            is_read_only: false,
        }
    }

    #[test]
    fn c13_needs_on_one_mount_add_up_and_the_shortfall_is_named() {
        let (one, two) = (need(600, "downloads"), need(600, "backup"));
        assert_eq!(judge([(&one, mount(1, 1000)), (&two, mount(2, 1000))]), Ok(()));
        let short = judge([(&one, mount(1, 1000)), (&two, mount(1, 1000))]).unwrap_err();
        assert_eq!(
            short.to_string(),
            "not enough space on `/m1`: need 1.2 KiB (1200 bytes: downloads, backup), have 1000 B (1000 bytes), 200 B short"
        );
    }

    #[test]
    fn c13_files_that_find_no_inode_are_counted_where_the_file_system_counts_them() {
        let (one, two) = (need(600, "downloads"), need(600, "unpacked modules"));
        let many = |device| mount(device, 1 << 20);
        let short = judge([(&one, many(1)), (&two, many(1))]).unwrap_err();
        assert_eq!(
            short.to_string(),
            "not enough inodes on `/m1`: need 12 (files and folders: downloads, unpacked modules), have 10, 2 short"
        );
        let uncounted = Mount {
            free_inodes: None,
            ..many(1)
        };
        assert_eq!(judge([(&one, uncounted.clone()), (&two, uncounted)]), Ok(()));
    }

    #[test]
    fn c13_each_file_takes_a_whole_block_however_small_it_is() {
        let files = Need {
            path: "/x".into(),
            bytes: 55_901,
            inodes: 3006,
            purpose: "unpacked modules",
        };
        let disk = |free, block| Mount {
            free,
            block,
            free_inodes: None,
            ..mount(1, 0)
        };
        assert_eq!(judge([(&files, disk(8 << 20, 0))]), Ok(()));
        let short = judge([(&files, disk(8 << 20, 4096))]).unwrap_err();
        assert!(
            matches!(short, Shortfall::Bytes { need, .. } if need == 55_901 + 3006 * 4096),
            "{short}"
        );
        assert_eq!(judge([(&files, disk(files.on(4096), 4096))]), Ok(()));
    }

    #[test]
    fn a_path_that_does_not_exist_yet_is_on_the_mount_of_its_nearest_parent() {
        let found = mount_of(Path::new("/proc/none/of/this")).unwrap();
        assert_eq!(found.point, Path::new("/proc"));
    }
}
