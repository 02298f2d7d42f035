//! A child that runs, and its end: it and all that it started are asked with SIGTERM, and killed when they do not listen. What
//! may be a service that it has started ([`Services`](super::Services)) is left alone.
//!
//! Invariant: however the wait for a child ends, by its own end or not, no part of it is left, unless it ended by itself and
//! left it behind on purpose.

use std::{io, process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal};
use tokio::{
    process::{Child, ChildStdin},
    time::Instant,
};

use super::{children::Note, name::Process, orphans, table};
use crate::failpoint;

/// How long a child may take to put its things in order. Longer would keep an operator waiting who has said stop.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// How often is looked whether a child has ended that nobody waits for.
pub(super) const LOOK: Duration = Duration::from_millis(10);

/// How long a killed child that nobody waits for is watched, so that its note can go. It takes longer only while it waits for a
/// device; then the note stays for the next run.
const KILLED: Duration = Duration::from_millis(500);

/// A child, the first of its own process group. Dropped, all of the group is ended.
pub(super) struct Running {
    child: Child,
    group: Option<Pid>,
    note: Option<Note>,
}

impl Running {
    /// `child`, which was started as the first of its group.
    pub(super) fn new(child: Child) -> Self {
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Self {
            child,
            group,
            note: None,
        }
    }

    /// `note` goes when the child's end was seen.
    pub(super) fn noted(&mut self, note: Option<Note>) {
        self.note = note;
    }

    /// The child's number, while it was not seen to end.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The child's input, once.
    pub(super) fn gate(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits until the child ends.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends all that belongs to the child, and waits for it.
    pub(super) async fn end(mut self) {
        let beyond = self.beyond();
        self.note_its_ending();
        self.signal(Signal::TERM, &beyond);
        let _whether_it_listened = tokio::time::timeout(GRACE, self.child.wait()).await;
        self.signal(Signal::KILL, &beyond);
        let _reaped = self.child.wait().await;
        self.has_ended();
    }

    /// What belongs to the child outside of its group, and is to end with it. Looked for while the child is there: then its
    /// descendants are known as such.
    fn beyond(&self) -> Vec<Process> {
        self.note
            .as_ref()
            .map(orphans::beyond_the_group)
            .unwrap_or_default()
    }

    /// Leaves alone what the child, which has ended, has started.
    pub(super) fn let_go(mut self) {
        self.has_ended();
    }

    fn note_its_ending(&mut self) {
        if let Some(note) = &mut self.note {
            note.ending();
        }
    }

    fn has_ended(&mut self) {
        self.group = None;
        if let Some(note) = self.note.take() {
            failpoint::hit("child.ended");
            note.remove();
        }
    }

    /// Looks for at most `limit` whether the child has ended.
    fn ends_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    fn signal(&self, signal: Signal, beyond: &[Process]) {
        if let Some(group) = self.group {
            let _gone_already = rustix::process::kill_process_group(group, signal);
        }
        for process in beyond {
            table::signal(*process, signal);
        }
    }
}

impl Drop for Running {
    /// Nothing can be awaited here, and the wait is short: the run that is dropped was told to stop.
    fn drop(&mut self) {
        if self.group.is_none() {
            return;
        }
        let beyond = self.beyond();
        self.note_its_ending();
        self.signal(Signal::TERM, &beyond);
        self.ends_within(GRACE);
        self.signal(Signal::KILL, &beyond);
        if self.ends_within(KILLED) {
            self.has_ended();
        }
    }
}
