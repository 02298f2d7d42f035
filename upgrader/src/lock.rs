//! One run per node: a lock file that says who holds it, held by `flock` so that a dead holder frees it.
//!
//! What the file says is for people; that the kernel's lock is held is what counts. A lock whose holder is provably dead (the
//! machine was started again since, its process is gone, or its number is another process's by now) and that is held all the
//! same (a child has it open) is broken by [`break_stale`] and by nothing else: a living holder is asked to stop, never robbed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use kato_shared::durable::{self, DurableError};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::{audit::redact, failpoint};

/// Somebody who only looks whether the lock is held has it for an instant; a run waits that long before it gives up.
const ATTEMPTS: u32 = 20;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(25);

/// Who holds the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The run.
    pub run: String,
    /// Its process.
    pub pid: u32,
    /// The boot that the process belongs to.
    pub boot_id: String,
    /// When it took the lock.
    pub started: Timestamp,
    /// When the process itself was started, in clock ticks after the boot: tells it from a later one with its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_started: Option<u64>,
    /// The PID namespace that its number is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_namespace: Option<String>,
    /// Its command line, without secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// What is known about a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Its process is there.
    Alive,
    /// The machine was started again since it took the lock.
    OtherBoot,
    /// Its process is gone.
    Gone,
    /// Its number is another process's by now.
    OtherProcess,
    /// It cannot be told from here: the process is one of another namespace (a container).
    Unknown,
}

impl Standing {
    /// Whether the holder is provably dead.
    pub const fn is_dead(self) -> bool {
        matches!(self, Self::OtherBoot | Self::Gone | Self::OtherProcess)
    }

    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Alive => "its process is there",
            Self::OtherBoot => "the machine was started again since",
            Self::Gone => "its process is gone",
            Self::OtherProcess => "its number is another process's by now",
            Self::Unknown => "its process cannot be seen from here",
        }
    }
}

impl Holder {
    /// This process as the holder for `run`, on the node below `root`.
    pub fn here(run: &str, root: &Path, now: Timestamp) -> Self {
        let pid = std::process::id();
        Self {
            run: run.to_owned(),
            pid,
            boot_id: boot_id(root),
            started: now,
            process_started: process_started(pid),
            pid_namespace: pid_namespace(),
            command: redact::command_line(std::env::args_os()),
        }
    }

    /// What is known about it now, on the node below `root`.
    pub fn standing(&self, root: &Path) -> Standing {
        let there = Path::new("/proc").join(self.pid.to_string()).exists();
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let process = if there {
            Process::of(&stat)
        } else {
            Process::Absent
        };
        judge(self, &boot_id(root), pid_namespace().as_deref(), process)
    }
}

/// The process with a holder's number.
#[derive(Debug, Clone, Copy)]
enum Process {
    Absent,
    /// With its start, when that can be read.
    There(Option<u64>),
}

impl Process {
    /// What `/proc/<pid>/stat` says. One that has ended and only waits for its parent to notice (a zombie) holds nothing.
    fn of(stat: &str) -> Self {
        match fields(stat).next() {
            Some("Z" | "X") => Self::Absent,
            Some(_) | None => Self::There(started(stat)),
        }
    }
}

/// The fields of `/proc/<pid>/stat` from the third on (`proc_pid_stat(5)`): the second is a name in parentheses that may hold
/// anything.
pub(crate) fn fields(stat: &str) -> impl Iterator<Item = &str> {
    let (_, rest) = stat.rsplit_once(')').unwrap_or_default();
    rest.split_whitespace()
}

/// When the process was started, in clock ticks after the boot: field 22.
pub(crate) fn started(stat: &str) -> Option<u64> {
    fields(stat).nth(19)?.parse().ok()
}

/// Pure part of [`Holder::standing`].
fn judge(holder: &Holder, boot: &str, namespace: Option<&str>, process: Process) -> Standing {
    if !boot.is_empty() && !holder.boot_id.is_empty() && holder.boot_id != boot {
        return Standing::OtherBoot;
    }
    if holder.pid_namespace.is_some() && holder.pid_namespace.as_deref() != namespace {
        return Standing::Unknown;
    }
    match (process, holder.process_started) {
        (Process::Absent, _) => Standing::Gone,
        (Process::There(Some(now)), Some(then)) if now != then => Standing::OtherProcess,
        (Process::There(_), _) => Standing::Alive,
    }
}

/// When the process `pid` was started, in clock ticks after the boot.
fn process_started(pid: u32) -> Option<u64> {
    started(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The PID namespace of this process, as the kernel names it.
pub(crate) fn pid_namespace() -> Option<String> {
    let name = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(name.to_string_lossy().into_owned())
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run holds it.
    #[error("another run holds the lock `{path}`: {}", describe(holder.as_deref()))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The other run, when its entry can be read.
        holder: Option<Box<Holder>>,
    },
    /// The lock file cannot be used.
    #[error("{action} the lock `{path}` failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The lock file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Its folder cannot be created, or its entry not flushed.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

fn describe(holder: Option<&Holder>) -> String {
    let Some(holder) = holder else {
        return "it has not said who it is yet".into();
    };
    let Holder {
        run, pid, started, ..
    } = holder;
    let text = format!("run {run}, process {pid}, since {started}");
    if holder.command.is_empty() {
        text
    } else {
        format!("{text} (`{}`)", holder.command.join(" "))
    }
}

/// The lock, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    held: File,
}

impl Lock {
    /// Takes the lock at `path` for `holder`.
    ///
    /// # Errors
    /// [`LockError::Held`] with the other run.
    pub async fn take(path: &Path, holder: &Holder) -> Result<Self, LockError> {
        if let Some(folder) = path.parent() {
            durable::create_folder(folder)?;
        }
        let failed = |action| {
            move |source: io::Error| LockError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let mut file = open(path).map_err(failed("opening"))?;
        for attempt in 1..=ATTEMPTS {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The lock was broken, or given back, while we waited: what we hold is not the lock any more.
                Ok(()) if !is_at(&file, path) => file = open(path).map_err(failed("opening"))?,
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if attempt < ATTEMPTS => {
                    tokio::time::sleep(BETWEEN_ATTEMPTS).await;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(LockError::Held {
                        path: path.to_owned(),
                        holder: read(path).map(Box::new),
                    });
                }
                Err(error) => return Err(failed("taking")(error.into())),
            }
        }
        let text = serde_json::to_vec(holder).map_err(|error| failed("writing")(error.into()))?;
        file.set_len(0)
            .and_then(|()| durable::place::about_to_write())
            .and_then(|()| file.write_all(&text))
            .map_err(failed("writing"))?;
        durable::flush(&file, path)?;
        failpoint::hit("lock.taken");
        Ok(Self { held: file })
    }

    /// Whether it is still the lock that everybody sees at `path`: it was not broken meanwhile.
    pub fn is_at(&self, path: &Path) -> bool {
        is_at(&self.held, path)
    }
}

/// Breaks the lock at `path`, whose holder is provably dead on the node below `root` although somebody has it open; gives the
/// holder. `None` when nobody holds it. The next run makes a new file, so that the old one holds nobody back.
///
/// # Errors
/// [`LockError::Held`] when the holder is alive, or cannot be proved to be dead.
pub fn break_stale(path: &Path, root: &Path) -> Result<Option<Holder>, LockError> {
    if !is_held(path) {
        return Ok(None);
    }
    match read(path) {
        Some(holder) if holder.standing(root).is_dead() => {
            durable::remove(path)?;
            Ok(Some(holder))
        }
        holder => Err(LockError::Held {
            path: path.to_owned(),
            holder: holder.map(Box::new),
        }),
    }
}

/// What the lock file at `path` says of its last holder, whether it is held or not.
pub fn last_holder(path: &Path) -> Option<Holder> {
    read(path)
}

/// Whether somebody holds the lock at `path`.
pub fn is_held(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

/// Whether `file` is what is at `path` now.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => held.ino() == there.ino() && held.dev() == there.dev(),
        _ => false,
    }
}

/// The run that holds the lock at `path` now; `None` when nobody does.
pub fn holder(path: &Path) -> Option<Holder> {
    let file = File::open(path).ok()?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => None,
        Err(_held) => read(path),
    }
}

/// The holder that the lock at `path` had last, when that is `run`, which has not said that it ended, and its process on the node below `root`
/// lives: it is replacing itself by another `kato`, and has the lock again in a moment.
pub fn in_between(path: &Path, root: &Path, run: &str) -> Option<Holder> {
    last_holder(path).filter(|last| last.run == run && last.standing(root) == Standing::Alive)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn read(path: &Path) -> Option<Holder> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The id of the running boot: of the node's own `/proc` below `root` when it has one, else of this machine.
pub fn boot_id(root: &Path) -> String {
    const FILE: &str = "proc/sys/kernel/random/boot_id";
    fs::read_to_string(root.join(FILE))
        .or_else(|_no_own_proc| fs::read_to_string(Path::new("/").join(FILE)))
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me(run: &str) -> Holder {
        Holder {
            pid: 1,
            command: vec!["kato".into(), "node".into(), "upgrade".into()],
            ..Holder::here(run, Path::new("/"), Timestamp::UNIX_EPOCH)
        }
    }

    #[tokio::test]
    async fn c03_a_run_that_replaces_its_program_is_at_work_while_nobody_has_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (path, root) = (folder.path().join("lock"), Path::new("/"));
        let alive = Holder::here("r1", root, Timestamp::UNIX_EPOCH);
        drop(Lock::take(&path, &alive).await.unwrap());
        assert_eq!(holder(&path), None);
        assert_eq!(in_between(&path, root, "r1"), Some(alive.clone()));
        assert_eq!(in_between(&path, root, "r2"), None);
        let dead = Holder {
            process_started: Some(1),
            ..alive
        };
        drop(Lock::take(&path, &dead).await.unwrap());
        assert_eq!(in_between(&path, root, "r1"), None);
    }

    #[test]
    fn c03_only_a_provably_dead_holder_is_stale() {
        let holder = Holder {
            boot_id: "b1".into(),
            process_started: Some(7),
            pid_namespace: Some("n1".into()),
            ..me("r1")
        };
        let judged = |boot, namespace, process| judge(&holder, boot, Some(namespace), process);
        assert_eq!(judged("b1", "n1", Process::There(Some(7))), Standing::Alive);
        assert_eq!(judged("b2", "n1", Process::There(Some(7))), Standing::OtherBoot);
        assert_eq!(judged("b1", "n1", Process::Absent), Standing::Gone);
        assert_eq!(
            judged("b1", "n1", Process::There(Some(8))),
            Standing::OtherProcess
        );
        // Where the start cannot be read, or the boot is not known, nothing is proved.
        assert_eq!(judged("", "n1", Process::There(None)), Standing::Alive);
        assert_eq!(judged("b1", "n2", Process::Absent), Standing::Unknown);
        assert!(!Standing::Unknown.is_dead() && !Standing::Alive.is_dead());
    }

    #[test]
    fn c03_a_process_that_has_ended_and_was_not_noticed_yet_is_gone() {
        let stat = |state: &str| {
            let more: Vec<_> = (4..=24).map(|field| field.to_string()).collect();
            format!("9 (a (b) c) {state} {}", more.join(" "))
        };
        assert!(matches!(Process::of(&stat("S")), Process::There(Some(22))));
        assert!(matches!(Process::of(&stat("Z")), Process::Absent));
        assert!(matches!(Process::of(""), Process::There(None)));
    }

    #[tokio::test]
    async fn c03_a_stale_lock_that_is_held_is_broken_and_a_living_holder_is_not_robbed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, root) = (folder.path().join("lock"), Path::new("/"));
        assert_eq!(break_stale(&path, root).unwrap(), None);
        let alive = Holder::here("r1", root, Timestamp::UNIX_EPOCH);
        let first = Lock::take(&path, &alive).await.unwrap();
        assert!(
            matches!(break_stale(&path, root), Err(LockError::Held { holder: Some(held), .. }) if *held == alive)
        );
        drop(first);
        let dead = Holder {
            process_started: Some(1),
            ..Holder::here("r2", root, Timestamp::UNIX_EPOCH)
        };
        let _held_by_a_child = Lock::take(&path, &dead).await.unwrap();
        assert!(is_held(&path));
        assert_eq!(break_stale(&path, root).unwrap(), Some(dead));
        let _next = Lock::take(&path, &alive).await.unwrap();
        assert_eq!(holder(&path), Some(alive));
    }

    #[tokio::test]
    async fn c03_who_waits_for_a_lock_that_is_broken_meanwhile_takes_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let old = open(&path).unwrap();
        rustix::fs::flock(&old, FlockOperation::LockExclusive).unwrap();
        let (root, now) = (Path::new("/"), Timestamp::UNIX_EPOCH);
        let waiting = async { Lock::take(&path, &Holder::here("r1", root, now)).await };
        let broken = async {
            durable::remove(&path).unwrap();
            rustix::fs::flock(&old, FlockOperation::Unlock).unwrap();
        };
        let (taken, ()) = tokio::join!(waiting, broken);
        let _lock = taken.unwrap();
        assert_eq!(holder(&path).unwrap().run, "r1");
    }

    #[tokio::test]
    async fn c03_a_second_run_is_refused_with_the_holder_and_a_free_lock_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/lock");
        let first = Lock::take(&path, &me("r1")).await.unwrap();
        assert_eq!(holder(&path), Some(me("r1")));
        let error = Lock::take(&path, &me("r2")).await.unwrap_err().to_string();
        assert!(
            error.contains("run r1, process 1, since 1970-01-01T00:00:00Z"),
            "{error}"
        );
        drop(first);
        assert_eq!(holder(&path), None);
        let _second = Lock::take(&path, &me("r2")).await.unwrap();
        assert_eq!(holder(&path), Some(me("r2")));
    }
}
