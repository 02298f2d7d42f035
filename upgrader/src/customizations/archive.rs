//! Saved local changes: one folder for each time, with an archive of the files and a manifest of digests.
//!
//! `customizations/<id>/files.tar.zst` has `local/<path>` for every saved file or link, and `original/<path>` for texts whose content
//! before the change is known: with it a later release can be merged. `manifest.json` says what was changed how. The folder is
//! written as `<id>.part` and renamed when it is whole. A person can unpack it with `tar`.
//!
//! Invariants: only the owner can look into it; an archive that is not what its manifest says is not used.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::{Digest, digest::Hasher, durable, release::Version};
use serde::{Deserialize, Serialize};

use super::{
    change::{Change, Class, What},
    error::CustomizationError,
    pristine, text,
};
use crate::{
    document,
    installed::Installed,
    module::tree::{self, Kind},
    paths::NodePaths,
};

/// The version of the manifest's format.
pub const SCHEMA: u32 = 1;

/// Where saved files are in an archive.
pub(super) const LOCAL: &str = "local";
/// Where their originals are.
pub(super) const ORIGINAL: &str = "original";

/// Why local changes were saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Somebody asked for it.
    ByHand,
    /// An upgrade was going to take them away.
    Upgrade,
    /// Others were going to be put in their place.
    Reapply,
}

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// Its name.
    pub id: String,
    /// Why it was made.
    pub reason: Reason,
    /// The release that was installed.
    pub version: Version,
    /// When it was made.
    pub time: Timestamp,
    /// The digest of `files.tar.zst`.
    pub archive: Digest,
    /// The saved changes, by path.
    pub files: Vec<SavedFile>,
}

/// One saved change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFile {
    /// Where it was.
    pub path: PathBuf,
    /// The same below its module's folder.
    pub below: PathBuf,
    /// The module.
    pub module: String,
    /// How upgrades treat its place.
    pub class: Class,
    /// How it differed from the installed release.
    pub what: Vec<What>,
    /// What the installed release had there.
    pub pristine: Option<Kind>,
    /// What was there; `None` where it was deleted.
    pub local: Option<Kind>,
    /// Its user and group.
    pub owner: Option<(u32, u32)>,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether the archive has the original as well.
    pub has_original: bool,
}

/// Where the archive `id` is.
pub fn folder(paths: &NodePaths, id: &str) -> PathBuf {
    paths.customizations().join(id)
}

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
        files,
    };
    durable::write_json(&part.join("manifest.json"), &manifest, 0o600)?;
    durable::rename(&part, &folder(paths, id))?;
    Ok(Some(manifest))
}

/// The archives that are whole, newest first.
///
/// # Errors
/// [`CustomizationError::Document`] when a manifest is damaged.
pub fn all(paths: &NodePaths) -> Result<Vec<Manifest>, CustomizationError> {
    let Ok(listing) = fs::read_dir(paths.customizations()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for item in listing.flatten() {
        let name = item.file_name();
        let is_whole = Path::new(&name).extension().is_none_or(|end| end != "part");
        if let Some(id) = name.to_str().filter(|_| is_whole) {
            found.extend(load(paths, id)?);
        }
    }
    found.sort_by(|one, other| (other.time, &other.id).cmp(&(one.time, &one.id)));
    Ok(found)
}

/// The archive `id`; without one, the newest that was not made by `reapply` itself.
///
/// # Errors
/// [`CustomizationError::NoArchive`].
pub fn find(paths: &NodePaths, id: Option<&str>) -> Result<Manifest, CustomizationError> {
    let all = all(paths)?;
    let known: Vec<String> = all.iter().map(|manifest| manifest.id.clone()).collect();
    let is_meant = |manifest: &Manifest| match id {
        Some(id) => manifest.id == id,
        None => manifest.reason != Reason::Reapply,
    };
    all.into_iter()
        .find(is_meant)
        .ok_or_else(|| CustomizationError::NoArchive {
            id: id.unwrap_or("the newest").to_owned(),
            known,
        })
}

/// Removes all but the newest `keep` archives and what is not whole.
///
/// # Errors
/// [`CustomizationError`].
pub fn retain(paths: &NodePaths, keep: u32) -> Result<(), CustomizationError> {
    let keep = usize::try_from(keep.max(1)).unwrap_or(usize::MAX);
    for old in all(paths)?.into_iter().skip(keep) {
        let path = folder(paths, &old.id);
        tree::remove(&path).map_err(CustomizationError::io("removing", &path))?;
    }
    let Ok(listing) = fs::read_dir(paths.customizations()) else {
        return Ok(());
    };
    for item in listing.flatten() {
        let path = item.path();
        if path.extension().is_some_and(|end| end == "part") {
            tree::remove(&path).map_err(CustomizationError::io("removing", &path))?;
        }
    }
    Ok(())
}

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
        io::copy(&mut entry, &mut out).map_err(read("writing", &to))?;
    }
    Ok(())
}

fn load(paths: &NodePaths, id: &str) -> Result<Option<Manifest>, CustomizationError> {
    let path = folder(paths, id).join("manifest.json");
    Ok(document::read(&path, "the manifest of saved local changes")?)
}

fn saved_files(installed: &Installed, changes: &[Change]) -> Vec<SavedFile> {
    let saved = |change: &Change| {
        let module = change.module.clone()?;
        let short = installed
            .modules
            .get(&module)
            .map(|module| module.sha256.hex()[..12].to_owned());
        let dest = installed
            .modules
            .get(&module)
            .and_then(|module| module.dest.as_ref());
        let below = dest
            .and_then(|dest| change.path.strip_prefix(dest).ok())
            .unwrap_or(&change.path);
        // The folder of one version stands between a versioned module and its files.
        let below = match (change.class, short) {
            (Class::Versioned, Some(short)) => below
                .components()
                .next()
                .filter(|first| first.as_os_str().to_string_lossy().ends_with(&short))
                .and_then(|first| below.strip_prefix(first).ok())
                .unwrap_or(below),
            _ => below,
        };
        Some(SavedFile {
            path: change.path.clone(),
            below: below.to_owned(),
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

pub(super) fn name(top: &str, path: &Path) -> PathBuf {
    Path::new(top).join(path.strip_prefix("/").unwrap_or(path))
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
        // A file that grows meanwhile is saved as long as it was; one that shrinks is padded, so that the archive stays sound.
        let padded = (&mut content).chain(io::repeat(0)).take(metadata.len());
        tar.append_data(&mut header, name, padded).map_err(failed)?;
        Kind::File {
            sha256: content.hasher.finish(),
            mode: metadata.permissions().mode() & 0o7777,
        }
    } else if metadata.is_dir() {
        Kind::Folder
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
