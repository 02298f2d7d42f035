//! The generic adapter: one command per verb, from `[platform]` in the settings.

use async_trait::async_trait;

use super::{
    Platform, PlatformError, Verb, Words,
    process::{self, Children},
};
use crate::{
    paths::NodePaths,
    settings::{PlatformCommand, PlatformSettings},
};

/// A platform whose verbs are commands.
#[derive(Debug, Clone)]
pub struct ExecPlatform {
    commands: PlatformSettings,
    node: String,
    root: String,
    children: Children,
}

impl ExecPlatform {
    /// The platform of the node `node`; its commands run as some of `children`.
    pub fn new(commands: PlatformSettings, node: &str, paths: &NodePaths, children: &Children) -> Self {
        Self {
            commands,
            node: node.to_owned(),
            root: paths.root().display().to_string(),
            children: children.clone(),
        }
    }

    const fn command(&self, verb: Verb) -> Option<&PlatformCommand> {
        match verb {
            Verb::Retire => self.commands.retire.as_ref(),
            Verb::Resident => self.commands.resident.as_ref(),
            Verb::Force => self.commands.force.as_ref(),
            Verb::Rejoin => self.commands.rejoin.as_ref(),
            Verb::Restart => self.commands.restart.as_ref(),
            Verb::Reboot => self.commands.reboot.as_ref(),
            Verb::Health => self.commands.health.as_ref(),
            Verb::Version => self.commands.version.as_ref(),
            Verb::Backup => self.commands.backup.as_ref(),
            Verb::Restore => self.commands.restore.as_ref(),
            Verb::Capacity => self.commands.capacity.as_ref(),
        }
    }

    fn argv(&self, command: &PlatformCommand, words: &Words) -> Vec<String> {
        let words = [
            ("node", self.node.as_str()),
            ("root", self.root.as_str()),
            ("version", words.version.as_str()),
            ("dir", words.dir.as_str()),
            ("services", words.services.as_str()),
            ("roles", words.roles.as_str()),
        ];
        command
            .argv
            .iter()
            .map(|argument| replace(argument, &words))
            .collect()
    }
}

/// Replaces `{name}` in one pass, so that a value that looks like a placeholder is not replaced again.
fn replace(argument: &str, words: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(open) = rest.find('{') {
        text.push_str(&rest[..open]);
        rest = &rest[open..];
        let known = words.iter().find_map(|(name, value)| {
            rest[1..]
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('}'))
                .map(|rest| (value, rest))
        });
        // A brace that begins no known word stands for itself.
        let (value, after) = known.unwrap_or((&"{", &rest[1..]));
        text.push_str(value);
        rest = after;
    }
    text + rest
}

#[async_trait]
impl Platform for ExecPlatform {
    fn knows(&self, verb: Verb) -> bool {
        self.command(verb).is_some()
    }

    async fn call(&self, verb: Verb, words: &Words) -> Result<Option<String>, PlatformError> {
        let Some(command) = self.command(verb) else {
            return Ok(None);
        };
        let argv = self.argv(command, words);
        tracing::info!(verb = verb.key(), ?argv, "asking the platform");
        let children = self.children.on(&verb.purpose()).with(verb.services());
        process::run(&children, &argv, None, command.timeout.get())
            .await
            .map(Some)
            .map_err(|source| PlatformError::Command {
                verb: verb.key(),
                setting: format!("[platform].{}", verb.key()),
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_once_and_nothing_else_is() {
        let words = [("node", "n{dir}1"), ("dir", "/tmp/a b")];
        assert_eq!(replace("--id={node}", &words), "--id=n{dir}1");
        assert_eq!(replace("{dir}/{dir}", &words), "/tmp/a b//tmp/a b");
        assert_eq!(replace("{unknown} {", &words), "{unknown} {");
    }
}
