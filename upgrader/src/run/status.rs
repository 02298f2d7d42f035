//! The state of the upgrade on this node, read from its files: for `--status`, and for the orchestrator.
//!
//! What the events say of the last run is not all: while an upgrade has begun, a node is never idle, whatever was looked at or refused
//! beside it.

use std::collections::BTreeMap;

use jiff::Timestamp;
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
    paths::NodePaths,
    plan::facts::Progress,
    quarantine::Quarantine,
    resume::ResumeUnit,
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
    /// Whether the upgrade stands at the restart of the machine that it asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restarting: bool,
    /// That restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Whether the last run led back to the old release.
    #[serde(skip)]
    pub is_rolled_back: bool,
}

/// The restart of the machine that an upgrade stands at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restart {
    /// When it was asked for.
    pub asked: Timestamp,
    /// Whether the machine was started since, so that only going on is left.
    pub came: bool,
    /// Whether `kato-resume.service` goes on after it.
    pub by_itself: bool,
}

impl Restart {
    /// That of the node in the middle of `attempt`. A journal that cannot be read is the next run's to refuse.
    pub(super) fn of(node: &Node, attempt: &Attempt) -> Option<Self> {
        if !attempt.begun {
            return None;
        }
        let asked = journal::stands_at_restart(&node.paths.journal(), &attempt.restart_id());
        let (boot_id, asked) = asked.ok().flatten()?;
        Some(Self {
            asked,
            came: boot_id != lock::boot_id(node.paths.root()),
            by_itself: ResumeUnit::of(&node.paths, &node.children).is_some_and(|unit| unit.is_there()),
        })
    }

    /// What is waited for and what goes on then, for people.
    fn words(&self) -> String {
        let what = if self.came {
            "the machine was restarted and the upgrade waits"
        } else {
            "waits for the restart of the machine"
        };
        let then = if self.by_itself {
            "kato-resume.service goes on, or `kato node upgrade --resume`"
        } else {
            "`kato node upgrade --resume` goes on"
        };
        let since = self.asked.strftime("%Y-%m-%d %H:%M:%S UTC");
        format!("{what}, asked for at {since}; then {then}")
    }
}

/// What is going on. No word is ever added: Core reads them, and Core is the last to get a new `kato`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing.
    Idle,
    /// A run is at work.
    Running,
    /// The last run failed after it had begun. One that was refused before leaves the node [`State::Idle`].
    Failed,
    /// The last run was cut off, or an upgrade has begun and nobody is at work on it.
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
    let attempt = Attempt::load(paths)?;
    let begun = attempt.as_ref().filter(|attempt| attempt.begun);
    let restart = begun.and_then(|attempt| Restart::of(node, attempt));
    let state = match &holder {
        Some(_) => State::Running,
        None => last.state(paths, begun, restart.as_ref()),
    };
    // Of a run that was cut off, the restart was the last that it did; or something else was.
    let restart = restart
        .filter(|_| state == State::Interrupted)
        .filter(|_| !last.is_cut_off() || journal::is_restarting(&paths.journal()).unwrap_or(false));
    let ends_at = begun
        .filter(|_| state == State::Interrupted)
        .map(|attempt| attempt.ends_at().to_string());
    Ok(Status {
        schema: SCHEMA,
        node: node.id.clone(),
        roles: node.roles().to_vec(),
        version: Installed::load(paths)?.map(|installed| installed.version.to_string()),
        kato: self_update::own_version().to_string(),
        state,
        run: holder.map(|holder| holder.run).or(last.run),
        to: last.to.or(ends_at),
        step: last.step,
        last_seq: events.last().map_or(0, |event| event.seq),
        out_of_service: ownership.is_some(),
        retired_by: ownership.map(|ownership| ownership.by),
        going_back_to: attempt
            .filter(|attempt| attempt.rollback.is_some())
            .map(|attempt| attempt.leads_to().to_string()),
        rolled_back: Quarantine::load(paths)?
            .releases
            .into_iter()
            .map(|release| (release.version.to_string(), release.error))
            .collect(),
        error: last.error.or_else(|| marker.map(|marker| marker.error)),
        progress: last.progress.filter(|_| state == State::Running),
        restarting: restart.is_some(),
        restart,
        is_rolled_back: last.is_rolled_back,
    })
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
    fn is_cut_off(&self) -> bool {
        self.run.is_some() && !self.is_finished
    }

    /// What is going on while no run is at work, on a node in the middle of `begun`, which may stand at its restart.
    fn state(&self, paths: &NodePaths, begun: Option<&Attempt>, restart: Option<&Restart>) -> State {
        let has_failed = self.error.is_some() && self.to.is_some() && !self.is_rolled_back;
        if self.is_cut_off() {
            State::Interrupted
        } else if has_failed {
            State::Failed
        } else if restart.is_some() {
            State::Interrupted
        } else if marker::is_set(paths) {
            State::Failed
        } else if begun.is_some() {
            State::Interrupted
        } else {
            State::Idle
        }
    }

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

/// What is going on and what goes on with it, for people.
fn doing(status: &Status) -> String {
    let is_back = status.is_rolled_back
        || status
            .rolled_back
            .contains_key(status.to.as_deref().unwrap_or_default());
    if let Some(restart) = &status.restart {
        return restart.words();
    }
    match status.state {
        State::Idle if status.going_back_to.is_none() && is_back => "idle; the last upgrade was rolled back",
        State::Idle if status.error.is_some() => "idle; the last command was refused before it began",
        State::Idle => "idle",
        State::Running => "an upgrade is running",
        State::Failed => "the last run failed; run `kato node upgrade` again",
        State::Interrupted => "the last run was cut off; run `kato node upgrade` again",
    }
    .into()
}

/// The status as a person reads it.
pub fn text(status: &Status) -> String {
    let version = status.version.as_deref().unwrap_or("no release");
    let mut lines = vec![format!("{}: {version}", status.node)];
    let mut add = |name: &str, value: &str| lines.push(format!("  {name:<9} {value}"));
    add("roles", &status.roles.join(", "));
    add("kato", &status.kato);
    add("state", &doing(status));
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
