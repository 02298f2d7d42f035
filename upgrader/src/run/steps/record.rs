//! `record`: the upgrade is complete. The record is the commit point; everything after it only cleans up.
//!
//! Order: record (flushed) → failure marker → latches → what modules kept → staging, notes, script → the upgrade itself.
//! A run that finds the record of the upgrade it is in the middle of has only to go on from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use kato_shared::{
    Digest,
    chain::Chain,
    durable,
    release::{Install, Module},
};

use super::restart;

use crate::{
    attempt::{Attempt, Target},
    backup,
    customizations::pristine,
    exit::Failure,
    failpoint, fetch,
    installed::{self, Installed, InstalledModule},
    latch::Latches,
    marker,
    module::{self, Job, ModuleError, Work, tree, undo},
    patch::{
        act::{PatchAct, Purpose},
        document::KeptDocument,
        local, places,
        record::{By, InstalledPatch, PatchedModule, Patches},
    },
    paths::NodePaths,
    plan::node::modules_for,
    quarantine::Quarantine,
    recover,
    run::{
        Run,
        context::Node,
        kept,
        step::{Acted, Step},
    },
};

pub(super) struct Record;

#[async_trait]
impl Step for Record {
    fn name(&self) -> String {
        "record".into()
    }

    fn changes_node(&self) -> bool {
        true
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        if let Some(act) = run.attempt.patch.clone() {
            record_patch(run, &act)?;
            let left = settle_patch(&run.node, &run.attempt)?;
            return Ok(told(run, left));
        }
        let release = &run.attempt.release;
        let mut modules = BTreeMap::new();
        for module in modules_for(release, run.node.roles()) {
            modules.insert(module.name.clone(), installed_module(run, module)?);
        }
        let record = Installed {
            schema: installed::SCHEMA,
            version: release.version.clone(),
            release_digest: run.attempt.release_digest,
            attempt: run.attempt.id.clone(),
            time: run.node.clock.now(),
            modules,
            safe_paths: release.safe_paths.clone(),
            owner: Some((
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            )),
            checks: release.checks.clone(),
        };
        durable::write_json(&run.node.paths.installed(), &record, 0o644)?;
        failpoint::hit("record.installed");
        run.installed = Some(record);
        let left = settle(&run.node, &run.attempt)?;
        Ok(told(run, left))
    }
}

/// What was unpacked is the pristine state; for a module latched by hand the release's own list has to do.
fn installed_module(run: &Run, module: &Module) -> Result<InstalledModule, Failure> {
    let job = run.job(module)?;
    let noted = Work::load(&run.node.paths, &module.name)?.filter(|work| work.sha256 == job.artifact.sha256);
    let listed = || {
        let entry = |file: &kato_shared::release::FileEntry| tree::Entry {
            path: file.path.clone(),
            kind: tree::Kind::File {
                sha256: file.sha256,
                mode: file.mode,
            },
        };
        module.files.iter().map(entry).collect()
    };
    Ok(InstalledModule {
        version: module.version.clone(),
        sha256: job.artifact.sha256,
        dest: module.install.dest().map(Path::to_owned),
        install: Some(module.install.clone()),
        entries: match module.install.dest() {
            Some(_) => noted.map_or_else(listed, |work| work.entries),
            None => Vec::new(),
        },
    })
}

/// Cleans up after a recorded upgrade; gives what stays of marker and latches, a line each. May be killed anywhere and called
/// again.
///
/// # Errors
/// [`Failure`] with the first thing that cannot be removed.
pub fn settle(node: &Node, attempt: &Attempt) -> Result<Vec<String>, Failure> {
    let left = clear_notes(&node.paths);
    // What a restoration before this upgrade has replaced is no way back from it.
    crate::restore::forget(&node.paths)?;
    Quarantine::lift(&node.paths, &attempt.release.version)?;
    local::after_release(&node.paths, &attempt.release, node.roles())?;
    for module in modules_for(&attempt.release, node.roles()) {
        if let Some(artifact) = attempt.release.artifacts.get(&module.artifact) {
            module::settle(&Job {
                module,
                artifact,
                attempt,
                node: &node.id,
                paths: &node.paths,
                settings: &node.settings,
                children: &node.children,
                base: None,
                deadline: tokio::time::Instant::now(),
            })?;
        }
    }
    // The node shows that it has another release: what was kept of one that was rolled back has had its time.
    close(node, attempt.next(node.clock.now()), &[])?;
    Ok(left)
}

/// Removes the failure marker and the latches; gives what stays, a line each. The end is recorded, and none of them changes it.
pub(super) fn clear_notes(paths: &NodePaths) -> Vec<String> {
    let foreign = |path: PathBuf| {
        format!(
            "`{}` is not kato's and stays; move it away before the next upgrade",
            path.display()
        )
    };
    let failed = |error: &dyn std::error::Error| format!("{}; it stays", Chain(error));
    let mut left = Vec::new();
    match marker::clear(paths) {
        Ok(stays) => left.extend(stays.map(foreign)),
        Err(error) => left.push(failed(&error)),
    }
    match Latches::in_folder(paths.latches()).clear() {
        Ok(stays) => left.extend(stays.into_iter().map(foreign)),
        Err(error) => left.push(failed(&error)),
    }
    left
}

fn told(run: &mut Run, left: Vec<String>) -> Acted {
    for text in left {
        run.warn(text);
    }
    Acted::Done
}

/// Writes down that the patch is installed, or that it is not any more.
fn record_patch(run: &Run, act: &PatchAct) -> Result<(), Failure> {
    let release = &run.attempt.release;
    let mut patches = Patches::load(&run.node.paths)?;
    if act.purpose == Purpose::Install {
        let mut modules = BTreeMap::new();
        for module in modules_for(release, run.node.roles()) {
            let is_in_place = matches!(module.install, Install::Replace { .. } | Install::Overlay { .. });
            let InstalledModule { dest, entries, .. } = installed_module(run, module)?;
            if let Some(dest) = dest.filter(|_| is_in_place) {
                let whole = matches!(module.install, Install::Replace { .. });
                modules.insert(module.name.clone(), PatchedModule { dest, whole, entries });
            }
        }
        patches.put(InstalledPatch {
            id: act.id,
            name: act.name.clone(),
            sha256: run.attempt.release_digest,
            release: release.version.clone(),
            time: run.node.clock.now(),
            by: By::Run {
                run: run.id.clone(),
                attempt: run.attempt.id.clone(),
            },
            requires: release
                .patch
                .as_ref()
                .map(|patch| patch.requires.clone())
                .unwrap_or_default(),
            places: places::of(&release.modules, run.node.roles()),
            modules,
            restart: restart::left(run),
        });
    } else {
        patches.remove(&act.name);
    }
    patches.ended = Some(run.attempt.id.clone());
    patches.save(&run.node.paths)?;
    failpoint::hit("patch.recorded");
    Ok(())
}

/// Cleans up after a recorded act with a patch. What the patch replaced is put by, for the day when it is taken back. Otherwise
/// as [`settle`].
///
/// # Errors
/// [`Failure`] with the first thing that cannot be moved or removed.
pub fn settle_patch(node: &Node, attempt: &Attempt) -> Result<Vec<String>, Failure> {
    let left = clear_notes(&node.paths);
    if let Some(act) = &attempt.patch {
        match act.purpose {
            Purpose::Install => {
                let document = KeptDocument {
                    sha256: attempt.release_digest,
                    release: attempt.release.clone(),
                };
                document.save(&node.paths, &act.name)?;
                if act.keeps {
                    undo::put_by(&node.paths, &node.paths.patch_kept(&act.name))?;
                }
            }
            Purpose::Revert | Purpose::TakeBack => local::forget_kept(&node.paths, &act.name)?,
        }
        failpoint::hit("patch.settled");
    }
    // Older versions stay: the way back of this patch, or of one before it, may lead to them.
    for module in modules_for(&attempt.release, node.roles()) {
        let mut module = module.clone();
        if let Install::Versioned { keep, .. } = &mut module.install {
            *keep = u32::MAX;
        }
        if let Some(artifact) = attempt.release.artifacts.get(&module.artifact) {
            module::settle(&Job {
                module: &module,
                artifact,
                attempt,
                node: &node.id,
                paths: &node.paths,
                settings: &node.settings,
                children: &node.children,
                base: None,
                deadline: tokio::time::Instant::now(),
            })?;
        }
    }
    let mut next = attempt.next(node.clock.now());
    if let Some(next) = &mut next {
        local::choose_originals(node, next)?;
    }
    close(node, next, &kept::targets(&node.paths)?)?;
    Ok(left)
}

/// Removes what belongs to an upgrade in progress, whichever way it ended; last the upgrade itself makes way for `next`. The
/// downloads of `kept` stay.
///
/// # Errors
/// [`Failure`] with the first thing that cannot be removed.
pub(super) fn close(node: &Node, next: Option<Attempt>, kept: &[Target]) -> Result<(), Failure> {
    undo::forget(&node.paths)?;
    if let Some(installed) = Installed::load(&node.paths)? {
        pristine::keep(
            &node.paths,
            &installed,
            node.settings.customizations.pristine.bytes(),
        );
    }
    recover::clear(&node.paths)?;
    let settings = &node.settings.upgrade;
    let retention = backup::Retention {
        keep: settings.backup_keep,
        max_age: settings.backup_max_age,
    };
    backup::retain(&node.paths, retention, node.clock.now())?;
    clean_state(node, next.as_ref(), kept)?;
    failpoint::hit("record.settled");
    match next {
        Some(next) => next.save(&node.paths)?,
        None => durable::remove(&node.paths.attempt())?,
    }
    failpoint::hit("record.attempt");
    Ok(())
}

/// Removes all downloads but those of the releases that come next, and of those that are `kept`. What kato gave no name to is not its
/// own, and stays.
fn clean_staging(node: &Node, next: Option<&Attempt>, kept: &[Target]) -> Result<(), Failure> {
    let folder = node.paths.staging();
    let mut needed = next.map(kept::files_of).unwrap_or_default();
    needed.extend(kept::files(
        kept.iter().map(|target| (&target.release, target.digest)),
    ));
    let needed: BTreeSet<String> = needed.iter().map(Digest::hex).collect();
    durable::create_folder(&folder)?;
    for item in fs::read_dir(&folder)
        .map_err(ModuleError::io("reading", &folder))?
        .flatten()
    {
        let name = item.file_name();
        let is_over = name
            .to_str()
            .is_some_and(|name| fetch::is_download(name) && !needed.contains(name));
        if is_over && !item.file_type().is_ok_and(|kind| kind.is_dir()) {
            tree::remove(&item.path()).map_err(ModuleError::io("removing", &item.path()))?;
        }
    }
    Ok(())
}

/// Downloads and notes of the upgrade, and temporary files that killed runs left.
fn clean_state(node: &Node, next: Option<&Attempt>, kept: &[Target]) -> Result<(), Failure> {
    let paths = &node.paths;
    tree::remove(&paths.work()).map_err(ModuleError::io("removing", &paths.work()))?;
    clean_staging(node, next, kept)?;
    if let Some(folder) = node.kato_link().parent() {
        module::remove_temporary_files(folder)?;
    }
    // Not all that is in the state folder: it may have been given a place where others have theirs.
    module::remove_temporary_files(paths.state_dir())?;
    let mut folders = paths.folders();
    folders.retain(|folder| folder.parent() == Some(paths.state_dir()));
    while let Some(folder) = folders.pop() {
        module::remove_temporary_files(&folder)?;
        let Ok(listing) = fs::read_dir(&folder) else {
            continue;
        };
        for item in listing.flatten() {
            if item.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(item.path());
            }
        }
    }
    Ok(())
}
