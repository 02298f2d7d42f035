//! The durable operations of the code, read from its sources, against those that the scenarios pass: none can be forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use kato_upgrader::failpoint;

use crate::{policies::POLICIES, scenario, stage::Stage};

/// Code that no upgrade of a node comes by: a path or its beginning, a part of the line (empty: any), and why.
#[rustfmt::skip]
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("upgrader/src/publish/", "", "the publisher's machine; a node only reads"),
    ("upgrader/src/prepare/", "", "the cache on Core; area `demo`"),
    ("upgrader/src/demo/", "", "a throw-away cluster"),
    ("upgrader/src/cluster/", "", "the orchestrator; area `cluster`"),
    ("upgrader/src/run/detach.rs", "", "before a detached run; area `cluster`"),
    ("upgrader/src/fetch/part.rs", "durable::remove", "a download that begins again; see `network`"),
    ("upgrader/src/fetch/download.rs", "create_folder", "the folder is there: a run makes it when it begins"),
    ("upgrader/src/run/steps/record.rs", "create_folder", "the same"),
    ("upgrader/src/recover.rs", "create_folder", "the same"),
    ("upgrader/src/marker.rs", "create_folder", "the folder is there: latches are in it"),
    ("upgrader/src/module/overlay.rs", "create_folder(folder)", "the folder is there: it has a row of its own before its files"),
    ("upgrader/src/module/undo/back.rs", "create_folder(folder)", "the same"),
    ("upgrader/src/self_update.rs", "create_folder(link_folder)", "the folder is there: it has the link of `kato`"),
    ("upgrader/src/module/package", "", "installs with the machine's dpkg; area `node`"),
    ("upgrader/src/module/image", "", "needs a container runtime; area `node`"),
    ("upgrader/src/patch/", "", "patches; area `patch`"),
    ("upgrader/src/module/undo/keep.rs", "", "originals that stay for patches to be taken back; area `patch`"),
    ("upgrader/src/restore/", "", "`kato node restore`; SIGKILL at each of its places in area `platform`"),
    ("upgrader/src/backup/extract.rs", "", "the same"),
    ("upgrader/src/customizations/", "", "`kato customizations`; area `node`"),
    ("upgrader/src/module/overlay.rs", "row.merged", "a file that is merged; area `node`"),
    ("upgrader/src/notify/", "", "nobody is told anything here; area `node`"),
    ("upgrader/src/platform/docker.rs", "", "needs Docker's answers; area `platform`"),
    ("upgrader/src/resume.rs", "create_folder", "the folder is there: it has something left over in it"),
    ("upgrader/src/self_update.rs", "create_folder(slot)", "the same"),
    ("upgrader/src/audit/file.rs", "durable::rename(", "a log that has grown too long; the unit tests of `audit`"),
    ("upgrader/src/audit/file.rs", "durable::cut(", "a torn line; the unit tests of `audit`"),
    ("upgrader/src/lease/", "", "the orchestrator's lock and its token; area `cluster`"),
    ("upgrader/src/maintenance/", "", "the platform's mode, switched by the orchestrator; area `cluster`"),
    ("upgrader/src/lock.rs", "durable::remove(path)", "`kato lock break`; area `node`"),
    ("upgrader/src/quarantine.rs", "&found", "two releases in quarantine; the document is written as for one"),
    ("upgrader/src/module/undo/mod.rs", "copy(from", "an original on another file system; copied as by the overlay"),
    ("upgrader/src/module/undo/mod.rs", "symlink(target, to)", "the same for a link"),
    ("upgrader/src/self_update.rs", "durable::remove(&program)", "a kato that does not work here; see `kato`"),
];

/// Places of other areas, by the beginning of their names: `platform` kills at those of restorations, `patch` at those of patches,
/// `cluster` at those of the orchestrator.
const KILLED_ELSEWHERE: &[&str] = &["restore.", "patch.", "lease.", "maintenance."];

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
        "append_line",
        "create_new",
        "flush",
        "cut",
        "commit",
        "rename",
        "exchange",
        "symlink",
        "copy",
        "create_folder",
        "remove",
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

/// Every scenario, undisturbed.
async fn places() -> Result<BTreeSet<String>> {
    let mut places = BTreeSet::new();
    for scenario in scenario::ALL {
        let stage = Stage::set(scenario).await?;
        places.extend(stage.visits.iter().map(|visit| visit.place().to_owned()));
    }
    Ok(places)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_durable_operation_of_the_code_is_passed_by_a_scenario() -> Result<()> {
    let calls = calls()?;
    let places = places().await?;
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
    let is_elsewhere = |caller: &str, text: &str| {
        ELSEWHERE
            .iter()
            .any(|(path, part, _)| caller.starts_with(path) && text.contains(part))
    };
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
        .filter(|name| !places.contains(**name) && !POLICIES.contains(name))
        .filter(|name| !KILLED_ELSEWHERE.iter().any(|start| name.starts_with(start)))
        .collect();
    ensure!(named.is_empty(), "no scenario comes by these places: {named:?}");
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
