//! How the call ends: the last event, the table, what the cache has saved, and for a failure what to do next.

use anyhow::anyhow;

use super::Call;
use crate::{
    cluster::{
        AGAIN,
        event::{ClusterEvent, Traffic, Watcher},
        report,
        rollout::{Reason, Rolled},
    },
    exit::{Exit, Failure},
    report::terminal,
};

impl Call<'_> {
    /// The table, and for a failure what to do next.
    pub(super) fn conclude(
        &self,
        rolled: &Rolled,
        traffic: Option<Traffic>,
        watcher: &dyn Watcher,
    ) -> Result<Exit, Failure> {
        let exit = rolled.exit();
        watcher.on(&ClusterEvent::ClusterFinished {
            exit,
            nodes: rolled.nodes.clone(),
            traffic,
            time: self.clock.now(),
        }
        .into());
        if !self.request.json {
            for line in report::result_lines(&rolled.nodes) {
                terminal::data(&line);
            }
            if let Some(traffic) = &traffic {
                terminal::say(&report::traffic_line(traffic));
            }
        }
        if exit == Exit::Done {
            return Ok(Exit::Done);
        }
        Err(ended(exit, rolled))
    }
}

/// A rollout that did not bring all nodes to the target, in words: the nodes that failed, and why no further one was begun.
fn ended(exit: Exit, rolled: &Rolled) -> Failure {
    let mut words: Vec<String> = rolled
        .failures
        .iter()
        .map(|(node, failure)| {
            format!(
                "{node} failed at {}: {}",
                failure.error.step, failure.error.message
            )
        })
        .collect();
    match &rolled.reason {
        Some(Reason::Rules(halt)) => words.push(halt.to_string()),
        Some(Reason::Aborted { reason }) => {
            let reason = reason
                .as_ref()
                .map_or_else(String::new, |reason| format!(": {reason}"));
            words.push(format!("the rollout was given up{reason}"));
        }
        None => {}
    }
    let failure = Failure::new(exit, anyhow!("{}", words.join("; ")));
    match (rolled.failures.first(), &rolled.reason) {
        (Some((node, failed)), _) => failure.hint(again(node, failed.error.hint.as_deref())),
        (None, Some(Reason::Aborted { .. })) => failure.hint(format!(
            "`{AGAIN}` makes a new plan; nodes that are done are skipped"
        )),
        (None, Some(Reason::Rules(halt))) => {
            failure.hint(format!("{}; then the same command goes on", halt.remedy()))
        }
        (None, None) => failure,
    }
}

/// What to do next: what the node says, then the same command.
pub(super) fn again(node: &str, hint: Option<&str>) -> String {
    let first = hint
        .map(|hint| format!("{node} says: {hint}. "))
        .unwrap_or_default();
    format!(
        "{first}On Core, the same command goes on: nodes that are done are skipped, the others are resumed"
    )
}
