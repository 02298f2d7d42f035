//! One command on one node of the inventory: what `--node` does. The node's own `kato` does the work and its words are passed on.

use std::{path::Path, time::Duration};

use anyhow::anyhow;

use super::{
    connect,
    inventory::{Inventory, InventoryNode},
};
use crate::{
    exit::{Exit, Failure},
    report::terminal,
    settings::Settings,
    ssh::{Ended, HostError},
};

/// How long the connection may add to what the command itself may take.
const CONNECTION: Duration = Duration::from_secs(60);

/// The node whose id or address is `which`.
///
/// # Errors
/// [`Failure`] with 2 and the nodes that there are.
pub fn find<'i>(inventory: &'i Inventory, which: &str) -> Result<&'i InventoryNode, Failure> {
    let is_meant = |node: &&InventoryNode| node.id == which || node.address == which;
    inventory.nodes.iter().find(is_meant).ok_or_else(|| {
        let known: Vec<_> = inventory.nodes.iter().map(|node| node.id.as_str()).collect();
        let problem = anyhow!(
            "the inventory has no node with the id or address `{which}`, only {}",
            known.join(", ")
        );
        Failure::new(Exit::Usage, problem).hint("name one of them with `--node`")
    })
}

/// Runs `kato` with `arguments` on the node whose id or address is `which`; it may take as long as `limit`.
///
/// # Errors
/// [`Failure`]: 2 when the inventory has no such node, 75 when the node cannot be reached or its answer was lost.
pub async fn run(
    settings: &Settings,
    config: &Path,
    which: &str,
    arguments: &[&str],
    limit: Duration,
) -> Result<Exit, Failure> {
    let inventory = super::load(settings, config)?;
    let id = find(&inventory, which)?.id.clone();
    let nodes = connect::ready(&inventory, settings, config).await?;
    let outcome = match nodes.get(&id) {
        Some(node) => node.run(arguments, limit + CONNECTION).await,
        None => Err(HostError::Unsendable {
            node: id.clone(),
            detail: "it has no connection".into(),
        }),
    };
    connect::close(&nodes).await;
    let output = outcome.map_err(|error| {
        Failure::new(Exit::TryAgain, error).hint(format!(
            "look at {id}: what was begun there goes on or is put right by the same command"
        ))
    })?;
    for line in output.stdout.lines() {
        terminal::data(line);
    }
    for line in output.stderr.lines() {
        terminal::say(&format!("{id}: {line}"));
    }
    match output.ended {
        Ended::Exit(code) => match Exit::from_code(code) {
            Some(exit) => Ok(exit),
            None => Err(
                Failure::new(Exit::Failed, anyhow!("kato on {id} ended with exit code {code}"))
                    .hint("see what it wrote above"),
            ),
        },
        Ended::Signal(signal) => Err(Failure::new(
            Exit::TryAgain,
            anyhow!("kato on {id} was killed by signal {signal}"),
        )
        .hint("run the same command again")),
    }
}
