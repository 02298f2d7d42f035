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
//! What a look means is decided in [`super::next`]. The loop keeps nothing that it needs: after a kill the same loop begins with `status` and finds the run, its end, or the
//! place to resume. What is kept (the last event's number, the starts) only spares questions and bounds repetition.

use kato_shared::{backoff::Backoff, release::Version};
use tokio::{sync::mpsc, time::Instant};

use super::{
    errand::{Errand, NodeFailure},
    event::{ClusterEvent, Line, Watcher},
    next::{Finished, Goal, Memory, Next, Seen, Why, report},
    remote::{RemoteNode, Start, StartRequest},
};
use crate::{
    exit::Exit,
    plan::{
        facts::NodeStatus,
        preflight::{self, Problem},
    },
    run::event::{ErrorReport, Event, EventKind},
    ssh::Ended,
};

/// How often a node may say "another run is at work" when asked to start and "nothing is at work" when asked how it is.
const MAX_CONTRADICTIONS: u32 = 20;

/// How many events may wait for the screen before the node's stream is slowed down.
const EVENTS_IN_FLIGHT: usize = 64;

/// One node on its way.
#[derive(Debug)]
pub struct Drive<'a> {
    node: &'a RemoteNode,
    goal: Goal,
    errand: &'a Errand,
    watcher: &'a dyn Watcher,
    /// Whether the answer to the last start was lost.
    unsure: bool,
    /// How often in a row there was nothing to do but to look again.
    idle_looks: u32,
    /// How often its run ended to restart the machine.
    restarts: u32,
    memory: Memory,
    version: Option<Version>,
    /// Whether it was out of service at the last look.
    is_out: bool,
    silence: Silence,
}

/// Since when a node has not answered.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
    calls: u32,
}

impl<'a> Drive<'a> {
    /// The way of `node` to `goal`; nothing is asked yet.
    pub fn new(node: &'a RemoteNode, goal: Goal, errand: &'a Errand, watcher: &'a dyn Watcher) -> Self {
        Self {
            node,
            goal,
            errand,
            watcher,
            unsure: false,
            idle_looks: 0,
            restarts: 0,
            memory: Memory::default(),
            version: None,
            is_out: false,
            silence: Silence::default(),
        }
    }

    /// Brings the node to the goal; returns the version that was read back.
    ///
    /// # Errors
    /// [`NodeFailure`] when its run failed, was killed twice, or the node was silent for longer than the patience.
    ///
    /// # Cancel safety
    /// Dropping it leaves the node's run at work; a new `Drive` finds it.
    pub async fn run(mut self) -> Result<Option<Version>, NodeFailure> {
        let errand = self.errand;
        loop {
            let status = self.ask().await?;
            self.version.clone_from(&status.version);
            self.is_out = status.out_of_service;
            self.refuse_drift(&status)?;
            self.settle_doubt(&status);
            match self.memory.next(&status, self.goal, &errand.target, errand.force) {
                Next::Done => return Ok(status.version),
                Next::Fail(exit, error) => return Err(self.failure(exit, error)),
                Next::Follow { run, after } => self.attach(run, after).await,
                Next::Start(why) => {
                    self.say_why(&why).await?;
                    self.start(&status).await?;
                }
            }
        }
    }

    /// Roles that changed since the plan was made are another node to us (R26).
    fn refuse_drift(&self, status: &NodeStatus) -> Result<(), NodeFailure> {
        let drift = preflight::identity(&self.node.node, &self.errand.implicit_role, status);
        match drift.first() {
            None => Ok(()),
            Some(problem) => Err(self.failure(Exit::Preflight, report("status", &problem.to_string(), None))),
        }
    }

    async fn attach(&mut self, run: String, after: u64) {
        if !self.memory.knows(&run) {
            self.memory.finished = None;
            self.memory.seen = Some(Seen {
                run: run.clone(),
                seq: after,
            });
            self.tell(ClusterEvent::NodeAttached { node: self.id(), run });
        }
        self.follow().await;
    }

    /// A start that is not the first needs a word, and a machine that restarts needs time.
    async fn say_why(&mut self, why: &Why) -> Result<(), NodeFailure> {
        match why {
            Why::Turn => {}
            Why::Interrupted { run } => self.tell(ClusterEvent::NodeInterrupted {
                node: self.id(),
                run: run.clone(),
            }),
            Why::Restarted if self.restarts >= MAX_CONTRADICTIONS => {
                let text = "the machine was to restart, and the upgrade is still not complete";
                let hint = "look at the machine's console";
                return Err(self.failure(Exit::TryAgain, report("restart", text, Some(hint))));
            }
            Why::Restarted => {
                // Not a start of ours that failed; what ended it was wanted.
                self.memory.starts = self.memory.starts.saturating_sub(1);
                tokio::time::sleep(Backoff::NETWORK.wait_jittered(self.restarts)).await;
                self.restarts += 1;
            }
        }
        Ok(())
    }

    /// A start whose answer was lost: the node's last run tells whether it began.
    fn settle_doubt(&mut self, status: &NodeStatus) {
        if std::mem::take(&mut self.unsure) {
            match &status.run {
                Some(run) if self.memory.knows(run) => self.memory.starts += 1,
                _ => self.memory.seen = None,
            }
        }
    }

    /// The node's status, asked again and again within the patience when the node is silent.
    async fn ask(&mut self) -> Result<NodeStatus, NodeFailure> {
        loop {
            match self.node.status().await {
                Ok(status) => {
                    self.heard();
                    return Ok(status);
                }
                Err(problem) if problem.is_silence() => self.wait(&problem.to_string()).await?,
                Err(problem) => {
                    let exit = if problem == Problem::Superseded {
                        Exit::LockHeld
                    } else {
                        Exit::Preflight
                    };
                    return Err(self.failure(exit, report("status", &problem.to_string(), None)));
                }
            }
        }
    }

    async fn start(&mut self, status: &NodeStatus) -> Result<(), NodeFailure> {
        // The event's number makes the name new for each start on the node, and the same for a start that is repeated
        // because its answer was lost.
        let request = StartRequest {
            run: format!("{}.{}", self.errand.plan, status.last_seq),
            version: self.errand.target.clone(),
            force: self.errand.force,
            tolerant: self.errand.tolerant,
            apply_patches: self.errand.apply_patches,
            download_only: self.goal == Goal::Stage,
            cache_url: self.errand.cache_url.clone(),
        };
        self.memory.finished = None;
        self.memory.seen = Some(Seen {
            run: request.run.clone(),
            seq: status.last_seq,
        });
        match self.node.start(&request).await {
            Ok(Start::Started { after_seq }) => {
                self.heard();
                self.memory.starts += 1;
                if let Some(seen) = &mut self.memory.seen {
                    seen.seq = after_seq;
                }
                self.tell(ClusterEvent::NodeStarted {
                    node: self.id(),
                    run: request.run,
                    goal: self.goal,
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
        self.memory.seen = None;
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
        let after = self.memory.seen.as_ref().map_or(0, |seen| seen.seq);
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
        if self.memory.seen.as_ref().map_or(0, |seen| seen.seq) > after {
            self.idle_looks = 0;
        } else {
            self.pause().await;
        }
    }

    /// One line of the node's event stream.
    fn take(&mut self, line: &str) {
        let Ok(event) = serde_json::from_str::<Event>(line) else {
            // A newer kato may tell what this one has no words for; its number must not be asked for again.
            if let (Ok(Numbered { seq }), Some(seen)) = (serde_json::from_str(line), &mut self.memory.seen) {
                seen.seq = seen.seq.max(seq);
            }
            return;
        };
        let Some(seen) = self.memory.seen.as_mut().filter(|seen| event.seq > seen.seq) else {
            return;
        };
        seen.seq = event.seq;
        if let EventKind::RunFinished { exit, error, .. } = &event.kind {
            self.memory.finished = Some(Finished {
                exit: *exit,
                error: error.clone(),
            });
        }
        self.watcher.on(&Line::Node(event));
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
            is_lost: self.silence.since.is_some(),
            is_out: self.is_out,
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
