//! Installs modules: one file for each install policy.
//!
//! Flow of every policy: remove what a failed attempt left → unpack beside the destination → note what was unpacked →
//! put it into place in one step (or, for `overlay`, file by file) → compare with what the release promises. The caller
//! writes the latch after that. Before the first change [`undo`] notes what was there. [`settle`] removes what is no longer needed once the whole upgrade is recorded.
//!
//! The policies without a folder of their own (`package`, `image`, `exec`) ask first whether there is anything to do, and look
//! afterwards by other means than the command's own word; what leads back is an act of the undo journal.
//!
//! Invariants: nothing in the destination changes before the unpacked copy is complete, verified and flushed; every policy
//! may be killed anywhere and started again.

mod child;
mod error;
mod exec;
pub mod image;
mod known;
pub mod mounts;
pub mod obstacle;
pub mod overlay;
pub mod package;
pub mod replace;
pub mod sealed;
pub mod tree;
pub mod undo;
pub mod unpack;
pub mod versioned;
mod work;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use kato_shared::{
    durable,
    release::{Artifact, Install, Module, Release},
};
use tokio::time::Instant;

use crate::{
    attempt::Attempt, backup, failpoint, installed::InstalledModule, paths::NodePaths, platform::Children,
    settings::Settings,
};
pub use error::ModuleError;
pub use known::{Known, known};
pub use unpack::{Archive, UnpackError};
pub use work::Work;

/// One module of one upgrade on one node.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The module.
    pub module: &'a Module,
    /// Its artifact.
    pub artifact: &'a Artifact,
    /// The upgrade.
    pub attempt: &'a Attempt,
    /// The node's id.
    pub node: &'a str,
    /// The node's folders.
    pub paths: &'a NodePaths,
    /// The node's settings.
    pub settings: &'a Settings,
    /// What the module's commands run as.
    pub children: &'a Children,
    /// What the previous release installed for this module.
    pub base: Option<&'a InstalledModule>,
    /// When the installation must be done.
    pub deadline: Instant,
}

/// What an operator should know of an installation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// What became of local changes, one line each.
    pub lines: Vec<String>,
}

impl Job<'_> {
    /// The release.
    pub const fn release(&self) -> &Release {
        &self.attempt.release
    }

    /// The first twelve digits of the artifact's digest, which name everything temporary of this module.
    pub fn short(&self) -> String {
        self.artifact.sha256.hex()[..12].to_owned()
    }

    /// The archive in the staging folder.
    pub fn archive(&self) -> Archive {
        Archive {
            path: self.paths.staging().join(self.artifact.sha256.hex()),
            sha256: self.artifact.sha256,
            size: self.artifact.size,
        }
    }

    /// The destination on this node. A symbolic link that an operator put there (to a larger disk) is followed.
    ///
    /// # Errors
    /// [`ModuleError::OutsideRoot`].
    pub fn dest(&self) -> Result<PathBuf, ModuleError> {
        match self.module.install.dest() {
            Some(dest) => follow(self.paths, dest),
            None => Ok(self.content()),
        }
    }

    /// A path below the destination as the release names it, without the node's root.
    pub fn in_release(&self, path: &Path) -> PathBuf {
        let dest = self.module.install.dest();
        dest.map_or_else(|| path.to_owned(), |dest| dest.join(path))
    }

    /// Where the archive of a module without a folder of its own is unpacked, until the upgrade is recorded.
    pub fn content(&self) -> PathBuf {
        let name = format!("{}-{}.d", self.module.name, self.short());
        self.paths.work().join(name)
    }

    /// Unpacks the archive to [`Job::content`] in place of what an earlier try left there.
    fn unpack_content(&self) -> Result<(), ModuleError> {
        let content = self.content();
        tree::remove(&content).map_err(ModuleError::io("removing", &content))?;
        failpoint::hit("module.cleaned");
        unpack::unpack(&self.archive(), &content, self.deadline)?;
        failpoint::hit("module.unpacked");
        Ok(())
    }

    /// Where local files of this module are saved.
    pub fn saved(&self) -> PathBuf {
        self.paths
            .backups()
            .join(&self.attempt.id)
            .join("saved")
            .join(&self.module.name)
    }

    /// Whether `path`, a path of the release, is one that no module may touch.
    pub fn is_safe_path(&self, path: &Path) -> bool {
        self.release()
            .safe_paths
            .iter()
            .filter_map(|pattern| glob::Pattern::new(pattern).ok())
            .any(|pattern| {
                path.ancestors()
                    .any(|path| pattern.matches(&path.to_string_lossy()))
            })
    }
}

/// Brings everything to the node that its module will need beside the archive, and changes nothing that runs there.
///
/// # Errors
/// [`ModuleError`].
pub async fn preload(job: &Job<'_>) -> Result<(), ModuleError> {
    match &job.module.install {
        Install::Versioned { .. }
        | Install::Replace { .. }
        | Install::Overlay { .. }
        | Install::Exec { .. } => Ok(()),
        Install::Package { packages } => package::preload(job, packages).await,
        Install::Image { images } => image::preload(job, images).await,
    }
}

/// The extended attributes of the file `path` that another content may have as well: access lists, capabilities, labels, and the user's
/// own. None when there is no file. What they are is a matter of the node; a module brings none.
pub(crate) fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    // Digests and signatures of the content.
    const OF_CONTENT: [&str; 2] = ["security.ima", "security.evm"];
    if path.symlink_metadata().is_err() {
        return Vec::new();
    }
    let mut found = backup::attributes(path).unwrap_or_else(|error| {
        tracing::warn!(%error, path = %path.display(), "its extended attributes cannot be read");
        Vec::new()
    });
    found.retain(|(name, _)| !OF_CONTENT.contains(&name.as_str()));
    found
}

/// Installs the module.
///
/// # Errors
/// [`ModuleError`]; the destination is then as before, or for `overlay` partly changed, and the same call may be made again.
///
/// # Cancel safety
/// As after a kill: the same call may be made again.
pub async fn install(job: &Job<'_>) -> Result<Report, ModuleError> {
    match &job.module.install {
        // Plain file work in the foreground: nothing else of this process could use the thread meanwhile.
        Install::Versioned { .. } => versioned::install(job),
        Install::Replace { .. } => replace::install(job),
        Install::Overlay { conflict, .. } => overlay::install(job, *conflict),
        Install::Package { packages } => package::install(job, packages).await,
        Install::Image { images } => image::install(job, images).await,
        Install::Exec { cmd, probe, undo } => exec::install(job, exec::Commands { cmd, probe, undo }).await,
    }
}

/// Compares what is installed with what the release promises.
///
/// # Errors
/// [`ModuleError::Differs`] or [`ModuleError::Undone`] with the first difference.
pub async fn check(job: &Job<'_>) -> Result<(), ModuleError> {
    match &job.module.install {
        Install::Versioned { .. } => versioned::check(job),
        Install::Replace { .. } => same_files(job, &job.dest()?),
        Install::Overlay { conflict, .. } => overlay::check(job, *conflict),
        Install::Package { packages } => package::check(job, packages).await,
        Install::Image { images } => image::check(job, images).await,
        Install::Exec { probe, .. } => exec::check(job, probe).await,
    }
}

/// Removes what the module kept for the case of a failure: called when the upgrade is recorded as complete.
///
/// # Errors
/// [`ModuleError::Io`].
pub fn settle(job: &Job<'_>) -> Result<(), ModuleError> {
    match &job.module.install {
        Install::Versioned { keep, .. } => versioned::settle(job, *keep),
        Install::Replace { .. } | Install::Overlay { .. } => sweep(&job.dest()?),
        Install::Package { packages } => package::settle(job, packages),
        Install::Image { .. } | Install::Exec { .. } => Ok(()),
    }
}

/// Resolves a path of the release to the place on this node that is changed.
pub(crate) fn follow(paths: &NodePaths, path: &Path) -> Result<PathBuf, ModuleError> {
    let dest = paths.on_node(path);
    if !dest.is_symlink() || !dest.is_dir() {
        return Ok(dest);
    }
    let target = dest.canonicalize().map_err(ModuleError::io("following", &dest))?;
    let root = paths
        .root()
        .canonicalize()
        .map_err(ModuleError::io("following", paths.root()))?;
    if target.starts_with(&root) {
        Ok(target)
    } else {
        Err(ModuleError::OutsideRoot { dest, target, root })
    }
}

/// `<path><suffix>`, beside `path`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(suffix);
    path.with_file_name(name)
}

/// Every file of the release's list is in `folder` with its content.
pub(crate) fn same_files(job: &Job<'_>, folder: &Path) -> Result<(), ModuleError> {
    for file in &job.module.files {
        let path = folder.join(&file.path);
        let is_exchanged = matches!(job.module.install, Install::Replace { .. });
        if is_exchanged && job.is_safe_path(&job.in_release(&file.path)) {
            // What was there before stays.
            continue;
        }
        let found = tree::look(&path).map_err(ModuleError::io("reading", &path))?;
        let problem = match found {
            Some(tree::Kind::File { sha256, .. }) if sha256 == file.sha256 => continue,
            Some(tree::Kind::File { sha256, .. }) => format!("expected {}, found {sha256}", file.sha256),
            Some(_) => "expected a file".into(),
            None => "it is missing".into(),
        };
        return Err(ModuleError::Differs { path, problem });
    }
    Ok(())
}

/// Removes what upgrades left beside `dest`: `<dest>.new-<12 digits>` and `<dest>.old-<attempt>`.
pub(crate) fn sweep(dest: &Path) -> Result<(), ModuleError> {
    let (Some(folder), Some(name)) = (dest.parent(), dest.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let Ok(listing) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    for item in listing.flatten() {
        let other = item.file_name();
        if other
            .to_str()
            .and_then(|other| other.strip_prefix(name))
            .is_some_and(is_ours)
        {
            tree::remove(&item.path()).map_err(ModuleError::io("removing", &item.path()))?;
        }
    }
    Ok(())
}

/// Removes the temporary files that a killed run left in `folder`.
pub(crate) fn remove_temporary_files(folder: &Path) -> Result<(), ModuleError> {
    Ok(durable::remove_temporary_files(folder)?)
}

/// Whether the name of `path` is one that only an upgrade in progress gives.
pub(crate) fn is_left_by_an_upgrade(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    [".new-", ".old-"]
        .iter()
        .any(|mark| name.find(mark).is_some_and(|at| is_ours(&name[at..])))
}

/// Whether a suffix is one that only an upgrade makes.
fn is_ours(suffix: &str) -> bool {
    let new = suffix.strip_prefix(".new-").is_some_and(is_short_digest);
    let old = suffix
        .strip_prefix(".old-")
        .and_then(|attempt| attempt.split_once("-to-"))
        .is_some_and(|(_, to)| to.contains('T'));
    new || old
}

pub(crate) fn is_short_digest(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
