//! One run per node: a lock file that says who holds it, held by `flock` so that a dead holder frees it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use kato_shared::durable::{self, DurableError};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::failpoint;

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
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run holds it.
    #[error("another run holds the lock `{path}`: {}", describe(holder.as_ref()))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The other run, when its entry can be read.
        holder: Option<Holder>,
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
    holder.map_or_else(
        || "it has not said who it is yet".into(),
        |Holder {
             run, pid, started, ..
         }| format!("run {run}, process {pid}, since {started}"),
    )
}

/// The lock, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _held: File,
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
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if attempt < ATTEMPTS => {
                    tokio::time::sleep(BETWEEN_ATTEMPTS).await;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(LockError::Held {
                        path: path.to_owned(),
                        holder: read(path),
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
        Ok(Self { _held: file })
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
            run: run.into(),
            pid: 1,
            boot_id: boot_id(Path::new("/")),
            started: Timestamp::UNIX_EPOCH,
        }
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
