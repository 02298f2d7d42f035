//! How a run ends, and what is left to say then.

use jiff::SignedDuration;
use serde::Serialize;

use super::{Run, engine::Stopped, event::ErrorReport, steps::Finding};
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
    /// Only the plan was shown.
    Shown,
    /// The operator was asked and did not say yes.
    Declined,
    /// The machine restarts; a later run goes on.
    Rebooting,
    /// The machine was to restart, this long ago, and has not yet.
    Awaiting(SignedDuration),
}

/// How the command ends; `goes_on` when the machine goes on by itself after its restart.
pub(super) fn exit(outcome: Result<Ending, Stopped>, goes_on: bool) -> Result<Exit, Failure> {
    match outcome {
        Err(stopped) => Err(stopped.failure),
        Ok(Ending::Rebooting) => Err(Failure::new(
            Exit::TryAgain,
            anyhow::anyhow!("the machine restarts now; the upgrade is not complete"),
        )
        .hint(if goes_on {
            "when it is up again, kato-resume.service goes on; `kato node upgrade --status` tells how far it is"
        } else {
            "when it is up again, run `kato node upgrade --resume`"
        })),
        Ok(Ending::Awaiting(since)) => Err(Failure::new(
            Exit::TryAgain,
            anyhow::anyhow!(
                "the restart of the machine that was asked for {} s ago has not come yet; the upgrade goes on after it",
                since.as_secs()
            ),
        )
        .hint("restart the machine by hand, or run the upgrade without `--resume`, which asks for it again")),
        Ok(Ending::Done | Ending::Shown) => Ok(Exit::Done),
        Ok(Ending::Declined) => Ok(Exit::Declined),
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

/// The plan of the first release on the way, with those of the others: the form of `--plan --json`.
#[derive(Serialize)]
struct Way<'a> {
    #[serde(flatten)]
    first: &'a NodePlan,
    /// The releases that are installed after it.
    then: &'a [NodePlan],
    /// What the checks before the first change say.
    findings: Vec<Shown>,
}

/// One thing that was found.
#[derive(Serialize)]
struct Shown {
    /// Whether the upgrade would be refused for it.
    refused: bool,
    /// What is wrong.
    problem: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl From<&Finding> for Shown {
    fn from(finding: &Finding) -> Self {
        match finding {
            Finding::Refused(failure) => Self {
                refused: true,
                problem: terminal::describe(failure),
                remedy: failure.hint.clone(),
            },
            Finding::Warned(text) => Self {
                refused: false,
                problem: text.clone(),
                remedy: None,
            },
        }
    }
}

/// Prints the plans as data, with what was found.
pub(super) fn show_plans(plans: &[NodePlan], found: &[Finding], json: bool) {
    let findings: Vec<Shown> = found.iter().map(Shown::from).collect();
    match plans.split_first() {
        Some((first, then)) if json => terminal::json(&Way {
            first,
            then,
            findings,
        }),
        _ => {
            let mut lines = vec![report::plan::way(plans)];
            for Shown {
                refused,
                problem,
                remedy,
            } in findings
            {
                let word = if refused { "refused" } else { "warning" };
                lines.push(format!("  {word:<10} {problem}"));
                lines.extend(remedy.map(|remedy| format!("             remedy: {remedy}")));
            }
            terminal::data(&lines.join("\n"));
        }
    }
}
