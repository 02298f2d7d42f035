//! What a restoration exchanges: made from the backup and the machine, before anything is changed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{Phase, Restoration, SCHEMA, Unit, records, units};
use crate::{
    backup::{Found, STAGING},
    exit::{Exit, Failure},
    module::tree::Kind,
    paths::NodePaths,
};

impl Restoration {
    /// What bringing `backup` back exchanges: all its paths, or those of them that are named by `only`.
    ///
    /// # Errors
    /// [`Failure`] with 2 when a path is not in the backup.
    pub fn plan(
        paths: &NodePaths,
        backup: &Found,
        only: &[PathBuf],
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let id = now.strftime("%Y%m%dT%H%M%S%3f").to_string();
        let records = records(paths);
        let chosen = choose(paths, backup, only)?;
        let kinds: BTreeMap<&Path, &Kind> = backup
            .manifest
            .entries
            .iter()
            .map(|entry| (entry.path.as_path(), &entry.kind))
            .collect();
        let inside = |folder: &Path| match kinds.get(folder) {
            Some(Kind::Folder { .. }) => Some(
                kinds
                    .keys()
                    .filter(|path| path.parent() == Some(folder))
                    .map(|path| (*path).to_owned())
                    .collect(),
            ),
            _ => None,
        };
        let fixed = units::Fixed::of_machine(paths.state_dir());
        let mut exchanged = Vec::new();
        for below in chosen
            .iter()
            .flat_map(|path| units::split(paths.root(), path, &fixed, &inside))
        {
            let path = paths.root().join(&below);
            let folder = path
                .parent()
                .unwrap_or(Path::new("/"))
                .join(format!("{STAGING}{id}"));
            exchanged.push(Unit {
                staged: folder.join(below.file_name().unwrap_or_default()),
                saved: kinds.contains_key(below.as_path()),
                below,
                path,
                identity: None,
            });
        }
        Ok(Self {
            schema: SCHEMA,
            id,
            backup: backup.manifest.attempt.clone(),
            folder: backup.folder.clone(),
            started: now,
            whole: only.is_empty(),
            only: only.iter().map(|path| below_root(path)).collect(),
            phase: Phase::Staging,
            units: exchanged,
            records: records
                .into_iter()
                .map(|path| (path.clone(), fs::read_to_string(path).ok()))
                .collect(),
        })
    }
}

/// A path as an operator names it, below the node's root and in one spelling.
pub(super) fn below_root(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).components().collect()
}

/// The paths of the backup that are wanted, below the root.
fn choose(paths: &NodePaths, backup: &Found, only: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let records: Vec<PathBuf> = records(paths)
        .iter()
        .filter_map(|path| path.strip_prefix(paths.root()).ok())
        .map(Path::to_owned)
        .collect();
    let manifest = &backup.manifest;
    let tops = || {
        manifest
            .paths
            .iter()
            .filter(|path| !records.contains(path))
            .cloned()
    };
    if only.is_empty() {
        return Ok(tops().collect());
    }
    let mut chosen = Vec::new();
    for wanted in only {
        let below = below_root(wanted);
        let is_saved = manifest.entries.iter().any(|entry| entry.path == below);
        if !is_saved || records.contains(&below) {
            let known: Vec<_> = tops().map(|path| format!("/{}", path.display())).collect();
            let problem = anyhow::anyhow!(
                "`{}` is not in the backup {}, which holds {}",
                wanted.display(),
                manifest.attempt,
                known.join(", ")
            );
            return Err(Failure::new(Exit::Usage, problem)
                .hint("name one of these paths, or one below them, as it is below the node's root"));
        }
        chosen.push(below);
    }
    chosen.sort();
    // One below another comes with it.
    let all = chosen.clone();
    chosen.retain(|path| {
        !path
            .ancestors()
            .skip(1)
            .any(|above| all.iter().any(|one| one == above))
    });
    chosen.dedup();
    Ok(chosen)
}
