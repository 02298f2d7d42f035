//! A node on this machine: Core itself, or another root that has its own settings file.
//!
//! The program is started without a shell and with an environment of its own, so that a node behaves the same whether it is
//! reached here or over ssh.

use std::path::Path;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{
    Host, HostError, Output, RemoteCommand,
    process::{ProcessError, Program},
};

/// A node on this machine.
#[derive(Debug, Clone)]
pub struct LocalHost {
    node: String,
    /// What a login would give: `PATH` and `HOME`.
    base_env: Vec<(String, String)>,
}

impl LocalHost {
    /// The node `node`; `base_env` is what a login on it would set, at least `PATH`.
    pub fn new(node: &str, base_env: Vec<(String, String)>) -> Self {
        Self {
            node: node.to_owned(),
            base_env,
        }
    }

    async fn start(
        &self,
        command: &RemoteCommand,
        lines: Option<mpsc::Sender<String>>,
    ) -> Result<Output, HostError> {
        let Some((program, args)) = command.argv.split_first() else {
            return Err(HostError::Unsendable {
                node: self.node.clone(),
                detail: "it is empty".into(),
            });
        };
        let env = self.base_env.iter().chain(&command.env).cloned();
        Program::new(Path::new(program))
            .args(args)
            .only_env(env)
            .input(command.input.clone())
            .run(command.deadline, lines)
            .await
            .map_err(|error| self.explain(command, &error))
    }

    fn explain(&self, command: &RemoteCommand, error: &ProcessError) -> HostError {
        let node = self.node.clone();
        match error {
            ProcessError::Deadline(deadline) => HostError::Deadline {
                node,
                command: command.argv.join(" "),
                deadline: *deadline,
            },
            ProcessError::Spawn { .. } => HostError::Unreachable {
                node,
                address: "this machine".into(),
                detail: kato_shared::chain::Chain(error).to_string(),
            },
            ProcessError::Read { .. } | ProcessError::Unread => HostError::Lost {
                node,
                address: "this machine".into(),
                detail: kato_shared::chain::Chain(error).to_string(),
            },
        }
    }
}

#[async_trait]
impl Host for LocalHost {
    fn node(&self) -> &str {
        &self.node
    }

    async fn run(&self, command: &RemoteCommand) -> Result<Output, HostError> {
        self.start(command, None).await
    }

    async fn lines(&self, command: &RemoteCommand, lines: mpsc::Sender<String>) -> Result<Output, HostError> {
        self.start(command, Some(lines)).await
    }

    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::Ended;

    fn command(argv: &[&str]) -> RemoteCommand {
        RemoteCommand {
            argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
            env: vec![("GIVEN".into(), "a value".into())],
            deadline: None,
            input: None,
        }
    }

    fn host() -> LocalHost {
        LocalHost::new("w1", vec![("PATH".into(), "/usr/bin:/bin".into())])
    }

    #[tokio::test]
    async fn r13_the_environment_is_what_was_given_and_nothing_else() {
        let output = host().run(&command(&["/usr/bin/env"])).await.unwrap();
        assert_eq!(output.ended, Ended::Exit(0));
        let mut lines: Vec<_> = output.stdout.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["GIVEN=a value", "PATH=/usr/bin:/bin"]);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let error = host().run(&command(&["/nonexistent/kato"])).await.unwrap_err();
        assert!(matches!(&error, HostError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("/nonexistent/kato"), "{error}");
    }
}
