//! The rehearsal of a bundle: commands of clients run where nobody outside can be reached, against a server that has nothing but the bundle.
//!
//! ```text
//! store ─ export → bundle (links where the file system can) ─ import → empty store                     (scratch)
//! unshare --net … kato-proxy bundle rehearse
//!   └ lo up → kato-proxy serve --offline on that store → each command in turn → notes about misses     (inside)
//! ```
//!
//! A command that fails is a finding, and so is whatever was asked for and not there: a client may get along without what its user will miss.
//!
//! Deliberately absent: judging what commands did (their exit code says it), and machines of other kinds than this one.
//!
//! Invariants: the namespace has no interface but loopback; the store that is exported is not changed; nothing stays of a rehearsal.

mod inside;
mod orphans;
mod scratch;

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

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
        "the rehearsal did not begin: {said}\nhint: it needs `unshare` and `ip`, and root or unprivileged user namespaces; --waive REASON exports without one"
    )]
    NotBegun {
        /// What was said.
        said: String,
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
#[expect(clippy::disallowed_methods, reason = "the owner of this child process")]
pub async fn rehearse(stage: &Stage, commands: &[DeclaredCommand]) -> Result<Rehearsed, RehearsalError> {
    let own = std::env::current_exe().map_err(io_error("finding this program"))?;
    let mut unshare = Command::new("unshare");
    unshare.arg("--net");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare
        .args(["--fork", "--kill-child", "--"])
        .arg(own)
        .args(["bundle", "rehearse", "--cache-dir"])
        .arg(&stage.store)
        .arg("--declare")
        .arg(&stage.declaration);
    if let Some(config) = &stage.config {
        unshare.arg("--config").arg(config);
    }
    unshare
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let limit = commands
        .iter()
        .map(|command| command.deadline.get())
        .sum::<Duration>()
        + BESIDE;
    let output = timeout(limit, unshare.output())
        .await
        .map_err(|_elapsed| RehearsalError::Slow {
            what: "the rehearsal".to_owned(),
            limit,
        })?
        .map_err(io_error("starting `unshare`"))?;
    serde_json::from_slice(&output.stdout).map_err(|_no_report| RehearsalError::NotBegun {
        said: tail(&output.stderr),
    })
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

/// An empty folder at `path`, whatever was there.
fn emptied(path: &Path) -> Result<(), RehearsalError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error(format!("removing `{}`", path.display()))(error));
        }
        Ok(()) | Err(_) => {}
    }
    std::fs::create_dir_all(path).map_err(io_error(format!("creating `{}`", path.display())))
}
