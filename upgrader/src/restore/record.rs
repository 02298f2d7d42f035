//! The records of a node after a restoration: what it has, and nothing else.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kato_shared::durable;

use super::{Restoration, records};
use crate::{
    attempt::Attempt,
    backup::Found,
    exit::{Exit, Failure},
    installed::Installed,
    report::terminal,
    run::{Node, steps, taken_up},
};

/// Writes what the node has now.
pub(super) fn record(node: &Node, backup: &Found, restoration: &Restoration) -> Result<(), Failure> {
    let paths = &node.paths;
    let saved = saved_records(paths.root(), backup, &records(paths))?;
    if restoration.whole {
        for (path, text) in &saved {
            put_record(path, text.as_deref())?;
        }
        // The upgrade that was in progress is given up: what it has left is not what the node has.
        let left = match Attempt::load(paths) {
            Ok(Some(attempt)) => steps::settle_back(node, &attempt)?,
            Ok(None) if !taken_up::has_notes(node) => Vec::new(),
            Err(error) if !taken_up::is_damage(&error) => return Err(error.into()),
            // Which one it was is not known any more, and does not matter any more.
            Ok(None) | Err(_) => steps::settle_lost(node)?,
        };
        for text in left {
            terminal::say(&format!("warning: {text}"));
        }
        // Nor does one go on that was put aside for it.
        durable::remove(&paths.attempt())?;
        return Ok(());
    }
    let before = saved.get(&paths.installed()).cloned().flatten();
    let before = before.and_then(|text| serde_json::from_str::<Installed>(&text).ok());
    let (Some(before), Some(mut now)) = (before, Installed::load(paths)?) else {
        return Ok(());
    };
    for (name, module) in before.modules {
        // What has no folder of its own, such as a package, is not in a backup.
        let Some(dest) = &module.dest else { continue };
        let dest = dest.strip_prefix("/").unwrap_or(dest);
        if restoration.units.iter().any(|unit| dest.starts_with(&unit.below)) {
            now.modules.insert(name, module);
        }
    }
    Ok(durable::write_json(&paths.installed(), &now, 0o644)?)
}

/// Puts a record to what it says in the backup, or to what it was before.
pub(super) fn put_record(path: &Path, text: Option<&str>) -> Result<(), Failure> {
    match text {
        Some(text) => {
            if let Some(folder) = path.parent() {
                durable::create_folder(folder)?;
            }
            durable::write(path, text.as_bytes(), 0o644)?;
        }
        None => durable::remove(path)?,
    }
    Ok(())
}

/// The records in the backup, read through a folder of their own.
fn saved_records(
    root: &Path,
    backup: &Found,
    records: &[PathBuf],
) -> Result<BTreeMap<PathBuf, Option<String>>, Failure> {
    let folder = tempfile::Builder::new()
        .prefix(crate::backup::STAGING)
        .tempdir()
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    let at = |index: usize| folder.path().join(index.to_string());
    backup.extract(|path| {
        let index = records
            .iter()
            .position(|record| record.strip_prefix(root).is_ok_and(|below| below == path))?;
        Some(at(index))
    })?;
    let texts = records
        .iter()
        .enumerate()
        .map(|(index, record)| (record.clone(), fs::read_to_string(at(index)).ok()));
    Ok(texts.collect())
}
