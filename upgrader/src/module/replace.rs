//! `replace`: the whole folder is exchanged for a new one.
//!
//! The new folder is unpacked as `<dest>.new-<digest>` and exchanged with the old one in a single rename. What was there
//! stays as `<dest>.old-<attempt>` until the upgrade is recorded. Local changes go with it; the backup has them. What the archive
//! does not say of the folder itself, its owner and mostly its mode, is as it was.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use kato_shared::durable;

use super::{Job, ModuleError, Report, Work, beside, tree, undo::Note, unpack};
use crate::failpoint;

pub(super) fn install(job: &Job<'_>) -> Result<Report, ModuleError> {
    let dest = job.dest()?;
    let fresh = beside(&dest, &format!(".new-{}", job.short()));
    let mut report = Report::default();
    let mut note = Note::open(job, false)?;
    note.set_aside()?;
    note.leftover(&fresh);
    note.making(dest.parent().unwrap_or(&dest));
    note.place(&dest, note.kept_beside(&dest))?;
    note.save(job.paths)?;
    if !Work::stands_at(job, &dest)? {
        tree::remove(&fresh).map_err(ModuleError::io("removing", &fresh))?;
        failpoint::hit("module.cleaned");
        let mode = unpack::unpack(&job.archive(), &fresh, job.deadline)?;
        keep_owner_and_mode(&dest, &fresh, mode)?;
        failpoint::hit("module.unpacked");
        let entries = tree::scan(&fresh).map_err(ModuleError::io("reading", &fresh))?;
        carry_over(job, &dest, &fresh, &mut report)?;
        Work::save(job, entries, &fresh)?;
        if dest.symlink_metadata().is_ok() {
            durable::exchange(&fresh, &dest)?;
        } else {
            durable::rename(&fresh, &dest)?;
        }
        failpoint::hit("module.exchanged");
    }
    // After the exchange the old folder has the new one's temporary name; it gets a name that says what it is.
    note.set_aside()?;
    // The module was installed twice in this upgrade; the first one's predecessor is the one to keep.
    tree::remove(&fresh).map_err(ModuleError::io("removing", &fresh))?;
    report_changes(job, &note.kept_beside(&dest), &mut report);
    Ok(report)
}

/// `fresh` gets the owner of `dest`, and its mode where the archive has no `mode` of its own; nothing where there is no folder.
fn keep_owner_and_mode(dest: &Path, fresh: &Path, mode: Option<u32>) -> Result<(), ModuleError> {
    let Ok(metadata) = dest.symlink_metadata() else {
        return Ok(());
    };
    if !metadata.is_dir() {
        return Ok(());
    }
    let setting = || ModuleError::io("setting owner and mode of", fresh);
    let now = fresh.symlink_metadata().map_err(setting())?;
    if (now.uid(), now.gid()) != (metadata.uid(), metadata.gid()) {
        std::os::unix::fs::lchown(fresh, Some(metadata.uid()), Some(metadata.gid())).map_err(setting())?;
    }
    let mode = mode.unwrap_or(metadata.permissions().mode() & 0o7777);
    fs::set_permissions(fresh, fs::Permissions::from_mode(mode)).map_err(setting())?;
    Ok(durable::sync_folder(fresh)?)
}

/// Files that no module may touch move into the new folder.
fn carry_over(job: &Job<'_>, dest: &Path, fresh: &Path, report: &mut Report) -> Result<(), ModuleError> {
    if job.release().safe_paths.is_empty() {
        return Ok(());
    }
    for entry in tree::scan(dest).map_err(ModuleError::io("reading", dest))? {
        let (from, to) = (dest.join(&entry.path), fresh.join(&entry.path));
        if !job.is_safe_path(&job.in_release(&entry.path)) {
            continue;
        }
        let brought = tree::look(&to).map_err(ModuleError::io("reading", &to))?;
        // Nothing of the release takes the place of something safe.
        if brought.is_some_and(|brought| brought.is_folder() != entry.kind.is_folder()) {
            tree::remove(&to).map_err(ModuleError::io("removing", &to))?;
        }
        if let Some(folder) = to.parent() {
            durable::create_folder(folder)?;
        }
        match entry.kind {
            tree::Kind::File { mode, .. } => {
                durable::copy_with(
                    &from,
                    &to,
                    (mode, overlay_owner(&from)),
                    &super::attributes(&from),
                )?;
            }
            tree::Kind::Link { to: target } => durable::symlink(&target, &to)?,
            tree::Kind::Folder { .. } => durable::create_folder(&to)?,
            tree::Kind::Special => continue,
        }
        report.lines.push(format!("{} was carried over", to.display()));
    }
    Ok(())
}

fn overlay_owner(path: &Path) -> Option<(u32, u32)> {
    super::overlay::owner(path)
}

/// Names what was changed here since the last upgrade: it is gone from the folder and in the backup.
fn report_changes(job: &Job<'_>, old: &Path, report: &mut Report) {
    let Some(base) = job.base else { return };
    let Ok(dest) = job.dest() else { return };
    let Ok(found) = tree::scan(old) else { return };
    let changed = found
        .iter()
        .filter(|entry| !entry.kind.is_folder())
        .filter(|entry| {
            let pristine = base.entries.iter().find(|pristine| pristine.path == entry.path);
            pristine.is_none_or(|pristine| !pristine.kind.same_content(&entry.kind))
        })
        .count();
    if changed > 0 {
        let verb = if changed == 1 { "was" } else { "were" };
        report.lines.push(format!(
            "{} in {} {verb} changed here; see the backup {}",
            kato_shared::counted(changed, "file", "files"),
            dest.display(),
            job.paths.backups().join(&job.attempt.id).display()
        ));
    }
}
