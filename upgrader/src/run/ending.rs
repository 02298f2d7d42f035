//! How a run ends, and what is left to say then.

use super::{Run, engine::Stopped, event::ErrorReport};
use crate::{
    exit::{Exit, Failure},
    plan::node::NodePlan,
    recover,
    report::{self, terminal},
};

/// What a run comes to when nothing fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// What was asked for is done.
    Done,
    /// Only the plan was shown, or the operator said no.
    Declined,
    /// The machine restarts; a later run goes on.
    Rebooting,
}

/// How the command ends.
pub(super) fn exit(outcome: Result<Ending, Stopped>) -> Result<Exit, Failure> {
    match outcome {
        Err(stopped) => Err(stopped.failure),
        Ok(Ending::Rebooting) => Err(Failure::new(
            Exit::TryAgain,
            anyhow::anyhow!("the machine restarts now; the upgrade is not complete"),
        )
        .hint("when it is up again, run `kato node upgrade --resume`")),
        Ok(Ending::Done | Ending::Declined) => Ok(Exit::Done),
    }
}

/// After `--update-kato`: the program that runs is the release's, so the way back is not needed any more.
pub(super) fn kato_is_new(run: &Run) -> Result<(), Stopped> {
    recover::clear(&run.node.paths).map_err(|error| Stopped {
        step: "self-update".into(),
        failure: error.into(),
    })
}

/// The failure as the last event and the status tell it.
pub(super) fn report_of(stopped: &Stopped) -> ErrorReport {
    ErrorReport {
        step: stopped.step.clone(),
        message: terminal::describe(&stopped.failure),
        hint: stopped.failure.hint.clone(),
    }
}

/// Prints the plan as data.
pub(super) fn show_plan(plan: &NodePlan, json: bool) {
    if json {
        terminal::json(plan);
    } else {
        terminal::data(&report::plan::text(plan));
    }
}
