//! A program that runs beside the test and ends with it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{command, wait};

/// Lines of stdout that may wait for somebody to read them.
const LINES: usize = 1024;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Background {
    child: Child,
    line: String,
    stdout: Receiver<String>,
    log: PathBuf,
}

impl Background {
    /// Starts `command`; its stderr goes to a file in `folder`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, folder: &Path) -> Result<Self> {
        let line = command::line(&command);
        let (file, log) = tempfile::Builder::new()
            .prefix("background-")
            .suffix(".log")
            .tempfile_in(folder)
            .and_then(|file| file.keep().map_err(|error| error.error))
            .context("cannot make a log file")?;
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        let (sender, stdout) = mpsc::sync_channel(LINES);
        let pipe = child.stdout.take().context("no stdout")?;
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.try_send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            line,
            stdout,
            log,
        })
    }

    /// The next line of its stdout.
    ///
    /// # Errors
    /// When none comes within `deadline`; its stderr is in the message.
    pub fn line(&self, deadline: Duration) -> Result<String> {
        match self.stdout.recv_timeout(deadline) {
            Ok(line) => Ok(line),
            Err(why) => bail!("no line from `{}` ({why}); it said:\n{}", self.line, self.log()),
        }
    }

    /// How it ended by itself.
    ///
    /// # Errors
    /// When it goes on for longer than `deadline`; its stderr is in the message.
    pub fn ended(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("end of `{}`", self.line);
        let ended = wait::until(&what, deadline, || self.child.try_wait().transpose());
        Ok(ended.with_context(|| self.log())??)
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
