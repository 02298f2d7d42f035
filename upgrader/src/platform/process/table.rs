//! The kernel's table of processes (`proc_pid_stat(5)`), as far as the ends of commands need it.

use std::{fs, time::Duration};

use rustix::{
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    time::{ClockId, clock_gettime},
};

use super::name::Process;
use crate::lock;

/// Clock ticks in a second, as `/proc` counts them: `USER_HZ`, which is 100 on every architecture of Linux that kato runs on.
const TICKS: u64 = 100;

/// A process that has not ended. One that only waits for its parent to notice its end (a zombie) has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) process: Process,
    pub(super) parent: i32,
    pub(super) group: i32,
}

fn row(pid: i32) -> Option<Row> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    read(pid, &stat)
}

/// Pure part of [`row`].
fn read(pid: i32, stat: &str) -> Option<Row> {
    let mut fields = lock::fields(stat);
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let started = lock::started(stat)?;
    let has_ended = matches!(state, "Z" | "X" | "x");
    (!has_ended).then_some(Row {
        process: Process { pid, started },
        parent,
        group,
    })
}

/// The process `pid`, unless it has ended.
pub(super) fn process(pid: i32) -> Option<Process> {
    row(pid).map(|row| row.process)
}

/// Whether `process` has not ended.
pub(super) fn is_there(process: Process) -> bool {
    self::process(process.pid) == Some(process)
}

/// All processes that have not ended.
pub(super) fn rows() -> Vec<Row> {
    let Ok(listing) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    listing
        .flatten()
        .filter_map(|item| row(item.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// Whether `process` was started with `variable` (`NAME=value`) in its environment; not where that may not be read.
pub(super) fn has_variable(process: Process, variable: &str) -> bool {
    let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    variables.any(|one| one == variable.as_bytes()) && is_there(process)
}

/// `process` for people: its number and the name of its program.
pub(super) fn described(process: Process) -> String {
    let name = fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
    match name.trim() {
        "" => process.pid.to_string(),
        name => format!("{} ({name})", process.pid),
    }
}

/// Sends `signal` to `process`, and never to a later one with its number.
pub(super) fn signal(process: Process, signal: Signal) {
    let handle = Pid::from_raw(process.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(handle) = handle.filter(|_| is_there(process)) {
        let _gone_already = pidfd_send_signal(handle, signal);
    }
}

/// The time after the boot in clock ticks, `ahead` from now.
pub(super) fn ticks(ahead: Duration) -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let secs = u64::try_from(now.tv_sec).unwrap_or(0) + ahead.as_secs();
    let rest = u64::try_from(now.tv_nsec).unwrap_or(0) * TICKS / 1_000_000_000;
    secs * TICKS + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_not_there_whatever_its_name() {
        let stat = |state: &str| {
            let more: Vec<_> = (4..=24).map(|field| field.to_string()).collect();
            format!("9 (a) Z (b) {state} {}", more.join(" "))
        };
        let row = read(9, &stat("D")).unwrap();
        assert_eq!((row.parent, row.group, row.process.started), (4, 5, 22));
        assert_eq!(read(9, &stat("Z")), None);
        assert_eq!(read(9, ""), None);
    }

    #[test]
    fn this_process_is_there_and_in_its_group_and_was_started_before_now() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = process(pid).unwrap();
        assert!(is_there(me));
        assert!(!is_there(Process {
            started: me.started + 1,
            ..me
        }));
        let now = ticks(Duration::ZERO);
        assert!(
            me.started <= now && now < me.started + TICKS * 3600,
            "{me:?} {now}"
        );
        let parent = i32::try_from(std::os::unix::process::parent_id()).unwrap();
        assert!(rows().iter().any(|row| row.process == me && row.parent == parent));
        let environment = fs::read_to_string("/proc/self/environ").unwrap();
        let path = environment
            .split('\0')
            .find(|one| one.starts_with("PATH="))
            .unwrap();
        assert!(has_variable(me, path) && !has_variable(me, &path[..path.len() - 1]));
        assert!(described(me).starts_with(&format!("{pid} (")));
    }
}
