//! Processes that outlive the command that started them, and how one is told from another with the same number.
//!
//! A process number is used again after its process has gone. What is written down is therefore the number, the start
//! time in clock ticks since boot, and the boot; and a signal goes through a pidfd that was opened before the three
//! were compared, so that it can never reach a stranger.

use std::{fs, io, path::Path, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

/// One process of this machine, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot (`proc(5)`, field 22 of `stat`).
    start_ticks: u64,
    /// The boot in which it runs.
    boot: String,
}

/// How often the end of a process is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl ProcessId {
    /// This process.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn own() -> io::Result<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// The process that has the number `pid` now; `None` when there is none or it has ended and was not waited for.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn of(pid: i32) -> io::Result<Option<Self>> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned();
        let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat,
            // Reading `stat` of a process that ends meanwhile gives ESRCH.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || Errno::from_io_error(&error) == Some(Errno::SRCH) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(start_ticks(&stat).map(|start_ticks| Self {
            pid,
            start_ticks,
            boot,
        }))
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now.as_ref() == Some(self))
    }

    /// Sends `signal`; `false` when the process has ended.
    ///
    /// # Errors
    /// When it belongs to somebody else.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(false);
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // The handle holds whoever has the number now; only then is it worth knowing who that is.
        if !self.is_running() {
            return Ok(false);
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has ended; `false` when it still runs after `deadline`.
    pub async fn ended_within(&self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        while self.is_running() {
            if Instant::now() >= end {
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
        true
    }

    /// Asks it to end, and after `grace` ends it.
    ///
    /// # Errors
    /// When it belongs to somebody else.
    pub async fn stop(&self, grace: Duration) -> io::Result<()> {
        if self.signal(Signal::TERM)? && !self.ended_within(grace).await && self.signal(Signal::KILL)? {
            self.ended_within(grace).await;
        }
        Ok(())
    }
}

/// Field 22 of `/proc/<pid>/stat`; `None` for a zombie. The second field is a name that may hold anything, even `)`.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let ticks = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(ticks)
}

/// A process with its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The process.
    pub id: ProcessId,
    /// Program and arguments, as they were given.
    pub arguments: Vec<String>,
}

impl Running {
    /// Whether an argument contains the path `folder`.
    pub fn names(&self, folder: &Path) -> bool {
        let folder = folder.to_string_lossy();
        self.arguments.iter().any(|argument| argument.contains(&*folder))
    }
}

/// The other processes of this machine. Those whose command line is empty or unreadable are left out.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn others() -> io::Result<Vec<Running>> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .filter(|pid| *pid != own)
        else {
            continue;
        };
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if let (false, Some(id)) = (command.is_empty(), ProcessId::of(pid)?) {
            let arguments = command.split(|byte| *byte == 0);
            found.push(Running {
                id,
                arguments: arguments
                    .map(|argument| String::from_utf8_lossy(argument).into_owned())
                    .collect(),
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_cannot_forge_its_start_time() {
        let stat = "12 (a) S 1 2) S 1 12 12 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 1 0 777 1000 2";
        assert_eq!(start_ticks(stat), Some(777));
        assert_eq!(start_ticks(&stat.replace(") S 1 12", ") Z 1 12")), None);
        assert_eq!(start_ticks("garbage"), None);
    }

    #[test]
    fn this_process_is_found_and_runs() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_running());
        assert_eq!(ProcessId::of(own.pid).unwrap(), Some(own));
    }

    #[test]
    fn a_number_that_was_given_to_somebody_else_is_left_alone() {
        let mut earlier = ProcessId::own().unwrap();
        earlier.start_ticks += 1;
        assert!(!earlier.is_running());
        // A signal would end this test.
        assert!(!earlier.signal(Signal::KILL).unwrap());
        let other_boot = ProcessId {
            boot: "another".into(),
            ..ProcessId::own().unwrap()
        };
        assert!(!other_boot.signal(Signal::KILL).unwrap());
    }
}
