//! `retire` and `rejoin`: the node is taken out of service before it is changed, and put back whatever happens.
//!
//! The record of ownership is written before the platform is asked. A node that is out of service without our record was
//! taken out by somebody else and stays out. "Empty" is what the independent count says twice in a row, never the retire
//! command's own word.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::{
    exit::{Exit, Failure},
    failpoint,
    ownership::Ownership,
    platform::{self, Resident, Verb, Words},
    report::terminal,
    run::{
        Run,
        context::Node,
        engine::stopped,
        event::EventKind,
        step::{Acted, Need, Step},
    },
};

/// How often the count is asked for.
const POLL: Duration = Duration::from_millis(250);
/// How many times in a row the count must be zero.
const CONFIRMATIONS: u32 = 2;

pub(super) struct Retire;

#[async_trait]
impl Step for Retire {
    fn name(&self) -> String {
        "retire".into()
    }

    async fn precheck(&self, run: &mut Run) -> Result<Need, Failure> {
        if run.ownership()?.is_some() {
            return Ok(Need::Act);
        }
        let words = run.words();
        let resident = platform::resident(run.node.platform.as_ref(), &words).await;
        Ok(match resident {
            Ok(Some(Resident {
                retired: Some(true), ..
            })) => Need::Skip("somebody else took the node out of service; it stays out afterwards".into()),
            _ => Need::Act,
        })
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        if run.ownership()?.is_none() {
            let ownership = Ownership {
                run: run.id.clone(),
                since: run.node.clock.now(),
            };
            ownership.save(&run.node.paths)?;
        }
        let outcome = evacuate(run).await;
        match outcome {
            Ok(()) => Ok(Acted::Done),
            // A half upgraded node is no place for work; the way out is forward.
            Err(failure) if run.attempt.begun && run.plan.is_tolerant && !run.stop.is_cancelled() => {
                run.warn(format!(
                    "{} (the node is half upgraded, so the upgrade goes on)",
                    terminal::describe(&failure)
                ));
                Ok(Acted::Done)
            }
            Err(failure) => Err(failure),
        }
    }

    async fn undo(&self, run: &mut Run) -> Result<(), Failure> {
        let node = std::sync::Arc::clone(&run.node);
        let words = run.words();
        rejoin(&node, &words).await
    }
}

/// Retires the node and waits until it is empty.
async fn evacuate(run: &mut Run) -> Result<(), Failure> {
    let words = run.words();
    run.node.platform.call(Verb::Retire, &words).await?;
    failpoint::hit("retire.acted");
    if !run.node.platform.knows(Verb::Resident) {
        return Ok(());
    }
    let limit = run.node.settings.upgrade.retire_timeout;
    let deadline = Instant::now() + limit.get();
    let mut zeros = 0;
    let mut last = None;
    loop {
        let node = std::sync::Arc::clone(&run.node);
        let Some(found) = platform::resident(node.platform.as_ref(), &words).await? else {
            return Ok(());
        };
        zeros = if found.count == 0 { zeros + 1 } else { 0 };
        if zeros >= CONFIRMATIONS {
            return Ok(());
        }
        if last.as_ref() != Some(&found) {
            tell(run, &found);
            last = Some(found.clone());
        }
        if Instant::now() >= deadline {
            return Err(still_resident(&found, limit));
        }
        tokio::select! {
            () = sleep(POLL) => {}
            () = run.stop.cancelled() => return Err(stopped()),
        }
    }
}

fn tell(run: &mut Run, found: &Resident) {
    let blockers = if found.blockers.is_empty() {
        String::new()
    } else {
        format!(": {}", found.blockers.join(", "))
    };
    run.stream.tell(EventKind::Progress {
        step: "retire".into(),
        subject: format!("{} units of work are left{blockers}", found.count),
        done: 0,
        total: found.count,
    });
}

fn still_resident(found: &Resident, limit: kato_shared::settings::HumanDuration) -> Failure {
    let blockers = if found.blockers.is_empty() {
        "the platform does not say what blocks them".into()
    } else {
        format!("blocked by {}", found.blockers.join(", "))
    };
    Failure::new(
        Exit::Preflight,
        anyhow::anyhow!(
            "the node still has {} units of work {limit} after it was retired; {blockers}",
            found.count
        ),
    )
    .hint("the node is back in service and nothing was changed; add capacity elsewhere or raise `[upgrade].retire_timeout`")
}

pub(super) struct Rejoin;

#[async_trait]
impl Step for Rejoin {
    fn name(&self) -> String {
        "rejoin".into()
    }

    async fn precheck(&self, run: &mut Run) -> Result<Need, Failure> {
        Ok(match run.ownership()? {
            Some(_) => Need::Act,
            None => Need::Skip("this upgrade did not take the node out of service".into()),
        })
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        let node = std::sync::Arc::clone(&run.node);
        let words = run.words();
        rejoin(&node, &words).await?;
        Ok(Acted::Done)
    }
}

/// Puts the node back into service if the record says that we took it out; then removes the record.
///
/// # Errors
/// [`Failure`] when the platform cannot; the record then stays, and the next run tries again.
pub async fn rejoin(node: &Node, words: &Words) -> Result<(), Failure> {
    if Ownership::load(&node.paths)?.is_none() {
        return Ok(());
    }
    node.platform.call(Verb::Rejoin, words).await.map_err(|error| {
        Failure::from(error)
            .hint("the node is out of service; put it back with `kato node rejoin` when the platform answers")
    })?;
    failpoint::hit("rejoin.acted");
    Ok(Ownership::remove(&node.paths)?)
}
