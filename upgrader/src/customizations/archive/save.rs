//! Makes an archive: the files as they are now, and the originals of texts as far as they are known.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::{digest::Hasher, durable};

use super::{LOCAL, Manifest, ORIGINAL, Reason, SCHEMA, SavedFile, SavedFolder, folder, load, name};
use crate::{
    backup,
    customizations::{
        change::{Change, Class, What},
        error::CustomizationError,
        pristine, text,
    },
    installed::{Installed, InstalledModule},
    module::tree::{self, Kind},
    paths::NodePaths,
};

/// Saves `changes` as the archive `id`; one of that name that is there already stays as it is. Nothing to save makes none.
///
/// # Errors
/// [`CustomizationError`].
pub fn save(
    paths: &NodePaths,
    installed: &Installed,
    changes: &[Change],
    (id, reason, now): (&str, Reason, Timestamp),
) -> Result<Option<Manifest>, CustomizationError> {
    if let Some(manifest) = load(paths, id)? {
        return Ok(Some(manifest));
    }
    let mut files = saved_files(installed, changes);
    if files.is_empty() {
        return Ok(None);
    }
    let part = folder(paths, &format!("{id}.part"));
    tree::remove(&part).map_err(CustomizationError::io("removing", &part))?;
    durable::create_folder(&part)?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o700))
        .map_err(CustomizationError::io("setting the mode of", &part))?;
    let originals = originals(paths, installed, &files);
    let file = part.join("files.tar.zst");
    write(paths, &file, &mut files, &originals)?;
    let manifest = Manifest {
        schema: SCHEMA,
        id: id.to_owned(),
        reason,
        version: installed.version.clone(),
        time: now,
        archive: tree::digest(&file).map_err(CustomizationError::io("reading", &file))?,
        folders: folders(paths, &files),
        files,
    };
    durable::write_json(&part.join("manifest.json"), &manifest, 0o600)?;
    durable::rename(&part, &folder(paths, id))?;
    Ok(Some(manifest))
}

fn saved_files(installed: &Installed, changes: &[Change]) -> Vec<SavedFile> {
    let saved = |change: &Change| {
        let module = change.module.clone()?;
        Some(SavedFile {
            path: change.path.clone(),
            below: below(installed.modules.get(&module), change),
            module,
            class: change.class,
            what: change.what.clone(),
            pristine: change.pristine.clone(),
            local: change.local.clone(),
            owner: change.owner,
            bytes: change.bytes,
            has_original: false,
        })
    };
    let not_safe = changes.iter().filter(|change| change.class != Class::Safe);
    not_safe.filter_map(saved).collect()
}

/// The folders between the modules' folders and what is saved.
fn folders(paths: &NodePaths, files: &[SavedFile]) -> Vec<SavedFolder> {
    let mut found = BTreeMap::new();
    for file in files.iter().filter(|file| file.local.is_some()) {
        let depth = file.below.components().count().saturating_sub(1);
        for folder in file.path.ancestors().skip(1).take(depth) {
            let Ok(metadata) = fs::symlink_metadata(paths.on_node(folder)) else {
                continue;
            };
            if metadata.is_dir() {
                let saved = SavedFolder {
                    path: folder.to_owned(),
                    mode: metadata.permissions().mode() & 0o7777,
                    owner: (metadata.uid(), metadata.gid()),
                };
                found.insert(folder.to_owned(), saved);
            }
        }
    }
    found.into_values().collect()
}

/// The path of a change below its module's folder; in its version's where every version has one.
fn below(module: Option<&InstalledModule>, change: &Change) -> PathBuf {
    let path = &change.path;
    let Some((module, dest)) = module.and_then(|module| Some((module, module.dest.as_ref()?))) else {
        return path.clone();
    };
    let is_versioned = change.class == Class::Versioned;
    if let Some(install) = module.install.as_ref().filter(|_| is_versioned)
        && let Some(Ok(behind)) = install
            .link()
            .map(|link| path.strip_prefix(link).map(Path::to_owned))
    {
        // In the place of the link: where the link leads now.
        return install
            .link_to()
            .into_iter()
            .chain([behind.as_path()])
            .filter(|part| !part.as_os_str().is_empty())
            .collect();
    }
    let below = path.strip_prefix(dest).unwrap_or(path);
    let mut parts = below.components();
    let is_of_version = |first: std::path::Component<'_>| {
        let name = first.as_os_str().to_string_lossy();
        is_versioned && name.ends_with(&module.sha256.hex()[..12])
    };
    if parts.next().is_some_and(is_of_version) {
        return parts.as_path().to_owned();
    }
    below.to_owned()
}

/// The original texts of changed files, as far as they are known, by the files' paths.
fn originals(paths: &NodePaths, installed: &Installed, files: &[SavedFile]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut originals = BTreeMap::new();
    for (name, module) in &installed.modules {
        let mine: Vec<&SavedFile> = files
            .iter()
            .filter(|file| file.module == *name && file.what.contains(&What::Changed))
            .collect();
        let wanted: BTreeSet<PathBuf> = mine.iter().map(|file| file.below.clone()).collect();
        if wanted.is_empty() {
            continue;
        }
        match pristine::contents(paths, module, &wanted) {
            Ok(mut contents) => {
                for file in mine {
                    let found = contents.remove(&file.below);
                    originals.extend(found.map(|bytes| (file.path.clone(), bytes)));
                }
            }
            // It is saved all the same; only a later merge is not possible.
            Err(error) => tracing::debug!(module = name, %error, "originals are not saved"),
        }
    }
    originals
}

fn write(
    paths: &NodePaths,
    file: &Path,
    files: &mut [SavedFile],
    originals: &BTreeMap<PathBuf, Vec<u8>>,
) -> Result<(), CustomizationError> {
    let written = |source| CustomizationError::io("writing", file)(source);
    let out = durable::create_new(file)?;
    out.set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(written)?;
    let zstd = zstd::Encoder::new(out, 3).map_err(written)?;
    let mut tar = tar::Builder::new(zstd);
    for saved in files.iter_mut() {
        add(&mut tar, paths, saved)?;
        if let Some(bytes) = originals.get(&saved.path).filter(|bytes| text::is_text(bytes)) {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o600);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name(ORIGINAL, &saved.path), &**bytes)
                .map_err(written)?;
            saved.has_original = true;
        }
    }
    let out = tar
        .into_inner()
        .and_then(zstd::Encoder::finish)
        .map_err(written)?;
    durable::flush(&out, file).map_err(|failed| written(failed.source))
}

/// Adds what is at the path now; its digest is that of what was added.
fn add<W: io::Write>(
    tar: &mut tar::Builder<W>,
    paths: &NodePaths,
    saved: &mut SavedFile,
) -> Result<(), CustomizationError> {
    let here = paths.on_node(&saved.path);
    let failed = |source| CustomizationError::io("saving", &here)(source);
    let Ok(metadata) = fs::symlink_metadata(&here) else {
        saved.local = None;
        return Ok(());
    };
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    let name = name(LOCAL, &saved.path);
    saved.local = Some(if metadata.is_symlink() {
        let to = fs::read_link(&here).map_err(failed)?;
        tar.append_link(&mut header, name, &to).map_err(failed)?;
        Kind::Link { to }
    } else if metadata.is_file() {
        let mut content = Hashing {
            inner: File::open(&here).map_err(failed)?,
            hasher: Hasher::new(),
        };
        backup::save_attributes(tar, &here).map_err(failed)?;
        // A file that grows meanwhile is saved as long as it was; one that shrinks is padded, so that the archive stays sound.
        let padded = (&mut content).chain(io::repeat(0)).take(metadata.len());
        tar.append_data(&mut header, name, padded).map_err(failed)?;
        Kind::File {
            sha256: content.hasher.finish(),
            mode: metadata.permissions().mode() & 0o7777,
        }
    } else if metadata.is_dir() {
        Kind::FOLDER.with_mode_of(&here)
    } else {
        Kind::Special
    });
    Ok(())
}

/// Hashes what is read.
struct Hashing {
    inner: File,
    hasher: Hasher,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
