//! Commands over an adapter: a verb with a command in `[platform]` is that command, every other one is the adapter's.

use async_trait::async_trait;

use super::{ExecPlatform, Platform, PlatformError, Verb, Words};

/// An adapter of which single verbs are replaced.
pub(super) struct Overridden {
    pub(super) commands: ExecPlatform,
    pub(super) adapter: Box<dyn Platform>,
}

#[async_trait]
impl Platform for Overridden {
    fn knows(&self, verb: Verb) -> bool {
        self.commands.knows(verb) || self.adapter.knows(verb)
    }

    async fn call(&self, verb: Verb, words: &Words) -> Result<Option<String>, PlatformError> {
        if self.commands.knows(verb) {
            self.commands.call(verb, words).await
        } else {
            self.adapter.call(verb, words).await
        }
    }

    async fn start(&self) -> Result<(), PlatformError> {
        // What a command did to retire the node, the adapter cannot know.
        if self.commands.knows(Verb::Retire) {
            return Ok(());
        }
        self.adapter.start().await
    }

    fn lacks(&self, role: &str) -> Option<&'static str> {
        if self.commands.knows(Verb::Retire) {
            return None;
        }
        self.adapter.lacks(role)
    }
}
