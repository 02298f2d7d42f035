//! `overlay`: a module's files are put one by one into a folder that others write to as well.
//!
//! For every file the pristine state (of the previous release), the local state and the new one decide; the table is in
//! [`table`]. All decisions are made before the first change, so that a module that must not be installed changes nothing.
//! Saved local files are in `backup/<attempt>/saved/<module>`. Files that no release knows are never touched.
//!
//! A file that both sides changed follows the module's rule, or that of the longest pattern in its `conffiles`; [`merge`] makes
//! both changes.

mod besides;
mod merge;
pub mod table;
pub(super) mod way;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use kato_shared::{durable, release::OnConflict};

use self::{
    besides::give_way,
    merge::Merger,
    table::{Action, decide},
};
use super::{
    Job, ModuleError, Report, Work, beside,
    tree::{self, Entry, Kind},
    undo::Note,
    unpack,
};
use crate::failpoint;

/// How many conflicts an error names.
const NAMED_CONFLICTS: usize = 5;

/// A file, and what is done with it.
struct Row {
    path: PathBuf,
    action: Action,
    base: Option<Kind>,
    local: Option<Kind>,
    new: Option<Kind>,
    /// What both changes make of the file.
    merged: Option<Vec<u8>>,
    /// Why there is no such thing although the rule asks for it.
    unmerged: Option<&'static str>,
}

impl Row {
    /// The path that its action changes.
    fn changes(&self, dest: &Path) -> Option<PathBuf> {
        let path = dest.join(&self.path);
        match self.action {
            Action::Install
            | Action::InstallDeleted
            | Action::SaveAndInstall
            | Action::Merge
            | Action::Remove => Some(path),
            Action::Beside => Some(beside(&path, ".new")),
            Action::Nothing | Action::KeepLocal | Action::StayDeleted | Action::Refuse(_) => None,
        }
    }
}

pub(super) fn install(job: &Job<'_>, conflict: OnConflict) -> Result<Report, ModuleError> {
    let dest = job.dest()?;
    let fresh = beside(&dest, &format!(".new-{}", job.short()));
    let mut note = Note::open(job, true)?;
    note.leftover(&fresh);
    note.making(&dest);
    note.save(job.paths)?;
    tree::remove(&fresh).map_err(ModuleError::io("removing", &fresh))?;
    failpoint::hit("module.cleaned");
    unpack::unpack(&job.archive(), &fresh, job.deadline)?;
    failpoint::hit("module.unpacked");
    let new = tree::scan(&fresh).map_err(ModuleError::io("reading", &fresh))?;
    let mut rows = rows(job, &dest, &new, conflict)?;
    Merger::new(job).decide(&mut rows, &dest, &fresh)?;
    refuse(&dest, &rows)?;
    Work::save(job, new, &fresh)?;
    noted(&mut note, &dest, &rows)?;
    note.save(job.paths)?;
    durable::create_folder(&dest)?;
    remove_temporary_files(&dest, &rows)?;
    let mut report = Report::default();
    let (gone, there): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.action == Action::Remove);
    for row in there {
        apply(job, row, (&fresh, &dest), &mut note, &mut report)?;
    }
    // The content of a folder before the folder.
    for row in gone.into_iter().rev() {
        apply(job, row, (&fresh, &dest), &mut note, &mut report)?;
    }
    tree::remove(&fresh).map_err(ModuleError::io("removing", &fresh))?;
    report_saved(job, &mut report)?;
    Ok(report)
}

/// Notes every path that is going to change.
fn noted(note: &mut Note, dest: &Path, rows: &[Row]) -> Result<(), ModuleError> {
    let originals = note.kept_beside(dest);
    note.leftover(&originals);
    for row in rows {
        if let Some(path) = row.changes(dest) {
            let below = path.strip_prefix(dest).unwrap_or(&row.path);
            note.place(&path, originals.join(below))?;
        }
    }
    Ok(())
}

/// Nothing is left to do: every decision made again is "nothing" or "keep".
pub(super) fn check(job: &Job<'_>, conflict: OnConflict) -> Result<(), ModuleError> {
    let Some(work) = Work::load(job.paths, &job.module.name)? else {
        // The latch was made by hand, or the note is gone: all there is to compare with is the release's list.
        return Ok(());
    };
    let dest = job.dest()?;
    for row in rows(job, &dest, &work.entries, conflict)? {
        let problem = match row.action {
            Action::Nothing | Action::KeepLocal | Action::StayDeleted | Action::Beside => continue,
            // What is there was merged from the saved file: it is neither of the two.
            Action::Merge if merge::is_saved(job, &row) => continue,
            Action::Merge => "it was not merged",
            // A folder that still holds local files stays.
            Action::Remove if row.local.as_ref().is_some_and(Kind::is_folder) => continue,
            Action::Install | Action::InstallDeleted | Action::Remove => "it was not installed",
            Action::SaveAndInstall | Action::Refuse(_) => "it was changed while the module was installed",
        };
        return Err(ModuleError::Differs {
            path: dest.join(row.path),
            problem: problem.into(),
        });
    }
    Ok(())
}

fn rows(job: &Job<'_>, dest: &Path, new: &[Entry], conflict: OnConflict) -> Result<Vec<Row>, ModuleError> {
    let base: BTreeMap<&Path, &Kind> = job
        .base
        .iter()
        .flat_map(|base| &base.entries)
        .map(|entry| (entry.path.as_path(), &entry.kind))
        .collect();
    let new: BTreeMap<&Path, &Kind> = new
        .iter()
        .map(|entry| (entry.path.as_path(), &entry.kind))
        .collect();
    let paths: BTreeSet<&Path> = base.keys().chain(new.keys()).copied().collect();
    let mut rows = Vec::with_capacity(paths.len());
    for path in paths {
        if job.is_safe_path(&job.in_release(path)) {
            continue;
        }
        let local_path = dest.join(path);
        let local = tree::look(&local_path).map_err(ModuleError::io("reading", &local_path))?;
        let (base, new) = (base.get(path).copied(), new.get(path).copied());
        let conflict = rule(conflict, &job.module.conffiles, &job.in_release(path));
        rows.push(Row {
            action: decide(base, local.as_ref(), new, conflict),
            merged: None,
            unmerged: None,
            path: path.to_owned(),
            base: base.cloned(),
            local,
            new: new.cloned(),
        });
    }
    give_way(&mut rows);
    Ok(rows)
}

/// What happens to the file `path` of the release when both sides changed it: by the longest pattern that matches, else `otherwise`.
pub fn rule(otherwise: OnConflict, conffiles: &BTreeMap<String, OnConflict>, path: &Path) -> OnConflict {
    conffiles
        .iter()
        .filter(|(pattern, _)| {
            glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(&path.to_string_lossy()))
        })
        .max_by_key(|(pattern, _)| pattern.len())
        .map_or(otherwise, |(_, rule)| *rule)
}

fn refuse(dest: &Path, rows: &[Row]) -> Result<(), ModuleError> {
    let refused: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let why = row.action.refusal()?;
            Some(format!("{} ({why})", row.path.display()))
        })
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(ModuleError::Conflict {
        dest: dest.to_owned(),
        count: refused.len(),
        first: refused[..refused.len().min(NAMED_CONFLICTS)].join(", "),
    })
}

fn apply(
    job: &Job<'_>,
    row: &Row,
    (fresh, dest): (&Path, &Path),
    note: &mut Note,
    report: &mut Report,
) -> Result<(), ModuleError> {
    let (from, to) = (fresh.join(&row.path), dest.join(&row.path));
    if let Some(changed) = row.changes(dest) {
        note.keep(job.paths, &changed)?;
    }
    let say = |report: &mut Report, text: &str| report.lines.push(format!("{} {text}", to.display()));
    match row.action {
        Action::Nothing | Action::Refuse(_) => return Ok(()),
        Action::KeepLocal => say(report, "was changed here and stays"),
        Action::StayDeleted => say(report, "was deleted here and stays so"),
        Action::Remove => {
            remove(&to)?;
            failpoint::hit("overlay.removed");
        }
        Action::InstallDeleted => {
            put(row, &from, &to)?;
            say(report, "was deleted here; the release changes it, so it is back");
        }
        Action::SaveAndInstall => {
            save(job, row, &to)?;
            put(row, &from, &to)?;
            if let Some(why) = row.unmerged {
                say(report, &format!("could not be merged: {why}"));
            }
        }
        Action::Merge => {
            save(job, row, &to)?;
            durable::write(&from, row.merged.as_deref().unwrap_or_default(), 0o600)?;
            put(row, &from, &to)?;
            say(
                report,
                "was changed here and in the release; both changes are in it",
            );
        }
        Action::Beside => {
            let new = beside(&to, ".new");
            save_beside(job, row, &new)?;
            put(row, &from, &new)?;
            say(
                report,
                &format!("was changed here and stays; the release's is {}", new.display()),
            );
        }
        Action::Install => put(row, &from, &to)?,
    }
    Ok(())
}

fn put(row: &Row, from: &Path, to: &Path) -> Result<(), ModuleError> {
    if let Some(folder) = to.parent() {
        durable::create_folder(folder)?;
    }
    match &row.new {
        Some(Kind::File { mode, .. }) => {
            let marks = (kept_mode(row, *mode), owner(to));
            // As owner and mode: an access list that an operator gave it stays.
            durable::copy_with(from, to, marks, &super::attributes(to))?;
        }
        Some(Kind::Link { to: target }) => durable::symlink(target, to)?,
        Some(Kind::Folder { .. }) => durable::create_folder(to)?,
        Some(Kind::Special) | None => {}
    }
    failpoint::hit("overlay.file");
    Ok(())
}

/// Permission bits that were changed here stay: a file that an operator closed is not opened by an upgrade.
fn kept_mode(row: &Row, new: u32) -> u32 {
    match (&row.base, &row.local) {
        (Some(Kind::File { mode: base, .. }), Some(Kind::File { mode: local, .. })) if base != local => {
            *local
        }
        _ => new,
    }
}

/// User and group of what is at `path`; `None` when there is nothing.
pub(super) fn owner(path: &Path) -> Option<(u32, u32)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.uid(), metadata.gid()))
}

fn save(job: &Job<'_>, row: &Row, local: &Path) -> Result<(), ModuleError> {
    let saved = job.saved().join(&row.path);
    if let Some(folder) = saved.parent() {
        durable::create_folder(folder)?;
    }
    match &row.local {
        Some(Kind::File { mode, .. }) => {
            durable::copy_with(local, &saved, (*mode, owner(local)), &super::attributes(local))?;
        }
        Some(Kind::Link { to }) => durable::symlink(to, &saved)?,
        Some(Kind::Folder { .. } | Kind::Special) | None => {}
    }
    failpoint::hit("overlay.saved");
    Ok(())
}

/// Saves a file that somebody else put where the release's is put beside a local one.
fn save_beside(job: &Job<'_>, row: &Row, new: &Path) -> Result<(), ModuleError> {
    let local = tree::look(new).map_err(ModuleError::io("reading", new))?;
    let is_theirs = |local: &Kind| row.new.as_ref().is_some_and(|new| new.same_content(local));
    if local.as_ref().is_some_and(|local| !is_theirs(local)) {
        let other = Row {
            path: beside(&row.path, ".new"),
            action: Action::SaveAndInstall,
            base: None,
            local,
            new: None,
            merged: None,
            unmerged: None,
        };
        save(job, &other, new)?;
    }
    Ok(())
}

/// Removes a file, or a folder that has become empty.
fn remove(path: &Path) -> Result<(), ModuleError> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Ok(durable::remove(path)?),
        // A folder that still has something in it belongs to somebody else now.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says where local files were saved, also those that an earlier run of this upgrade saved.
fn report_saved(job: &Job<'_>, report: &mut Report) -> Result<(), ModuleError> {
    let saved = job.saved();
    for entry in tree::scan(&saved).map_err(ModuleError::io("reading", &saved))? {
        if !entry.kind.is_folder() {
            report.lines.push(format!(
                "{} was changed here; the local file is saved as {}",
                job.in_release(&entry.path).display(),
                saved.join(&entry.path).display()
            ));
        }
    }
    Ok(())
}

/// Removes the temporary files that a killed run left in the folders of this module.
fn remove_temporary_files(dest: &Path, rows: &[Row]) -> Result<(), ModuleError> {
    let folders: BTreeSet<PathBuf> = rows
        .iter()
        .filter_map(|row| dest.join(&row.path).parent().map(Path::to_owned))
        .collect();
    folders
        .iter()
        .try_for_each(|folder| super::remove_temporary_files(folder))
}
