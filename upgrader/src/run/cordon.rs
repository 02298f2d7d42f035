//! A node taken out of service together with the others of its batch, before any of them is emptied; and put back when its turn
//! did not come after all. Called by the orchestrator, not by people.
//!
//! The record of ownership says that a run did it, so that the run that follows finds it as its own, empties the node and puts it
//! back. Nothing is waited for here. A node that an operator or another tool has out of service is left to them.

use std::sync::Arc;

use super::{Node, steps::retire, upgrade};
use crate::{
    attempt::Attempt,
    audit::{AuditLog, Deed, Subject},
    exit::{Exit, Failure},
    ownership::{By, Ownership},
    platform::{self, Verb},
    report::terminal,
};

/// Takes the node out of service for `run`, if an upgrade of this node would.
///
/// # Errors
/// [`Failure`]: the platform's, after which the node is back in service; 25 while a run is at work.
pub async fn cordon(node: Node, run: String) -> Result<Exit, Failure> {
    if !is_drained(&node) {
        return Ok(Exit::Done);
    }
    let _lock = upgrade::hold(&node).await?;
    if Ownership::load(&node.paths)?.is_some() || is_out_by_others(&node).await {
        return Ok(Exit::Done);
    }
    let node = Arc::new(node);
    let deed = Deed::new(Subject::Retire, node.id.clone()).run(run.clone());
    let work = node.stop.on_signals(retire(&node, run));
    AuditLog::of(&node).around(deed, work).await?;
    Ok(Exit::Done)
}

async fn retire(node: &Node, run: String) -> Result<(), Failure> {
    let ownership = Ownership {
        run,
        since: node.clock.now(),
        by: By::Run,
    };
    ownership.save(&node.paths)?;
    let words = node.words();
    let asking = async { Ok(node.platform.call(Verb::Retire, &words).await?) };
    let Err(failure) = node.stop.at_once(asking).await else {
        return Ok(());
    };
    retire::put_back(node, &words, &mut |text| terminal::say(&text)).await?;
    Err(failure)
}

/// Puts the node back into service when [`cordon`] took it out and no upgrade has begun to change it.
///
/// # Errors
/// [`Failure`]: the platform's; 25 while a run is at work, which puts the node back itself.
pub async fn undo(node: Node) -> Result<Exit, Failure> {
    if Ownership::of_a_run(&node.paths)?.is_none() {
        return Ok(Exit::Done);
    }
    let _lock = upgrade::hold(&node).await?;
    // Half an upgrade is no place for work: its own end decides.
    if Attempt::load(&node.paths)?.is_some_and(|attempt| attempt.begun) {
        return Ok(Exit::Done);
    }
    let node = Arc::new(node);
    let words = node.words();
    let deed = Deed::new(Subject::Rejoin, node.id.clone());
    let mut tell = |text: String| terminal::say(&text);
    let work = node.stop.on_signals(retire::rejoin(&node, &words, &mut tell));
    AuditLog::of(&node).around(deed, work).await?;
    Ok(Exit::Done)
}

/// Whether the platform finds the node healthy; one that knows no such word finds nothing else.
///
/// # Errors
/// [`Failure`] with 20 and what the platform says.
pub async fn health(node: Node) -> Result<Exit, Failure> {
    match node.platform.call(Verb::Health, &node.words()).await {
        Ok(_said) => Ok(Exit::Done),
        Err(error) => {
            let mut failure = Failure::from(error);
            failure.exit = Exit::Preflight;
            Err(failure)
        }
    }
}

/// Whether an upgrade of this node takes it out of service.
pub(super) fn is_drained(node: &Node) -> bool {
    let drained = &node.settings.upgrade.retire_roles;
    let is_listed = |role: &String| drained.iter().any(|listed| listed.eq_ignore_ascii_case(role));
    node.platform.knows(Verb::Retire) && node.roles().iter().any(is_listed)
}

async fn is_out_by_others(node: &Node) -> bool {
    let found = platform::resident(node.platform.as_ref(), &node.words()).await;
    matches!(found, Ok(Some(resident)) if resident.retired == Some(true))
}
