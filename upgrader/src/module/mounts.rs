//! Where file systems are mounted: a mount point cannot be renamed, and what is mounted below a folder would go with it.
//!
//! Read from `/proc/self/mountinfo` (proc(5)), which also knows mounts of the same file system at a second place. Without
//! `/proc` only device numbers tell, which is enough for other file systems.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

/// The mount points of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts {
    points: BTreeSet<PathBuf>,
}

impl Mounts {
    /// The mount points as they are now.
    ///
    /// # Errors
    /// The error of reading `/proc/self/mountinfo` where there is a `/proc`.
    pub fn read() -> io::Result<Self> {
        match fs::read("/proc/self/mountinfo") {
            Ok(table) => Ok(Self::parse(&table)),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// The fifth field of each line is the mount point, with space, tab, newline and backslash as octal escapes.
    fn parse(table: &[u8]) -> Self {
        let point = |line: &[u8]| Some(unescaped(line.split(|byte| *byte == b' ').nth(4)?));
        Self {
            points: table.split(|byte| *byte == b'\n').filter_map(point).collect(),
        }
    }

    /// All of them.
    pub fn into_points(self) -> BTreeSet<PathBuf> {
        self.points
    }

    /// The mount point that is `path` itself, a file or folder.
    pub fn at(&self, path: &Path) -> Option<PathBuf> {
        let real = real(path)?;
        (self.points.contains(&real) || is_on_another_device(&real)).then_some(real)
    }

    /// The mount point that is `path` or anywhere below it; the outermost one.
    pub fn at_or_below(&self, path: &Path) -> Option<PathBuf> {
        let real = real(path)?;
        let below = || self.points.iter().find(|point| point.starts_with(&real)).cloned();
        self.at(path).or_else(below)
    }
}

fn is_on_another_device(real: &Path) -> bool {
    // Folders only: on an overlay file system each file has the device of the layer that it is in.
    let (Some(above), Ok(metadata)) = (real.parent(), fs::symlink_metadata(real)) else {
        return false;
    };
    metadata.is_dir() && fs::metadata(above).is_ok_and(|above| above.dev() != metadata.dev())
}

/// `path` without links above it; its last part is not followed. `None` when it is not there.
fn real(path: &Path) -> Option<PathBuf> {
    fs::symlink_metadata(path).ok()?;
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Some(folder.canonicalize().ok()?.join(name)),
        _ => path.canonicalize().ok(),
    }
}

fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
23 22 0:20 / /proc rw - proc proc rw
24 22 8:1 /x /s/with\\040space rw shared:7 - ext4 /dev/sda1 rw
";

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let mounts = Mounts::parse(TABLE.as_bytes());
        let points: Vec<_> = mounts
            .points
            .iter()
            .map(|point| point.to_str().unwrap())
            .collect();
        assert_eq!(points, ["/", "/proc", "/s/with space"]);
    }

    #[test]
    fn a_mount_is_found_at_and_below_a_folder_and_not_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("web/uploads")).unwrap();
        fs::create_dir(root.join("webx")).unwrap();
        let mounts = Mounts {
            points: [root.join("web/uploads")].into(),
        };
        assert_eq!(mounts.at(&root.join("web")), None);
        assert_eq!(
            mounts.at_or_below(&root.join("web")),
            Some(root.join("web/uploads"))
        );
        assert_eq!(
            mounts.at(&root.join("web/uploads")),
            Some(root.join("web/uploads"))
        );
        assert_eq!(mounts.at_or_below(&root.join("webx")), None);
        // Real ones: `/proc` is one on every machine that has it.
        assert!(Mounts::read().unwrap().at(Path::new("/proc")).is_some());
        assert!(
            Mounts::default().at(Path::new("/proc")).is_some(),
            "by its device"
        );
    }
}
