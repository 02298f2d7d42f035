//! Looks at the node: everything that the plan depends on, read once, before anything is decided.

use std::collections::BTreeMap;

use kato_shared::{
    Digest,
    release::{Install, Release},
};

use super::Node;
use crate::{
    attempt::Attempt,
    backup,
    customizations::outlook,
    exit::Failure,
    installed::Installed,
    latch::Latches,
    marker,
    module::{self, ModuleError, tree},
    plan::node::{self as planner, NodeFacts, NodePlan, modules_for},
    platform::Verb,
};

/// The plans of an upgrade and of those that follow it, each from the node as the one before leaves it.
///
/// # Errors
/// [`Failure`] when a latch or a path cannot be read.
pub(super) async fn make_plans(
    node: &Node,
    attempt: &Attempt,
    installed: Option<&Installed>,
) -> Result<Vec<NodePlan>, Failure> {
    let now = node.clock.now();
    let mut facts = look(node, attempt, installed).await?;
    let mut plans = vec![planner::plan(
        &facts,
        &attempt.release,
        attempt.release_digest,
        now,
    )];
    let mut before = &attempt.release;
    for target in &attempt.then {
        let modules = modules_for(before, node.roles()).into_iter();
        facts.installed = Some(before.version.clone());
        if before.patch.is_none() {
            facts.installed_modules = modules.map(|module| module.name.clone()).collect();
        }
        facts.latches.clear();
        facts.is_tolerant = false;
        facts.is_backed_up = false;
        // What will be there then is what the release before leaves; its own plan says what that is.
        facts.local_changes.clear();
        facts.saved_bytes = 0;
        measure(node, &target.release, &mut facts).await?;
        // What the release before downloads is not downloaded twice.
        let of_before = plans.iter().flat_map(|plan| &plan.modules);
        facts.staged.extend(of_before.map(|module| module.sha256));
        facts.images.extend(images(before, node));
        plans.push(planner::plan(&facts, &target.release, target.digest, now));
        before = &target.release;
    }
    Ok(plans)
}

/// Looks at the node, for the first upgrade on its way.
async fn look(node: &Node, attempt: &Attempt, installed: Option<&Installed>) -> Result<NodeFacts, Failure> {
    let release = &attempt.release;
    let latches = Latches::in_folder(node.paths.latches());
    let mut verdicts = BTreeMap::new();
    for module in modules_for(release, node.roles()) {
        if let Some(artifact) = release.artifacts.get(&module.artifact) {
            let verdict = latches.verdict(&module.name, &release.version, &artifact.sha256)?;
            verdicts.insert(module.name.clone(), verdict);
        }
    }
    let mut facts = NodeFacts {
        node: node.id.clone(),
        roles: node.roles().to_vec(),
        installed: installed.map(|installed| installed.version.clone()),
        installed_modules: installed
            .map(|installed| installed.modules.keys().cloned().collect())
            .unwrap_or_default(),
        is_tolerant: marker::is_set(&node.paths),
        latches: verdicts,
        is_backed_up: backup::folder(&node.paths, &attempt.id).exists(),
        retire_roles: node.settings.upgrade.retire_roles.clone(),
        can_retire: node.platform.knows(Verb::Retire),
        staging: node.paths.staging(),
        backups: node.paths.backups(),
        customizations: node.paths.customizations(),
        work: node.paths.work(),
        ..NodeFacts::default()
    };
    measure(node, release, &mut facts).await?;
    local_changes(node, installed, release, &mut facts)?;
    Ok(facts)
}

/// Adds the local changes in the folders of the modules that are going to be installed, and what becomes of them.
fn local_changes(
    node: &Node,
    installed: Option<&Installed>,
    release: &Release,
    facts: &mut NodeFacts,
) -> Result<(), Failure> {
    let mut modules = modules_for(release, node.roles());
    modules.retain(|module| {
        let verdict = facts.latches.get(&module.name);
        verdict.is_none_or(|verdict| planner::skip_reason(*verdict).is_none())
    });
    let foreseen = outlook::foresee(&node.paths, installed, release, &modules)?;
    facts.local_changes = outlook::summary(&foreseen, &modules);
    if node.settings.customizations.save {
        let taken = outlook::taken_away(&foreseen);
        facts.saved_bytes = taken.iter().map(|change| change.bytes).sum();
    }
    Ok(())
}

/// The images of `release` for this node.
fn images(release: &Release, node: &Node) -> Vec<Digest> {
    modules_for(release, node.roles())
        .into_iter()
        .flat_map(|module| match &module.install {
            Install::Image { images } => images.iter().map(|image| image.digest).collect(),
            Install::Versioned { .. }
            | Install::Replace { .. }
            | Install::Overlay { .. }
            | Install::Package { .. }
            | Install::Exec { .. } => Vec::new(),
        })
        .collect()
}

/// Adds what is on the node already of what `release` downloads, the sizes of what it has saved, and what only the node
/// knows of its modules.
async fn measure(node: &Node, release: &Release, facts: &mut NodeFacts) -> Result<(), Failure> {
    for path in planner::backup_paths(release, node.roles())
        .into_iter()
        .chain(release.backup.clone())
    {
        let here = node.paths.on_node(&path);
        if here.symlink_metadata().is_ok() && !facts.sizes.contains_key(&path) {
            let bytes = tree::size(&here).map_err(ModuleError::io("reading", &here))?;
            facts.sizes.insert(path, bytes);
        }
    }
    let staged = release
        .artifacts
        .values()
        .map(|artifact| artifact.sha256)
        .filter(|digest| node.paths.staging().join(digest.hex()).exists());
    facts.staged.extend(staged);
    let modules = modules_for(release, node.roles());
    let known = module::known(&modules, &node.paths, &node.settings).await?;
    facts.irreversible = known.irreversible;
    facts.images.extend(known.images);
    facts.images_folder = known.images_folder;
    Ok(())
}
