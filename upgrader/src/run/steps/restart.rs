//! `restart`: what the release asks for: services, the machine, or nothing.
//!
//! A restart of the machine ends the run; the boot that ends is journalled first. A later run of the same upgrade goes on
//! when it sees another boot, and asks again when it does not.

use async_trait::async_trait;
use kato_shared::{chain::Chain, release::RestartScope};

use crate::{
    exit::{Exit, Failure},
    failpoint,
    journal::Act,
    lock,
    patch::record::PendingRestart,
    plan::node::modules_for,
    platform::{Verb, Words},
    resume::ResumeUnit,
    run::{
        Run,
        patience::Wait,
        step::{Acted, Need, Step},
    },
};

pub(super) struct Restart;

#[async_trait]
impl Step for Restart {
    fn name(&self) -> String {
        "restart".into()
    }

    fn changes_node(&self) -> bool {
        true
    }

    /// A restart that was asked for is asked for again, and a platform that hangs holds nobody.
    fn is_interruptible(&self) -> bool {
        true
    }

    async fn precheck(&self, run: &mut Run) -> Result<Need, Failure> {
        let skip = |reason: &str| Ok(Need::Skip(reason.into()));
        if run.attempt.patch.as_ref().is_some_and(|act| act.no_restart) {
            return skip("`--no-restart` leaves it to you");
        }
        match run.plan.restart {
            RestartScope::Reboot => {
                if run.is_restarted() {
                    return skip("the machine was restarted");
                }
                let is_back = run.attempt.rollback.is_some() && !run.attempt.is_taking_back();
                let is_asked = |name: &str| run.journal.rebooted_in(name).is_some();
                if is_back && !is_asked(&run.attempt.restart_id()) && !is_asked(&run.attempt.id) {
                    return skip("the machine was never restarted with the new release");
                }
                Ok(Need::Act)
            }
            RestartScope::None if services(run).is_empty() => skip("the release restarts nothing"),
            RestartScope::None | RestartScope::Services if !run.node.platform.knows(Verb::Restart) => {
                skip("the platform has no command for it")
            }
            RestartScope::None | RestartScope::Services => Ok(Need::Act),
        }
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        if run.plan.restart == RestartScope::Reboot {
            return reboot(run).await;
        }
        let (services, roles) = affected(run);
        let words = Words {
            services,
            roles,
            ..run.words()
        };
        let node = std::sync::Arc::clone(&run.node);
        let mut wait = Wait::begin();
        while let Err(error) = node.platform.call(Verb::Restart, &words).await {
            wait.after(&node, error, &mut |text| run.progress("restart", text))
                .await?;
        }
        failpoint::hit("restart.acted");
        Ok(Acted::Done)
    }
}

/// The services and the roles that are restarted, comma separated; both empty for all services of the node. A patch restarts the
/// services that its modules name, else those of the roles that it affects.
fn affected(run: &Run) -> (String, String) {
    let named = services(run);
    match &run.attempt.release.patch {
        _ if run.plan.restart == RestartScope::None => (named.join(","), String::new()),
        Some(_) if !named.is_empty() => (named.join(","), String::new()),
        Some(patch) if !patch.roles.iter().any(|role| role == "*") => {
            let own = run.node.roles().iter();
            let affected = own.filter(|own| patch.roles.iter().any(|role| role.eq_ignore_ascii_case(own)));
            let roles = affected.map(String::as_str).collect::<Vec<_>>();
            (String::new(), roles.join(","))
        }
        Some(_) | None => (String::new(), String::new()),
    }
}

/// What a patch leaves to the operator to restart; `None` when nothing.
pub(super) fn left(run: &Run) -> Option<PendingRestart> {
    let is_left = run.attempt.patch.as_ref().is_some_and(|act| act.no_restart);
    let is_nothing = run.plan.restart == RestartScope::None && services(run).is_empty();
    let (services, roles) = affected(run);
    (is_left && !is_nothing).then(|| PendingRestart {
        services,
        roles,
        machine: run.plan.restart == RestartScope::Reboot,
        boot_id: lock::boot_id(run.node.paths.root()),
    })
}

/// The services that the node's modules ask to be restarted.
fn services(run: &Run) -> Vec<String> {
    let mut services: Vec<String> = modules_for(&run.attempt.release, run.node.roles())
        .into_iter()
        .flat_map(|module| module.restart.clone())
        .collect();
    services.sort_unstable();
    services.dedup();
    services
}

async fn reboot(run: &mut Run) -> Result<Acted, Failure> {
    if !run.node.platform.knows(Verb::Reboot) {
        return Err(Failure::new(
            Exit::Failed,
            anyhow::anyhow!("the release restarts the machine, and `[platform].reboot` is not set"),
        )
        .hint(
            "restart the machine by hand after setting the command, then run `kato node upgrade --resume`",
        ));
    }
    if let Some(unit) = ResumeUnit::of(&run.node.paths, &run.node.children) {
        let link = run.node.kato_link();
        let program = if link.is_file() {
            Some(link)
        } else {
            std::env::current_exe().ok()
        };
        let program = program.unwrap_or_else(|| run.node.kato_link());
        if let Err(error) = unit.enable(&program, &run.config, &run.request).await {
            run.warn(format!(
                "{}; after the restart, run `kato node upgrade --resume`",
                Chain(&error)
            ));
        }
    }
    run.journal.record(Act::Rebooting {
        attempt: run.attempt.restart_id(),
        boot_id: lock::boot_id(run.node.paths.root()),
    })?;
    let words = run.words();
    run.node.platform.call(Verb::Reboot, &words).await?;
    failpoint::hit("restart.acted");
    Ok(Acted::Rebooting)
}
