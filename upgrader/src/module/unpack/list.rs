//! What an archive will be once it is unpacked, without unpacking it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use kato_shared::digest::Hasher;

use super::{Archive, UnpackError, plain_relative};
use crate::module::tree::{Entry, Kind};

/// The entries that [`super::unpack()`] makes of `archive`, sorted by path, with the folders that it makes on the way.
///
/// The archive's own digest is not compared: this only looks, and whoever unpacks compares it.
///
/// # Errors
/// [`UnpackError`] when it cannot be read, or has an entry that may not be in a module.
pub fn list(archive: &Archive) -> Result<Vec<Entry>, UnpackError> {
    let unreadable = |source| UnpackError::Read {
        path: archive.path.clone(),
        source,
    };
    let file = File::open(&archive.path).map_err(unreadable)?;
    let plain = zstd::stream::read::Decoder::new(file).map_err(unreadable)?;
    let mut tar = tar::Archive::new(plain);
    let mut found: BTreeMap<PathBuf, Kind> = BTreeMap::new();
    for entry in tar.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = plain_relative(&entry.path().map_err(unreadable)?)?;
        if path.as_os_str().is_empty() {
            continue;
        }
        let above = path.ancestors().skip(1);
        for folder in above.filter(|folder| !folder.as_os_str().is_empty()) {
            found.entry(folder.to_owned()).or_insert(Kind::FOLDER);
        }
        let kind = kind(&mut entry, &found).map_err(unreadable)?;
        if let Some(kind) = kind {
            found.insert(path, kind);
        }
    }
    Ok(found
        .into_iter()
        .map(|(path, kind)| Entry { path, kind })
        .collect())
}

/// What an entry becomes; `None` for what unpacking refuses.
fn kind(entry: &mut tar::Entry<'_, impl Read>, found: &BTreeMap<PathBuf, Kind>) -> io::Result<Option<Kind>> {
    let of = entry.header().entry_type();
    if of.is_dir() {
        return Ok(Some(Kind::FOLDER));
    }
    if of.is_file() || of.is_contiguous() || of.is_gnu_sparse() {
        let mode = entry.header().mode()? & 0o7777;
        return Ok(Some(Kind::File {
            sha256: digest(entry)?,
            mode,
        }));
    }
    let Some(target) = entry.link_name()? else {
        return Ok(None);
    };
    Ok(if of.is_symlink() {
        Some(Kind::Link {
            to: target.into_owned(),
        })
    } else {
        found.get::<Path>(&target).cloned()
    })
}

pub(super) fn digest(content: &mut impl Read) -> io::Result<kato_shared::Digest> {
    let mut hasher = Hasher::new();
    let mut piece = vec![0; 128 * 1024];
    loop {
        match content.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&piece[..read]),
        }
    }
}
