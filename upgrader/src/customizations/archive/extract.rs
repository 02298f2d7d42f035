//! Unpacks an archive, when it is what its manifest says.

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Component, Path, PathBuf},
};

use kato_shared::durable;

use super::{Manifest, folder};
use crate::{backup, customizations::error::CustomizationError, module::tree, paths::NodePaths};

/// Unpacks those files of the archive whose path is `wanted` to `into/local/…` and `into/original/…`.
///
/// # Errors
/// [`CustomizationError::Altered`] when the archive is not what its manifest says.
pub fn extract(
    paths: &NodePaths,
    manifest: &Manifest,
    wanted: &BTreeSet<PathBuf>,
    into: &Path,
) -> Result<(), CustomizationError> {
    let file = folder(paths, &manifest.id).join("files.tar.zst");
    let found = tree::digest(&file).map_err(CustomizationError::io("reading", &file))?;
    if found != manifest.archive {
        return Err(CustomizationError::Altered {
            path: file,
            expected: manifest.archive.to_string(),
            found: found.to_string(),
        });
    }
    let read = CustomizationError::io;
    let opened = File::open(&file).map_err(read("reading", &file))?;
    let plain = zstd::stream::read::Decoder::new(opened).map_err(read("reading", &file))?;
    let mut tar = tar::Archive::new(plain);
    for entry in tar.entries().map_err(read("reading", &file))? {
        let mut entry = entry.map_err(read("reading", &file))?;
        let name = entry.path().map_err(read("reading", &file))?.into_owned();
        let mut parts = name.components();
        let top = parts.next();
        let below = parts.as_path();
        let is_plain = below
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let is_wanted = wanted.contains(&Path::new("/").join(below));
        if top.is_none() || !is_plain || !is_wanted || !entry.header().entry_type().is_file() {
            continue;
        }
        let to = into.join(&name);
        durable::create_folder(to.parent().unwrap_or(into))?;
        let mut out = durable::create_new(&to)?;
        let attributes = backup::saved_attributes(&mut entry).map_err(read("reading", &file))?;
        durable::write_with_holes(&mut entry, &mut out).map_err(read("writing", &to))?;
        for (name, value) in attributes {
            match rustix::fs::fsetxattr(&out, name.as_str(), &value, rustix::fs::XattrFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
                Err(error) => return Err(read("writing", &to)(error.into())),
            }
        }
    }
    Ok(())
}
