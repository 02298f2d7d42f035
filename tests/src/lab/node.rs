//! One node, as a test handles it.

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};

use super::{Background, Ended, Lab, PATIENCE, inside::Order, keys, plan::Place};
use crate::{command, wait};

/// A boot takes about a second; a loaded machine takes longer.
const BOOT: Duration = Duration::from_secs(60);

/// A machine of the lab. Everything on it can be done while it is up; [`Node::boot`] when it is down.
#[derive(Debug, Clone, Copy)]
pub struct Node<'lab> {
    lab: &'lab Lab,
    place: &'lab Place,
}

impl<'lab> Node<'lab> {
    pub(crate) fn new(lab: &'lab Lab, place: &'lab Place) -> Self {
        Self { lab, place }
    }

    /// The hostname.
    pub fn name(&self) -> &'lab str {
        self.place.name()
    }

    /// The address on the lab's network.
    pub fn address(&self) -> Ipv4Addr {
        self.place.address()
    }

    // === programs ===

    /// Runs `argv` as root in the node, directly.
    ///
    /// # Errors
    /// When the node is down, or the program cannot start or does not end within a minute. How it ended is in the answer.
    pub fn exec(&self, argv: &[&str]) -> Result<Output> {
        self.exec_within(PATIENCE, argv, &[])
    }

    /// [`Node::exec`] with another deadline and with input.
    ///
    /// # Errors
    /// As [`Node::exec`]. A program that does not end in time is killed; what it has detached from itself goes on.
    pub fn exec_within(&self, deadline: Duration, argv: &[&str], stdin: &[u8]) -> Result<Output> {
        command::run(self.inside(argv)?, deadline, stdin)
    }

    /// Runs `argv` and wants success; returns its stdout.
    ///
    /// # Errors
    /// As [`Node::exec`], and when it fails; its stderr is in the message.
    pub fn ok(&self, argv: &[&str]) -> Result<String> {
        let line = format!("{}: {}", self.name(), argv.join(" "));
        command::success(&line, self.exec(argv)?)
    }

    /// Runs `argv` through the node's sshd, as root with the lab's key. Each argument arrives as it stands.
    ///
    /// # Errors
    /// When it does not end within a minute. 255 in the answer says that ssh itself failed.
    pub fn ssh(&self, argv: &[&str]) -> Result<Output> {
        command::run(self.ssh_command(argv)?, PATIENCE, &[])
    }

    /// Starts `argv` in the node; it ends when the answer is dropped or the node ends.
    ///
    /// # Errors
    /// When the node is down or the program cannot start.
    pub fn spawn(&self, argv: &[&str]) -> Result<Background> {
        Background::start(self.inside(argv)?, self.lab.folder())
    }

    // === files ===

    /// Writes a file, with the folders above it. `mode` is its permission bits.
    ///
    /// # Errors
    /// When the disk is full or the path cannot be written.
    pub fn put(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let folder = Path::new(path)
            .parent()
            .and_then(Path::to_str)
            .context("expected the path of a file")?;
        self.ok(&["mkdir", "-p", folder])?;
        let argv = [
            "dd",
            &format!("of={path}"),
            "bs=1M",
            "iflag=fullblock",
            "status=none",
        ];
        let output = self.exec_within(PATIENCE, &argv, bytes)?;
        command::success(&format!("{}: write {path}", self.name()), output)?;
        self.ok(&["chmod", &format!("{mode:o}"), path])?;
        Ok(())
    }

    /// The content of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.exec(&["cat", path])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{}: read {path}: {}",
            self.name(),
            said.trim_end()
        );
        Ok(output.stdout)
    }

    /// Whether something stands at `path`; a symbolic link to nothing does.
    ///
    /// # Errors
    /// When the node is down.
    pub fn exists(&self, path: &str) -> Result<bool> {
        let found = self.exec(&["find", path, "-maxdepth", "0"])?;
        Ok(found.status.success())
    }

    /// The node's root as a path of the machine, to walk over many files. Absolute symbolic links below it lead astray: read
    /// them, do not follow them. Valid until the node ends.
    ///
    /// # Errors
    /// When the node is down.
    pub fn root(&self) -> Result<PathBuf> {
        Ok(self.lab.inside.node_root(self.pid()?))
    }

    // === network ===

    /// A connection to a port of the node, made inside it: loopback listeners are reached too.
    ///
    /// # Errors
    /// When the node is down or nobody listens.
    pub fn connect(&self, address: SocketAddr) -> Result<TcpStream> {
        self.lab
            .inside
            .in_node_network(self.pid()?, move || {
                TcpStream::connect_timeout(&address, Duration::from_secs(5))
            })
            .with_context(|| format!("{}: cannot connect to {address}", self.name()))
    }

    /// Takes the cable out.
    ///
    /// # Errors
    /// When the node is down.
    pub fn cut(&self) -> Result<()> {
        self.set_link("down")
    }

    /// Puts the cable back.
    ///
    /// # Errors
    /// When the node is down.
    pub fn heal(&self) -> Result<()> {
        self.set_link("up")
    }

    fn set_link(&self, state: &str) -> Result<()> {
        let output = self
            .lab
            .on_host(&["ip", "link", "set", &self.place.link(), state])?;
        command::success("ip link set", output).map(drop)
    }

    // === power ===

    /// Takes the power away: every process of the node ends at once. Returns when it is down.
    ///
    /// # Errors
    /// When the node is down already.
    pub fn crash(&self) -> Result<()> {
        let output = self.lab.on_host(&["kill", "-KILL", &self.pid()?.to_string()])?;
        command::success("kill", output)?;
        self.wait_ended(Ended::Killed)
    }

    /// Powers a node on that is down, and waits until it answers over ssh.
    ///
    /// # Errors
    /// When it is up, or does not come up.
    pub fn boot(&self) -> Result<()> {
        ensure!(
            self.lab.watch.node(self.name()).pid.is_none(),
            "{} is up",
            self.name()
        );
        self.lab.order(&Order::Boot {
            node: self.name().to_owned(),
        })?;
        self.wait_reachable()
    }

    /// How often the node has booted.
    pub fn boots(&self) -> u32 {
        self.lab.watch.node(self.name()).boots
    }

    /// Waits until the node has booted `count` times in all and answers over ssh again.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub fn wait_boots(&self, count: u32) -> Result<()> {
        let what = format!("has booted {count} times");
        self.lab
            .watch
            .wait_for(self.name(), &what, BOOT, |state| state.boots >= count)?;
        self.wait_reachable()
    }

    /// Waits until the node is down and has ended in the way `how`.
    ///
    /// # Errors
    /// When it has not within a minute.
    pub fn wait_ended(&self, how: Ended) -> Result<()> {
        self.lab
            .watch
            .wait_for(self.name(), &format!("has ended: {how:?}"), BOOT, |state| {
                state.pid.is_none() && state.ended == Some(how)
            })
    }

    /// Waits until the node runs and its sshd answers.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub fn wait_reachable(&self) -> Result<()> {
        let mut said = String::new();
        let answers = wait::until(&format!("{} answers over ssh", self.name()), BOOT, || {
            match self.ssh(&["true"]) {
                Ok(output) if output.status.success() => return Some(Ok(())),
                Ok(output) => said = String::from_utf8_lossy(&output.stderr).into_owned(),
                Err(error) => said = format!("{error:#}"),
            }
            // Its init does not end by itself unless something is wrong; waiting longer would not help.
            let state = self.lab.watch.node(self.name());
            let broken = state.pid.is_none() && state.ended == Some(Ended::Exited);
            broken.then(|| Err(anyhow!("{} has ended by itself", self.name())))
        });
        answers
            .and_then(|answer| answer)
            .with_context(|| format!("ssh said: {}", said.trim_end()))
    }

    // === inside ===

    fn pid(&self) -> Result<u32> {
        self.lab
            .watch
            .node(self.name())
            .pid
            .with_context(|| format!("{} is down", self.name()))
    }

    fn inside(&self, argv: &[&str]) -> Result<Command> {
        Ok(self.lab.inside.node(self.pid()?, argv))
    }

    fn ssh_command(&self, argv: &[&str]) -> Result<Command> {
        let plan = &self.lab.plan;
        let text = |path: PathBuf| {
            path.into_os_string()
                .into_string()
                .ok()
                .context("the temporary folder is not UTF-8")
        };
        let key = text(keys::key(plan))?;
        let known = format!("UserKnownHostsFile={}", text(keys::known_hosts(plan))?);
        let user = format!("root@{}", self.address());
        let mut words = vec![
            "ssh",
            "-F",
            "none",
            "-i",
            &key,
            "-o",
            &known,
            "-o",
            "StrictHostKeyChecking=yes",
        ];
        words.extend([
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=3",
            "-o",
            "LogLevel=ERROR",
            &user,
            "--",
        ]);
        let quoted: Vec<String> = argv.iter().map(|word| quote(word)).collect();
        words.extend(quoted.iter().map(String::as_str));
        Ok(self.lab.inside.host(&words))
    }
}

/// `word` for the remote shell: ssh joins its arguments with blanks and lets a shell read them.
fn quote(word: &str) -> String {
    format!("'{}'", OsStr::new(word).to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for word in [
            "",
            "plain",
            "two words",
            "it's",
            "$HOME `x` \"y\" \\",
            "line\nbreak",
            "*",
        ] {
            let mut shell = command::new("sh");
            shell.args(["-c", &format!("printf %s {}", quote(word))]);
            let output = command::run(shell, PATIENCE, &[]).unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
