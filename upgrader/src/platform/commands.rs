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
}
