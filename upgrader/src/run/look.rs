//! Looks at the node: everything that the plan depends on, read once, before anything is decided.

use std::collections::BTreeMap;

use kato_shared::{
    Digest,
    release::{Install, Release, Version, layout},
};

use super::Node;
use crate::{
    attempt::Attempt,
    backup,
    customizations::{
        outlook::{self, Basis, Foreseen},
        patched,
    },
    exit::Failure,
    installed::Installed,
    latch::Latches,
    marker,
    module::{self, ModuleError, tree},
    patch::{act::PatchAct, places, record::Patches},
    plan::node::{self as planner, NodeFacts, NodePlan, Restarts, modules_for},
    platform::Verb,
    self_update,
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
    let mut kato = Kato::running()?;
    let mut facts = look(node, attempt, installed).await?;
    kato.followed_by(&attempt.release, &mut facts);
    let mut local = LocalChanges::of(node, installed)?;
    local.foresee(&attempt.release, attempt.patch.as_ref(), &mut facts)?;
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
        facts.is_tolerant = attempt.tolerant;
        facts.is_backed_up = false;
        measure(node, &target.release, &mut facts).await?;
        kato.followed_by(&target.release, &mut facts);
        let patch = target.release.patch.as_ref().map(PatchAct::install);
        local.foresee(&target.release, patch.as_ref(), &mut facts)?;
        // What the release before downloads is not downloaded twice.
        let of_before = plans.iter().flat_map(|plan| &plan.modules);
        facts.staged.extend(of_before.map(|module| module.sha256));
        facts.images.extend(images(before, node));
        plans.push(planner::plan(&facts, &target.release, target.digest, now));
        before = &target.release;
    }
    Ok(plans)
}

/// The `kato` that is at work at a point of the way.
struct Kato {
    version: Version,
    digest: Digest,
}

impl Kato {
    fn running() -> Result<Self, Failure> {
        Ok(Self {
            version: self_update::own_version(),
            digest: self_update::running_digest()?,
        })
    }

    /// Notes the one that `release` brings, which is at work from then on. Whether one that is too old may go on is not asked here.
    fn followed_by(&mut self, release: &Release, facts: &mut NodeFacts) {
        let offered = self_update::decide(release, layout::HOST_TRIPLE, &self.version, &self.digest);
        facts.kato = offered.ok().flatten().cloned();
        if let Some(next) = &facts.kato {
            self.version = next.version.clone();
            self.digest = next.sha256;
        }
    }
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
        is_tolerant: attempt.tolerant || marker::is_set(&node.paths),
        tolerance_asked: attempt.tolerant,
        latches: verdicts,
        is_backed_up: backup::folder(&node.paths, &attempt.id).exists(),
        retire_roles: node.settings.upgrade.retire_roles.clone(),
        can_retire: node.platform.knows(Verb::Retire),
        restarts: match &attempt.patch {
            Some(act) if act.no_restart => Restarts::Operator,
            _ => Restarts::Kato,
        },
        record_bytes: backup::records(&node.paths)
            .iter()
            .map(|path| tree::saved_size(path).map_err(ModuleError::io("reading", path)))
            .sum::<Result<u64, _>>()?,
        staging: node.paths.staging(),
        slots: node.paths.slots(),
        backups: node.paths.backups(),
        customizations: node.paths.customizations(),
        work: node.paths.work(),
        ..NodeFacts::default()
    };
    measure(node, release, &mut facts).await?;
    Ok(facts)
}

/// The local changes of the node, and what becomes of them release by release.
struct LocalChanges<'a> {
    node: &'a Node,
    installed: Option<&'a Installed>,
    with_patches: Option<Installed>,
    patches: Patches,
    /// What was foreseen for the releases before.
    before: Vec<Foreseen>,
}

impl<'a> LocalChanges<'a> {
    fn of(node: &'a Node, installed: Option<&'a Installed>) -> Result<Self, Failure> {
        Ok(Self {
            node,
            installed,
            with_patches: installed
                .map(|installed| patched(&node.paths, installed))
                .transpose()?,
            patches: Patches::load(&node.paths)?,
            before: Vec::new(),
        })
    }

    /// Notes the local changes in the folders of the modules of `release` that are going to be installed, and what becomes of
    /// them.
    fn foresee(
        &mut self,
        release: &Release,
        patch: Option<&PatchAct>,
        facts: &mut NodeFacts,
    ) -> Result<(), Failure> {
        let mut modules = modules_for(release, self.node.roles());
        modules.retain(|module| {
            let verdict = facts.latches.get(&module.name);
            verdict.is_none_or(|verdict| planner::skip_reason(*verdict).is_none())
        });
        let basis = Basis {
            installed: self.with_patches.as_ref(),
            bases: &places::bases(release, patch, self.installed, &self.patches),
            before: &self.before,
        };
        let foreseen = outlook::foresee(&self.node.paths, basis, release, &modules)?;
        facts.local_changes = outlook::summary(&foreseen, &modules);
        facts.saved_bytes = 0;
        if self.node.settings.customizations.save {
            let taken = outlook::taken_away(&foreseen);
            facts.saved_bytes = taken.iter().map(|change| change.bytes).sum();
        }
        self.before.extend(foreseen);
        Ok(())
    }
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
        // What a module writes behind a link is saved as well.
        let here = module::follow(&node.paths, &path).unwrap_or_else(|_outside| node.paths.on_node(&path));
        if here.symlink_metadata().is_ok() && !facts.sizes.contains_key(&path) {
            let bytes = tree::saved_size(&here).map_err(ModuleError::io("reading", &here))?;
            facts.sizes.insert(path, bytes);
        }
    }
    let archives = release.artifacts.values().map(|artifact| artifact.sha256);
    let programs = release.upgrader.values().map(|program| program.sha256);
    let staged = archives
        .chain(programs)
        .filter(|digest| node.paths.staging().join(digest.hex()).exists());
    facts.staged.extend(staged);
    let modules = modules_for(release, node.roles());
    let known = module::known(&modules, &node.paths, &node.settings, &node.children).await?;
    facts.irreversible = known.irreversible;
    facts.images.extend(known.images);
    facts.images_folder = known.images_folder;
    Ok(())
}
