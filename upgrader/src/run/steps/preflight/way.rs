//! Nothing that is known beforehand stops the upgrade half way: no local change that a module refuses, no mount point in a folder
//! that is exchanged, no file system that can only be read.
//!
//! An upgrade that has begun is not asked: there the module itself refuses, and what failed often enough is taken back.

use std::path::Path;

use anyhow::anyhow;
use kato_shared::release::Release;

use crate::{
    exit::{Exit, Failure},
    module::{
        ModuleError,
        mounts::Mounts,
        obstacle::{Obstacle, obstacles},
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

/// Whether all modules of the releases on the way can be installed, as far as that is known beforehand.
///
/// # Errors
/// [`Failure`] with 20 naming everything of the first kind that is in the way.
pub(super) fn is_free(run: &Run) -> Result<(), Failure> {
    if run.attempt.begun {
        return Ok(());
    }
    let found = find(run).map_err(|error| {
        let mut failure = Failure::from(error);
        if failure.exit == Exit::Failed {
            failure.exit = Exit::Preflight;
        }
        failure
    })?;
    conflicts(run, &found)?;
    for Found { module, obstacle } in &found {
        match obstacle {
            Obstacle::Conflict { .. } => {}
            Obstacle::Mount { place, mount } => return Err(mounted(module, place, mount)),
            Obstacle::ReadOnly { place } => return Err(read_only(module, place)),
        }
    }
    Ok(())
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
    let more = match files.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    files.truncate(NAMED);
    let problem = anyhow!(
        "local changes stand in the way of {}: {}{more}",
        run.attempt.ends_at(),
        files.join(", ")
    );
    Err(Failure::new(Exit::Preflight, problem).hint(
        "nothing was changed; run `kato customizations save`, move these files away, run the same command again, and then \
         `kato customizations reapply`; or ask the publisher of the release for another rule than `fail` (keep, merge, vendor+save)",
    ))
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
