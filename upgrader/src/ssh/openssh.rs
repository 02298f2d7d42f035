//! A node over the system's OpenSSH: one master connection, every command multiplexed over it.
//!
//! Flow: the first command starts `ssh -M -f -N` with its control socket in a private folder → commands run as clients of
//! that socket → 60 idle seconds or [`Host::close`] end it. A `kato` that was killed leaves nothing behind for longer.
//!
//! | Question | Answer |
//! |---|---|
//! | How is a broken connection told from an exit code? | ssh itself ends with 255; `kato` never does |
//! | How is a signal told from both? | the command runs under `sh -c '"$@"; exit $?'`, which says 128 + n |
//! | What if the master died? | clients get `ProxyCommand=false`: they fail at once instead of connecting anew by themselves |
//! | Who asks for passwords? | our own [`askpass`](super::askpass), once a node; without a terminal nobody (`BatchMode`) |
//! | Who decides about unknown host keys? | nobody here: they are refused (`StrictHostKeyChecking=yes`), and an operator adds them |
//!
//! Off the shelf, the `openssh` crate does nearly this, but always connects in batch mode without a deadline, hides exit code
//! 127, and gives signals and lost connections the same error; all four matter here.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};

use super::{
    Ended, Host, HostError, Output, RemoteCommand,
    askpass::{Asker, Desk},
    process::{ProcessError, Program},
    quote,
};
use crate::cluster::inventory::SshSettings;

/// How long the master connection outlives its last client, in seconds. Long enough for the pauses of a rollout, short enough
/// that a killed orchestrator leaves no connection standing.
const IDLE_SECS: u32 = 60;

/// How many missed answers make a connection lost; ssh asks three times within [`SshSettings::keep_alive`].
const MISSED_ANSWERS: u32 = 3;

/// How long a person may take to answer ssh.
const TYPING: Duration = Duration::from_secs(300);

/// The end of the ssh client itself: no connection, or a broken one.
const SSH_FAILED: Ended = Ended::Exit(255);

/// Runs what follows and turns the signal that killed it into an exit code.
const REMOTE_SHELL: [&str; 4] = ["sh", "-c", r#""$@"; exit $?"#, "kato-command"];

/// How to make connections; one value for all nodes.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// The cluster's settings.
    pub settings: SshSettings,
    /// Asks the person at the terminal for passwords. `None`: nobody is asked.
    pub asking: Option<Arc<Asker>>,
    /// The ssh program, a name in `PATH` or a path.
    pub program: PathBuf,
}

/// A node over ssh.
#[derive(Debug)]
pub struct SshHost {
    node: String,
    address: String,
    options: SshOptions,
    /// Holds the control socket and ssh's log; mode 0700.
    folder: tempfile::TempDir,
    /// Held while a connection is made, so that two commands do not make two.
    connecting: Mutex<()>,
}

impl SshHost {
    /// The node `node` at `address`; nothing is connected yet.
    ///
    /// # Errors
    /// When no private folder for the control socket can be made.
    pub fn new(node: &str, address: &str, options: SshOptions) -> std::io::Result<Self> {
        Ok(Self {
            node: node.to_owned(),
            address: address.to_owned(),
            options,
            // Short: a socket's path has about 100 bytes. `tempfile` makes it for the owner alone.
            folder: tempfile::Builder::new().prefix("kato-ssh-").tempdir()?,
            connecting: Mutex::new(()),
        })
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    fn ssh(&self) -> Program {
        let mut args: Vec<String> = Vec::new();
        if let Some(config) = &self.options.settings.config {
            args.extend(["-F".into(), config.display().to_string()]);
        }
        args.extend(["-S".into(), self.socket().display().to_string()]);
        Program::new(&self.options.program).args(args)
    }

    /// Makes the master connection unless its socket is there.
    async fn connect(&self) -> Result<(), HostError> {
        let _one_at_a_time = self.connecting.lock().await;
        if self.socket().exists() {
            return Ok(());
        }
        let silent = self.launch_master(None).await;
        match (&self.options.asking, silent) {
            (Some(asking), Err(_)) => {
                let names = vec![self.address.clone(), self.node.clone()];
                let desk = Desk::open(self.folder.path(), asking, names)
                    .map_err(|error| self.unreachable(&kato_shared::chain::Chain(&error).to_string()))?;
                self.launch_master(Some(&desk)).await
            }
            (_, silent) => silent,
        }
    }

    /// Starts the master; with a desk, ssh may ask there for passwords.
    async fn launch_master(&self, desk: Option<&Desk>) -> Result<(), HostError> {
        let ask = desk.is_some();
        let env = desk
            .map(Desk::env)
            .transpose()
            .map_err(|error| self.unreachable(&kato_shared::chain::Chain(&error).to_string()))?;
        let log = self.folder.path().join("log");
        let deadline = if ask {
            TYPING
        } else {
            // Names that resolve to several addresses are tried one after the other.
            self.options.settings.connect_timeout.get().saturating_mul(3)
        };
        let ended = self
            .ssh()
            .args(master_args(&self.options.settings, ask, &log))
            .args(["--", &self.address])
            .env(env.into_iter().flatten())
            // The master stays in the background and would hold our pipes open; its words go to the log file.
            .silent()
            .run(Some(deadline), None)
            .await
            .map_err(|error| self.unreachable(&kato_shared::chain::Chain(&error).to_string()))?
            .ended;
        if ended.is_success() {
            Ok(())
        } else {
            Err(self.unreachable(&last_words(&log)))
        }
    }

    async fn start(
        &self,
        command: &RemoteCommand,
        lines: Option<mpsc::Sender<String>>,
    ) -> Result<Output, HostError> {
        let line = remote_line(command).map_err(|error| HostError::Unsendable {
            node: self.node.clone(),
            detail: error.to_string(),
        })?;
        self.connect().await?;
        let output = self
            .ssh()
            .args(CLIENT_ARGS)
            .args(["--", &self.address, &line])
            .input(command.input.clone())
            .run(command.deadline, lines)
            .await
            .map_err(|error| self.explain(command, &error))?;
        if output.ended == SSH_FAILED {
            // Whatever the socket is worth, the next command makes a new connection.
            self.forget().await;
            return Err(self.lost(&output.stderr));
        }
        Ok(output)
    }

    /// Ends the master if it answers, and removes its socket if it does not.
    async fn forget(&self) {
        let asked = self
            .ssh()
            .args(["-O", "exit", "--", &self.address])
            .run(Some(Duration::from_secs(5)), None)
            .await;
        tracing::debug!(node = self.node, ?asked, "connection closed");
        let removed = std::fs::remove_file(self.socket());
        tracing::trace!(node = self.node, ?removed, "socket removed");
    }

    fn explain(&self, command: &RemoteCommand, error: &ProcessError) -> HostError {
        match error {
            ProcessError::Deadline(deadline) => HostError::Deadline {
                node: self.node.clone(),
                command: command.argv.join(" "),
                deadline: *deadline,
            },
            ProcessError::Spawn { .. } => self.unreachable(&kato_shared::chain::Chain(error).to_string()),
            ProcessError::Read { .. } | ProcessError::Unread => {
                self.lost(&kato_shared::chain::Chain(error).to_string())
            }
        }
    }

    fn unreachable(&self, detail: &str) -> HostError {
        HostError::Unreachable {
            node: self.node.clone(),
            address: self.address.clone(),
            detail: detail.to_owned(),
        }
    }

    fn lost(&self, detail: &str) -> HostError {
        let detail = if detail.is_empty() {
            "ssh said nothing"
        } else {
            detail
        };
        HostError::Lost {
            node: self.node.clone(),
            address: self.address.clone(),
            detail: detail.to_owned(),
        }
    }
}

#[async_trait]
impl Host for SshHost {
    fn node(&self) -> &str {
        &self.node
    }

    async fn run(&self, command: &RemoteCommand) -> Result<Output, HostError> {
        self.start(command, None).await
    }

    async fn lines(&self, command: &RemoteCommand, lines: mpsc::Sender<String>) -> Result<Output, HostError> {
        self.start(command, Some(lines)).await
    }

    async fn close(&self) {
        if self.socket().exists() {
            self.forget().await;
        }
    }
}

/// Options of a client: over the socket or not at all.
const CLIENT_ARGS: [&str; 9] = [
    "-T",
    "-o",
    "BatchMode=yes",
    "-o",
    "ControlMaster=no",
    "-o",
    "ProxyJump=none",
    "-o",
    "ProxyCommand=false",
];

fn master_args(settings: &SshSettings, ask: bool, log: &Path) -> Vec<String> {
    let keep_alive = settings.keep_alive.get().as_secs();
    let mut args: Vec<String> = ["-M", "-f", "-N", "-T", "-E"].map(String::from).to_vec();
    args.push(log.display().to_string());
    let mut option = |text: String| args.extend(["-o".to_owned(), text]);
    option(format!("ControlPersist={IDLE_SECS}s"));
    option(format!(
        "ConnectTimeout={}",
        settings.connect_timeout.get().as_secs().max(1)
    ));
    option(format!(
        "ServerAliveInterval={}",
        (keep_alive / u64::from(MISSED_ANSWERS)).max(1)
    ));
    option(format!("ServerAliveCountMax={MISSED_ANSWERS}"));
    // A key that is not known is not compared by anybody in the middle of an upgrade.
    option("StrictHostKeyChecking=yes".into());
    if !ask {
        option("BatchMode=yes".into());
    }
    if !settings.user.is_empty() {
        args.extend(["-l".to_owned(), settings.user.clone()]);
    }
    args
}

/// The command as the login shell on the node gets it.
fn remote_line(command: &RemoteCommand) -> Result<String, quote::NulByte> {
    let mut argv: Vec<String> = vec!["exec".into()];
    if !command.env.is_empty() {
        argv.push("env".into());
        argv.extend(command.env.iter().map(|(name, value)| format!("{name}={value}")));
    }
    argv.extend(REMOTE_SHELL.map(String::from));
    argv.extend(command.argv.iter().cloned());
    quote::line(&argv)
}

/// The last line of ssh's log, which names the cause.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    match text.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => line.trim().to_owned(),
        None => "ssh gave no reason".into(),
    }
}

#[cfg(test)]
mod tests;
