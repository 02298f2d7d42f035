//! The program of a platform, as an adapter calls it: arguments, a deadline, and JSON back.

use std::{path::Path, time::Duration};

use serde::de::DeserializeOwned;

use super::{
    PlatformError, Verb, parse,
    process::{self, Children},
};

/// The program, called for one verb.
#[derive(Debug, Clone)]
pub struct Program {
    /// The adapter's name, which is that of its settings.
    adapter: &'static str,
    /// Its path or name, and what stands before all other arguments.
    argv: Vec<String>,
    children: Children,
}

impl Program {
    /// The program of `adapter` at `path`, or of that name in `PATH`; it runs as one of `children`.
    pub fn new(adapter: &'static str, path: &Path, children: &Children) -> Self {
        Self {
            adapter,
            argv: vec![path.display().to_string()],
            children: children.clone(),
        }
    }

    /// The same program with one more argument before all others.
    #[must_use]
    pub fn with(mut self, argument: String) -> Self {
        self.argv.push(argument);
        self
    }

    fn line<A: AsRef<str>>(&self, arguments: &[A]) -> Vec<String> {
        let more = arguments.iter().map(|argument| argument.as_ref().to_owned());
        self.argv.iter().cloned().chain(more).collect()
    }

    /// Runs it for `verb`; its output is of no interest unless it fails.
    ///
    /// # Errors
    /// [`PlatformError::Command`].
    pub async fn act<A: AsRef<str> + Sync>(
        &self,
        verb: Verb,
        arguments: &[A],
        limit: Duration,
    ) -> Result<(), PlatformError> {
        self.text(verb, arguments, limit).await.map(drop)
    }

    /// Runs it for `verb` and gives what it printed.
    ///
    /// # Errors
    /// [`PlatformError::Command`].
    pub async fn text<A: AsRef<str> + Sync>(
        &self,
        verb: Verb,
        arguments: &[A],
        limit: Duration,
    ) -> Result<Vec<u8>, PlatformError> {
        let argv = self.line(arguments);
        tracing::info!(verb = verb.key(), ?argv, "asking the platform");
        let children = self.children.on(&verb.purpose()).with(verb.services());
        process::answer(&children, &argv, limit)
            .await
            .map_err(|source| PlatformError::Command {
                verb: verb.key(),
                setting: format!("[platform.{}]", self.adapter),
                source,
            })
    }

    /// Runs it for `verb` and reads the JSON that it printed; `expected` names that in errors.
    ///
    /// # Errors
    /// [`PlatformError::Command`], [`PlatformError::Output`].
    pub async fn json<T: DeserializeOwned>(
        &self,
        verb: Verb,
        arguments: &[&str],
        limit: Duration,
        expected: &'static str,
    ) -> Result<T, PlatformError> {
        let output = self.text(verb, arguments, limit).await?;
        parse(verb, &output, expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Failure;

    #[tokio::test]
    async fn an_adapters_program_that_fails_names_the_adapters_settings() {
        let program = Program::new("docker", Path::new("/nonexistent/docker"), &Children::default());
        let limit = Duration::from_secs(10);
        let error = program.act(Verb::Retire, &["stop"], limit).await.unwrap_err();
        let hint = Failure::from(error).hint.unwrap_or_default();
        assert!(hint.contains("`[platform.docker]` in kato.toml"), "{hint}");
    }
}
