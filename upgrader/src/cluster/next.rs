//! What to do with a node after a look at it: a pure function of what the node says and of what was seen of its run.

use kato_shared::release::Version;
use serde::Serialize;

use crate::{
    exit::Exit,
    plan::{
        facts::{NodeStatus, RunState},
        preflight::Problem,
    },
    run::event::ErrorReport,
};

/// How often an upgrade of one node is started in one rollout: once, and once more when it was killed. A second kill is no
/// accident, and a person should look.
pub(super) const MAX_STARTS: u32 = 2;

/// What is wanted of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Everything that it needs is on it, verified; nothing else changes.
    Stage,
    /// It runs the target.
    Upgrade,
}

/// What was seen of a node so far.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// How often a run was started.
    pub(super) starts: u32,
    /// The run whose events are passed on, and the number of the last one.
    pub(super) seen: Option<Seen>,
    /// What that run said at its end.
    pub(super) finished: Option<Finished>,
}

#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) run: String,
    pub(super) seq: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Finished {
    pub(super) exit: Exit,
    pub(super) error: Option<ErrorReport>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// The goal is reached.
    Done,
    /// Read the events of the run after the number.
    Follow { run: String, after: u64 },
    /// Start a run.
    Start(Why),
    /// The goal is out of reach.
    Fail(Exit, ErrorReport),
}

/// Why a run is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// It is the node's turn.
    Turn,
    /// The run was killed.
    Interrupted { run: String },
    /// The run ended to restart the machine, and is not complete.
    Restarted,
}

impl Memory {
    /// Whether `run` is the one whose events we have.
    pub(super) fn knows(&self, run: &str) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.run == run)
    }

    /// Decides.
    pub(super) fn next(&self, status: &NodeStatus, goal: Goal, target: &Version, force: bool) -> Next {
        if status.state == RunState::Running {
            return self.join(status, target);
        }
        // The connection was lost and the run has ended since: its last words first.
        if let (Some(seen), Some(run)) = (&self.seen, &status.run)
            && seen.run == *run
            && status.last_seq > seen.seq
        {
            return Next::Follow {
                run: run.clone(),
                after: seen.seq,
            };
        }
        match &self.finished {
            Some(finished) => self.after_the_end(finished, status, goal, target),
            None => self.without_an_end(status, target, force),
        }
    }

    /// A run is at work: ours, or one on the same way; one that leads further is in the way.
    fn join(&self, status: &NodeStatus, target: &Version) -> Next {
        // A run that leads through releases in between names the one it is at.
        if let Some(to) = status.to.as_ref().filter(|to| *to > target) {
            let problem = Problem::Busy {
                to: to.clone(),
                running: true,
            };
            return Next::Fail(Exit::LockHeld, report("start", &problem.to_string(), None));
        }
        let run = status.run.clone().unwrap_or_default();
        let after = match &self.seen {
            Some(seen) if seen.run == run => seen.seq,
            _ => status.last_seq,
        };
        Next::Follow { run, after }
    }

    /// The run that was followed has spoken. Success is believed only with the version read back.
    fn after_the_end(&self, finished: &Finished, status: &NodeStatus, goal: Goal, target: &Version) -> Next {
        let exit = finished.exit;
        match &finished.error {
            Some(error) => Next::Fail(exit, error.clone()),
            None if exit == Exit::TryAgain => Next::Start(Why::Restarted),
            None if exit != Exit::Done => {
                let text = format!("the run ended with exit code {}", exit.code());
                Next::Fail(exit, report("run", &text, None))
            }
            None if status.is_settled_at(target) => Next::Done,
            // Somebody else's run, which led less far or was about less.
            None if self.starts == 0 => Next::Start(Why::Turn),
            None if goal == Goal::Stage => Next::Done,
            None => Next::Fail(Exit::Failed, not_there(status, target)),
        }
    }

    /// No run was seen to its end.
    fn without_an_end(&self, status: &NodeStatus, target: &Version, force: bool) -> Next {
        if status.is_settled_at(target) && !(force && self.starts == 0) {
            return Next::Done;
        }
        match status.state {
            _ if self.starts == 0 => Next::Start(Why::Turn),
            // Its last words were lost with the machine; that it went down was the upgrade's own wish.
            RunState::Interrupted if status.restarting => Next::Start(Why::Restarted),
            RunState::Interrupted if self.starts < MAX_STARTS => Next::Start(Why::Interrupted {
                run: status.run.clone().unwrap_or_default(),
            }),
            RunState::Interrupted => Next::Fail(Exit::Failed, killed_again(status)),
            RunState::Failed | RunState::Idle | RunState::Running => {
                let error = status.error.clone();
                Next::Fail(Exit::Failed, error.unwrap_or_else(|| not_there(status, target)))
            }
        }
    }
}

/// A failure in an operator's words.
pub(super) fn report(step: &str, message: &str, hint: Option<&str>) -> ErrorReport {
    ErrorReport {
        step: step.into(),
        message: message.into(),
        hint: hint.map(String::from),
    }
}

/// The run said that all is well, the node does not show it.
fn not_there(status: &NodeStatus, target: &Version) -> ErrorReport {
    let has = status
        .version
        .as_ref()
        .map_or_else(|| "no release".into(), Version::to_string);
    let text = format!("the run ended, but the node has {has} instead of {target}");
    report(
        "verify",
        &text,
        Some("look at `kato node upgrade --status` on the node"),
    )
}

fn killed_again(status: &NodeStatus) -> ErrorReport {
    let step = status.step.as_deref().unwrap_or("run");
    let hint = "find out what kills it (memory, power, an operator)";
    report(
        step,
        "the run was killed, was resumed, and was killed again",
        Some(hint),
    )
}
