//! What a command leaves behind, also in process groups and sessions of its own: it becomes a child of ours, and ends.
//!
//! Deliberately absent: a namespace of processes. It needs a `/proc` of its own, which containers seldom allow.

use std::fs;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

use super::{RehearsalError, io_error};

/// Generations that are ended: what ends leaves its own children to us.
const MOST_GENERATIONS: usize = 1000;

/// From here on whoever loses its parent among our descendants is a child of ours.
pub(super) fn adopt() -> Result<(), RehearsalError> {
    set_child_subreaper(Some(getpid()))
        .map_err(std::io::Error::from)
        .map_err(io_error("becoming the parent of what commands leave behind"))
}

/// Ends all children of ours but `spared`, and theirs.
pub(super) fn end(spared: Option<Pid>) {
    for _ in 0..MOST_GENERATIONS {
        let mut left = children();
        left.retain(|child| Some(*child) != spared);
        if left.is_empty() {
            return;
        }
        for child in left {
            // Who is gone meanwhile needs neither.
            let _gone = kill_process(child, Signal::KILL);
            let _reaped = waitpid(Some(child), WaitOptions::empty());
        }
    }
}

/// The children of this process.
fn children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().get();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|number| parent(*number) == Some(own))
        .filter_map(Pid::from_raw)
        .collect()
}

/// The parent of a process: the second field behind the name, which may hold anything.
fn parent(number: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    let behind = stat.rsplit_once(") ")?.1;
    behind.split(' ').nth(1)?.parse().ok()
}
