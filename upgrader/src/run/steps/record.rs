//! `record`: the upgrade is complete. The record is the commit point; everything after it only cleans up.
//!
//! Order: record (flushed) → failure marker → latches → what modules kept → staging, notes, script → the upgrade itself.
//! A run that finds the record of the upgrade it is in the middle of has only to go on from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use async_trait::async_trait;
use kato_shared::{durable, release::Module};

use crate::{
    attempt::Attempt,
    backup,
    exit::Failure,
    failpoint,
    installed::{self, Installed, InstalledModule},
    latch::Latches,
    marker,
    module::{self, Job, ModuleError, Work, tree, undo},
    plan::node::modules_for,
    quarantine::Quarantine,
    recover,
    run::{
        Run,
        context::Node,
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
            checks: release.checks.clone(),
        };
        durable::write_json(&run.node.paths.installed(), &record, 0o644)?;
        failpoint::hit("record.installed");
        run.installed = Some(record);
        settle(&run.node, &run.attempt)?;
        Ok(Acted::Done)
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
        entries: match module.install.dest() {
            Some(_) => noted.map_or_else(listed, |work| work.entries),
            None => Vec::new(),
        },
    })
}

/// Cleans up after a recorded upgrade. May be killed anywhere and called again.
///
/// # Errors
/// [`Failure`] with the first thing that cannot be removed.
pub fn settle(node: &Node, attempt: &Attempt) -> Result<(), Failure> {
    marker::clear(&node.paths)?;
    Latches::in_folder(node.paths.latches()).clear()?;
    Quarantine::lift(&node.paths, &attempt.release.version)?;
    for module in modules_for(&attempt.release, node.roles()) {
        if let Some(artifact) = attempt.release.artifacts.get(&module.artifact) {
            module::settle(&Job {
                module,
                artifact,
                attempt,
                node: &node.id,
                paths: &node.paths,
                settings: &node.settings,
                base: None,
                deadline: tokio::time::Instant::now(),
            })?;
        }
    }
    close(node, attempt.next(node.clock.now()))
}

/// Removes what belongs to an upgrade in progress, whichever way it ended; last the upgrade itself makes way for `next`.
///
/// # Errors
/// [`Failure`] with the first thing that cannot be removed.
pub(super) fn close(node: &Node, next: Option<Attempt>) -> Result<(), Failure> {
    undo::forget(&node.paths)?;
    recover::clear(&node.paths)?;
    backup::retain(&node.paths, node.settings.upgrade.backup_keep)?;
    clean_state(node, next.as_ref())?;
    failpoint::hit("record.settled");
    match next {
        Some(next) => next.save(&node.paths)?,
        None => durable::remove(&node.paths.attempt())?,
    }
    failpoint::hit("record.attempt");
    Ok(())
}

/// Removes all downloads but those of the releases that come next.
fn clean_staging(node: &Node, next: Option<&Attempt>) -> Result<(), Failure> {
    let folder = node.paths.staging();
    let releases = next.into_iter().flat_map(|next| {
        let then = next.then.iter().map(|target| &target.release);
        std::iter::once(&next.release).chain(then)
    });
    let needed: BTreeSet<String> = releases
        .flat_map(|release| release.artifacts.values())
        .map(|artifact| artifact.sha256.hex())
        .collect();
    durable::create_folder(&folder)?;
    for item in fs::read_dir(&folder)
        .map_err(ModuleError::io("reading", &folder))?
        .flatten()
    {
        let is_needed = item
            .file_name()
            .to_str()
            .is_some_and(|name| needed.contains(name));
        if !is_needed {
            tree::remove(&item.path()).map_err(ModuleError::io("removing", &item.path()))?;
        }
    }
    Ok(())
}

/// Downloads and notes of the upgrade, and temporary files that killed runs left.
fn clean_state(node: &Node, next: Option<&Attempt>) -> Result<(), Failure> {
    let paths = &node.paths;
    tree::remove(&paths.work()).map_err(ModuleError::io("removing", &paths.work()))?;
    clean_staging(node, next)?;
    if let Some(folder) = node.kato_link().parent() {
        module::remove_temporary_files(folder)?;
    }
    let mut folders = vec![paths.state_dir().to_owned()];
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
