//! Why a node is not upgraded: the first thing that stands in its way, and when that can change. Pure, but for the asking.
//!
//! Gates are looked at in the order in which an upgrade meets them; the first one that is closed is the answer. What is behind it
//! may be closed as well, and is not worth a word before the first one opens.

use std::path::Path;

use anyhow::anyhow;
use kato_shared::clock::Clock;
use serde::Serialize;

use super::{
    AGAIN,
    control::{Wanted, Wish},
    facts::Answers,
    inventory::{Inventory, InventoryNode},
    overview,
};
use crate::{
    exit::{Exit, Failure},
    lease, licence,
    maintenance::{Maintenance, Need},
    plan::{
        cluster::ClusterPlan,
        facts::{NodeStatus, RunState},
        preflight,
    },
    report::terminal,
    settings::Settings,
};

/// The version of the JSON form.
const SCHEMA: u32 = 1;

/// What stands in a node's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// It gives no answer.
    Answer,
    /// It is not the node that the inventory means.
    Identity,
    /// No upgrade of the cluster was begun.
    NoPlan,
    /// The plan does not have it.
    NotInPlan,
    /// Nothing: it is where the plan leads.
    None,
    /// Its own run, which is at work.
    OwnRun,
    /// It went back from this release and does not try it again.
    RolledBack,
    /// Its own run failed, or was cut off.
    OwnFailure,
    /// An operator has paused the rollout, or given it up.
    Wish,
    /// The orchestrator is silent or dead.
    Lock,
    /// Nobody is at work.
    Orchestrator,
    /// Maintenance mode is off.
    Maintenance,
    /// Another node failed, and the rollout stopped.
    OtherFailure,
    /// Others are before it.
    Order,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The first gate that is closed.
    pub gate: Gate,
    /// What is in the way.
    pub why: String,
    /// When that can change, and what an operator can do about it.
    pub changes: String,
}

/// What is known about the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// Its nodes.
    pub inventory: &'a Inventory,
    /// What they said.
    pub answers: &'a Answers,
    /// The plan that was followed last.
    pub plan: Option<&'a ClusterPlan>,
    /// Who orchestrates, and what is known about it.
    pub lease: Option<&'a (lease::Record, lease::Standing)>,
    /// What an operator wants of the plan.
    pub wanted: Option<&'a Wanted>,
    /// Whether maintenance mode is off and must be on.
    pub lacks_maintenance: bool,
}

/// `kato explain NODE`.
///
/// # Errors
/// [`Failure`]: 2 when the inventory has no such node; else as [`overview::status`].
pub async fn run(settings: &Settings, config: &Path, which: &str, is_json: bool) -> Result<Exit, Failure> {
    let (inventory, answers) = overview::ask(settings, config).await?;
    let is_meant = |node: &&InventoryNode| node.id == which || node.address == which;
    let Some(node) = inventory.nodes.iter().find(is_meant) else {
        let problem = anyhow!("the inventory has no node with the id or address `{which}`");
        return Err(Failure::new(Exit::Usage, problem).hint("`kato node list` lists them"));
    };
    let overview::Rollout { plan, lease, wanted } = overview::Rollout::of(settings)?;
    // A platform that does not say is no gate.
    let mode = Maintenance::of(settings, &Clock::system()).look().await;
    let situation = Situation {
        inventory: &inventory,
        answers: &answers,
        plan: plan.as_ref(),
        lease: lease.as_ref(),
        wanted: wanted.as_ref(),
        lacks_maintenance: matches!(mode, Ok(Need::Ask)),
    };
    let found = explain(&situation, node);
    if is_json {
        let waived = licence::waived(settings);
        terminal::json(
            &serde_json::json!({"schema": SCHEMA, "node": node.id, "explanation": found, "licence": waived}),
        );
    } else {
        terminal::data(&format!("{}: {}", node.id, terminal::flat(&found.why)));
        terminal::data(&format!("  {}", terminal::flat(&found.changes)));
        if let Some(left) = licence::left_waived(settings) {
            terminal::data(&format!("  {left}"));
        }
    }
    Ok(Exit::Done)
}

/// The first closed gate before `node`.
pub fn explain(situation: &Situation<'_>, node: &InventoryNode) -> Explanation {
    let Some(status) = situation.answers.facts.get(&node.id) else {
        return silent(situation, node);
    };
    let problems = preflight::identity(node, &situation.inventory.implicit_role, status);
    if let Some(problem) = problems.first() {
        let remedy = problem.remedy(node, &situation.inventory.ssh);
        return closed(Gate::Identity, problem.to_string(), remedy);
    }
    if status.state == RunState::Running {
        return closed(
            Gate::OwnRun,
            overview::state(status),
            "it goes on by itself; `kato status --watch` follows it".into(),
        );
    }
    let Some(plan) = situation.plan else {
        let text = "no upgrade of the cluster was begun from here";
        return closed(Gate::NoPlan, text.into(), format!("`{AGAIN}` begins one"));
    };
    if !plan.nodes.iter().any(|planned| planned.id == node.id) {
        let text = format!("the plan {} to {} does not have it", plan.id, plan.target);
        return closed(
            Gate::NotInPlan,
            text,
            format!("`{AGAIN}` makes a new plan with all nodes"),
        );
    }
    if status.is_settled_at(&plan.target) {
        let text = format!("nothing is in its way: it is at {}", plan.target);
        return closed(
            Gate::None,
            text,
            "it changes with the next upgrade of the cluster".into(),
        );
    }
    own(status, plan)
        .or_else(|| situation.wanted.map(wish))
        .or_else(|| orchestrator(situation))
        .unwrap_or_else(|| order(situation, plan, node))
}

fn closed(gate: Gate, why: String, changes: String) -> Explanation {
    Explanation { gate, why, changes }
}

fn silent(situation: &Situation<'_>, node: &InventoryNode) -> Explanation {
    let found = situation
        .answers
        .problems
        .iter()
        .find(|found| found.node == node.id);
    match found {
        Some(found) => closed(
            Gate::Answer,
            format!("it gives no answer: {}", found.problem),
            found.problem.remedy(node, &situation.inventory.ssh),
        ),
        None => closed(Gate::Answer, "it was not asked".into(), "ask again".into()),
    }
}

/// What its own last run left behind.
fn own(status: &NodeStatus, plan: &ClusterPlan) -> Option<Explanation> {
    let target = plan.target.to_string();
    if let Some(error) = status.rolled_back.get(&target) {
        let text = format!(
            "it went back from {target}, which failed at {}: {}",
            error.step, error.message
        );
        let changes = "it changes with another release, or with `kato node upgrade --force` on the node once the cause is gone";
        return Some(closed(Gate::RolledBack, text, changes.into()));
    }
    match status.state {
        RunState::Idle | RunState::Running => None,
        RunState::Interrupted => Some(closed(
            Gate::OwnFailure,
            overview::state(status),
            format!("`{AGAIN}` on Core resumes it"),
        )),
        RunState::Failed => {
            let error = status.error.as_ref();
            let said = error.map_or_else(String::new, |error| format!(": {}", error.message));
            let hint = error.and_then(|error| error.hint.clone());
            let first = hint.map(|hint| format!("{hint}. ")).unwrap_or_default();
            Some(closed(
                Gate::OwnFailure,
                format!("{}{said}", overview::state(status)),
                format!("{first}Then `{AGAIN}` on Core goes on"),
            ))
        }
    }
}

/// What an operator wants of the rollout.
fn wish(wanted: &Wanted) -> Explanation {
    let reason = wanted.reason.as_ref();
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let (what, changes) = match wanted.wish {
        Wish::Pause => ("paused", "`kato cluster resume` lets it go on".to_owned()),
        Wish::Abort => ("given up", format!("`{AGAIN}` makes a new plan")),
    };
    closed(
        Gate::Wish,
        format!("the rollout is {what} since {:.0}{reason}", wanted.since),
        changes,
    )
}

/// Whether somebody is at work for it at all.
fn orchestrator(situation: &Situation<'_>) -> Option<Explanation> {
    match situation.lease {
        Some((_, lease::Standing::AtWork)) => None,
        Some((record, standing)) if standing.may_be_broken() => Some(closed(
            Gate::Lock,
            format!("the orchestrator ({record}) does nothing: {}", standing.text()),
            format!("`kato lock break --cluster --reason TEXT`, then `{AGAIN}`"),
        )),
        _free if situation.lacks_maintenance => Some(closed(
            Gate::Maintenance,
            "maintenance mode is off, and nobody is at work".into(),
            format!("`kato maintenance on`, then `{AGAIN}`"),
        )),
        _free => Some(closed(
            Gate::Orchestrator,
            "nobody is at work on the upgrade of the cluster".into(),
            format!("`{AGAIN}` goes on with it"),
        )),
    }
}

/// Whose turn is before its own.
fn order(situation: &Situation<'_>, plan: &ClusterPlan, node: &InventoryNode) -> Explanation {
    let status = |id: &str| situation.answers.facts.get(id);
    let failed: Vec<&str> = plan
        .nodes
        .iter()
        .filter(|other| status(&other.id).is_some_and(|status| status.state == RunState::Failed))
        .map(|other| other.id.as_str())
        .collect();
    if !failed.is_empty() {
        let text = format!(
            "the rollout may have stopped, because it failed on {}",
            failed.join(", ")
        );
        let changes = format!(
            "`kato explain {}` says what to do there; then `{AGAIN}`",
            failed[0]
        );
        return closed(Gate::OtherFailure, text, changes);
    }
    let before: Vec<&str> = plan
        .nodes
        .iter()
        .take_while(|other| other.id != node.id)
        .filter(|other| !status(&other.id).is_some_and(|status| status.is_settled_at(&plan.target)))
        .map(|other| other.id.as_str())
        .collect();
    if before.is_empty() {
        let text = "its turn is next".to_owned();
        return closed(
            Gate::Order,
            text,
            "it begins as soon as the rules of its role allow".into(),
        );
    }
    closed(
        Gate::Order,
        format!(
            "{} before it: {}",
            kato_shared::counted(before.len(), "node is", "nodes are"),
            before.join(", ")
        ),
        format!("it begins when they are at {}", plan.target),
    )
}

#[cfg(test)]
mod tests;
