//! One node by itself: Core is not upgraded before the others, because an old node may not work with a new Core.
//!
//! Only Core has an inventory; where there is none, or this is another node, there is nobody to ask.

use std::path::Path;

use anyhow::anyhow;
use kato_shared::release::Version;

use super::{
    AGAIN, connect,
    facts::{self, Answers},
    inventory::Inventory,
    own_id,
};
use crate::{
    exit::{Exit, Failure},
    settings::Settings,
};

/// Refuses when this is Core and other nodes are not at `target` yet.
///
/// # Errors
/// [`Failure`]: 20 with the nodes that are behind or gave no answer, 2 when the inventory is wrong.
pub async fn refuse_core(settings: &Settings, config: &Path, target: &Version) -> Result<(), Failure> {
    if !Inventory::path_beside(config).exists() {
        return Ok(());
    }
    let inventory = super::load(settings, config)?;
    let core = &inventory.core().id;
    if own_id(settings) != *core {
        return Ok(());
    }
    let mut nodes = connect::ready(&inventory, settings, config).await?;
    nodes.remove(core);
    let answers = facts::gather(nodes.values()).await;
    connect::close(&nodes).await;
    let behind = behind(&answers, target);
    if behind.is_empty() {
        return Ok(());
    }
    let what = anyhow!(
        "this is Core, and {} of {} other nodes are behind {target}: {}",
        behind.len(),
        nodes.len(),
        behind.join(", ")
    );
    Err(Failure::new(Exit::Preflight, what).hint(format!(
        "`{AGAIN}` upgrades them first and Core last; `--force` upgrades Core alone all the same"
    )))
}

/// The nodes that are not at `target` or beyond, with what is known of them.
fn behind(answers: &Answers, target: &Version) -> Vec<String> {
    let answered = answers
        .facts
        .iter()
        .filter_map(|(id, status)| match &status.version {
            Some(version) if version >= target => None,
            Some(version) => Some(format!("{id} ({version})")),
            None => Some(format!("{id} (no release)")),
        });
    let silent = answers
        .problems
        .iter()
        .map(|found| format!("{} (no answer: {})", found.node, found.problem));
    answered.chain(silent).collect()
}
