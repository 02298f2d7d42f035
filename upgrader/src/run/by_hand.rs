//! `kato node retire` and `kato node rejoin`: the platform's verbs, called by an operator.

use super::{Node, steps::retire};
use crate::{
    exit::{Exit, Failure},
    ownership::Ownership,
    platform::{PlatformError, Verb, Words},
    report::terminal,
};

/// Takes the node out of service. No record of ownership: an upgrade will leave it out of service.
///
/// # Errors
/// [`Failure`] when the platform cannot.
pub async fn retire(node: &Node) -> Result<Exit, Failure> {
    say(
        Verb::Retire,
        node.platform.call(Verb::Retire, &Words::default()).await,
    )
}

/// Puts the node back into service, and removes the record that an upgrade took it out.
///
/// # Errors
/// [`Failure`] when the platform cannot.
pub async fn rejoin(node: &Node) -> Result<Exit, Failure> {
    if Ownership::load(&node.paths)?.is_some() {
        retire::rejoin(node, &Words::default()).await?;
        return Ok(Exit::Done);
    }
    say(
        Verb::Rejoin,
        node.platform.call(Verb::Rejoin, &Words::default()).await,
    )
}

fn say(verb: Verb, outcome: Result<Option<String>, PlatformError>) -> Result<Exit, Failure> {
    match outcome? {
        Some(output) => {
            let output = output.trim_end();
            if !output.is_empty() {
                terminal::data(output);
            }
            Ok(Exit::Done)
        }
        None => Err(Failure::new(
            Exit::Usage,
            anyhow::anyhow!("the platform has no command for `{}`", verb.key()),
        )
        .hint(format!("set `[platform].{}` in the settings", verb.key()))),
    }
}
