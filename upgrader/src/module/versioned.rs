//! `versioned`: every version has a folder of its own, and a symbolic link says which one is used.
//!
//! Moving the link is one rename, forward and back. The folder is `<dest>/<version>-<digest>`; it is unpacked as
//! `<dest>/.new-<digest>` first.

use std::{fs, path::PathBuf};

use kato_shared::{durable, release::Install};

use super::{Job, ModuleError, Report, Work, beside, is_short_digest, same_files, tree, undo::Note, unpack};
use crate::{failpoint, paths, recover};

/// The paths of a versioned module on this node.
struct Places {
    /// The folder of all versions.
    dest: PathBuf,
    /// The folder of this version.
    folder: PathBuf,
    /// Where it is unpacked.
    fresh: PathBuf,
    /// The link.
    link: PathBuf,
    /// The name under which a link that takes the place of a folder is made.
    fresh_link: PathBuf,
    /// What the link points to.
    target: PathBuf,
}

fn places(job: &Job<'_>) -> Result<Places, ModuleError> {
    let dest = job.dest()?;
    let version = job
        .module
        .version
        .clone()
        .unwrap_or_else(|| job.release().version.to_string());
    let folder = dest.join(format!("{version}-{}", job.short()));
    let (link, below) = match &job.module.install {
        Install::Versioned { link, link_to, .. } => (link.as_deref(), link_to.as_deref()),
        Install::Replace { .. }
        | Install::Overlay { .. }
        | Install::Package { .. }
        | Install::Image { .. }
        | Install::Exec { .. } => (None, None),
    };
    let link = link.map_or_else(|| dest.join("current"), |link| job.paths.on_node(link));
    Ok(Places {
        fresh_link: beside(&link, &format!(".new-{}", job.short())),
        link,
        target: below.map_or_else(|| folder.clone(), |below| folder.join(below)),
        fresh: dest.join(format!(".new-{}", job.short())),
        folder,
        dest,
    })
}

/// The folder of all versions, that of this one, and the link.
pub(super) fn whereabouts(job: &Job<'_>) -> Result<(PathBuf, PathBuf, PathBuf), ModuleError> {
    let at = places(job)?;
    Ok((at.dest, at.folder, at.link))
}

pub(super) fn install(job: &Job<'_>) -> Result<Report, ModuleError> {
    let at = places(job)?;
    let mut note = noted(job, &at)?;
    durable::create_folder(&at.dest)?;
    if !Work::stands_at(job, &at.folder)? {
        tree::remove(&at.fresh).map_err(ModuleError::io("removing", &at.fresh))?;
        failpoint::hit("module.cleaned");
        unpack::unpack(&job.archive(), &at.fresh, job.deadline)?;
        failpoint::hit("module.unpacked");
        let entries = tree::scan(&at.fresh).map_err(ModuleError::io("reading", &at.fresh))?;
        Work::save(job, entries, &at.fresh)?;
        if at.folder.symlink_metadata().is_ok() {
            durable::exchange(&at.fresh, &at.folder)?;
        } else {
            durable::rename(&at.fresh, &at.folder)?;
        }
        failpoint::hit("module.placed");
    }
    // After an exchange this is the earlier copy of the same version.
    tree::remove(&at.fresh).map_err(ModuleError::io("removing", &at.fresh))?;
    if job.module.recovery && at.target.is_file() {
        let sha256 = tree::digest(&at.target).map_err(ModuleError::io("reading", &at.target))?;
        recover::write(job.paths, &at.target, &at.target, &sha256, &at.link)?;
    }
    move_link(job, &at, &mut note)?;
    Ok(Report::default())
}

/// Notes the link, and the version's folder unless the node has that version already.
fn noted(job: &Job<'_>, at: &Places) -> Result<Note, ModuleError> {
    let mut note = Note::open(job, false)?;
    note.set_aside()?;
    note.leftover(&at.fresh);
    note.leftover(&at.fresh_link);
    note.making(&at.dest);
    note.making(at.link.parent().unwrap_or(&at.dest));
    if at.folder.symlink_metadata().is_err() {
        note.place(&at.folder, note.kept_beside(&at.folder))?;
    }
    note.place(&at.link, note.kept_beside(&at.link))?;
    note.save(job.paths)?;
    Ok(note)
}

fn move_link(job: &Job<'_>, at: &Places, note: &mut Note) -> Result<(), ModuleError> {
    if let Some(folder) = at.link.parent() {
        durable::create_folder(folder)?;
    }
    let target = paths::relative(&at.link, &at.target).map_err(ModuleError::io("following", &at.target))?;
    if !at.link.is_symlink() && at.link.is_dir() {
        // The first adoption of a folder that was not versioned: a link cannot be renamed over it.
        durable::symlink(&target, &at.fresh_link)?;
        durable::exchange(&at.fresh_link, &at.link)?;
        note.set_aside()?;
        tree::remove(&at.fresh_link).map_err(ModuleError::io("removing", &at.fresh_link))?;
    } else if fs::read_link(&at.link).ok().as_deref() != Some(&target) {
        note.keep(job.paths, &at.link)?;
        durable::symlink(&target, &at.link)?;
    }
    failpoint::hit("module.linked");
    Ok(())
}

pub(super) fn check(job: &Job<'_>) -> Result<(), ModuleError> {
    let at = places(job)?;
    let found = at
        .link
        .canonicalize()
        .map_err(ModuleError::io("following", &at.link))?;
    let expected = at
        .target
        .canonicalize()
        .map_err(ModuleError::io("following", &at.target))?;
    if found != expected {
        return Err(ModuleError::Differs {
            path: at.link,
            problem: format!(
                "expected a link to {}, found {}",
                expected.display(),
                found.display()
            ),
        });
    }
    same_files(job, &at.folder)
}

/// Keeps the current version and the newest others up to `keep`; removes older ones and what was set aside.
pub(super) fn settle(job: &Job<'_>, keep: u32) -> Result<(), ModuleError> {
    let at = places(job)?;
    super::sweep(&at.link)?;
    super::remove_temporary_files(at.link.parent().unwrap_or(&at.dest))?;
    tree::remove(&at.fresh).map_err(ModuleError::io("removing", &at.fresh))?;
    let mut others = Vec::new();
    for item in fs::read_dir(&at.dest).map_err(ModuleError::io("reading", &at.dest))? {
        let item = item.map_err(ModuleError::io("reading", &at.dest))?;
        let is_version = item
            .file_name()
            .to_str()
            .and_then(|name| name.rsplit_once('-'))
            .is_some_and(|(_, digest)| is_short_digest(digest));
        if !is_version || item.path() == at.folder {
            continue;
        }
        if item.file_name().as_encoded_bytes().starts_with(b".new-") {
            tree::remove(&item.path()).map_err(ModuleError::io("removing", &item.path()))?;
            continue;
        }
        let modified = item
            .metadata()
            .and_then(|metadata| metadata.modified())
            .map_err(ModuleError::io("reading", &item.path()))?;
        others.push((modified, item.path()));
    }
    others.sort_unstable();
    let kept = usize::try_from(keep.max(2)).unwrap_or(2) - 1;
    for (_, old) in others.iter().rev().skip(kept) {
        tree::remove(old).map_err(ModuleError::io("removing", old))?;
    }
    Ok(())
}
