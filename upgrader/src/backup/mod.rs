//! The backup that is taken before the first change: one archive of everything that the upgrade replaces, with a manifest
//! of digests, and what the platform saves of its own state.
//!
//! `backup/<attempt>/files.tar.zst`, `manifest.json`, `platform/`. It is written as `<attempt>.part` and renamed when it is
//! whole. A second run of the same upgrade keeps the first one's backup: by then the node may be half new. [`archive`] says
//! what is saved of a file; [`crate::restore`] brings it back.
//!
//! Deliberately absent: increments, and backups on other machines.
//!
//! Invariants: only the owner can look into a backup (what was readable by few on the node would else be readable by all
//! here); a backup never holds other backups.

mod archive;
mod error;
mod extract;

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

pub(crate) use archive::{attributes, save_attributes};
pub use error::BackupError;
pub use extract::Sizes;
pub(crate) use extract::saved_attributes;
use jiff::Timestamp;
use kato_shared::{Digest, durable, release::Version, settings::HumanDuration};
use serde::{Deserialize, Serialize};

use crate::{
    document::{self, DocumentError},
    failpoint,
    module::tree::{self, Entry},
    paths::NodePaths,
};

/// The version of the manifest's format.
pub const SCHEMA: u32 = 1;

/// How the folders begin in which a restoration stands beside what it replaces.
pub const STAGING: &str = ".kato-restore-";

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// The upgrade that it was taken for.
    pub attempt: String,
    /// The node that it was taken on.
    #[serde(default)]
    pub node: Option<String>,
    /// The product of the release.
    #[serde(default)]
    pub product: Option<String>,
    /// The release that the node had.
    pub from: Option<Version>,
    /// The release that was to come.
    pub to: Version,
    /// The upgrade that had changed the node before it was taken, so that it holds half of a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amid: Option<String>,
    /// When it was taken.
    pub time: Timestamp,
    /// The digest of `files.tar.zst`.
    pub archive: Digest,
    /// What was to be saved, below the node's root; a path without an entry was not there.
    #[serde(default, with = "crate::path_text::many")]
    pub paths: BTreeSet<PathBuf>,
    /// Everything in the archive; paths are below the node's root.
    pub entries: Vec<Entry>,
    /// What the platform has saved, below `platform/`.
    #[serde(default)]
    pub platform: Vec<Entry>,
    /// Files that changed while they were read, each time that they were.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        with = "crate::path_text::many"
    )]
    pub unsettled: Vec<PathBuf>,
    /// Sockets, which are not saved.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        with = "crate::path_text::many"
    )]
    pub skipped: Vec<PathBuf>,
}

impl Manifest {
    /// Whether it was taken for a patch, whose name is in that of its attempt.
    fn is_of_patch(&self) -> bool {
        let from = self
            .from
            .as_ref()
            .map_or_else(|| "none".into(), Version::to_string);
        let began = self.attempt.strip_prefix(&format!("{from}-to-{}-", self.to));
        began.is_some_and(|rest| rest.contains('-'))
    }
}

/// Whose backup it is.
#[derive(Debug, Clone)]
pub struct Head {
    /// The upgrade that it is taken for.
    pub attempt: String,
    /// The node.
    pub node: String,
    /// The product of the release.
    pub product: String,
    /// The release that the node has.
    pub from: Option<Version>,
    /// The release that is to come.
    pub to: Version,
    /// The upgrade that has changed the node already, if one has.
    pub amid: Option<String>,
    /// Now.
    pub time: Timestamp,
}

/// A whole backup on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its folder.
    pub folder: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
}

impl Found {
    /// The archive.
    pub fn archive(&self) -> PathBuf {
        self.folder.join("files.tar.zst")
    }

    /// What the platform has saved.
    pub fn platform(&self) -> PathBuf {
        self.folder.join("platform")
    }

    /// Compares everything in the backup with its manifest; gives the bytes of each of its files.
    ///
    /// # Errors
    /// [`BackupError::Digest`] or [`BackupError::Altered`] with the first difference.
    pub fn verify(&self) -> Result<Sizes, BackupError> {
        let path = self.archive();
        let found = tree::digest(&path).map_err(failed("reading", &path))?;
        let expected = self.manifest.archive;
        if found != expected {
            return Err(BackupError::Digest {
                path,
                expected,
                found,
            });
        }
        let sizes = extract::read(&path, &self.manifest, |_| None)?;
        let platform = self.platform();
        if extract::listed(&platform)? == self.manifest.platform || self.manifest.node.is_none() {
            // A manifest without a node is of a time when the platform's files were not listed.
            return Ok(sizes);
        }
        Err(BackupError::Altered {
            path: platform,
            problem: "what the platform has saved is not what the manifest says",
        })
    }

    /// Puts the entries for which `place` names a path there; their folders must be staging folders or in the archive.
    ///
    /// # Errors
    /// [`BackupError`]; what was put is then incomplete.
    pub fn extract(&self, place: impl FnMut(&Path) -> Option<PathBuf>) -> Result<(), BackupError> {
        extract::read(&self.archive(), &self.manifest, place).map(drop)
    }
}

/// What every backup has of the node's own: which release and patches it has, and what the patches replaced.
pub fn records(paths: &NodePaths) -> [PathBuf; 3] {
    [paths.installed(), paths.patches(), paths.patches_kept()]
}

/// Where the backup of an upgrade is.
pub fn folder(paths: &NodePaths, attempt: &str) -> PathBuf {
    paths.backups().join(attempt)
}

/// The folder that a backup is written to before it is whole; what a killed run left there is removed.
///
/// # Errors
/// [`BackupError`].
pub fn begin(paths: &NodePaths, attempt: &str) -> Result<PathBuf, BackupError> {
    let part = paths.backups().join(format!("{attempt}.part"));
    tree::remove(&part).map_err(failed("removing", &part))?;
    durable::create_folder(&part)?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o700))
        .map_err(failed("setting the mode of", &part))?;
    Ok(part)
}

/// Writes the archive and the manifest of `what`, paths below the node's root, into `part`, and makes the backup whole.
///
/// # Errors
/// [`BackupError`].
pub fn finish(
    paths: &NodePaths,
    part: &Path,
    what: &BTreeSet<PathBuf>,
    head: Head,
) -> Result<Manifest, BackupError> {
    let file = part.join("files.tar.zst");
    let (archive, written) = archive::write(paths.root(), what, paths.state_dir(), &file)?;
    failpoint::hit("backup.archive");
    let manifest = Manifest {
        schema: SCHEMA,
        attempt: head.attempt,
        node: Some(head.node),
        product: Some(head.product),
        from: head.from,
        to: head.to,
        amid: head.amid,
        time: head.time,
        archive,
        paths: what
            .iter()
            .map(|path| path.strip_prefix("/").unwrap_or(path).to_owned())
            .collect(),
        entries: written.entries,
        platform: extract::listed(&part.join("platform"))?,
        unsettled: written.unsettled,
        skipped: written.skipped,
    };
    durable::write_json(&part.join("manifest.json"), &manifest, 0o600)?;
    failpoint::hit("backup.manifest");
    durable::rename(part, &folder(paths, &manifest.attempt))?;
    failpoint::hit("backup.committed");
    Ok(manifest)
}

/// All whole backups of the node, the newest first. Folders that are not ours, or damaged, are left out.
pub fn all(paths: &NodePaths) -> Vec<Found> {
    let Ok(listing) = fs::read_dir(paths.backups()) else {
        return Vec::new();
    };
    let mut found: Vec<_> = listing
        .flatten()
        .map(|item| item.path())
        .filter(|folder| folder.extension().is_none_or(|end| end != "part"))
        .filter_map(|folder| {
            let manifest = manifest(&folder).ok().flatten()?;
            Some(Found { folder, manifest })
        })
        .collect();
    found.sort_by_key(|backup| std::cmp::Reverse(backup.manifest.time));
    found
}

fn manifest(folder: &Path) -> Result<Option<Manifest>, DocumentError> {
    document::read(&folder.join("manifest.json"), "the manifest of a backup")
}

/// The backup called `name`: its id, the path of its folder, or `latest`, which is never one of a node that was half new.
///
/// # Errors
/// [`BackupError::Unknown`] with those that there are.
pub fn named(paths: &NodePaths, name: &str) -> Result<Found, BackupError> {
    let all = all(paths);
    if name == "latest"
        && let Some(newest) = all.iter().find(|backup| backup.manifest.amid.is_none())
    {
        return Ok(newest.clone());
    }
    if name.contains('/')
        && let Some(manifest) = manifest(Path::new(name))?
    {
        let folder = name.into();
        return Ok(Found { folder, manifest });
    }
    all.iter()
        .find(|backup| backup.manifest.attempt == name)
        .cloned()
        .ok_or_else(|| BackupError::Unknown {
            name: name.to_owned(),
            known: all.iter().map(|backup| backup.manifest.attempt.clone()).collect(),
        })
}

/// The id of the backup that leads back from the upgrade `attempt`: its own, or the newest of a whole release when that was taken
/// of a node that was half new.
pub fn leads_back(paths: &NodePaths, attempt: &str) -> String {
    let own = manifest(&folder(paths, attempt)).ok().flatten();
    let is_half = own.is_some_and(|own| own.amid.is_some());
    let before = is_half.then(|| named(paths, "latest").ok()).flatten();
    before.map_or_else(|| attempt.to_owned(), |before| before.manifest.attempt)
}

/// How many backups stay, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At most so many, at least one.
    pub keep: u32,
    /// None that is older, but for the newest.
    pub max_age: Option<HumanDuration>,
}

/// Removes all but the newest backups, as `retention` says at the time `now`, and everything that is not whole. Those of a node that
/// was half new are counted by themselves: none of a whole release goes for their sake.
///
/// # Errors
/// [`BackupError::Io`].
pub fn retain(paths: &NodePaths, retention: Retention, now: Timestamp) -> Result<(), BackupError> {
    let Ok(listing) = fs::read_dir(paths.backups()) else {
        return Ok(());
    };
    for part in listing.flatten().map(|item| item.path()) {
        if part.extension().is_some_and(|end| end == "part") {
            tree::remove(&part).map_err(failed("removing", &part))?;
        }
    }
    let keep = usize::try_from(retention.keep.max(1)).unwrap_or(usize::MAX);
    let is_old = |backup: &Found| {
        let age = u64::try_from(now.duration_since(backup.manifest.time).as_secs()).unwrap_or(0);
        retention.max_age.is_some_and(|limit| age > limit.get().as_secs())
    };
    let (halves, wholes): (Vec<_>, Vec<_>) = all(paths)
        .into_iter()
        .partition(|backup| backup.manifest.amid.is_some());
    // Patches leave one each: the newest that leads back to another release is not theirs to push out.
    let upgrade = wholes.iter().find(|backup| !backup.manifest.is_of_patch());
    let upgrade = upgrade.map(|backup| backup.folder.clone());
    let numbered = |backups: Vec<Found>| backups.into_iter().enumerate();
    for (at, backup) in numbered(wholes).chain(numbered(halves)) {
        let is_too_many = at >= keep && Some(&backup.folder) != upgrade.as_ref();
        if at > 0 && (is_too_many || is_old(&backup)) {
            tree::remove(&backup.folder).map_err(failed("removing", &backup.folder))?;
        }
    }
    Ok(())
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BackupError + 'a {
    move |source| BackupError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
