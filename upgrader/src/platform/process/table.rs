//! The kernel's table of processes (`proc_pid_stat(5)`), as far as the ends of commands need it.

use std::{fs, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::name::Process;
use crate::lock;

/// Clock ticks in a second, as `/proc` counts them: `USER_HZ`, which is 100 on every architecture of Linux that kato runs on.
const TICKS: u64 = 100;

/// A process that has not ended. One that only waits for its parent to notice its end (a zombie) has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    process: Process,
    group: i32,
}

fn row(pid: i32) -> Option<Row> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    read(pid, &stat)
}

/// Pure part of [`row`].
fn read(pid: i32, stat: &str) -> Option<Row> {
    let mut fields = lock::fields(stat);
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let started = lock::started(stat)?;
    let has_ended = matches!(state, "Z" | "X" | "x");
    (!has_ended).then_some(Row {
        process: Process { pid, started },
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

/// Those of the process group `group` that have not ended and were started until `until`.
pub(super) fn members(group: i32, until: u64) -> Vec<Process> {
    let Ok(listing) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    listing
        .flatten()
        .filter_map(|item| row(item.file_name().to_str()?.parse().ok()?))
        .filter(|row| row.group == group && row.process.started <= until)
        .map(|row| row.process)
        .collect()
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
        assert_eq!((row.group, row.process.started), (5, 22));
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
        let group = row(pid).unwrap().group;
        assert!(members(group, now).contains(&me));
        assert!(!members(group, me.started - 1).contains(&me));
    }
}
