//! A child that runs, and its end: it and all that it started are asked with SIGTERM, and killed when they do not listen.
//!
//! Invariant: however the wait for a child ends, by its own end or not, no part of it is left, unless it ended by itself and
//! left it behind on purpose.

use std::{io, process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal};
use tokio::{process::Child, time::Instant};

/// How long a child may take to put its things in order. Longer would keep an operator waiting who has said stop.
const GRACE: Duration = Duration::from_secs(2);

/// How often is looked whether a child has ended that nobody waits for.
const LOOK: Duration = Duration::from_millis(10);

/// A child, the first of its own process group. Dropped, all of the group is ended.
pub(super) struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    /// `child`, which was started as the first of its group.
    pub(super) fn new(child: Child) -> Self {
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Self { child, group }
    }

    /// Waits until the child ends.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the whole group, and waits for the child.
    pub(super) async fn end(mut self) {
        self.signal(Signal::TERM);
        let _whether_it_listened = tokio::time::timeout(GRACE, self.child.wait()).await;
        self.signal(Signal::KILL);
        let _reaped = self.child.wait().await;
        self.group = None;
    }

    /// Leaves alone what the child, which has ended, has started.
    pub(super) fn let_go(mut self) {
        self.group = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _gone_already = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Drop for Running {
    /// Nothing can be awaited here, and the wait is short: the run that is dropped was told to stop.
    fn drop(&mut self) {
        if self.group.is_none() {
            return;
        }
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        self.signal(Signal::KILL);
    }
}
