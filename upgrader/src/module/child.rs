//! Child processes of modules: what they are told in their environment, and what becomes of their words.
//!
//! The environment is given as arguments of `env`, so that no `sudo` in between strips it. What a command writes goes to the
//! log; of one that fails the last lines are in the error.

use std::time::Duration;

use tokio::time::Instant;

use super::ModuleError;
use crate::platform::process::{self, Children, ProcessError};

/// A command of a module: program and arguments with variables in front.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Line {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Program and arguments.
    pub argv: Vec<String>,
}

impl Line {
    /// `argv` without variables.
    pub fn new<A: Into<String>>(argv: impl IntoIterator<Item = A>) -> Self {
        Self {
            env: Vec::new(),
            argv: argv.into_iter().map(Into::into).collect(),
        }
    }

    /// The same with more arguments.
    #[must_use]
    pub fn with<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.argv.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Runs it as one of `children` and gives what it wrote to stdout.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn ask(&self, children: &Children, limit: Duration) -> Result<String, ProcessError> {
        if self.env.is_empty() {
            return process::run(children, &self.argv, None, limit).await;
        }
        let whole: Vec<String> = std::iter::once("env".to_owned())
            .chain(self.env.iter().cloned())
            .chain(self.argv.iter().cloned())
            .collect();
        process::run(children, &whole, None, limit).await
    }

    /// Runs it as one of `children` until `deadline` for the purpose `what`, and logs what it wrote.
    ///
    /// # Errors
    /// [`ModuleError::Command`] with the last lines of its output.
    pub async fn run(
        &self,
        children: &Children,
        what: &str,
        deadline: Instant,
    ) -> Result<String, ModuleError> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let output = self
            .ask(&children.on(what), limit)
            .await
            .map_err(|source| ModuleError::Command {
                what: what.to_owned(),
                source,
            })?;
        tracing::info!(command = ?self.argv, %output, "{what}: done");
        Ok(output)
    }
}
