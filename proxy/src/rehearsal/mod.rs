//! The rehearsal of a bundle: commands of clients run where nobody outside can be reached, against a server that has nothing but the bundle.
//!
//! ```text
//! store ─ export → bundle (links where the file system can) ─ import → empty store                     (scratch)
//! unshare --net --pid … kato-proxy bundle rehearse                                     is the first process in there
//!   └ lo up → kato-proxy serve --offline on that store → each command in turn → notes about misses     (inside)
//! ```
//!
//! It ends with whoever began it, also where that was killed: what runs in there reads from a pipe whose other end the exporter has, and
//! ends when nobody has it any more (lifeline); with the first process of the namespace ends every other one that is in it.
//!
//! A command that fails is a finding, and so is whatever was asked for and not there: a client may get along without what its user will miss.
//!
//! Deliberately absent: judging what commands did (their exit code says it), and machines of other kinds than this one.
//!
//! Invariants: the namespace has no interface but loopback; the store that is exported is not changed; nothing stays of a rehearsal, however its
//! exporter ended, but a folder that the next one removes.

mod inside;
mod lifeline;
mod orphans;
mod scratch;

use std::{io, path::PathBuf, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{process::Command, time::timeout};

use crate::closure::DeclaredCommand;

pub use inside::inside;
pub use scratch::Scratch;

/// What the start of a namespace and of a server may take beside the commands themselves.
const BESIDE: Duration = Duration::from_secs(120);

/// What came of a rehearsal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// The commands that succeeded, as they were declared.
    pub done: Vec<String>,
    /// Those that failed, with how.
    pub failed: Vec<String>,
    /// URLs that were asked for and not there.
    pub missed: Vec<String>,
}

impl Rehearsed {
    /// What stands against it, a line each.
    pub fn findings(&self) -> impl Iterator<Item = String> {
        let failed = self.failed.iter().map(|failed| format!("failed  {failed}"));
        failed.chain(self.missed.iter().map(|url| format!("missed  {url}")))
    }
}

/// Why there was no rehearsal.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// A file or a process.
    #[error("{action} failed")]
    Io {
        /// What was tried.
        action: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not end.
    #[error("{what} did not end within {} s", .limit.as_secs())]
    Slow {
        /// What.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The namespace or the server in it did not come up.
    #[error(
        "the rehearsal did not begin: {said}\nhint: it needs `unshare` and `ip`, and root or unprivileged user namespaces, and nobody may end it from outside; --waive REASON exports without one"
    )]
    NotBegun {
        /// What was said.
        said: String,
    },
    /// Whoever began it is gone.
    #[error("the export that began this rehearsal is gone")]
    Abandoned,
    /// Another one is under way.
    #[error(
        "another rehearsal is under way in `{}`\nhint: one export of a store is proven at a time; try again when the other one has ended", .folder.display()
    )]
    UnderWay {
        /// Its folder.
        folder: PathBuf,
    },
    /// The bundle that is rehearsed.
    #[error(transparent)]
    Bundle(#[from] crate::bundle::BundleError),
    /// The empty store.
    #[error(transparent)]
    Store(#[from] crate::store::OpenError),
    /// The bundle is not whole, although it was just written.
    #[error("the bundle that was to be rehearsed is not whole: {0}")]
    NotWhole(String),
}

/// For `map_err`.
fn io_error(action: impl Into<String>) -> impl FnOnce(io::Error) -> RehearsalError {
    let action = action.into();
    move |source| RehearsalError::Io { action, source }
}

/// Where the server's settings and store are, and what is run against it.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The settings file; without one the defaults.
    pub config: Option<PathBuf>,
    /// The store.
    pub store: PathBuf,
    /// The file with the declared commands.
    pub declaration: PathBuf,
}

/// Holds the rehearsal in a namespace of its own.
///
/// # Errors
/// [`RehearsalError`].
pub async fn rehearse(stage: &Stage, commands: &[DeclaredCommand]) -> Result<Rehearsed, RehearsalError> {
    let own = std::env::current_exe().map_err(io_error("finding this program"))?;
    let mut apart = unshare();
    if has_own_proc().await {
        apart.arg("--mount-proc");
    }
    apart
        .arg("--")
        .arg(own)
        .args(["bundle", "rehearse", "--cache-dir"])
        .arg(&stage.store)
        .arg("--declare")
        .arg(&stage.declaration);
    if let Some(config) = &stage.config {
        apart.arg("--config").arg(config);
    }
    apart
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let limit = commands
        .iter()
        .map(|command| command.deadline.get())
        .sum::<Duration>()
        + BESIDE;
    let mut child = apart.spawn().map_err(io_error("starting `unshare`"))?;
    // Nothing is ever written into it: it closes with this process, if not before.
    let lifeline = child.stdin.take();
    let output = timeout(limit, child.wait_with_output()).await;
    drop(lifeline);
    let output = output
        .map_err(|_elapsed| RehearsalError::Slow {
            what: "the rehearsal".to_owned(),
            limit,
        })?
        .map_err(io_error("starting `unshare`"))?;
    serde_json::from_slice(&output.stdout).map_err(|_no_report| RehearsalError::NotBegun {
        said: tail(&output.stderr),
    })
}

/// A program in namespaces of its own, of the network and of processes. All of them end with the first, and this with `unshare`.
#[expect(clippy::disallowed_methods, reason = "the owner of this child process")]
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare
        .args(["--net", "--pid", "--fork", "--kill-child"])
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    unshare
}

/// Whether the namespace may have a `/proc` that shows its own processes, which containers seldom allow; without it the one of this machine
/// stays, and is good enough but for commands that look for processes by number.
async fn has_own_proc() -> bool {
    let mut probe = unshare();
    probe
        .args(["--mount-proc", "--", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    matches!(timeout(BESIDE, probe.status()).await, Ok(Ok(status)) if status.success())
}

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The end of what a program said: its reason stands there.
fn tail(said: &[u8]) -> String {
    const MOST: usize = 2000;
    let said = String::from_utf8_lossy(said);
    let mut from = said.len().saturating_sub(MOST);
    while !said.is_char_boundary(from) {
        from += 1;
    }
    said[from..].trim().to_owned()
}
