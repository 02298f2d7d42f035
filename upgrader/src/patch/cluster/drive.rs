//! One node's run about patches, from start to its last event. The run belongs to the node: what is lost is only the
//! connection, and a run that was killed, or whose machine restarted, is started again by the same command.

use std::time::Duration;

use kato_shared::{backoff::Backoff, clock::Clock};
use serde::Deserialize;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    cluster::{
        errand::NodeFailure,
        event::{ClusterEvent, Line, Watcher},
        remote::RemoteNode,
    },
    exit::Exit,
    plan::facts::{NodeStatus, RunState},
    run::event::{ErrorReport, Event, EventKind},
    ssh::{Ended, Output},
};

/// How long a node may take until its run has begun; it reads the metadata on the way.
const START_DEADLINE: Duration = Duration::from_secs(180);
/// How often a killed run is started: once, and once more.
const MAX_STARTS: u32 = 2;
/// How often a machine may restart on the way.
const MAX_RESTARTS: u32 = 20;
/// How many events may wait for the screen before the node's stream is slowed down.
const EVENTS_IN_FLIGHT: usize = 64;

/// What the start of a detached run prints.
#[derive(Deserialize)]
struct Started {
    after_seq: u64,
}

/// One node on its way.
#[derive(Debug)]
pub(super) struct Drive<'a> {
    node: &'a RemoteNode,
    words: &'a [String],
    patience: Duration,
    watcher: &'a dyn Watcher,
    starts: u32,
    restarts: u32,
}

/// How a run ended, as its last event says.
struct Finished {
    exit: Exit,
    error: Option<ErrorReport>,
}

/// The exit code of a command that failed, and its own words about it.
pub(super) fn refusal(output: &Output) -> (Exit, String) {
    let exit = match output.ended {
        Ended::Exit(code) => Exit::from_code(code).filter(|exit| *exit != Exit::Done),
        Ended::Signal(_) => None,
    };
    let lines: Vec<_> = output
        .stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let said = lines
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix("error: "))
        .or_else(|| lines.last().copied());
    let text = format!("it ended with {}: {}", output.ended, said.unwrap_or_default());
    (exit.unwrap_or(Exit::Failed), text)
}

impl<'a> Drive<'a> {
    /// The way of `node` by the command `words`; nothing is asked yet.
    pub(super) fn new(
        node: &'a RemoteNode,
        words: &'a [String],
        patience: Duration,
        watcher: &'a dyn Watcher,
    ) -> Self {
        Self {
            node,
            words,
            patience,
            watcher,
            starts: 0,
            restarts: 0,
        }
    }

    /// Runs the command on the node.
    ///
    /// # Errors
    /// [`NodeFailure`] with the run's own exit code and words.
    ///
    /// # Cancel safety
    /// Dropping it leaves the node's run at work.
    pub(super) async fn run(mut self) -> Result<(), NodeFailure> {
        loop {
            let before = self.ask().await?;
            if before.state == RunState::Running {
                let run = before.run.unwrap_or_default();
                return Err(failure(
                    Exit::LockHeld,
                    "start",
                    format!("run {run} is at work there"),
                ));
            }
            match self.once(&before).await? {
                Some(finished) => match finished.error {
                    Some(error) => {
                        return Err(NodeFailure {
                            exit: finished.exit,
                            error,
                            version: before.version,
                            is_lost: false,
                            is_out: before.out_of_service,
                        });
                    }
                    None if finished.exit == Exit::Done => return Ok(()),
                    None if finished.exit == Exit::TryAgain && self.restarts < MAX_RESTARTS => {
                        // The machine restarts, and the same command goes on afterwards.
                        tokio::time::sleep(Backoff::NETWORK.wait_jittered(self.restarts)).await;
                        self.restarts += 1;
                    }
                    None => {
                        let text = format!("the run ended with exit code {}", finished.exit.code());
                        return Err(failure(finished.exit, "run", text));
                    }
                },
                None if self.starts < MAX_STARTS => {}
                None => {
                    let text = "the run was killed, was started again, and was killed again".into();
                    return Err(failure(Exit::Failed, "run", text));
                }
            }
        }
    }

    /// Starts one run and follows it to its end; `None` when it was killed.
    async fn once(&mut self, before: &NodeStatus) -> Result<Option<Finished>, NodeFailure> {
        self.starts += 1;
        // New for every start on the node: the number of its last event grows.
        let stamp = Clock::system().now().strftime("%Y%m%dT%H%M%S");
        let run = format!("patch-{stamp}.{}", before.last_seq);
        let mut words = vec!["patch"];
        words.extend(self.words.iter().map(String::as_str));
        words.extend(["--detach", "--run", &run]);
        let after = match self.node.run(&words, START_DEADLINE).await {
            Ok(output) if output.ended.is_success() => {
                let line = output.stdout.lines().next_back().unwrap_or_default();
                serde_json::from_str(line).map_or(before.last_seq, |Started { after_seq }| after_seq)
            }
            Ok(output) => {
                let (exit, text) = refusal(&output);
                return Err(failure(exit, "start", text));
            }
            // Whether it began is not known: its events tell.
            Err(lost) => {
                self.lost(&lost.to_string());
                before.last_seq
            }
        };
        self.follow(&run, after).await
    }

    /// Passes the events of `run` after the number on until it has ended.
    async fn follow(&self, run: &str, mut seen: u64) -> Result<Option<Finished>, NodeFailure> {
        loop {
            let (send, mut receive) = mpsc::channel::<String>(EVENTS_IN_FLIGHT);
            let mut finished = None;
            let after = seen;
            let read = async {
                while let Some(line) = receive.recv().await {
                    let Ok(event) = serde_json::from_str::<Event>(&line) else {
                        continue;
                    };
                    if event.seq <= seen {
                        continue;
                    }
                    seen = event.seq;
                    if event.run == run
                        && let EventKind::RunFinished { exit, error, .. } = &event.kind
                    {
                        finished = Some(Finished {
                            exit: *exit,
                            error: error.clone(),
                        });
                    }
                    self.watcher.on(&Line::Node(event));
                }
            };
            let (ended, ()) = tokio::join!(self.node.follow(after, send), read);
            if finished.is_some() {
                return Ok(finished);
            }
            if let Err(lost) = ended {
                self.lost(&lost.to_string());
            }
            let now = self.ask().await?;
            if now.state != RunState::Running && now.last_seq <= seen {
                return Ok(None);
            }
        }
    }

    /// The node's status, asked again within the patience while it is silent.
    async fn ask(&self) -> Result<NodeStatus, NodeFailure> {
        let since = Instant::now();
        let mut calls = 0;
        loop {
            match self.node.status().await {
                Ok(status) => return Ok(status),
                Err(problem) if problem.is_silence() && since.elapsed() < self.patience => {
                    if calls == 0 {
                        self.lost(&problem.to_string());
                    }
                    tokio::time::sleep(Backoff::NETWORK.wait_jittered(calls)).await;
                    calls += 1;
                }
                Err(problem) if problem.is_silence() => {
                    return Err(failure(Exit::TryAgain, "status", problem.to_string()));
                }
                Err(problem) => return Err(failure(Exit::Preflight, "status", problem.to_string())),
            }
        }
    }

    fn lost(&self, detail: &str) {
        let event = ClusterEvent::NodeLost {
            node: self.node.node.id.clone(),
            detail: detail.to_owned(),
        };
        self.watcher.on(&event.into());
    }
}

fn failure(exit: Exit, step: &str, message: String) -> NodeFailure {
    NodeFailure {
        exit,
        error: ErrorReport {
            step: step.into(),
            message,
            hint: None,
        },
        version: None,
        is_lost: false,
        is_out: false,
    }
}
