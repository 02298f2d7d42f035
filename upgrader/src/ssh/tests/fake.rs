//! A node that lives in memory: it answers the commands that Core sends as `kato` would, and fails as it is told.
//!
//! A run makes one step forward each time one of its events is read, and finishes at once when nobody reads, as a run that goes
//! on without its orchestrator does.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use kato_shared::release::Version;
use serde_json::json;
use tokio::sync::mpsc;

use crate::ssh::{Ended, Host, HostError, Output, RemoteCommand};
use crate::{
    exit::Exit,
    run::event::{ErrorReport, Event, EventKind},
};

/// What goes wrong, each once, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The next call does not get through.
    Unreachable,
    /// The next command gives no answer within its deadline.
    Hang,
    /// The connection breaks after so many events were read; the run goes on.
    CutAfter(usize),
    /// The answer to the start is lost; the run has begun.
    LoseStart,
    /// The run fails at a step.
    FailStep(&'static str),
    /// The run is killed after so many events.
    KillAfter(usize),
    /// The run says that it is done and is not.
    Lie,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct State {
    roles: Vec<String>,
    version: Option<Version>,
    doing: &'static str,
    run: Option<String>,
    to: Option<Version>,
    events: Vec<Event>,
    pending: VecDeque<EventKind>,
    error: Option<ErrorReport>,
    faults: VecDeque<Fault>,
    starts: Vec<String>,
    calls: usize,
    /// Whether the run only fetches.
    stages: bool,
    /// Whether the node is out of service.
    is_out: bool,
    /// Whether an operator wants it so.
    is_by_hand: bool,
    /// Whether the platform finds it ill.
    is_sick: bool,
    cordons: Vec<String>,
    /// How many events of progress its runs tell beside the others. One that talks forgets what was read.
    talk: u64,
    /// How many of them its run has still to tell.
    talking: u64,
    /// How many events it has forgotten.
    forgotten: usize,
    /// Whether its platform says how much work it has and could take.
    has_capacity: bool,
    /// How long each answer takes.
    delay: Duration,
}

/// The node; clones are the same node.
#[derive(Debug, Clone)]
pub(crate) struct FakeNode {
    id: String,
    state: Arc<Mutex<State>>,
}

/// Steps of every run.
const STEPS: [&str; 3] = ["stage", "module:app", "verify"];

impl FakeNode {
    pub(crate) fn new(id: &str, roles: &[&str], version: &str) -> Self {
        let state = State {
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            version: version.parse().ok(),
            doing: "idle",
            run: None,
            to: None,
            events: Vec::new(),
            pending: VecDeque::new(),
            error: None,
            faults: VecDeque::new(),
            starts: Vec::new(),
            calls: 0,
            stages: false,
            is_out: false,
            is_by_hand: false,
            is_sick: false,
            cordons: Vec::new(),
            talk: 0,
            talking: 0,
            forgotten: 0,
            has_capacity: true,
            delay: Duration::ZERO,
        };
        Self {
            id: id.to_owned(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub(crate) fn host(&self) -> Arc<dyn Host> {
        Arc::new(self.clone())
    }

    pub(crate) fn with_faults(self, faults: &[Fault]) -> Self {
        self.lock().faults.extend(faults.iter().cloned());
        self
    }

    /// The argument vectors of all starts.
    pub(crate) fn starts(&self) -> Vec<String> {
        self.lock().starts.clone()
    }

    pub(crate) fn version(&self) -> Option<Version> {
        self.lock().version.clone()
    }

    pub(crate) fn set_roles(&self, roles: &[&str]) {
        self.lock().roles = roles.iter().map(|role| (*role).to_owned()).collect();
    }

    /// What it was taken out of service for, before its run.
    pub(crate) fn cordons(&self) -> Vec<String> {
        self.lock().cordons.clone()
    }

    pub(crate) fn is_out(&self) -> bool {
        self.lock().is_out
    }

    /// Its runs tell so many events of progress beside the others.
    pub(crate) fn talk(&self, events: u64) {
        self.lock().talk = events;
    }

    /// Its platform does not say how much work it has and could take.
    pub(crate) fn keep_capacity_secret(&self) {
        self.lock().has_capacity = false;
    }

    /// Each of its answers takes so long.
    pub(crate) fn take_time(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// Somebody takes it out of service.
    pub(crate) fn retire(&self) {
        self.lock().is_out = true;
    }

    /// Somebody takes it out of service, and no upgrade puts it back.
    pub(crate) fn retire_by_hand(&self) {
        let mut state = self.lock();
        (state.is_out, state.is_by_hand) = (true, true);
    }

    pub(crate) fn fall_ill(&self) {
        self.lock().is_sick = true;
    }

    /// How many events it has told.
    pub(crate) fn told(&self) -> u64 {
        self.lock().seq() as u64
    }

    /// How many calls it got.
    pub(crate) fn calls(&self) -> usize {
        self.lock().calls
    }

    /// Lets a run begin without Core.
    pub(crate) fn begin_run(&self, run: &str, to: &str) {
        self.lock().begin(run, to.parse().unwrap());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn answer(&self, args: &[&str]) -> Result<Output, HostError> {
        let mut state = self.lock();
        match args {
            // What is behind the words of `kato`: another command, which has none.
            [] => Ok(output(0, "")),
            ["node", "upgrade", "--status", "--json"] => Ok(output(0, &state.status(&self.id))),
            [
                "node",
                "upgrade",
                "--skip-confirmation",
                "--detach",
                "--run",
                run,
                "--version",
                version,
                rest @ ..,
            ] => {
                state.starts.push(args.join(" "));
                if state.doing == "running" {
                    return Ok(output(Exit::LockHeld.code().into(), "{}"));
                }
                let after = state.seq();
                state.stages = rest.contains(&"--download-only");
                state.begin(run, version.parse().unwrap());
                if state.take_fault(&Fault::LoseStart) {
                    state.run_out(&self.id);
                    return Err(self.lost());
                }
                let line = json!({"schema": 1, "run": run, "after_seq": after});
                Ok(output(0, &line.to_string()))
            }
            ["node", "survey", ..] => Ok(output(0, &survey(&self.id, &state))),
            ["node", "cordon", "--run", run] => {
                let is_idle = state.doing != "running";
                if is_idle {
                    state.cordons.push((*run).to_owned());
                    state.is_out = true;
                }
                Ok(output(if is_idle { 0 } else { Exit::LockHeld.code().into() }, ""))
            }
            ["node", "cordon", "--undo"] => {
                state.is_out = false;
                Ok(output(0, ""))
            }
            ["node", "health"] => Ok(output(
                if state.is_sick {
                    Exit::Preflight.code().into()
                } else {
                    0
                },
                "",
            )),
            _ => Ok(output(2, "")),
        }
    }

    fn lost(&self) -> HostError {
        HostError::Lost {
            node: self.id.clone(),
            address: "fake".into(),
            detail: "cut".into(),
        }
    }

    fn call(&self, command: &RemoteCommand) -> Result<(), HostError> {
        let mut state = self.lock();
        state.calls += 1;
        if state.take_fault(&Fault::Hang) {
            return Err(HostError::Deadline {
                node: self.id.clone(),
                command: command.argv.join(" "),
                deadline: command.deadline.unwrap_or_default(),
            });
        }
        if state.take_fault(&Fault::Unreachable) {
            state.run_out(&self.id);
            return Err(HostError::Unreachable {
                node: self.id.clone(),
                address: "fake".into(),
                detail: "no route to host".into(),
            });
        }
        Ok(())
    }
}

impl State {
    fn begin(&mut self, run: &str, to: Version) {
        self.doing = "running";
        self.run = Some(run.to_owned());
        self.pending.push_back(EventKind::RunStarted {
            from: self.version.as_ref().map(Version::to_string),
            to: to.to_string(),
        });
        self.talking = self.talk;
        for step in STEPS {
            let step = step.to_owned();
            self.pending
                .push_back(EventKind::StepStarted { step: step.clone() });
            self.pending
                .push_back(EventKind::StepFinished { step, millis: 1 });
        }
        self.to = Some(to);
    }

    /// How many events it has told.
    fn seq(&self) -> usize {
        self.forgotten + self.events.len()
    }

    /// What it does next: it begins, talks, and makes its steps.
    fn next_pending(&mut self) -> Option<EventKind> {
        let begins = matches!(self.pending.front(), Some(EventKind::RunStarted { .. }));
        if begins || self.talking == 0 {
            return self.pending.pop_front();
        }
        self.talking -= 1;
        Some(EventKind::Progress {
            step: "stage".into(),
            subject: "app".into(),
            done: self.talk - self.talking,
            total: 0,
        })
    }

    /// One step forward; `None` when nothing is at work.
    fn advance(&mut self, node: &str) -> Option<Event> {
        if self.doing != "running" {
            return None;
        }
        let kind = match self.next_pending() {
            Some(EventKind::StepFinished { step, .. }) if self.fails_at(&step) => self.fail(&step),
            Some(kind) => kind,
            None => self.finish(),
        };
        let event = Event {
            schema: 1,
            seq: self.seq() as u64 + 1,
            time: Timestamp::UNIX_EPOCH,
            node: node.to_owned(),
            run: self.run.clone().unwrap_or_default(),
            kind,
        };
        self.events.push(event.clone());
        Some(event)
    }

    fn fails_at(&mut self, step: &str) -> bool {
        let failing = matches!(self.faults.front(), Some(Fault::FailStep(failing)) if *failing == step);
        if failing {
            self.faults.pop_front();
        }
        failing
    }

    fn fail(&mut self, step: &str) -> EventKind {
        self.pending.clear();
        self.is_out = self.is_by_hand;
        self.doing = "failed";
        let error = ErrorReport {
            step: step.to_owned(),
            message: "it broke".into(),
            hint: None,
        };
        self.error = Some(error.clone());
        EventKind::RunFinished {
            exit: Exit::Failed,
            version: self.version.as_ref().map(Version::to_string),
            error: Some(error),
        }
    }

    fn finish(&mut self) -> EventKind {
        self.is_out = self.is_by_hand;
        self.doing = "idle";
        if !self.stages && !self.take_fault(&Fault::Lie) {
            self.version = self.to.clone();
        }
        self.error = None;
        EventKind::RunFinished {
            exit: Exit::Done,
            version: self.to.as_ref().map(Version::to_string),
            error: None,
        }
    }

    /// The run goes on to its end while nobody looks.
    fn run_out(&mut self, node: &str) {
        while self.advance(node).is_some() {}
    }

    fn take_fault(&mut self, fault: &Fault) -> bool {
        let due = self.faults.front() == Some(fault);
        if due {
            self.faults.pop_front();
        }
        due
    }

    fn status(&self, id: &str) -> String {
        json!({
            "schema": 1, "node": id, "roles": self.roles, "version": self.version, "kato": "0.1.0", "state": self.doing,
            "run": self.run, "to": self.to, "step": null, "last_seq": self.seq(), "out_of_service": self.is_out,
            "error": self.error, "retired_by": self.is_by_hand.then_some("hand"),
        })
        .to_string()
    }
}

fn survey(id: &str, state: &State) -> String {
    let place = json!({"bytes": null, "device": 1, "mount": "/", "free": 1 << 30});
    json!({
        "schema": 1, "node": id, "time": kato_shared::clock::Clock::system().now(), "memory_available": 1 << 30,
        "staging": "/var/staging", "backups": "/var/backup", "work": "/var/work", "places": {"/": place},
        "is_drained": state.roles.iter().any(|role| role == "dea"), "capacity": state.has_capacity.then(|| json!({"used": 10, "free": 20})),
    })
    .to_string()
}

fn output(code: i32, stdout: &str) -> Output {
    Output {
        ended: Ended::Exit(code),
        stdout: format!("{stdout}\n"),
        stderr: String::new(),
    }
}

/// The arguments behind `--config FILE` and `--fence TOKEN`.
fn arguments(command: &RemoteCommand) -> Vec<&str> {
    let words: Vec<&str> = command
        .argv
        .iter()
        .map(String::as_str)
        .skip_while(|argument| *argument != "--config")
        .skip(2)
        .collect();
    match &words[..] {
        ["--fence", _, rest @ ..] => rest.to_vec(),
        _ => words,
    }
}

#[async_trait]
impl Host for FakeNode {
    fn node(&self) -> &str {
        &self.id
    }

    async fn run(&self, command: &RemoteCommand) -> Result<Output, HostError> {
        // A real node is not instant: whoever is killed is killed between calls, too.
        tokio::task::yield_now().await;
        let delay = self.lock().delay;
        if delay > Duration::ZERO {
            // By the clock of the test, which stands still but for this.
            let never = std::future::pending::<()>();
            assert!(tokio::time::timeout(delay, never).await.is_err());
        }
        self.call(command)?;
        let answer = self.answer(&arguments(command));
        tokio::task::yield_now().await;
        answer
    }

    async fn lines(&self, command: &RemoteCommand, lines: mpsc::Sender<String>) -> Result<Output, HostError> {
        self.call(command)?;
        let args = arguments(command);
        let ["node", "events", "--after", after, "--follow"] = args[..] else {
            return Ok(output(2, ""));
        };
        let mut at: usize = after.parse().unwrap();
        let mut read = 0;
        loop {
            tokio::task::yield_now().await;
            let next = {
                let mut state = self.lock();
                match state.faults.front() {
                    Some(Fault::CutAfter(count)) if *count == read => {
                        state.faults.pop_front();
                        state.run_out(&self.id);
                        return Err(self.lost());
                    }
                    Some(Fault::KillAfter(count)) if *count == read => {
                        state.faults.pop_front();
                        state.pending.clear();
                        state.doing = "interrupted";
                    }
                    _ => {}
                }
                if state.talk > 0 {
                    let read = at - state.forgotten;
                    state.events.drain(..read);
                    state.forgotten = at;
                }
                match state.events.get(at - state.forgotten).cloned() {
                    Some(event) => Some(event),
                    None => state.advance(&self.id),
                }
            };
            let Some(event) = next else {
                return Ok(output(Exit::TryAgain.code().into(), ""));
            };
            at += 1;
            read += 1;
            let finished = matches!(event.kind, EventKind::RunFinished { .. });
            if lines.send(serde_json::to_string(&event).unwrap()).await.is_err() {
                return Err(self.lost());
            }
            if finished {
                return Ok(output(0, ""));
            }
        }
    }

    async fn close(&self) {}
}
