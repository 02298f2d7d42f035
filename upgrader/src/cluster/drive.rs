//! Brings one node to the target and comes back only when the node itself said that it is there.
//!
//! ```text
//!            ┌────────────── status ◄─────────────┐
//!   settled? │ idle/failed │ running │ killed     │ lost: back-off, within `patience`
//!       ▼    ▼             ▼         ▼            │
//!     done   start ──► follow ◄── attach   start again, once
//!                        │ run_finished ──► status (read back) ──► done | failed
//!                        └ connection lost ──────►┘
//! ```
//!
//! The loop keeps nothing that it needs: after a kill the same loop begins with `status` and finds the run, its end, or the
//! place to resume. What is kept (the last event's number, the starts) only spares questions and bounds repetition.

use std::time::Duration;

use kato_shared::{backoff::Backoff, release::Version};
use tokio::{sync::mpsc, time::Instant};
use url::Url;

use super::{
    event::{ClusterEvent, Watcher},
    remote::{RemoteNode, Start, StartRequest},
};
use crate::{
    exit::Exit,
    plan::{
        facts::{NodeStatus, RunState},
        preflight::{self, Problem},
    },
    run::event::{ErrorReport, Event, EventKind},
    ssh::Ended,
};

/// How often an upgrade of one node is started in one rollout: once, and once more when it was killed. A second kill is no
/// accident, and a person should look.
const MAX_STARTS: u32 = 2;

/// How often a node may say "another run is at work" when asked to start and "nothing is at work" when asked how it is.
const MAX_CONTRADICTIONS: u32 = 20;

/// How many events may wait for the screen before the node's stream is slowed down.
const EVENTS_IN_FLIGHT: usize = 64;

/// What a node is to become, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// The plan's id; runs are named after it.
    pub plan: String,
    /// The version.
    pub target: Version,
    /// Install it even where it is installed.
    pub force: bool,
    /// The cache to download through.
    pub cache_url: Option<Url>,
    /// How long a lost node is called again.
    pub patience: Duration,
    /// The role that says nothing about a node.
    pub implicit_role: String,
}

/// Why a node is not at the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFailure {
    /// The exit code of the node's run, or of what kept it from running.
    pub exit: Exit,
    /// What failed.
    pub error: ErrorReport,
    /// The version that the node had when it was last asked.
    pub version: Option<Version>,
}

/// One node on its way.
#[derive(Debug)]
pub struct Drive<'a> {
    node: &'a RemoteNode,
    errand: &'a Errand,
    watcher: &'a dyn Watcher,
    starts: u32,
    /// Whether the answer to the last start was lost.
    unsure: bool,
    /// How often in a row there was nothing to do but to look again.
    idle_looks: u32,
    /// The number of the last event that was passed on, and the run that it belongs to.
    seen: Option<Seen>,
    /// What the run said at its end.
    finished: Option<Finished>,
    version: Option<Version>,
    silence: Silence,
}

#[derive(Debug, Clone)]
struct Seen {
    run: String,
    seq: u64,
}

#[derive(Debug, Clone)]
struct Finished {
    exit: Exit,
    error: Option<ErrorReport>,
}

/// Since when a node has not answered.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
    calls: u32,
}

/// What to do after a look at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    Done(Version),
    Attach { run: String, after: u64 },
    Start { interrupted: Option<String> },
    Fail(Exit, ErrorReport),
}

impl<'a> Drive<'a> {
    /// The way of `node`; nothing is asked yet.
    pub fn new(node: &'a RemoteNode, errand: &'a Errand, watcher: &'a dyn Watcher) -> Self {
        Self {
            node,
            errand,
            watcher,
            starts: 0,
            unsure: false,
            idle_looks: 0,
            seen: None,
            finished: None,
            version: None,
            silence: Silence::default(),
        }
    }

    /// Brings the node to the target; returns the version that was read back.
    ///
    /// # Errors
    /// [`NodeFailure`] when its run failed, was killed twice, or the node was silent for longer than the patience.
    ///
    /// # Cancel safety
    /// Dropping it leaves the node's run at work; a new `Drive` finds it.
    pub async fn run(mut self) -> Result<Version, NodeFailure> {
        loop {
            let status = self.ask().await?;
            self.version.clone_from(&status.version);
            self.settle_doubt(&status);
            match self.decide(&status) {
                Next::Done(version) => return Ok(version),
                Next::Fail(exit, error) => return Err(self.failure(exit, error)),
                Next::Attach { run, after } => {
                    if !self.knows(&run) {
                        self.finished = None;
                        self.seen = Some(Seen {
                            run: run.clone(),
                            seq: after,
                        });
                        self.tell(ClusterEvent::NodeAttached { node: self.id(), run });
                    }
                    self.follow().await;
                }
                Next::Start { interrupted } => self.start(&status, interrupted).await?,
            }
        }
    }

    /// A start whose answer was lost: the node's last run tells whether it began.
    fn settle_doubt(&mut self, status: &NodeStatus) {
        if std::mem::take(&mut self.unsure) {
            match &status.run {
                Some(run) if self.knows(run) => self.starts += 1,
                _ => self.seen = None,
            }
        }
    }

    /// Whether `run` is the one whose events we have.
    fn knows(&self, run: &str) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.run == run)
    }

    /// The node's status, asked again and again within the patience when the node is silent.
    async fn ask(&mut self) -> Result<NodeStatus, NodeFailure> {
        loop {
            match self.node.status().await {
                Ok(status) => {
                    self.heard();
                    return Ok(status);
                }
                Err(Problem::Unreachable { detail }) => self.wait(&detail).await?,
                Err(problem) => {
                    return Err(self.failure(Exit::Preflight, report("status", &problem.to_string(), None)));
                }
            }
        }
    }

    /// What a look at the node says to do.
    fn decide(&self, status: &NodeStatus) -> Next {
        let target = &self.errand.target;
        let drift = preflight::identity(&self.node.node, &self.errand.implicit_role, status);
        if let Some(problem) = drift.first() {
            return Next::Fail(Exit::Preflight, report("status", &problem.to_string(), None));
        }
        if status.state == RunState::Running {
            return self.join(status);
        }
        // The connection was lost and the run has ended since: its last words first.
        if let (Some(seen), Some(run)) = (&self.seen, &status.run)
            && seen.run == *run
            && status.last_seq > seen.seq
        {
            return Next::Attach {
                run: run.clone(),
                after: seen.seq,
            };
        }
        // The run that we followed has spoken: success is believed only with the version read back.
        if let Some(finished) = &self.finished {
            let exit = finished.exit;
            if exit != Exit::Done {
                return Next::Fail(exit, finished.error.clone().unwrap_or_else(|| silent_end(exit)));
            }
            return if status.is_settled_at(target) {
                Next::Done(target.clone())
            } else {
                Next::Fail(Exit::Failed, not_there(status, target))
            };
        }
        if status.is_settled_at(target) && !(self.errand.force && self.starts == 0) {
            return Next::Done(target.clone());
        }
        match status.state {
            _ if self.starts == 0 => Next::Start { interrupted: None },
            RunState::Interrupted if self.starts < MAX_STARTS => Next::Start {
                interrupted: Some(status.run.clone().unwrap_or_default()),
            },
            RunState::Interrupted => Next::Fail(Exit::Failed, killed_again(status)),
            // Its end was missed, and with it the exit code; what it left on the node is what is known.
            RunState::Failed | RunState::Idle | RunState::Running => {
                let error = status.error.clone();
                Next::Fail(Exit::Failed, error.unwrap_or_else(|| not_there(status, target)))
            }
        }
    }

    /// A run is at work: ours, or one that leads to the same place; anything else is in the way.
    fn join(&self, status: &NodeStatus) -> Next {
        let elsewhere = status.to.as_ref().filter(|to| **to != self.errand.target);
        if let Some(to) = elsewhere {
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
        Next::Attach { run, after }
    }

    async fn start(&mut self, status: &NodeStatus, interrupted: Option<String>) -> Result<(), NodeFailure> {
        if let Some(run) = interrupted {
            self.tell(ClusterEvent::NodeInterrupted { node: self.id(), run });
        }
        // The event's number makes the name new for each start on the node, and the same for a start that is repeated
        // because its answer was lost.
        let request = StartRequest {
            run: format!("{}.{}", self.errand.plan, status.last_seq),
            version: self.errand.target.clone(),
            force: self.errand.force,
            cache_url: self.errand.cache_url.clone(),
        };
        self.finished = None;
        self.seen = Some(Seen {
            run: request.run.clone(),
            seq: status.last_seq,
        });
        match self.node.start(&request).await {
            Ok(Start::Started { after_seq }) => {
                self.heard();
                self.starts += 1;
                if let Some(seen) = &mut self.seen {
                    seen.seq = after_seq;
                }
                self.tell(ClusterEvent::NodeStarted {
                    node: self.id(),
                    run: request.run,
                });
                self.follow().await;
                Ok(())
            }
            // The next look tells whose run it is.
            Ok(Start::Held) => self.held().await,
            Ok(Start::Refused { ended, stderr }) => {
                let exit = match ended {
                    Ended::Exit(code) => Exit::from_code(code).filter(|exit| *exit != Exit::Done),
                    Ended::Signal(_) => None,
                };
                let said = stderr.lines().last().unwrap_or_default();
                let text = format!("starting the run ended with {ended}: {said}");
                Err(self.failure(exit.unwrap_or(Exit::Failed), report("start", &text, None)))
            }
            // Whether it began is not known: the next look tells.
            Err(lost) => {
                self.unsure = true;
                self.wait(&lost.to_string()).await
            }
        }
    }

    /// Another run began between our look and our start.
    async fn held(&mut self) -> Result<(), NodeFailure> {
        self.seen = None;
        if self.idle_looks >= MAX_CONTRADICTIONS {
            let text = "the node refuses to start because a run is at work, and shows none";
            return Err(self.failure(Exit::LockHeld, report("start", text, None)));
        }
        self.pause().await;
        Ok(())
    }

    /// A short wait that grows while looks bring nothing new.
    async fn pause(&mut self) {
        tokio::time::sleep(Backoff::NETWORK.wait_jittered(self.idle_looks)).await;
        self.idle_looks += 1;
    }

    /// Passes the events of the run on until it ends or the connection breaks; the next look decides what that means.
    async fn follow(&mut self) {
        let after = self.seen.as_ref().map_or(0, |seen| seen.seq);
        let (send, mut receive) = mpsc::channel::<String>(EVENTS_IN_FLIGHT);
        let node = self.node;
        let read = async {
            while let Some(line) = receive.recv().await {
                self.heard();
                self.take(&line);
            }
        };
        let (ended, ()) = tokio::join!(node.follow(after, send), read);
        tracing::debug!(node = node.node.id, ?ended, "no longer followed");
        if self.seen.as_ref().map_or(0, |seen| seen.seq) > after {
            self.idle_looks = 0;
        } else {
            self.pause().await;
        }
    }

    /// One line of the node's event stream.
    fn take(&mut self, line: &str) {
        let Ok(event) = serde_json::from_str::<Event>(line) else {
            // A newer kato may tell what this one has no words for; its number must not be asked for again.
            if let (Ok(Numbered { seq }), Some(seen)) = (serde_json::from_str(line), &mut self.seen) {
                seen.seq = seen.seq.max(seq);
            }
            return;
        };
        let Some(seen) = self.seen.as_mut().filter(|seen| event.seq > seen.seq) else {
            return;
        };
        seen.seq = event.seq;
        if let EventKind::RunFinished { exit, error, .. } = &event.kind {
            self.finished = Some(Finished {
                exit: *exit,
                error: error.clone(),
            });
        }
        self.watcher.on(&super::event::Line::Node(event));
    }

    fn heard(&mut self) {
        if self.silence.since.take().is_some() && self.silence.calls > 0 {
            self.tell(ClusterEvent::NodeBack { node: self.id() });
        }
        self.silence.calls = 0;
    }

    /// Waits before the next call to a silent node.
    async fn wait(&mut self, detail: &str) -> Result<(), NodeFailure> {
        let since = *self.silence.since.get_or_insert_with(Instant::now);
        if self.silence.calls == 0 {
            self.tell(ClusterEvent::NodeLost {
                node: self.id(),
                detail: detail.to_owned(),
            });
        }
        if since.elapsed() >= self.errand.patience {
            let text = format!(
                "no answer for {}; the last was: {detail}",
                humantime::format_duration(self.errand.patience)
            );
            let hint = "its work goes on without us; when it answers again, the same command continues";
            return Err(self.failure(Exit::TryAgain, report("follow", &text, Some(hint))));
        }
        tokio::time::sleep(Backoff::NETWORK.wait_jittered(self.silence.calls)).await;
        self.silence.calls += 1;
        Ok(())
    }

    fn failure(&self, exit: Exit, error: ErrorReport) -> NodeFailure {
        NodeFailure {
            exit,
            error,
            version: self.version.clone(),
        }
    }

    fn tell(&self, event: ClusterEvent) {
        self.watcher.on(&event.into());
    }

    fn id(&self) -> String {
        self.node.node.id.clone()
    }
}

#[derive(serde::Deserialize)]
struct Numbered {
    seq: u64,
}

fn report(step: &str, message: &str, hint: Option<&str>) -> ErrorReport {
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

fn silent_end(exit: Exit) -> ErrorReport {
    report(
        "run",
        &format!("the run ended with exit code {}", exit.code()),
        None,
    )
}

fn killed_again(status: &NodeStatus) -> ErrorReport {
    let step = status.step.as_deref().unwrap_or("run");
    let hint = "find out what kills it (memory, power, an operator), then run the same command again";
    report(
        step,
        "the run was killed, was resumed, and was killed again",
        Some(hint),
    )
}
