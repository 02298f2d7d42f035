//! The durable operations of the code, read from its sources, against those that the scenarios pass: none can be forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use kato_upgrader::failpoint;

use crate::{
    full::needs_room,
    scenario::{self, Scenario},
    stage::Stage,
};

/// Code that does not run on a node that is upgraded: its folder, and whose it is.
#[rustfmt::skip]
const ANOTHER_MACHINES: &[(&str, &str)] = &[
    ("upgrader/src/publish/", "the publisher's; a node only reads"),
    ("upgrader/src/prepare/", "Core's, the cache; area `demo`"),
    ("upgrader/src/demo/", "a throw-away cluster's"),
    ("upgrader/src/cluster/", "Core's, the orchestrator; area `cluster` kills it"),
];

/// Lines that no upgrade of a node comes by: the file, a part of the line, and why.
#[rustfmt::skip]
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("upgrader/src/run/detach.rs", "durable::create_folder(&node.paths.log())", "before a detached run; area `cluster`"),
    ("upgrader/src/fetch/part.rs", "durable::remove", "a download that begins again; see `network`"),
    ("upgrader/src/fetch/download.rs", "create_folder", "the folder is there: a run makes it when it begins"),
    ("upgrader/src/run/steps/record.rs", "create_folder", "the same"),
    ("upgrader/src/recover.rs", "create_folder", "the same"),
    ("upgrader/src/marker.rs", "create_folder", "the folder is there: latches are in it"),
    ("upgrader/src/module/overlay.rs", "create_folder(folder)", "the folder is there: it has a row of its own before its files"),
    ("upgrader/src/module/undo/back.rs", "create_folder(folder)", "the same"),
    ("upgrader/src/self_update.rs", "create_folder(link_folder)", "the folder is there: it has the link of `kato`"),
    ("upgrader/src/module/image/runtime.rs", "of_registry", "containerd's table of hosts; needs containerd"),
    ("upgrader/src/module/undo/keep.rs", "durable::rename(&part, to)", "an original on another file system; copied as by the overlay"),
    ("upgrader/src/module/undo/keep.rs", "durable::create_folder(to)", "the same"),
    ("upgrader/src/module/undo/keep.rs", "durable::copy(deb,", "a patch of packages; installs with the machine's dpkg"),
    ("upgrader/src/patch/listed.rs", "durable::remove(", "`kato patch reset`; area `patch`"),
    ("upgrader/src/patch/record.rs", "create_folder", "the folder is there: the list of patches is in it"),
    ("upgrader/src/restore/act.rs", "durable::remove(&node.paths.restoration())", "a backup that cannot be staged, or a restoration that was killed before it was"),
    ("upgrader/src/restore/mod.rs", "durable::rename(", "a path that is on one side only; the same step as the exchange beside it"),
    ("upgrader/src/restore/mod.rs", "create_folder(folder)", "the folder is there: it has the journal in it"),
    ("upgrader/src/restore/mod.rs", "durable::remove(&paths.restoration())", "the upgrade after a restoration; area `platform`"),
    ("upgrader/src/restore/kept.rs", "create_folder(folder)", "the folder is there: the original is in it"),
    ("upgrader/src/restore/record.rs", "durable::remove(&paths.attempt())", "an upgrade in progress that is given up; area `platform`"),
    ("upgrader/src/restore/record.rs", "durable::write_json(&paths.installed()", "single paths; area `platform`"),
    ("upgrader/src/restore/record.rs", "create_folder(folder)", "the folder is there: it has the journal in it"),
    ("upgrader/src/customizations/archive/merges.rs", "durable::write_json(", "the note of a merge; the unit tests of `customizations`"),
    ("upgrader/src/customizations/pristine.rs", "durable::copy(from", "archives on another file system; copied as by the overlay"),
    ("upgrader/src/customizations/reapply.rs", "Action::Delete", "one remove; the unit tests of `customizations`"),
    ("upgrader/src/customizations/reapply.rs", "self.merged", "into a scratch folder that a killed run leaves to the next; put back like any other"),
    ("upgrader/src/customizations/reapply.rs", "create_folder(above)", "the folder is there: the release has files in it"),
    ("upgrader/src/customizations/reapply.rs", "create_folder(folder)", "the same"),
    ("upgrader/src/customizations/reapply.rs", "Kind::Folder", "one folder; the unit tests of `customizations`"),
    ("upgrader/src/customizations/reapply.rs", "mark_folder(", "the same"),
    ("upgrader/src/customizations/reapply.rs", "create_folder_with(path", "a folder that is gone; the unit tests of `customizations`"),
    ("upgrader/src/customizations/reapply.rs", "copy_with(&self.here, &self.here", "bits and owner; the unit tests of `customizations`"),
    ("upgrader/src/customizations/reapply.rs", "create_folder(&paths.customizations())", "the folder is there: what was saved is in it"),
    ("upgrader/src/customizations/reapply.rs", "remove_temporary_files", "nothing is left by an undisturbed run; kills in `reapply` leave it to it"),
    ("upgrader/src/module/package.rs", "durable::create_folder(folder)", "installs with the machine's dpkg, which needs root; see `as_root`"),
    ("upgrader/src/module/package.rs", "durable::copy(from, to", "the same"),
    ("upgrader/src/module/package/kept.rs", "durable::exchange(&fresh, &folder)", "the same"),
    ("upgrader/src/module/package/kept.rs", "durable::rename(&fresh, &folder)", "the same"),
    ("upgrader/src/module/overlay.rs", "row.merged", "a file that is merged; area `node`"),
    ("upgrader/src/notify/spool.rs", "durable::create_folder(&self.0)", "nobody is told anything here; area `node`"),
    ("upgrader/src/notify/spool.rs", "durable::write_json(&self.0.join(name)", "the same"),
    ("upgrader/src/notify/spool.rs", "durable::remove(path)", "the same"),
    ("upgrader/src/platform/docker.rs", "durable::create_folder(folder)", "needs Docker's answers; area `platform`"),
    ("upgrader/src/platform/docker.rs", "durable::write_json(&self.notes", "the same"),
    ("upgrader/src/platform/docker.rs", "durable::remove(&self.notes)", "the same"),
    ("upgrader/src/resume.rs", "create_folder", "the folder is there: it has something left over in it"),
    ("upgrader/src/self_update.rs", "create_folder(slot)", "the same"),
    ("upgrader/src/audit/file.rs", "durable::rename(", "a log that has grown too long; the unit tests of `audit`"),
    ("upgrader/src/lease/record.rs", "durable::write_json(&paths.cluster_lease()", "the orchestrator's lock; area `cluster`"),
    ("upgrader/src/lease/mod.rs", "durable::remove(&path)", "the same"),
    ("upgrader/src/lease/fence.rs", "durable::write_json(&paths.fence()", "the orchestrator's token; area `cluster`"),
    ("upgrader/src/lease/fence.rs", "durable::create_folder(folder)", "the same"),
    ("upgrader/src/licence/mod.rs", "durable::create_folder(folder)", "the platform's licence limits, waived by the orchestrator; area `cluster`"),
    ("upgrader/src/licence/mod.rs", "durable::write_json(&path, &record", "the same"),
    ("upgrader/src/licence/mod.rs", "durable::remove(&path)", "the same"),
    ("upgrader/src/maintenance/record.rs", "durable::create_folder(folder)", "the platform's mode, switched by the orchestrator; area `cluster`"),
    ("upgrader/src/maintenance/record.rs", "durable::write_json(&path, self", "the same"),
    ("upgrader/src/maintenance/record.rs", "durable::remove(&paths.maintenance())", "the same"),
    ("upgrader/src/lock.rs", "durable::remove(path)", "`kato lock break`; area `node`"),
    ("upgrader/src/run/kept.rs", "durable::remove(&file)", "what is kept of a release that was rolled back, where there is no room; area `node`"),
    ("upgrader/src/quarantine.rs", "&found", "two releases in quarantine; the document is written as for one"),
    ("upgrader/src/module/undo/mod.rs", "copy_with(from", "an original on another file system; copied as by the overlay"),
    ("upgrader/src/module/undo/mod.rs", "symlink(target, to)", "the same for a link"),
    ("upgrader/src/self_update.rs", "durable::remove(&program)", "a kato that does not work here; see `kato`"),
];

/// Where requests are made, and where they are cut off.
const REQUESTS: &[(&str, &str)] = &[
    (
        "upgrader/src/fetch/redirect.rs",
        "all that a run downloads: `network`",
    ),
    (
        "upgrader/src/fetch/probe.rs",
        "questions to a cache on this machine; area `demo`",
    ),
    (
        "upgrader/src/fetch/post.rs",
        "web hooks, which no run waits for; area `node`",
    ),
    (
        "upgrader/src/fetch/health.rs",
        "checks, which are asked until they are good; area `node`",
    ),
];

/// Places of the orchestrator, by the beginning of their names: area `cluster` kills there.
const KILLED_ELSEWHERE: &[&str] = &["lease.", "maintenance."];

/// Places that only the scenarios of [`scenario::AS_ROOT`] come by.
const NEED_ROOT: &[&str] = &["package.configured", "package.installed"];

/// A line that calls `kato_shared::durable`: `file@line` and its text.
type Calls = BTreeMap<String, String>;

fn workspace() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here
        .parent()
        .context("the package is in the workspace")?
        .to_owned())
}

/// All Rust files below `folder`.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for item in fs::read_dir(&folder)? {
            let path = item?.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The calls of `kato_shared::durable` in the upgrader and in what it shares.
fn calls() -> Result<Calls> {
    let root = workspace()?;
    let mut found = Calls::new();
    for file in [
        files(&root.join("upgrader/src"))?,
        files(&root.join("shared/src"))?,
    ]
    .concat()
    {
        let name = file.strip_prefix(&root)?.display().to_string();
        if name.starts_with("shared/src/durable") {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
        for (number, line) in (1..).zip(code.lines()) {
            for call in calls_of(line) {
                ensure!(
                    call.1,
                    "{name}:{number}: `durable::{}` is not called on this line: a place is named by the line that calls",
                    call.0
                );
                found.insert(format!("{name}@{number}"), line.trim().to_owned());
            }
        }
    }
    ensure!(found.len() > 40, "only {} calls were found", found.len());
    Ok(found)
}

/// The functions of `durable` that a line names, and whether it calls them.
fn calls_of(line: &str) -> Vec<(&'static str, bool)> {
    const FUNCTIONS: &[&str] = &[
        "write",
        "write_json",
        "hand_out",
        "append_line",
        "create_new",
        "flush",
        "cut",
        "commit",
        "rename",
        "exchange",
        "symlink",
        "copy",
        "copy_with",
        "create_folder",
        "create_folder_with",
        "mark_folder",
        "remove",
        "remove_folder",
        "sync_folder",
        "remove_temporary_files",
        "place::about_to_write",
    ];
    if line.trim_start().starts_with("//") || line.trim_start().starts_with("use ") {
        return Vec::new();
    }
    let behind = line.split("durable::").skip(1);
    let named = |rest: &str| {
        FUNCTIONS.iter().copied().find_map(|function| {
            let after = rest.strip_prefix(function)?;
            let is_longer = after.starts_with(|next: char| next.is_alphanumeric() || next == '_');
            (!is_longer).then(|| (function, after.starts_with('(')))
        })
    };
    behind.filter_map(named).collect()
}

/// The places that `scenarios` pass, undisturbed. Each write among them is passed by one of those in `full` as well, where the disk is
/// full at it.
async fn places(scenarios: &'static [Scenario], full: &[&str]) -> Result<BTreeSet<String>> {
    let (mut places, mut with_full_disk) = (BTreeSet::new(), BTreeSet::new());
    for scenario in scenarios {
        let stage = Stage::set(scenario).await?;
        let passed: Vec<String> = stage
            .visits
            .iter()
            .map(|visit| visit.place().to_owned())
            .collect();
        if full.contains(&scenario.name) {
            with_full_disk.extend(passed.iter().cloned());
        }
        places.extend(passed);
    }
    let forgotten: Vec<_> = places
        .difference(&with_full_disk)
        .filter(|place| needs_room(place))
        .collect();
    ensure!(
        forgotten.is_empty(),
        "the disk is full at none of these writes: give their scenario a test with a full disk: {forgotten:#?}"
    );
    Ok(places)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_durable_operation_of_the_code_is_passed_by_a_scenario() -> Result<()> {
    let calls = calls()?;
    let places = places(scenario::ALL, crate::FULL).await?;
    let passed: BTreeSet<&str> = places
        .iter()
        .filter_map(|place| place.split_once(' ').map(|(_, caller)| caller))
        .collect();
    for caller in &passed {
        ensure!(
            calls.contains_key(*caller),
            "the scan of the code does not find {caller}"
        );
    }
    let is_in = |caller: &str, text: &str, path: &str, part: &str| {
        caller.split_once('@').is_some_and(|(file, _)| file == path) && text.contains(part)
    };
    let is_elsewhere = |caller: &str, text: &str| {
        let mut folders = ANOTHER_MACHINES.iter();
        let mut lines = ELSEWHERE.iter();
        folders.any(|(folder, _)| caller.starts_with(folder))
            || lines.any(|(path, part, _)| is_in(caller, text, path, part))
    };
    let stale: Vec<_> = ELSEWHERE
        .iter()
        .filter(|(path, part, _)| {
            part.is_empty() || !calls.iter().any(|(caller, text)| is_in(caller, text, path, part))
        })
        .collect();
    ensure!(
        stale.is_empty(),
        "these rows are about no line of the code: {stale:#?}"
    );
    let forgotten: Vec<String> = calls
        .iter()
        .filter(|(caller, text)| !passed.contains(caller.as_str()) && !is_elsewhere(caller, text))
        .map(|(caller, text)| format!("{caller}: {text}"))
        .collect();
    ensure!(
        forgotten.is_empty(),
        "no scenario comes by these lines, so nothing is tested there: add a scenario, or say why not: {forgotten:#?}"
    );
    let named: Vec<_> = failpoint::POINTS
        .iter()
        .filter(|name| !places.contains(**name) && !NEED_ROOT.contains(name))
        .filter(|name| !KILLED_ELSEWHERE.iter().any(|start| name.starts_with(start)))
        .collect();
    ensure!(named.is_empty(), "no scenario comes by these places: {named:?}");
    Ok(())
}

/// Every durable operation of the code below `path`, and the places that need root, are passed by `scenarios`.
pub(crate) async fn every_one_below(path: &str, scenarios: &'static [Scenario], full: &[&str]) -> Result<()> {
    let places = places(scenarios, full).await?;
    let is_passed = |caller: &str| places.iter().any(|place| place.ends_with(&format!(" {caller}")));
    let calls = calls()?;
    let below: Vec<_> = calls
        .iter()
        .filter(|(caller, _)| caller.starts_with(path))
        .collect();
    ensure!(!below.is_empty(), "nothing is below {path}");
    let forgotten: Vec<_> = below.iter().filter(|(caller, _)| !is_passed(caller)).collect();
    ensure!(
        forgotten.is_empty(),
        "no scenario comes by these lines: {forgotten:#?}"
    );
    let named: Vec<_> = NEED_ROOT.iter().filter(|name| !places.contains(**name)).collect();
    ensure!(named.is_empty(), "no scenario comes by these places: {named:?}");
    Ok(())
}

#[test]
fn every_request_of_the_code_is_made_where_one_is_cut_off() -> Result<()> {
    let root = workspace()?;
    let mut makers = BTreeSet::new();
    for file in files(&root.join("upgrader/src"))? {
        let text = fs::read_to_string(&file)?;
        let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
        if code.contains(".send()") || code.contains(".execute(") {
            makers.insert(file.strip_prefix(&root)?.display().to_string());
        }
    }
    let known: BTreeSet<String> = REQUESTS.iter().map(|(file, _)| (*file).to_owned()).collect();
    ensure!(
        makers == known,
        "requests are made in {makers:?}, and cut off in {known:?}: cut them off in `network`, or say where"
    );
    Ok(())
}

#[test]
fn a_call_and_a_function_that_is_passed_on_are_told_apart() {
    assert_eq!(
        calls_of("    durable::write_json(&path, self, 0o644)?;"),
        [("write_json", true)]
    );
    assert_eq!(
        calls_of("    folders.try_for_each(durable::sync_folder)"),
        [("sync_folder", false)]
    );
    assert_eq!(calls_of("// durable::write(x)"), []);
    assert_eq!(calls_of("use kato_shared::durable::{self, DurableError};"), []);
}
