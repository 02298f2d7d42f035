//! The way back: when an upgrade is given up, and how the run ends that leads back.
//!
//! ```text
//!   verify, restart, or a module for the last time ──fails──▶ decide ──no way back, or `stop`──▶ the error leaves (21)
//!                                                                │ attempt.rollback, flushed: from here every run leads back
//!                                                                ▼
//!                        retire ─▶ undo:<module>, last first ─▶ restart ─▶ verify ─▶ rejoin ─▶ quarantine, flushed ─▶ (22)
//!                                      └──────────────error: (23), and the same command goes on────────┘
//! ```
//!
//! A platform that gives no answer at all after a restart of the machine decides nothing, in either direction: the run ends (21), and the
//! upgrade, or the way back, is as it was.
//!
//! The program that leads back is the new one; `kato` itself, where it is a module, goes back last.

use kato_shared::release::RestartScope;

use super::{Run, engine::Stopped, event::ErrorReport, patience, room, steps};
use crate::{
    attempt::{Attempt, Rollback},
    exit::{Exit, Failure},
    failpoint,
    module::{ModuleError, undo},
    platform::Verb,
    report::terminal,
    settings::OnFailure,
};

/// Decides whether the failure of `step` ends the upgrade for good, and writes the decision down if it leads back.
pub(super) fn decide(run: &mut Run, step: &str, failure: &Failure) -> bool {
    // A full disk is nobody's fault who could be taken back, and the way back needs room too.
    if room::is_full(failure) {
        return false;
    }
    // A platform that has not come up with the machine says nothing about the release.
    if patience::was_in_vain(failure) {
        return false;
    }
    count(run, step);
    if !is_due(run, step, failure) {
        return false;
    }
    let from = run.attempt.from.as_ref().map(ToString::to_string);
    run.attempt.rollback = Some(Rollback {
        since: run.node.clock.now(),
        run: run.id.clone(),
        error: ErrorReport {
            step: step.to_owned(),
            message: terminal::describe(failure),
            hint: failure.hint.clone(),
        },
    });
    if let Err(error) = run.save() {
        // Not written down, not decided: the next run decides again.
        run.attempt.rollback = None;
        run.warn(kato_shared::chain::Chain(&error).to_string());
        return false;
    }
    failpoint::hit("rollback.decided");
    run.plan.is_tolerant = true;
    run.warn(format!(
        "{step} failed: {}; going back to {}",
        terminal::describe(failure),
        from.unwrap_or_default()
    ));
    true
}

/// Counts the runs in which a module failed.
fn count(run: &mut Run, step: &str) {
    if !step.starts_with("module:") || run.stop.is_cancelled() {
        return;
    }
    *run.attempt.failures.entry(step.to_owned()).or_default() += 1;
    if let Err(error) = run.save() {
        run.warn(kato_shared::chain::Chain(&error).to_string());
    }
}

fn is_due(run: &Run, step: &str, failure: &Failure) -> bool {
    let settings = &run.node.settings.upgrade;
    let is_for_good = match step {
        "verify" => failure.exit == Exit::Failed,
        // A platform that cannot restart anything says nothing about the release.
        "restart" => run.node.platform.knows(match run.plan.restart {
            RestartScope::Reboot => Verb::Reboot,
            RestartScope::Services | RestartScope::None => Verb::Restart,
        }),
        _ => run
            .attempt
            .failures
            .get(step)
            .is_some_and(|count| *count >= settings.module_attempts.max(1)),
    };
    let way_back = &run.plan.way_back;
    // What was never passed in any run, and is not passed before the step that failed.
    let is_open = run.attempt.point_passed.is_none() && way_back.point_of_no_return != step;
    settings.on_failure == OnFailure::RollBack
        && is_for_good
        && is_open
        && run.attempt.begun
        && run.attempt.from.is_some()
        && !run.stop.is_cancelled()
}

/// How a run ends that led back to the old release.
pub(super) fn rolled_back(attempt: &Attempt) -> Stopped {
    let (step, why) = match &attempt.rollback {
        Some(rollback) => (rollback.error.step.clone(), rollback.error.message.clone()),
        None => ("run".into(), String::new()),
    };
    if let Some(act) = &attempt.patch {
        let name = &act.name;
        let problem = anyhow::anyhow!(
            "the patch `{name}` failed and was rolled back, this node is as before: {step}: {why}"
        );
        let hint = format!("when the cause is gone, run `{}`", act.command());
        return Stopped {
            step,
            failure: Failure::new(Exit::RolledBack, problem).hint(hint),
        };
    }
    let problem = anyhow::anyhow!(
        "the upgrade to {} failed and was rolled back, this node runs {} again: {step}: {why}",
        attempt.release.version,
        attempt.leads_to()
    );
    Stopped {
        step,
        failure: Failure::new(Exit::RolledBack, problem).hint(
            "this release is not tried again here; when the cause is gone, run `kato node upgrade --force`, with `--offline` where the \
             network is gone: what was downloaded stays",
        ),
    }
}

/// How a run ends on whose way back `stopped` happened.
pub(super) fn failed(run: &Run, stopped: Stopped) -> Stopped {
    if stopped.failure.exit == Exit::TryAgain || patience::was_in_vain(&stopped.failure) {
        return stopped;
    }
    let Stopped { step, failure } = stopped;
    let (lists, lost) = match steps::notes::of(&run.node, &run.attempt) {
        Ok(found) => (lists(run, &step, &found), found.unreadable),
        Err(_said_by_the_failure) => ("which modules are back is not known".into(), Vec::new()),
    };
    let text = format!(
        "the way back from {} to {} failed in {step}; {lists}; the backup is {}",
        run.attempt.aim(),
        run.attempt.leads_to(),
        crate::backup::folder(
            &run.node.paths,
            &crate::backup::leads_back(&run.node.paths, &run.attempt.id)
        )
        .display(),
    );
    let hint = remedy(run, &step, &failure, &lost);
    Stopped {
        step,
        failure: Failure::new(Exit::RollbackFailed, failure.source.context(text)).hint(hint),
    }
}

/// Which modules are back and which are not, with why where the failure of `step` does not say it.
fn lists(run: &Run, step: &str, found: &undo::Found) -> String {
    let undo_of = |module: &str| format!("undo:{module}");
    // One that failed is not back, however it looks: what it kept may still lie about.
    let is_back = |note: &&undo::Note| {
        let undo = undo_of(&note.module);
        undo != step && !run.not_back.contains_key(&undo) && undo::check(note).is_ok()
    };
    let (back, ahead): (Vec<_>, Vec<_>) = found.notes.iter().partition(is_back);
    let named = |module: &str| {
        let undo = undo_of(module);
        match run.not_back.get(&undo).filter(|_| undo != step) {
            Some(why) => format!("{module} ({why})"),
            None => module.to_owned(),
        }
    };
    let listed = |names: Vec<String>| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let lost = found.unreadable.iter().map(|(module, _)| module.as_str());
    let ahead = ahead.iter().map(|note| note.module.as_str()).chain(lost);
    format!(
        "modules that are back: {}; that are not: {}",
        listed(back.iter().map(|note| note.module.clone()).collect()),
        listed(ahead.map(named).collect())
    )
}

/// What to do next. A module whose note is `lost` comes back with the backup alone.
fn remedy(run: &Run, step: &str, failure: &Failure, lost: &[(String, ModuleError)]) -> String {
    let cause = failure.hint.as_deref().unwrap_or("remove the cause");
    let command = run.attempt.command();
    let is_for_good = |error: Option<&ModuleError>| error.is_some_and(ModuleError::is_lost_note);
    let again = if is_for_good(failure.source.downcast_ref()) {
        None
    } else {
        Some(format!("{cause}; `{command}` then goes on with the way back"))
    };
    let lost: Vec<&str> = lost
        .iter()
        .filter(|(_, error)| is_for_good(Some(error)))
        .map(|(module, _)| module.as_str())
        .collect();
    let restore = (!lost.is_empty()).then(|| {
        format!(
            "what leads back is lost for {}: `kato node restore {}` brings the whole node back to {} from the backup",
            lost.join(", "),
            crate::backup::leads_back(&run.node.paths, &run.attempt.id),
            run.attempt.leads_to()
        )
    });
    // A damaged note holds its module up on the way forward too.
    let damaged: Vec<String> = lost
        .iter()
        .map(|module| undo::file(&run.node.paths, module))
        .filter(|file| file.symlink_metadata().is_ok())
        .map(|file| file.display().to_string())
        .collect();
    let forward = if run.attempt.is_of_patches() {
        None
    } else if damaged.is_empty() {
        Some("`kato node upgrade --force` goes forward instead".to_owned())
    } else {
        let files = damaged.join(", ");
        Some(format!(
            "with {files} moved away, `kato node upgrade --force` goes forward instead"
        ))
    };
    let unrestarted = (step == "restart" && run.attempt.is_of_patches())
        .then(|| format!("`{command} --no-restart` leaves the restart to you"));
    let hints = [again, unrestarted, restore, forward];
    hints.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
