//! The supervisor of the cache where no systemd is: a `kato` process in a session of its own that starts `kato-proxy`,
//! starts it again when it dies, and stops it when it is told to stop.
//!
//! Flow: own session → lock of the state folder → [`Record`] written → start → wait for the child or a signal → …
//! The record names both processes, so that the next `--prepare` finds them and `kato cache stop` can end them.
//!
//! Invariants: one supervisor per state folder (a lock that the kernel releases with the process); a wrong settings file
//! ends the supervision, because starting again cannot mend it; the record is removed last.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use kato_shared::{Digest, backoff::Backoff, durable};
use serde::{Deserialize, Serialize};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout},
};

use super::process::ProcessId;
use crate::exit::Exit;

/// How long the cache may take to finish its answers when it is stopped; `kato-proxy` itself cuts them after 30 s.
pub const STOP_GRACE: Duration = Duration::from_secs(35);

/// A cache that ran this long was well: its next death is the first of a new series.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// The cache's files in its state folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// The files below the folder `folder`.
    pub fn below(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The settings of the cache, written by `--prepare`.
    pub fn settings(&self) -> PathBuf {
        self.folder.join("proxy.toml")
    }

    /// Which processes run the cache.
    pub fn record(&self) -> PathBuf {
        self.folder.join("cache.json")
    }

    /// What supervisor and cache say.
    pub fn log(&self) -> PathBuf {
        self.folder.join("cache.log")
    }

    fn lock(&self) -> PathBuf {
        self.folder.join("cache.lock")
    }

    /// The record; `None` when there is none. One that cannot be understood is of an older program and counts as none.
    pub fn read_record(&self) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(self.record()).ok()?).ok()
    }
}

/// Which processes run the cache, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this record; 1.
    pub schema: u32,
    /// The supervisor.
    pub supervisor: ProcessId,
    /// The cache; `None` while it is between two lives.
    pub proxy: Option<ProcessId>,
    /// The program of the cache.
    pub program: PathBuf,
    /// The digest of the settings that it was started with.
    pub settings: Digest,
    /// How many times it was started again.
    pub restarts: u32,
}

/// Why the supervision could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// There is one already.
    #[error("the cache in `{folder}` is supervised already")]
    Supervised {
        /// The state folder.
        folder: PathBuf,
    },
    /// A file of the state folder.
    #[error("{action} `{path}` failed")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program of the cache does not start.
    #[error("starting `{program}` failed")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The cache refuses its command line or settings.
    #[error("`{program}` refuses the settings `{settings}` ({status}); its log says why")]
    Settings {
        /// The program.
        program: PathBuf,
        /// The settings.
        settings: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// A record could not be written.
    #[error(transparent)]
    Durable(#[from] durable::DurableError),
    /// Signals or `/proc` are not to be had.
    #[error("{what} failed")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SuperviseError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// How one life of the cache ended.
enum End {
    Told,
    Died(ExitStatus),
}

/// Runs the cache until SIGTERM or SIGINT.
///
/// # Errors
/// [`SuperviseError`]; the cache does not run then.
pub async fn run(files: &Files, program: &Path) -> Result<(), SuperviseError> {
    // Fails only for the leader of a process group, which has its own session already or was started by hand.
    let _own_session = rustix::process::setsid();
    let _lock = lock(files)?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(SuperviseError::system("handling SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SuperviseError::system("handling SIGINT"))?;
    let told = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(told);
    let mut record = first_record(files, program)?;
    let mut deaths = 0;
    let outcome = loop {
        let mut child = match start(files, &mut record) {
            Ok(child) => child,
            Err(error) => break Err(error),
        };
        let born = Instant::now();
        let end = tokio::select! {
            () = &mut told => End::Told,
            status = child.wait() => End::Died(status.map_err(SuperviseError::system("waiting for the cache"))?),
        };
        match end {
            End::Told => break stop(&mut child, &record).await,
            End::Died(status) if status.code() == Some(Exit::Usage.code().into()) => {
                break Err(SuperviseError::Settings {
                    program: program.to_owned(),
                    settings: files.settings(),
                    status,
                });
            }
            End::Died(status) => {
                deaths = if born.elapsed() > WELL_AFTER {
                    0
                } else {
                    deaths + 1
                };
                let wait = Backoff::NETWORK.wait_jittered(deaths);
                tracing::warn!(%status, wait_ms = wait.as_millis(), "the cache died and is started again");
                record.proxy = None;
                record.restarts += 1;
                tokio::select! {
                    () = &mut told => break Ok(()),
                    () = sleep(wait) => {}
                }
            }
        }
    };
    durable::remove(&files.record())?;
    outcome
}

/// Holds the state folder; the kernel lets go of it when this process ends, however it ends.
fn lock(files: &Files) -> Result<File, SuperviseError> {
    let path = files.lock();
    let failed = |action| {
        let path = path.clone();
        move |source| SuperviseError::File { action, path, source }
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed("opening the lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SuperviseError::Supervised {
            folder: files.folder().to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed("locking")(source)),
    }
}

fn first_record(files: &Files, program: &Path) -> Result<Record, SuperviseError> {
    let settings = std::fs::read(files.settings()).map_err(|source| SuperviseError::File {
        action: "reading",
        path: files.settings(),
        source,
    })?;
    Ok(Record {
        schema: 1,
        supervisor: ProcessId::own().map_err(SuperviseError::system("reading /proc"))?,
        proxy: None,
        program: program.to_owned(),
        settings: Digest::of(&settings),
        restarts: 0,
    })
}

/// One more life of the cache. It has no deadline: it ends when it is told to.
#[expect(clippy::disallowed_methods, reason = "the owner of the cache's process")]
fn start(files: &Files, record: &mut Record) -> Result<Child, SuperviseError> {
    let child = Command::new(&record.program)
        .arg("serve")
        .arg("--config")
        .arg(files.settings())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| SuperviseError::Start {
            program: record.program.clone(),
            source,
        })?;
    record.proxy = match child.id().and_then(|pid| i32::try_from(pid).ok()) {
        Some(pid) => ProcessId::of(pid).map_err(SuperviseError::system("reading /proc"))?,
        None => None,
    };
    durable::write_json(&files.record(), record, 0o644)?;
    Ok(child)
}

async fn stop(child: &mut Child, record: &Record) -> Result<(), SuperviseError> {
    if let Some(proxy) = &record.proxy {
        proxy
            .signal(rustix::process::Signal::TERM)
            .map_err(SuperviseError::system("stopping the cache"))?;
    }
    if let Ok(ended) = timeout(STOP_GRACE, child.wait()).await {
        ended.map_err(SuperviseError::system("waiting for the cache"))?;
        return Ok(());
    }
    tracing::warn!(
        seconds = STOP_GRACE.as_secs(),
        "the cache did not stop in time and is killed"
    );
    child
        .kill()
        .await
        .map_err(SuperviseError::system("killing the cache"))
}
