//! The `.deb` files of what is installed, kept for the way back of the next upgrade: `packages/<module>/` in the state folder.
//!
//! Files are found by their names, `<name>_<version>_<architecture>.deb`; dpkg itself says later whether they are right.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kato_shared::{durable, release::Package};

use super::{copy, remove};
use crate::{
    module::{ModuleError, beside},
    paths::NodePaths,
};

/// A kept file of a package in a version: ours, or one that apt has not thrown away yet.
pub(super) fn find(paths: &NodePaths, name: &str, version: &str) -> Option<PathBuf> {
    let mut listing = fs::read_dir(paths.packages()).into_iter().flatten().flatten();
    listing
        .find_map(|module| in_folder(&module.path(), name, version))
        .or_else(|| fetched_by_apt(paths, name, version))
}

/// The file in apt's own cache.
pub(super) fn fetched_by_apt(paths: &NodePaths, name: &str, version: &str) -> Option<PathBuf> {
    in_folder(
        &paths.on_node(Path::new("/var/cache/apt/archives")),
        name,
        version,
    )
}

fn in_folder(folder: &Path, name: &str, version: &str) -> Option<PathBuf> {
    let package = Package {
        name: name.to_owned(),
        version: version.to_owned(),
    };
    let listing = fs::read_dir(folder).into_iter().flatten().flatten();
    listing.map(|item| item.path()).find(|path| package.is_file(path))
}

/// Keeps `files` for `module` in place of those that were kept for it.
pub(super) fn replace(
    paths: &NodePaths,
    module: &str,
    files: &[(&Package, PathBuf)],
) -> Result<(), ModuleError> {
    let folder = paths.packages().join(module);
    let fresh = beside(&folder, ".tmp");
    remove(&fresh)?;
    for (_, deb) in files {
        if let Some(name) = deb.file_name() {
            copy(deb, &fresh.join(name))?;
        }
    }
    if folder.exists() {
        durable::exchange(&fresh, &folder)?;
        return remove(&fresh);
    }
    Ok(durable::rename(&fresh, &folder)?)
}
