//! Nothing that is known beforehand stops the upgrade half way: no local change that a module refuses, no mount point in a folder
//! that is exchanged, no file that nobody may change, no file system that can only be read.
//!
//! An upgrade that has begun is not asked: there the module itself refuses, and what failed often enough is taken back.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::anyhow;
use kato_shared::release::Release;

use crate::{
    exit::{Exit, Failure},
    module::{
        ModuleError,
        mounts::Mounts,
        obstacle::{Obstacle, obstacles},
        sealed::Seal,
    },
    plan::node::modules_for,
    run::Run,
};

/// How many files a refusal names.
const NAMED: usize = 20;

/// What is in the way of a module.
struct Found {
    module: String,
    obstacle: Obstacle,
}

/// Why modules of the releases on the way cannot be installed, as far as that is known beforehand: refusals with 20, each naming what is
/// in the way.
pub(super) fn in_the_way(run: &Run) -> Vec<Failure> {
    if run.attempt.begun && !run.is_beside {
        return Vec::new();
    }
    let found = match find(run) {
        Ok(found) => found,
        Err(error) => {
            let mut failure = Failure::from(error);
            if failure.exit == Exit::Failed {
                failure.exit = Exit::Preflight;
            }
            return vec![failure];
        }
    };
    let mut refusals: Vec<Failure> = [conflicts(run, &found), sealed(run, &found)]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    let mut named = BTreeSet::new();
    for Found { module, obstacle } in &found {
        match obstacle {
            Obstacle::Mount { place, mount } if named.insert(mount) => {
                refusals.push(mounted(module, place, mount));
            }
            Obstacle::ReadOnly { place } if named.insert(place) => refusals.push(read_only(module, place)),
            Obstacle::Conflict { .. }
            | Obstacle::Sealed { .. }
            | Obstacle::Mount { .. }
            | Obstacle::ReadOnly { .. } => {}
        }
    }
    refusals
}

fn find(run: &Run) -> Result<Vec<Found>, ModuleError> {
    let mounts = Mounts::read().map_err(ModuleError::io("reading", Path::new("/proc/self/mountinfo")))?;
    let mut found = of_release(run, &run.attempt.release, &mounts)?;
    let planned = |name: &str| run.plan.modules.iter().find(|planned| planned.name == name);
    found.retain(|found| planned(&found.module).is_none_or(|planned| planned.skip.is_none()));
    for target in &run.attempt.then {
        let later = of_release(run, &target.release, &mounts)?;
        // Which local changes it meets is what the releases before it leave; its plan says which it refuses.
        let lasting = |found: &Found| !matches!(found.obstacle, Obstacle::Conflict { .. });
        found.extend(later.into_iter().filter(lasting));
    }
    Ok(found)
}

fn of_release(run: &Run, release: &Release, mounts: &Mounts) -> Result<Vec<Found>, ModuleError> {
    let mut found = Vec::new();
    for module in modules_for(release, run.node.roles()) {
        let Some(artifact) = release.artifacts.get(&module.artifact) else {
            continue;
        };
        let obstacles = obstacles(&run.job_with(module, artifact), mounts)?;
        found.extend(obstacles.into_iter().map(|obstacle| Found {
            module: module.name.clone(),
            obstacle,
        }));
    }
    Ok(found)
}

/// Refuses local changes that modules of this release or of a later one do not let pass.
fn conflicts(run: &Run, found: &[Found]) -> Result<(), Failure> {
    let mut files: Vec<String> = Vec::new();
    for found in found {
        if let Obstacle::Conflict { path, why } = &found.obstacle {
            files.push(format!("{} ({why})", path.display()));
        }
    }
    for (version, path) in &run.later_conflicts {
        let path = run.node.paths.on_node(path);
        files.push(format!("{} (changed here and in {version})", path.display()));
    }
    if files.is_empty() {
        return Ok(());
    }
    let problem = anyhow!(
        "local changes stand in the way of {}: {}",
        run.attempt.ends_at(),
        listed(files)
    );
    Err(Failure::new(Exit::Preflight, problem).hint(
        "nothing was changed; run `kato customizations save`, move these files away, run the same command again, and then \
         `kato customizations reapply`; or ask the publisher of the release for another rule than `fail` (keep, merge, vendor+save)",
    ))
}

/// Refuses what nobody may change and a module of the way would exchange, replace or remove.
fn sealed(run: &Run, found: &[Found]) -> Result<(), Failure> {
    let mut kept: BTreeMap<&Path, (Seal, &str)> = BTreeMap::new();
    for found in found {
        if let Obstacle::Sealed { place, seal } = &found.obstacle {
            kept.insert(place, (*seal, &found.module));
        }
    }
    if kept.is_empty() {
        return Ok(());
    }
    let named = |(place, (seal, module)): (&&Path, &(Seal, &str))| {
        format!("{} ({}, module `{module}`)", place.display(), seal.word())
    };
    let problem = anyhow!(
        "files that nobody may change stand in the way of {}: {}",
        run.attempt.ends_at(),
        listed(kept.iter().map(named).collect())
    );
    let commands = kept
        .iter()
        .map(|(place, (seal, _))| format!("`chattr {} {}`", seal.off(), place.display()));
    Err(Failure::new(Exit::Preflight, problem).hint(format!(
        "nothing was changed; run {} and the same command again; whoever set the flag may want it back afterwards (`lsattr` shows it)",
        listed(commands.collect())
    )))
}

/// The first of `words`, and how many more there are.
fn listed(mut words: Vec<String>) -> String {
    let more = match words.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    words.truncate(NAMED);
    format!("{}{more}", words.join(", "))
}

fn mounted(module: &str, place: &Path, mount: &Path) -> Failure {
    let problem = if place == mount {
        anyhow!(
            "`{}` is a mount point, and the module `{module}` exchanges it as a whole",
            mount.display()
        )
    } else {
        anyhow!(
            "`{}` is mounted below `{}`, which the module `{module}` exchanges as a whole",
            mount.display(),
            place.display()
        )
    };
    Failure::new(Exit::Preflight, problem).hint(format!(
        "nothing was changed; unmount {} or mount it elsewhere: a symbolic link to a folder on another file system may stand in the place of the module's folder",
        mount.display()
    ))
}

/// Which mount it is, is not said: one that is bound elsewhere has the device of the file system that it shows.
fn read_only(module: &str, place: &Path) -> Failure {
    let place = place.display();
    let problem =
        anyhow!("the module `{module}` writes to `{place}`, and the file system there is read-only");
    Failure::new(Exit::Preflight, problem).hint(format!(
        "nothing was changed; `findmnt -T {place}` names the mount; make it writable, then run the same command again"
    ))
}
