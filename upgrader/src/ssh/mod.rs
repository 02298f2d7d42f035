//! Commands on other nodes, by the system's OpenSSH, and on this machine in the same shape.
//!
//! Flow: [`RemoteCommand`] (argv, environment, deadline) → [`Host`] → what came back. [`openssh`] reaches nodes over one
//! multiplexed connection each, [`local`] starts the program here, `fake` (tests) plays a node.
//!
//! Three ends of a command are kept apart: it exited ([`Ended::Exit`]), a signal killed it ([`Ended::Signal`]), or nobody
//! knows because the connection broke ([`HostError::Lost`]). The third is never taken for success nor for failure: whoever
//! asked must look at the node again.
//!
//! Passwords, where keys and rules without one are not enough, are asked for once by our own [`askpass`]; sudo's goes to the
//! command's standard input. They are in no argument, no environment and no file, and overwritten afterwards ([`secret`]).
//!
//! Deliberately absent: an SSH implementation (jump hosts, agents and `ssh_config` work because ssh itself is used), shell
//! strings (every argument is quoted by [`quote`]), and inherited environment (what a command needs is an argument).
//!
//! Invariants: stdin of every command is closed, or has one password and its end; every command has a deadline, or is followed line by line on a connection
//! whose silence is limited.

pub mod askpass;
#[cfg(test)]
#[path = "tests/fake.rs"]
pub(crate) mod fake;
mod local;
mod openssh;
mod process;
pub mod quote;
pub mod secret;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use tokio::sync::mpsc;

use self::secret::Secret;
pub use self::{
    local::LocalHost,
    openssh::{SshHost, SshOptions},
};

/// A command for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteCommand {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables to set for it, beside the little that its login gives it.
    pub env: Vec<(String, String)>,
    /// How long it may take; with `None` it is followed for as long as the connection is alive.
    pub deadline: Option<Duration>,
    /// The password that it reads from its standard input; with `None` that is closed.
    pub input: Option<Secret>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Exit(i32),
    /// Killed by this signal.
    Signal(i32),
}

impl Ended {
    /// Whether it exited with 0.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Exit(0))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a command said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub ended: Ended,
    /// Its standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// The end of its standard error, at most [`STDERR_KEPT`] bytes.
    pub stderr: String,
}

/// How much of a command's standard error is kept, in bytes: the last words say why it failed, the rest is in its log.
pub const STDERR_KEPT: usize = 8 * 1024;

/// A command whose end is not known, or that could not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No connection could be made; nothing was started.
    #[error("no connection to {node} ({address}): {detail}")]
    Unreachable {
        /// The node's id.
        node: String,
        /// Its address.
        address: String,
        /// The last words of ssh.
        detail: String,
    },
    /// The connection broke; the command may go on.
    #[error("the connection to {node} ({address}) was lost: {detail}")]
    Lost {
        /// The node's id.
        node: String,
        /// Its address.
        address: String,
        /// The last words of ssh.
        detail: String,
    },
    /// The command took too long; it may go on.
    #[error("{node} did not answer `{command}` within {}", humantime::format_duration(*deadline))]
    Deadline {
        /// The node's id.
        node: String,
        /// The command.
        command: String,
        /// How long it was given.
        deadline: Duration,
    },
    /// The command cannot be sent.
    #[error("a command for {node} cannot be sent: {detail}")]
    Unsendable {
        /// The node's id.
        node: String,
        /// Why.
        detail: String,
    },
}

/// A machine that runs commands.
#[async_trait]
pub trait Host: Send + Sync + fmt::Debug {
    /// The node's id.
    fn node(&self) -> &str;

    /// Runs `command` to its end.
    ///
    /// # Errors
    /// [`HostError`]; only with [`HostError::Unreachable`] and [`HostError::Unsendable`] is it sure that it did not run.
    ///
    /// # Cancel safety
    /// When dropped, the connection's client is killed; the command on the node may go on.
    async fn run(&self, command: &RemoteCommand) -> Result<Output, HostError>;

    /// Runs `command` and sends each line of its standard output to `lines` as it comes; the receiver's pace is kept.
    /// When the receiver is gone, the command is no longer read and [`HostError::Lost`] is returned.
    ///
    /// # Errors
    /// As [`Self::run`].
    ///
    /// # Cancel safety
    /// As [`Self::run`].
    async fn lines(&self, command: &RemoteCommand, lines: mpsc::Sender<String>) -> Result<Output, HostError>;

    /// Ends the connection, if there is one. A later command makes a new one.
    async fn close(&self);
}
