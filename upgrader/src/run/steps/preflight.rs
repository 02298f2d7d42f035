//! `preflight`: what must be so before anything is changed.
//!
//! After a failed run, and where this upgrade has begun to change the node already (it was killed, or somebody pulled the plug), an
//! unhealthy platform and missing paths are warnings: half an upgrade is rarely healthy, and it is verified at its end. What the release
//! would do to the node is judged in any case; what its modules would refuse ([`way`]) only where nothing is changed yet.

mod way;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kato_shared::release::{Install, Module, RestartScope};

use crate::{
    exit::{Exit, Failure},
    marker,
    plan::node::modules_for,
    platform::Verb,
    report::terminal,
    run::{
        Run,
        step::{Acted, Step},
    },
};

pub(super) struct Preflight;

#[async_trait]
impl Step for Preflight {
    fn name(&self) -> String {
        "preflight".into()
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        told(run, standing(run))?;
        let found = of_platform(run).await;
        if matches!(found, Some(Finding::Warned(_))) && !run.attempt.begun && !run.attempt.was_unhealthy {
            run.attempt.was_unhealthy = true;
            run.save()?;
        }
        told(run, found.into_iter().collect())?;
        Ok(Acted::Done)
    }
}

/// Something that preflight finds.
#[derive(Debug)]
pub enum Finding {
    /// The run is refused for it.
    Refused(Failure),
    /// The run goes on, and the operator is told.
    Warned(String),
}

impl Finding {
    /// The failure of a refusal.
    pub fn refusal(self) -> Option<Failure> {
        match self {
            Self::Refused(failure) => Some(failure),
            Self::Warned(_) => None,
        }
    }
}

/// Warns, until something is refused.
fn told(run: &mut Run, found: Vec<Finding>) -> Result<(), Failure> {
    for finding in found {
        match finding {
            Finding::Refused(failure) => return Err(failure),
            Finding::Warned(text) => run.warn(text),
        }
    }
    Ok(())
}

/// What the node's files and settings say.
pub(super) fn standing(run: &Run) -> Vec<Finding> {
    let refused = |looked: Result<(), Failure>| looked.err().map(Finding::Refused);
    let mut found: Vec<Finding> = refused(spares_kato(run)).into_iter().collect();
    found.extend(own_notes(run));
    found.extend(way::in_the_way(run).into_iter().map(Finding::Refused));
    found.extend(refused(can_come_back(run)));
    if run.plan.restart == RestartScope::Reboot && !run.node.platform.knows(Verb::Reboot) {
        let problem = anyhow::anyhow!("the release restarts the machine, and `[platform].reboot` is not set");
        let failure = Failure::new(Exit::Preflight, problem)
            .hint("nothing was changed; set the command and run the same command again");
        found.push(judged(run, failure));
    }
    // A node that never had a release has no state to save.
    for path in run.plan.missing.iter().filter(|_| run.installed.is_some()) {
        let problem = anyhow::anyhow!(
            "the release wants `{}` saved, and it is not on this node",
            run.node.paths.on_node(path).display()
        );
        let failure = Failure::new(Exit::Preflight, problem).hint(format!(
            "nothing was changed; put the path back, or ask the publisher of the release; {}",
            all_the_same(run)
        ));
        found.push(judged(run, failure));
    }
    found.extend(in_service(run));
    let dropped = run.plan.dropped.iter().map(|name| {
        Finding::Warned(format!(
            "the module `{name}` is not in {}; its files stay",
            run.attempt.release.version
        ))
    });
    found.extend(dropped);
    found
}

/// The roles that are to be retired and that the platform's adapter knows nothing of.
fn in_service(run: &Run) -> Option<Finding> {
    let drained = &run.node.settings.upgrade.retire_roles;
    let is_drained = |role: &&String| drained.iter().any(|listed| listed.eq_ignore_ascii_case(role));
    let platform = &run.node.platform;
    let role = run.node.roles().iter().filter(is_drained);
    let mut lacking = role.filter_map(|role| Some((role, platform.lacks(role)?)));
    let (role, setting) = lacking.next()?;
    Some(Finding::Warned(format!(
        "`upgrade.retire_roles` has the role `{role}`, and `{setting}` names nothing of it: what it does on this node is neither \
         stopped nor restarted nor looked at; hint: name its units there, or take the role out of `retire_roles`"
    )))
}

/// What lies where kato keeps latches and the failure marker, and is neither: at the end of the upgrade nobody could remove it.
fn own_notes(run: &Run) -> Vec<Finding> {
    let paths = &run.node.paths;
    let latches = match run.latches().foreign() {
        Ok(found) => found,
        Err(error) => return vec![Finding::Refused(before_the_first_change(error.into()))],
    };
    let modules = modules_for(&run.attempt.release, run.node.roles());
    let is_in_the_way = |path: &Path| {
        let is_latch_of = |module: &&Module| path == paths.latches().join(&module.name);
        path == paths.latches() || modules.iter().any(is_latch_of)
    };
    let finding = |path: PathBuf| {
        let is_folder = path.is_dir();
        let problem = anyhow::anyhow!(
            "`{}` is a {}, where kato keeps {}",
            path.display(),
            if is_folder { "folder" } else { "file" },
            if is_folder {
                "a small file of its own"
            } else {
                "a folder of its own"
            },
        );
        let failure = Failure::new(Exit::Preflight, problem).hint(format!(
            "nothing {}was changed; move it away and run the same command again",
            if run.attempt.begun { "more " } else { "" }
        ));
        // In the place of a latch it would fail the module after all of its work.
        if run.attempt.begun && !is_in_the_way(&path) {
            Finding::Warned(terminal::describe(&failure))
        } else {
            Finding::Refused(failure)
        }
    };
    let all = latches.into_iter().chain(marker::foreign(paths));
    all.map(finding).collect()
}

fn before_the_first_change(mut failure: Failure) -> Failure {
    failure.exit = Exit::Preflight;
    failure
}

/// What the platform says of itself. One that is starting after the restart of the machine is asked by `verify`, which waits for it.
pub(super) async fn of_platform(run: &Run) -> Option<Finding> {
    if run.attempt.begun && run.node.patience.limit().is_some() {
        return None;
    }
    let error = run.node.platform.call(Verb::Health, &run.words()).await.err()?;
    let mut failure = Failure::from(error);
    failure.exit = Exit::Preflight;
    let hint = failure.hint.take().unwrap_or_default();
    failure.hint = Some(format!("nothing was changed; {hint}; {}", all_the_same(run)));
    Some(if run.installed.is_some() {
        judged(run, failure)
    } else {
        // What is not installed yet cannot be healthy.
        Finding::Warned(terminal::describe(&failure))
    })
}

/// How a node is upgraded all the same that is not as it should be.
fn all_the_same(run: &Run) -> String {
    const WHAT: &str = "it must be healthy at the end, and no signature or digest is relaxed";
    if run.attempt.is_of_patches() {
        let marker = run.node.paths.failure_marker();
        return format!("after `touch {}` this is a warning: {WHAT}", marker.display());
    }
    format!("with `--tolerant` the same command takes the node as it is: {WHAT}")
}

/// Who takes a node out of service has to be able to put it back.
fn can_come_back(run: &Run) -> Result<(), Failure> {
    let platform = &run.node.platform;
    if !platform.knows(Verb::Retire) || platform.knows(Verb::Rejoin) {
        return Ok(());
    }
    let problem = anyhow::anyhow!(
        "`[platform].retire` is set and `[platform].rejoin` is not: the node would stay out of service"
    );
    Err(Failure::new(Exit::Preflight, problem)
        .hint("nothing was changed; set the command and run the same command again"))
}

/// A refusal, or a warning where half an upgrade explains what was found.
fn judged(run: &Run, failure: Failure) -> Finding {
    let why = match (run.plan.is_tolerant, run.attempt.begun) {
        (true, _) if run.plan.tolerance_asked => "--tolerant was given",
        (true, _) => "the last run failed",
        (false, true) => "the upgrade has begun",
        (false, false) => return Finding::Refused(failure),
    };
    Finding::Warned(format!(
        "{} ({why}, so this is no reason to stop)",
        terminal::describe(&failure)
    ))
}

/// No module may be installed over what kato itself needs to know and to go on: its journal, its records, its backups.
fn spares_kato(run: &Run) -> Result<(), Failure> {
    let paths = &run.node.paths;
    let state = paths.state_dir();
    for module in modules_for(&run.attempt.release, run.node.roles()) {
        let Some(dest) = module.install.dest() else {
            continue;
        };
        let place = paths.on_node(dest);
        let is_whole = matches!(module.install, Install::Replace { .. });
        let is_in_it = |file: &Path| place.join(file).starts_with(state);
        if place.starts_with(state)
            || is_whole && state.starts_with(&place)
            || module.files.iter().any(|file| is_in_it(&file.path))
        {
            let problem = anyhow::anyhow!(
                "the module `{}` would be installed into `{}`, where kato keeps its state in `{}`",
                module.name,
                place.display(),
                state.display()
            );
            return Err(Failure::new(Exit::Preflight, problem).hint(
                "nothing was changed; ask the publisher of the release, or move `[node].state_dir` elsewhere",
            ));
        }
    }
    Ok(())
}
