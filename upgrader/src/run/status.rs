//! The state of the upgrade on this node, read from its files: for `--status`, and for the orchestrator.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Node,
    event::{ErrorReport, Event, EventKind},
};
use crate::{
    attempt::Attempt,
    exit::{Exit, Failure},
    installed::Installed,
    journal, jsonl,
    lock::{self, Holder},
    marker,
    ownership::{By, Ownership},
    plan::facts::Progress,
    quarantine::Quarantine,
    self_update,
};

/// The version of the status's JSON form.
pub const SCHEMA: u32 = 1;

/// The state of the upgrade on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// The node.
    pub node: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// The installed release.
    pub version: Option<String>,
    /// The version of `kato`.
    pub kato: String,
    /// What is going on.
    pub state: State,
    /// The last run.
    pub run: Option<String>,
    /// The release that it is or was about.
    pub to: Option<String>,
    /// Its last step.
    pub step: Option<String>,
    /// The number of the last event.
    pub last_seq: u64,
    /// Whether we have taken the node out of service.
    pub out_of_service: bool,
    /// Who wants it out of service, while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired_by: Option<By>,
    /// The release that the node is on its way back to, while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub going_back_to: Option<String>,
    /// Releases that were rolled back here and are not tried again, with the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rolled_back: BTreeMap<String, ErrorReport>,
    /// What failed.
    pub error: Option<ErrorReport>,
    /// What the step of a run that is at work does or waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Whether the last run was cut off by the restart of the machine that it asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restarting: bool,
}

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing.
    Idle,
    /// A run is at work.
    Running,
    /// The last run failed after it had begun. One that was refused before leaves the node [`State::Idle`].
    Failed,
    /// The last run was cut off.
    Interrupted,
}

/// The run that is at work, and all events. One that replaces itself by another `kato` is at work, though nobody has the lock for an instant.
///
/// # Errors
/// [`Failure`] when the stream cannot be read.
pub(super) fn at_work(node: &Node) -> Result<(Option<Holder>, Vec<Event>), Failure> {
    // The order matters: a run that ends between the two looks has its last event in the second.
    let holder = lock::holder(&node.paths.lock());
    let (events, _) = jsonl::read::<Event>(&node.paths.events())?;
    let holder = holder.or_else(|| {
        let last = events.last();
        let unfinished = last.filter(|event| !matches!(event.kind, EventKind::RunFinished { .. }))?;
        lock::in_between(&node.paths.lock(), node.paths.root(), &unfinished.run)
    });
    Ok((holder, events))
}

/// Reads the status.
///
/// # Errors
/// [`Failure`] when a file of the node cannot be read.
pub fn read(node: &Node) -> Result<Status, Failure> {
    let paths = &node.paths;
    let (holder, events) = at_work(node)?;
    let mut last = Last::of(&events);
    if holder
        .as_ref()
        .is_some_and(|holder| last.run.as_ref() != Some(&holder.run))
    {
        // A run that has not told anything yet: what the one before it told is not about it.
        last = Last::default();
    }
    let marker = marker::read(paths);
    let ownership = Ownership::load(paths)?;
    let state = if holder.is_some() {
        State::Running
    } else if last.run.is_some() && !last.is_finished {
        State::Interrupted
    } else if (last.error.is_some() && last.to.is_some() && !last.is_rolled_back) || marker::is_set(paths) {
        State::Failed
    } else {
        State::Idle
    };
    Ok(Status {
        schema: SCHEMA,
        node: node.id.clone(),
        roles: node.roles().to_vec(),
        version: Installed::load(paths)?.map(|installed| installed.version.to_string()),
        kato: self_update::own_version().to_string(),
        state,
        run: holder.map(|holder| holder.run).or(last.run),
        to: last.to,
        step: last.step,
        last_seq: events.last().map_or(0, |event| event.seq),
        out_of_service: ownership.is_some(),
        retired_by: ownership.map(|ownership| ownership.by),
        going_back_to: Attempt::load(paths)?
            .filter(|attempt| attempt.rollback.is_some())
            .map(|attempt| attempt.leads_to().to_string()),
        rolled_back: Quarantine::load(paths)?
            .releases
            .into_iter()
            .map(|release| (release.version.to_string(), release.error))
            .collect(),
        error: last.error.or_else(|| marker.map(|marker| marker.error)),
        progress: last.progress.filter(|_| state == State::Running),
        restarting: state == State::Interrupted && is_restarting(node),
    })
}

/// A journal that cannot be read is the next run's to refuse; that the node is interrupted is said all the same.
fn is_restarting(node: &Node) -> bool {
    journal::is_restarting(&node.paths.journal()).unwrap_or(false)
}

/// What the events say of the last run.
#[derive(Default)]
struct Last {
    run: Option<String>,
    to: Option<String>,
    step: Option<String>,
    progress: Option<Progress>,
    is_finished: bool,
    is_rolled_back: bool,
    error: Option<ErrorReport>,
}

impl Last {
    fn of(events: &[Event]) -> Self {
        let mut last = Self::default();
        for event in events {
            if last.run.as_ref() != Some(&event.run) {
                last = Self {
                    run: Some(event.run.clone()),
                    ..Self::default()
                };
            }
            match &event.kind {
                EventKind::RunStarted { to, .. } => last.to = Some(to.clone()),
                EventKind::StepStarted { step } => {
                    last.step = Some(step.clone());
                    last.progress = None;
                }
                EventKind::Progress {
                    step,
                    subject,
                    done,
                    total,
                } => {
                    last.progress = Some(Progress {
                        step: step.clone(),
                        subject: subject.clone(),
                        done: *done,
                        total: *total,
                    });
                }
                EventKind::RunFinished { exit, error, .. } => {
                    last.is_finished = true;
                    last.is_rolled_back = *exit == Exit::RolledBack;
                    last.error.clone_from(error);
                }
                EventKind::StepSkipped { .. }
                | EventKind::StepFinished { .. }
                | EventKind::Warning { .. }
                | EventKind::Notice { .. } => {}
            }
        }
        last
    }
}

/// The status as a person reads it.
pub fn text(status: &Status) -> String {
    let version = status.version.as_deref().unwrap_or("no release");
    let mut lines = vec![format!("{}: {version}", status.node)];
    let mut add = |name: &str, value: &str| lines.push(format!("  {name:<9} {value}"));
    add("roles", &status.roles.join(", "));
    add("kato", &status.kato);
    add(
        "state",
        match status.state {
            State::Idle
                if status.going_back_to.is_none()
                    && status
                        .rolled_back
                        .contains_key(status.to.as_deref().unwrap_or_default()) =>
            {
                "idle; the last upgrade was rolled back"
            }
            State::Idle if status.error.is_some() => "idle; the last command was refused before it began",
            State::Idle => "idle",
            State::Running => "an upgrade is running",
            State::Failed => "the last run failed; run `kato node upgrade` again",
            State::Interrupted => "the last run was cut off; run `kato node upgrade` again",
        },
    );
    if status.state != State::Idle {
        let known = [("run", &status.run), ("to", &status.to), ("step", &status.step)];
        for (name, value) in known {
            if let Some(value) = value {
                add(name, value);
            }
        }
    }
    if let Some(version) = &status.going_back_to {
        add(
            "way back",
            &format!("to {version}; `kato node upgrade` goes on with it"),
        );
    }
    for (version, error) in &status.rolled_back {
        add(
            "not again",
            &format!("{version}: {}: {}", error.step, error.message),
        );
    }
    match status.retired_by {
        Some(By::Run) => add("service", "out of service by an upgrade"),
        Some(By::Hand) => add(
            "service",
            "out of service by hand; `kato node rejoin` puts it back",
        ),
        None => {}
    }
    if let Some(error) = &status.error {
        add("error", &format!("{}: {}", error.step, error.message));
        if let Some(hint) = &error.hint {
            add("hint", hint);
        }
    }
    lines.join("\n")
}
