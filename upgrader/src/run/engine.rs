//! The engine: takes steps in their order, writes each act down before and after it, and stops at the first failure.
//!
//! ```text
//!   precheck ──skip──▶ next step
//!      │act
//!   journal: intent ─▶ act ─▶ verify ─▶ journal: done ─▶ next step
//!                       └──error──▶ journal: failed ─▶ failure marker ─▶ undo, last step first ─▶ the error leaves
//!                                                             └─given up, and there is a way back──▶ `super::back`
//! ```

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Run, back,
    event::{ErrorReport, EventKind},
    room,
    step::{Acted, Need, Step},
};
use crate::{
    exit::{Exit, Failure},
    journal::Act,
    marker::{self, FailureMarker},
    report::terminal,
    space::reserve,
};

/// A failure and the step that it happened in.
#[derive(Debug)]
pub struct Stopped {
    /// The step.
    pub step: String,
    /// The failure.
    pub failure: Failure,
}

/// Takes `steps`.
///
/// # Errors
/// [`Stopped`] with the first failure, after everything was taken back that must not stay.
pub async fn drive(run: &mut Run, steps: &[Box<dyn Step>]) -> Result<Acted, Stopped> {
    let mut changed = false;
    let mut blocked = None;
    for (index, step) in steps.iter().enumerate() {
        if !step.is_independent()
            && let Some(stopped) = blocked.take()
        {
            return Err(stopped);
        }
        changed |= step.changes_node();
        match take(run, step.as_ref()).await {
            Ok(Acted::Done) => {}
            Ok(Acted::Rebooting) => return Ok(Acted::Rebooting),
            Err(failure) => {
                let needs = run.plan.space.iter().chain(&run.later_space);
                let failure = room::explain(&run.node, needs, failure);
                let step = step.name();
                let was_stopped = run.stop.is_cancelled();
                fail(run, &step, &failure, changed && !was_stopped);
                // On its way back the node stays out of service until it is there.
                if run.attempt.rollback.is_some() || back::decide(run, &step, &failure) {
                    if !steps[index].is_independent() || was_stopped {
                        return Err(blocked.unwrap_or(Stopped { step, failure }));
                    }
                    run.not_back.insert(step.clone(), terminal::describe(&failure));
                    blocked.get_or_insert(Stopped { step, failure });
                    continue;
                }
                for done in steps[..=index].iter().rev() {
                    if let Err(also) = done.undo(run).await {
                        run.warn(format!("{}: {}", done.name(), terminal::describe(&also)));
                    }
                }
                return Err(Stopped { step, failure });
            }
        }
    }
    blocked.map_or(Ok(Acted::Done), Err)
}

async fn take(run: &mut Run, step: &dyn Step) -> Result<Acted, Failure> {
    if run.stop.is_cancelled() {
        return Err(stopped());
    }
    let name = step.name();
    let signal = run.stop.clone();
    if let Need::Skip(reason) = unless_stopped(&signal, step.is_interruptible(), step.precheck(run)).await? {
        run.stream.tell(EventKind::StepSkipped { step: name, reason });
        return Ok(Acted::Done);
    }
    if step.changes_node() {
        run.begin()?;
    }
    if run.plan.way_back.point_of_no_return == name && run.attempt.point_passed.is_none() {
        run.attempt.point_passed = Some(name.clone());
        run.save()?;
    }
    run.stream.tell(EventKind::StepStarted { step: name.clone() });
    let began = Instant::now();
    run.journal.record(Act::Intent { step: name.clone() })?;
    reserve::give(&run.node.paths, &name)?;
    if unless_stopped(&signal, step.is_interruptible(), step.act(run)).await? == Acted::Rebooting {
        return Ok(Acted::Rebooting);
    }
    step.verify(run).await?;
    run.journal.record(Act::Done { step: name.clone() })?;
    run.stream.tell(EventKind::StepFinished {
        step: name,
        millis: millis(began.elapsed()),
    });
    Ok(Acted::Done)
}

/// What `work` gives, unless a signal comes first and it may be left in the middle: dropping it ends its child processes.
///
/// # Errors
/// Those of `work`, or [`stopped`].
pub async fn unless_stopped<T>(
    stop: &CancellationToken,
    is_interruptible: bool,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    if !is_interruptible {
        return work.await;
    }
    tokio::select! {
        done = work => done,
        () = stop.cancelled() => Err(stopped()),
    }
}

/// The failure of a run that was asked to stop.
pub fn stopped() -> Failure {
    Failure::new(Exit::TryAgain, anyhow::anyhow!("the run was stopped by a signal"))
        .hint("run the same command again; it goes on where this run stopped")
}

/// Writes the failure down. What cannot be written is told, and does not hide the failure.
fn fail(run: &mut Run, step: &str, failure: &Failure, changed: bool) {
    let message = terminal::describe(failure);
    let journalled = run.journal.record(Act::Failed {
        step: step.to_owned(),
        message: message.clone(),
    });
    if let Err(error) = journalled {
        run.warn(kato_shared::chain::Chain(&error).to_string());
    }
    // The way back, and whoever looks for the cause, may need the room.
    if let Err(error) = reserve::give_all(&run.node.paths) {
        run.warn(kato_shared::chain::Chain(&error).to_string());
    }
    if !changed {
        return;
    }
    let marker = FailureMarker {
        run: run.id.clone(),
        time: run.node.clock.now(),
        target: run.attempt.release.version.to_string(),
        error: ErrorReport {
            step: step.to_owned(),
            message,
            hint: failure.hint.clone(),
        },
        log: run.node.paths.journal(),
    };
    if let Err(error) = marker::set(&run.node.paths, &marker) {
        run.warn(kato_shared::chain::Chain(&error).to_string());
    }
}

fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
