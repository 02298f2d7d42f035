//! Looks at the node: everything that the plan depends on, read once, before anything is decided.

use std::collections::BTreeMap;

use super::Node;
use crate::{
    attempt::Attempt,
    backup,
    exit::Failure,
    installed::Installed,
    latch::Latches,
    marker,
    module::{ModuleError, tree},
    plan::node::{self as planner, NodeFacts, NodePlan, modules_for},
    platform::Verb,
};

/// Looks at the node and makes the plan.
///
/// # Errors
/// [`Failure`] when a latch or a path cannot be read.
pub(super) fn make_plan(
    node: &Node,
    attempt: &Attempt,
    installed: Option<&Installed>,
) -> Result<NodePlan, Failure> {
    let release = &attempt.release;
    let latches = Latches::in_folder(node.paths.latches());
    let mut verdicts = BTreeMap::new();
    for module in modules_for(release, node.roles()) {
        if let Some(artifact) = release.artifacts.get(&module.artifact) {
            let verdict = latches.verdict(&module.name, &release.version, &artifact.sha256)?;
            verdicts.insert(module.name.clone(), verdict);
        }
    }
    let mut sizes = BTreeMap::new();
    for path in planner::backup_paths(release, node.roles())
        .into_iter()
        .chain(release.backup.clone())
    {
        let here = node.paths.on_node(&path);
        if here.symlink_metadata().is_ok() {
            let bytes = tree::size(&here).map_err(ModuleError::io("reading", &here))?;
            sizes.insert(path, bytes);
        }
    }
    let staged = release
        .artifacts
        .values()
        .map(|artifact| artifact.sha256)
        .filter(|digest| node.paths.staging().join(digest.hex()).exists())
        .collect();
    let facts = NodeFacts {
        node: node.id.clone(),
        roles: node.roles().to_vec(),
        installed: installed.map(|installed| installed.version.clone()),
        installed_modules: installed
            .map(|installed| installed.modules.keys().cloned().collect())
            .unwrap_or_default(),
        is_tolerant: marker::is_set(&node.paths),
        latches: verdicts,
        staged,
        sizes,
        is_backed_up: backup::folder(&node.paths, &attempt.id).exists(),
        retire_roles: node.settings.upgrade.retire_roles.clone(),
        can_retire: node.platform.knows(Verb::Retire),
        staging: node.paths.staging(),
        backups: node.paths.backups(),
    };
    Ok(planner::plan(
        &facts,
        release,
        attempt.release_digest,
        node.clock.now(),
    ))
}
