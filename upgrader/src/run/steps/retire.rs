//! `retire` and `rejoin`: the node is taken out of service before it is changed, and put back whatever happens.
//!
//! The record of ownership is written before the platform is asked. A node that is out of service without our record was
//! taken out by somebody else and stays out; work that is still on it is moved away like any other. See
//! [`crate::platform::evacuate`] for how "empty" is found out.
//!
//! After the restart of the machine a node is not retired once more when nothing is left that would change it. What is left then is to
//! show that it is well, to put it back and to record it, and none of that needs an empty node. Where the platform keeps a node out of
//! service over a restart (Kubernetes, Nomad) it still is; where the start of the machine has put it back (units that are enabled,
//! containers with a restart policy) that work is what has to show that it is well, and stopping it again would be one more interruption
//! for nothing. Where something is left, the node is retired again as on any other day, once the platform answers.

use async_trait::async_trait;

use crate::{
    exit::{Exit, Failure},
    failpoint,
    journal::Act,
    module::undo,
    ownership::{By, Ownership},
    plan::node::{modules_for, skip_reason},
    platform::{
        self, Resident, Verb, Words,
        evacuate::{Emptied, EvacuateError, Rules, evacuate},
    },
    report::terminal,
    run::{
        Run,
        beside::{Begun, Doing, may},
        context::Node,
        engine::stopped,
        event::EventKind,
        patience::{self, Tell, Wait},
        step::{Acted, Need, Step},
        stop::PATIENCE,
    },
};

use super::notes;

/// What to do about a node that could not be put back.
const STILL_OUT: &str = "the node is out of service; put it back with `kato node rejoin` when the platform answers, or run the same command again";

/// What is told about a node that an operator or another tool took out of service.
const STAYS_OUT: &str = "somebody else took the node out of service; it stays out afterwards";

pub(super) struct Retire;

#[async_trait]
impl Step for Retire {
    fn name(&self) -> String {
        "retire".into()
    }

    async fn precheck(&self, run: &mut Run) -> Result<Need, Failure> {
        if run.request.skip_drain {
            let reason = "--skip-drain was given; the work on the node is interrupted";
            run.journal.record(Act::Skipped {
                step: self.name(),
                reason: reason.into(),
            })?;
            run.warn(reason);
            return Ok(Need::Skip(reason.into()));
        }
        if run.is_restarted() && !is_change_left(run)? {
            return Ok(Need::Skip(
                "the machine was restarted, and nothing is left to do that needs an empty node".into(),
            ));
        }
        if Ownership::of_a_run(&run.node.paths)?.is_some() {
            return Ok(if is_still_empty(run).await {
                Need::Skip("the node is out of service and empty already".into())
            } else {
                Need::Act
            });
        }
        Ok(match outside(run).await? {
            Outside::Empty => Need::Skip(STAYS_OUT.into()),
            Outside::No | Outside::WithWork => Need::Act,
        })
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        let emptied = match answers(run).await {
            Ok(()) if !owned(run).await? => {
                run.warn(STAYS_OUT);
                return Ok(Acted::Done);
            }
            Ok(()) => empty(run).await,
            Err(failure) => Err(failure),
        };
        match emptied {
            Ok(()) => {
                run.is_emptied = true;
                Ok(Acted::Done)
            }
            // A half upgraded node is no place for work; the way out is forward.
            Err(failure) if run.attempt.begun && run.plan.is_tolerant && !run.stop.is_cancelled() => {
                run.warn(format!(
                    "{} (the node is half upgraded, so the upgrade goes on)",
                    terminal::describe(&failure)
                ));
                Ok(Acted::Done)
            }
            // Nothing of the node was changed, and it is put back.
            Err(failure) if !run.attempt.begun && failure.exit == Exit::Failed => Err(Failure {
                exit: Exit::Preflight,
                ..failure
            }),
            Err(failure) => Err(failure),
        }
    }

    async fn undo(&self, run: &mut Run) -> Result<(), Failure> {
        let node = std::sync::Arc::clone(&run.node);
        if node.stop.is_over() {
            // Said already, by the step that used the patience up.
            return Ok(());
        }
        let doing = Doing {
            about: Some(&run.attempt.id),
            took_out: took_out(&node, &run.id)?,
            has_worked: run.has_worked,
        };
        if !may(&Begun::of(&run.attempt.id, run.attempt.begun), doing).put_back {
            return Ok(());
        }
        let words = run.words();
        let name = self.name();
        rejoin(&node, &words, &mut |text| run.progress(&name, text)).await
    }
}

/// Whether the node is out of service for the run `id`, and not for an earlier one.
///
/// # Errors
/// [`Failure`] when the record cannot be read.
pub(crate) fn took_out(node: &Node, id: &str) -> Result<bool, Failure> {
    Ok(Ownership::of_a_run(&node.paths)?.is_some_and(|ownership| ownership.run == id))
}

/// Writes down that we take the node out of service, unless somebody wants it out already; `false` when it is, and nothing runs on it.
async fn owned(run: &mut Run) -> Result<bool, Failure> {
    if Ownership::load(&run.node.paths)?.is_some() {
        return Ok(true);
    }
    match outside(run).await? {
        // Seen only now: when the step began, the platform was silent.
        Outside::Empty => return Ok(false),
        Outside::WithWork => run.warn(format!("{STAYS_OUT}; the work that is still on it is moved away")),
        Outside::No => Ownership {
            run: run.id.clone(),
            since: run.node.clock.now(),
            by: By::Run,
        }
        .save(&run.node.paths)?,
    }
    Ok(true)
}

/// Whether a step is left that changes what is installed. The latches are read now: an operator may have deleted one since the plan
/// was made.
fn is_change_left(run: &Run) -> Result<bool, Failure> {
    if run.attempt.rollback.is_some() {
        let found = notes::of(&run.node, &run.attempt)?;
        let is_back = |note| undo::check(note).is_ok();
        return Ok(!found.unreadable.is_empty() || !found.notes.iter().all(is_back));
    }
    let target = &run.attempt.release.version;
    for module in modules_for(&run.attempt.release, run.node.roles()) {
        let sha256 = &run.job(module)?.artifact.sha256;
        let verdict = run.latches().verdict(&module.name, target, sha256)?;
        if skip_reason(verdict).is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits until a platform that is starting says how much work is on the node; where it cannot say that, nothing is waited for.
async fn answers(run: &mut Run) -> Result<(), Failure> {
    let node = std::sync::Arc::clone(&run.node);
    if node.patience.limit().is_none() {
        return Ok(());
    }
    let words = run.words();
    let mut wait = Wait::begin();
    while let Err(error) = platform::resident(node.platform.as_ref(), &words).await {
        if !patience::is_silence(&error) {
            break;
        }
        wait.after(&node, error, &mut |text| run.progress("retire", text))
            .await?;
    }
    Ok(())
}

/// Whether the node was emptied for the patch before and the platform shows that it is so still: what was restarted meanwhile may have
/// put it back. A node that goes back is retired in any case.
async fn is_still_empty(run: &Run) -> bool {
    if !run.is_emptied || run.attempt.rollback.is_some() {
        return false;
    }
    let found = platform::resident(run.node.platform.as_ref(), &run.words()).await;
    matches!(
        found,
        Ok(Some(Resident {
            count: 0,
            retired: Some(true),
            ..
        }))
    )
}

/// Whether somebody else has the node out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outside {
    No,
    Empty,
    WithWork,
}

async fn outside(run: &Run) -> Result<Outside, Failure> {
    let by_hand = Ownership::load(&run.node.paths)?.is_some_and(|ownership| ownership.by == By::Hand);
    let found = platform::resident(run.node.platform.as_ref(), &run.words()).await;
    Ok(match found {
        Ok(Some(Resident {
            retired: Some(true),
            count,
            ..
        })) => {
            if count == 0 {
                Outside::Empty
            } else {
                Outside::WithWork
            }
        }
        // Put back by somebody else behind our operator's back: the record says what is wanted, the count what is.
        Ok(Some(Resident {
            count: 0, retired, ..
        })) if by_hand && retired != Some(false) => Outside::Empty,
        _ if by_hand => Outside::WithWork,
        _ => Outside::No,
    })
}

/// Retires the node and waits until it is empty.
async fn empty(run: &mut Run) -> Result<(), Failure> {
    let node = std::sync::Arc::clone(&run.node);
    let words = run.words();
    let stop = run.stop.clone();
    let rules = Rules {
        limit: node.settings.upgrade.retire_timeout,
        on_timeout: node.settings.upgrade.retire_on_timeout,
    };
    let mut wait = Wait::begin();
    let emptied = loop {
        let stream = &mut run.stream;
        let mut tell = |found: &Resident| {
            stream.tell(EventKind::Progress {
                step: "retire".into(),
                subject: progress(found),
                done: 0,
                total: found.count,
            });
        };
        match evacuate(node.platform.as_ref(), &words, rules, &stop, &mut tell).await {
            Err(EvacuateError::Platform(error)) => {
                wait.after(&node, error, &mut |text| run.progress("retire", text))
                    .await?;
            }
            ended => break ended,
        }
    };
    match emptied {
        Ok(Emptied::Empty | Emptied::Uncounted) => Ok(()),
        Ok(Emptied::Left(found)) => {
            run.warn(format!(
                "{} after {}; `retire_on_timeout` says that the upgrade goes on",
                progress(&found),
                rules.limit
            ));
            Ok(())
        }
        Ok(Emptied::Forced(found)) => {
            run.warn(format!(
                "{} after {} and had to be ended by force",
                progress(&found),
                rules.limit
            ));
            Ok(())
        }
        Err(error) => Err(failure(error)),
    }
}

/// What is left, as people read it.
pub(crate) fn progress(found: &Resident) -> String {
    let blockers = if found.blockers.is_empty() {
        String::new()
    } else {
        format!(": {}", found.blockers.join(", "))
    };
    let verb = if found.count == 1 { "is" } else { "are" };
    format!("{} of work {verb} left{blockers}", found.units())
}

/// How a node that did not become empty ends the command.
pub(crate) fn failure(error: EvacuateError) -> Failure {
    let hint = match error {
        EvacuateError::Platform(error) => return error.into(),
        EvacuateError::Stopped => return stopped(),
        EvacuateError::Left { .. } => {
            "the node is back in service and nothing was changed; add capacity elsewhere, raise \
             `[upgrade].retire_timeout`, or say in `retire_on_timeout` what may happen to the work"
        }
        EvacuateError::Unseen { .. } => {
            "nothing was changed; ask the platform by hand how much is on the node, and why it does not answer"
        }
        EvacuateError::Unsteady { .. } => {
            "the node is back in service and nothing was changed; look at what gives it work although it was retired, or raise \
             `[upgrade].retire_timeout`"
        }
        EvacuateError::InService { .. } => {
            "nothing was changed; look at what the platform says about the node, and who puts it back"
        }
        EvacuateError::NoForce { .. } => {
            "the node is back in service and nothing was changed; set `[platform].force`, or another `retire_on_timeout`"
        }
    };
    Failure::new(Exit::Preflight, error).hint(hint)
}

/// The last look before the first change: a node that somebody put back while its backup was taken is retired once more.
///
/// # Errors
/// [`Failure`] when it does not become empty again.
pub(super) async fn recheck(run: &mut Run) -> Result<(), Failure> {
    let is_ours = Ownership::of_a_run(&run.node.paths)?.is_some();
    if run.plan.retire.is_none() || !is_ours || !run.node.platform.knows(Verb::Resident) {
        return Ok(());
    }
    let node = std::sync::Arc::clone(&run.node);
    let words = run.words();
    let found = platform::resident(node.platform.as_ref(), &words).await;
    match found {
        Ok(Some(found)) if found.retired == Some(false) => {
            run.warn(
                "somebody put the node back into service while its backup was taken; it is retired again",
            );
            empty(run).await
        }
        // Work that was left on purpose, or that the adapter shows late: not a sign that anybody meddled.
        Ok(_) => Ok(()),
        Err(error) if run.plan.is_tolerant => {
            run.warn(kato_shared::chain::Chain(&error).to_string());
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) struct Rejoin;

#[async_trait]
impl Step for Rejoin {
    fn name(&self) -> String {
        "rejoin".into()
    }

    /// What would be done instead is to put the node back.
    fn is_interruptible(&self) -> bool {
        false
    }

    async fn precheck(&self, run: &mut Run) -> Result<Need, Failure> {
        Ok(match Ownership::load(&run.node.paths)? {
            Some(ownership) if ownership.by == By::Run && run.stays_out && run.attempt.rollback.is_none() => {
                Need::Skip("the node stays out of service for what comes next".into())
            }
            Some(ownership) if ownership.by == By::Run => Need::Act,
            Some(_by_hand) => Need::Skip(
                "the node was retired by hand; `kato node rejoin` puts it back into service".into(),
            ),
            None => Need::Skip("this upgrade did not take the node out of service".into()),
        })
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        let node = std::sync::Arc::clone(&run.node);
        let words = run.words();
        let name = self.name();
        rejoin(&node, &words, &mut |text| run.progress(&name, text)).await?;
        run.is_emptied = false;
        Ok(Acted::Done)
    }
}

/// Puts the node back into service if the record says that a run took it out; then removes the record. `tell` hears of a platform that
/// is starting and is waited for.
///
/// # Errors
/// [`Failure`] when the platform cannot; the record then stays, and the next run tries again.
pub(crate) async fn rejoin(node: &Node, words: &Words, tell: Tell<'_>) -> Result<(), Failure> {
    if Ownership::of_a_run(&node.paths)?.is_none() {
        return Ok(());
    }
    put_back(node, words, tell).await
}

/// Puts the node back into service and removes the record, whoever wrote it.
///
/// # Errors
/// As [`rejoin`].
pub(crate) async fn put_back(node: &Node, words: &Words, tell: Tell<'_>) -> Result<(), Failure> {
    match node.stop.patiently(Box::pin(asked_back(node, words, tell))).await {
        Some(Ok(())) => {}
        Some(Err(failure)) => return Err(failure.hint(STILL_OUT)),
        None => {
            let limit = humantime::format_duration(PATIENCE);
            let problem = anyhow::anyhow!(
                "the run was stopped by a signal, and the platform's `rejoin` did not end in the {limit} after it"
            );
            return Err(Failure::new(Exit::TryAgain, problem).hint(STILL_OUT));
        }
    }
    failpoint::hit("rejoin.acted");
    Ok(Ownership::remove(&node.paths)?)
}

/// Asks the platform to take the node back, once it answers.
async fn asked_back(node: &Node, words: &Words, tell: Tell<'_>) -> Result<(), Failure> {
    let mut wait = Wait::begin();
    while let Err(error) = node.platform.call(Verb::Rejoin, words).await {
        wait.after(node, error, tell).await?;
    }
    Ok(())
}
