//! Child processes: argv only, stdin closed, from the folder of the workspace.
//!
//! Deliberately absent: deadlines. These are builds and test runs that somebody watches; nextest ends a test that hangs.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, ExitStatus, Output, Stdio},
};

use anyhow::{Context, Result, ensure};

/// A program and its arguments, started in the folder of the workspace.
#[derive(Debug)]
pub(crate) struct Tool(Command);

impl Tool {
    /// `program`, looked up in `PATH` unless it is a path.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place in xtask that makes commands"
    )]
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.current_dir(crate::workspace()).stdin(Stdio::null());
        Self(command)
    }

    /// The cargo that runs this xtask.
    pub(crate) fn cargo() -> Self {
        Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.0.args(args);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    /// Runs with our stdout and stderr, and returns how it ended.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) fn status(mut self) -> Result<ExitStatus> {
        self.0
            .status()
            .with_context(|| format!("cannot start `{}`", self.line()))
    }

    /// Runs with our stdout and stderr.
    ///
    /// # Errors
    /// When the program cannot be started or ends with anything but success.
    pub(crate) fn run(self) -> Result<()> {
        let line = self.line();
        let status = self.status()?;
        ensure!(status.success(), "`{line}` ended with {status}");
        Ok(())
    }

    /// Runs and collects stdout and stderr.
    ///
    /// # Errors
    /// When the program cannot be started. How it ended is in the answer.
    pub(crate) fn output(mut self) -> Result<Output> {
        self.0
            .output()
            .with_context(|| format!("cannot start `{}`", self.line()))
    }

    /// Runs, shows stderr and returns stdout.
    ///
    /// # Errors
    /// When the program cannot be started, fails, or prints something that is not UTF-8.
    pub(crate) fn stdout(mut self) -> Result<String> {
        self.0.stderr(Stdio::inherit());
        let line = self.line();
        let output = self.output()?;
        ensure!(output.status.success(), "`{line}` ended with {}", output.status);
        String::from_utf8(output.stdout).with_context(|| format!("`{line}` did not print UTF-8"))
    }

    /// The command as a person would type it, for messages only.
    pub(crate) fn line(&self) -> String {
        let program = Path::new(self.0.get_program())
            .file_name()
            .unwrap_or(self.0.get_program());
        let mut line = program.to_string_lossy().into_owned();
        for arg in self.0.get_args() {
            line.push(' ');
            line.push_str(&arg.to_string_lossy());
        }
        line
    }
}

/// Whether cargo has the subcommand `name`; installs its crate from the registry when it has not.
///
/// # Errors
/// When the installation fails.
pub(crate) fn ensure_cargo_tool(name: &str) -> Result<()> {
    let there = Tool::cargo().args([name, "--version"]).output()?.status.success();
    if there {
        return Ok(());
    }
    let package = format!("cargo-{name}");
    println!("{package} is not installed; `cargo install --locked {package}` takes some minutes");
    // A target folder of its own: whoever shares ours by CARGO_TARGET_DIR would find it full of somebody else's crates.
    Tool::cargo()
        .args(["install", "--locked", "--quiet", &package])
        .run()
        .with_context(|| format!("{package} could not be installed"))
}
