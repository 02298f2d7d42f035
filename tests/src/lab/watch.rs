//! What the supervisor reports: which nodes run, how often they have booted, how they ended.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::inside::Report;

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// By `reboot(2)` to restart; it boots again by itself.
    Rebooted,
    /// By `reboot(2)` to halt; it stays down.
    PoweredOff,
    /// By a signal, as in a power cut; it stays down.
    Killed,
    /// Its init ended by itself, which is a fault of the lab.
    Exited,
}

/// One node, as last reported.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NodeState {
    /// Its init, in the numbers of the lab; `None` while it is down.
    pub(crate) pid: Option<u32>,
    /// How often it has booted.
    pub(crate) boots: u32,
    /// How it last ended.
    pub(crate) ended: Option<Ended>,
}

#[derive(Debug, Default)]
struct Seen {
    nodes: BTreeMap<String, NodeState>,
    /// The supervisor has prepared network and disks.
    ready: bool,
    /// The supervisor reports no more.
    closed: bool,
}

/// Follows the supervisor's reports on a thread of its own.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

impl Watch {
    pub(crate) fn start(reports: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let writer = Arc::clone(&shared);
        thread::spawn(move || {
            for line in BufReader::new(reports).lines().map_while(Result::ok) {
                if let Ok(report) = serde_json::from_str(&line) {
                    apply(&mut lock(&writer.0), report);
                    writer.1.notify_all();
                }
            }
            lock(&writer.0).closed = true;
            writer.1.notify_all();
        });
        Self { shared }
    }

    /// Waits until the supervisor is ready.
    pub(crate) fn first(&self, deadline: Duration) -> Result<()> {
        self.wait("the lab is ready", deadline, |seen| seen.ready)
    }

    /// What is known of `node` now.
    pub(crate) fn node(&self, node: &str) -> NodeState {
        lock(&self.shared.0).nodes.get(node).copied().unwrap_or_default()
    }

    /// Waits until `reached` holds for `node`.
    pub(crate) fn wait_for(
        &self,
        node: &str,
        what: &str,
        deadline: Duration,
        reached: impl Fn(NodeState) -> bool,
    ) -> Result<()> {
        self.wait(&format!("{node} {what}"), deadline, |seen| {
            reached(seen.nodes.get(node).copied().unwrap_or_default())
        })
    }

    fn wait(&self, what: &str, deadline: Duration, reached: impl Fn(&Seen) -> bool) -> Result<()> {
        let (seen, changed) = &*self.shared;
        let going_on = |seen: &mut Seen| !reached(seen) && !seen.closed;
        let (seen, _) = changed
            .wait_timeout_while(lock(seen), deadline, going_on)
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(!seen.closed, "{what}: the supervisor of the lab has ended");
        ensure!(reached(&seen), "{what}: not within {} s", deadline.as_secs());
        Ok(())
    }
}

fn apply(seen: &mut Seen, report: Report) {
    match report {
        Report::Ready => seen.ready = true,
        Report::Booted { node, pid } => {
            let state = seen.nodes.entry(node).or_default();
            state.pid = Some(pid);
            state.boots += 1;
        }
        Report::Ended { node, how } => {
            let state = seen.nodes.entry(node).or_default();
            state.pid = None;
            state.ended = Some(how);
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
