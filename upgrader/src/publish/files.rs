//! Folders in a fixed order, and copies that are verified on their way.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use kato_shared::{Digest, digest::Hasher, durable};

use super::PublishError;

const PIECE: usize = 1024 * 1024;

/// The entries of `folder`, recursively, by path; folders before what is in them; links are not followed.
pub(super) fn tree(folder: &Path) -> Result<Vec<PathBuf>, PublishError> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(next) = waiting.pop() {
        let entries = fs::read_dir(&next).map_err(PublishError::io("reading the folder", &next))?;
        for entry in entries {
            let entry = entry.map_err(PublishError::io("reading the folder", &next))?;
            let kind = entry
                .file_type()
                .map_err(PublishError::io("looking at", entry.path()))?;
            if kind.is_dir() {
                waiting.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The digest and size of a file.
pub(super) fn digest(path: &Path) -> Result<(Digest, u64), PublishError> {
    let mut file = File::open(path).map_err(PublishError::io("opening", path))?;
    copy(&mut file, path, |_| Ok(()))
}

/// Reads `file` to its end, gives each piece to `sink`, and returns digest and size.
pub(super) fn copy(
    file: &mut File,
    path: &Path,
    mut sink: impl FnMut(&[u8]) -> Result<(), PublishError>,
) -> Result<(Digest, u64), PublishError> {
    let (mut hasher, mut size, mut piece) = (Hasher::new(), 0, vec![0; PIECE]);
    loop {
        let count = file.read(&mut piece).map_err(PublishError::io("reading", path))?;
        let Some(read) = piece.get(..count).filter(|read| !read.is_empty()) else {
            return Ok((hasher.finish(), size));
        };
        hasher.update(read);
        size += count as u64;
        sink(read)?;
    }
}

/// Puts a copy of `from` at `to`, durably, if its digest is `expected`. A file at `to` with that digest is kept.
pub(super) fn place(from: &Path, to: &Path, expected: Digest) -> Result<(), PublishError> {
    if to.is_file() && digest(to)?.0 == expected {
        return Ok(());
    }
    let folder = to.parent().unwrap_or(to);
    durable::create_folder(folder)?;
    let mut source = File::open(from).map_err(PublishError::io("opening", from))?;
    let mut temp = tempfile::Builder::new()
        .prefix(".kato-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(PublishError::io("creating a temporary file in", folder))?;
    let (found, _size) = copy(&mut source, from, |piece| {
        temp.write_all(piece).map_err(PublishError::io("writing", to))
    })?;
    if found != expected {
        return Err(PublishError::Altered {
            path: from.to_owned(),
            expected,
            found,
        });
    }
    // The umask may have narrowed the bits; a web server runs as another user.
    temp.as_file()
        .set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .map_err(PublishError::io("setting the mode of", to))?;
    let (file, temp) = temp.into_parts();
    Ok(durable::commit(&file, &temp, to)?)
}
