//! `kato node retire` and `kato node rejoin`: a node taken out of service by an operator, for as long as the operator wants.
//!
//! The record says "by hand": an upgrade that comes by leaves the node out of service afterwards. A node that does not become
//! empty is put back at once, as in an upgrade.

use std::sync::Arc;

use kato_shared::shutdown;
use serde::Serialize;

use super::{Node, orphans, status::Restart, steps::retire, upgrade};
use crate::{
    attempt::Attempt,
    audit::{AuditLog, Deed, Subject},
    exit::{Exit, Failure},
    lock::Lock,
    ownership::{By, Ownership},
    platform::{
        Resident, Verb,
        evacuate::{Emptied, EvacuateError, Rules, evacuate},
    },
    report::terminal,
};

/// The version of the JSON form.
const SCHEMA: u32 = 1;

/// What was done, for programs.
#[derive(Debug, Serialize)]
struct Done<'a> {
    schema: u32,
    node: &'a str,
    out_of_service: bool,
    /// What was still on the node when it was retired; absent where the platform does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<Resident>,
}

/// Takes the node out of service and waits until it is empty.
///
/// # Errors
/// [`Failure`]: 20 when it does not become empty (it is back in service then), 25 while an upgrade is at work.
pub async fn retire(node: Node, rules: Rules, json: bool) -> Result<Exit, Failure> {
    knows(&node, Verb::Retire)?;
    let node = Arc::new(node);
    let (id, _lock) = lock(&node).await?;
    let deed = Deed::new(Subject::Retire, node.id.clone()).run(id.clone());
    let work = out_of_service(&node, id, rules, json);
    AuditLog::of(&node).around(deed, work).await
}

async fn out_of_service(node: &Node, id: String, rules: Rules, json: bool) -> Result<Exit, Failure> {
    match Ownership::load(&node.paths)? {
        Some(ownership) if ownership.by == By::Hand => {}
        // What a killed upgrade has retired is the operator's from now on.
        _ => Ownership {
            run: id,
            since: node.clock.now(),
            by: By::Hand,
        }
        .save(&node.paths)?,
    }
    let stop = node.stop.token();
    let mut tell = |found: &Resident| terminal::say(&format!("retire: {}", retire::progress(found)));
    let words = node.words();
    let outcome = tokio::select! {
        outcome = evacuate(node.platform.as_ref(), &words, rules, stop, &mut tell) => outcome,
        _signals = shutdown::on_signals(stop.clone()) => Err(EvacuateError::Stopped),
    };
    match outcome {
        Ok(emptied) => {
            let left = match emptied {
                Emptied::Empty | Emptied::Forced(_) => Some(Resident::default()),
                Emptied::Left(found) => Some(found),
                Emptied::Uncounted => None,
            };
            say(node, true, left, json);
            Ok(Exit::Done)
        }
        Err(error) => {
            let failure = retire::failure(error);
            // At once, before anything else: a node that nobody is working on belongs into service.
            if let Err(also) = retire::put_back(node, &words, &mut |text| terminal::say(&text)).await {
                terminal::say(&format!("warning: {}", terminal::describe(&also)));
            }
            Err(failure)
        }
    }
}

/// Puts the node back into service, whoever took it out, and removes the record.
///
/// # Errors
/// [`Failure`] when the platform cannot; 25 while an upgrade is at work; 20 while one waits for the restart of the machine, unless
/// `is_forced`.
pub async fn rejoin(node: Node, is_forced: bool, json: bool) -> Result<Exit, Failure> {
    knows(&node, Verb::Rejoin)?;
    let node = Arc::new(node);
    let (id, _lock) = lock(&node).await?;
    amid_an_upgrade(&node, is_forced)?;
    let deed = Deed::new(Subject::Rejoin, node.id.clone())
        .run(id)
        .forced(is_forced);
    let words = node.words();
    // It is all that was asked for, and the next try is the same.
    let mut tell = |text: String| terminal::say(&text);
    let work = node.stop.at_once(retire::put_back(&node, &words, &mut tell));
    let work = node.stop.on_signals(work);
    AuditLog::of(&node).around(deed, work).await?;
    say(&node, false, None, json);
    Ok(Exit::Done)
}

/// What is said to an operator who puts back a node in the middle of an upgrade. One that waits for its restart is out of service on
/// purpose, and its run puts it back when it has shown that it is well: that is refused. One whose run has failed or was cut off is
/// owed to the operator. A record that cannot be read keeps nobody from putting a node back.
fn amid_an_upgrade(node: &Node, is_forced: bool) -> Result<(), Failure> {
    let attempt = Attempt::load(&node.paths).ok().flatten();
    let Some(attempt) = attempt.filter(|attempt| attempt.begun) else {
        return Ok(());
    };
    let aim = attempt.aim();
    if is_forced || Restart::of(node, &attempt).is_none() {
        let command = attempt.command();
        terminal::say(&format!(
            "warning: the upgrade to {aim} is not finished on this node; `{command}` goes on with it"
        ));
        return Ok(());
    }
    let problem = anyhow::anyhow!(
        "the upgrade to {aim} stands at the restart of the machine, and this node is out of service for it"
    );
    Err(Failure::new(Exit::Preflight, problem).hint(
        "nothing was changed; after the restart `kato node upgrade --resume` puts it back when it has shown that it is well; \
         `kato node rejoin --force` puts it back as it is",
    ))
}

/// An upgrade that is at work decides by itself when its node is in service.
async fn lock(node: &Node) -> Result<(String, Lock), Failure> {
    let id = upgrade::new_run_id(node);
    let lock = orphans::lock(node, &id).await?.said();
    crate::restore::settle(&node.paths)?;
    Ok((id, lock))
}

fn knows(node: &Node, verb: Verb) -> Result<(), Failure> {
    if node.platform.knows(verb) {
        return Ok(());
    }
    let problem = anyhow::anyhow!("the platform has no command for `{}`", verb.key());
    Err(Failure::new(Exit::Usage, problem).hint(format!(
        "set `[platform].{}`, or an adapter that knows it, in the settings",
        verb.key()
    )))
}

fn say(node: &Node, out_of_service: bool, left: Option<Resident>, json: bool) {
    if json {
        terminal::json(&Done {
            schema: SCHEMA,
            node: &node.id,
            out_of_service,
            left,
        });
    } else if out_of_service {
        let what = match &left {
            Some(found) if found.count > 0 => format!("; {}", retire::progress(found)),
            Some(_empty) => ", nothing runs on it".into(),
            None => String::new(),
        };
        terminal::data(&format!("{} is out of service{what}", node.id));
    } else {
        terminal::data(&format!("{} is in service", node.id));
    }
}
