//! What a restoration exchanges: each path of the backup as one, unless something stands in the way.
//!
//! A path below which another file system is mounted, or which holds the state folder, cannot be exchanged as a whole: the
//! mount would stay with the old folder. Such a folder stays, and what is in it is exchanged piece by piece.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::module::mounts::Mounts;

/// What must stay where it is: mount points and the state folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Fixed(BTreeSet<PathBuf>);

impl Fixed {
    /// The mount points of this machine, and `state`.
    pub(super) fn of_machine(state: &Path) -> Self {
        let mut fixed = Mounts::read().unwrap_or_default().into_points();
        fixed.insert(real(state));
        Self(fixed)
    }

    /// Whether `path` itself, or anything below it, must stay.
    fn is_at_or_below(&self, path: &Path) -> bool {
        let path = real(path);
        self.0.iter().any(|fixed| fixed.starts_with(&path))
    }

    fn is(&self, path: &Path) -> bool {
        self.0.contains(&real(path))
    }
}

/// The path with its folder's symbolic links resolved; the last component stays as it is.
fn real(path: &Path) -> PathBuf {
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// The paths to exchange for the path `below` of the backup; all are below `root`. `inside` gives the names that the backup has
/// in a folder, and `None` for what is no folder there.
pub(super) fn split(
    root: &Path,
    below: &Path,
    fixed: &Fixed,
    inside: &dyn Fn(&Path) -> Option<BTreeSet<PathBuf>>,
) -> Vec<PathBuf> {
    let path = root.join(below);
    if !fixed.is_at_or_below(&path) {
        return vec![below.to_owned()];
    }
    let Some(saved) = inside(below) else {
        // It was not there when the backup was taken; a file system that was mounted since is no business of ours.
        return Vec::new();
    };
    let here = fs::read_dir(&path).map_or_else(
        |_gone| Vec::new(),
        |listing| {
            listing
                .flatten()
                .map(|item| below.join(item.file_name()))
                .collect()
        },
    );
    let all: BTreeSet<PathBuf> = saved.into_iter().chain(here).collect();
    all.iter()
        .filter(|path| !(fixed.is(&root.join(path)) && inside(path).is_none()))
        .flat_map(|path| split(root, path, fixed, inside))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r39_a_folder_with_a_mount_below_it_is_exchanged_piece_by_piece() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["s/data/disk", "s/data/plain", "s/etc"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let saved: BTreeSet<PathBuf> = ["s/data", "s/data/disk", "s/data/disk/db", "s/data/gone", "s/etc"]
            .map(Into::into)
            .into();
        let inside = |folder: &Path| {
            let within = saved.iter().filter(|path| path.parent() == Some(folder));
            (saved.contains(folder) && !folder.ends_with("db")).then(|| within.cloned().collect())
        };
        let fixed = Fixed([real(&root.path().join("s/data/disk"))].into());
        let units = |below: &str| split(root.path(), Path::new(below), &fixed, &inside);
        assert_eq!(units("s/etc"), [PathBuf::from("s/etc")]);
        assert_eq!(
            units("s/data"),
            ["s/data/disk/db", "s/data/gone", "s/data/plain"].map(PathBuf::from)
        );
    }
}
