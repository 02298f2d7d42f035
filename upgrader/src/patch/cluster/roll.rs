//! Runs: every node fetches, then one node after the other is changed, until one fails.

use anyhow::anyhow;
use kato_shared::clock::Clock;
use serde::Serialize;

use super::{Call, Kind, Nodes, SCHEMA, drive::Drive};
use crate::{
    cluster::{
        errand::NodeFailure,
        event::{Line, Watcher},
        facts,
        inventory::Inventory,
        remote::RemoteNode,
        report,
    },
    exit::{Exit, Failure},
    lease::{Lease, Wanted},
    paths::NodePaths,
    plan::preflight,
    report::terminal,
    settings::Settings,
};

/// Says nothing.
#[derive(Debug)]
struct Silent;

impl Watcher for Silent {
    fn on(&self, _line: &Line) {}
}

/// What became of one node.
#[derive(Debug, Serialize)]
struct Rolled {
    node: String,
    outcome: &'static str,
    error: Option<String>,
}

/// The outcome of a node that did what was asked.
const DONE: &str = "done";

impl Rolled {
    const fn of(node: String, outcome: &'static str, error: Option<String>) -> Self {
        Self { node, outcome, error }
    }
}

pub(super) async fn roll(
    nodes: &Nodes,
    chosen: &[RemoteNode],
    call: &Call,
    settings: &Settings,
) -> Result<Exit, Failure> {
    let lease = hold(settings, &nodes.inventory).await?;
    let chosen: Vec<RemoteNode> = chosen
        .iter()
        .map(|node| node.clone().fenced(lease.token()))
        .collect();
    tokio::select! {
        outcome = roll_held(nodes, &chosen, call) => outcome,
        () = lease.lost() => Err(Lease::failure()),
    }
}

async fn roll_held(nodes: &Nodes, chosen: &[RemoteNode], call: &Call) -> Result<Exit, Failure> {
    all_ready(&nodes.inventory, chosen).await?;
    let is_quiet = call.words.iter().any(|word| word == "--quiet");
    let watcher: Box<dyn Watcher> = match (call.json, is_quiet) {
        (true, _) => Box::new(report::Json),
        (false, true) => Box::new(Silent),
        (false, false) => Box::new(report::Human::default()),
    };
    let patience = nodes.inventory.ssh.patience.get();
    if call.kind == Kind::StagedRun {
        let mut words = call.words.clone();
        words.push("--download-only".into());
        for node in chosen {
            let staged = Drive::new(node, &words, patience, watcher.as_ref()).run().await;
            staged.map_err(|failure| {
                conclude(
                    &node.node.id,
                    &failure,
                    failure.exit,
                    "nothing was changed on any node",
                )
            })?;
        }
    }
    let mut results = Vec::new();
    let mut failed = None;
    for node in chosen {
        let id = node.node.id.clone();
        if failed.is_some() {
            results.push(Rolled::of(id, "not reached", None));
            continue;
        }
        let result = Drive::new(node, &call.words, patience, watcher.as_ref())
            .run()
            .await;
        results.push(match &result {
            Ok(()) => Rolled::of(id.clone(), DONE, None),
            Err(failure) => Rolled::of(id.clone(), "failed", Some(failure.error.message.clone())),
        });
        failed = result.err().map(|failure| (id, failure));
    }
    tell(&results, call.json);
    let Some((id, failure)) = failed else {
        return Ok(Exit::Done);
    };
    let some = results.iter().any(|result| result.outcome == DONE);
    let exit = if some { Exit::Partial } else { failure.exit };
    Err(conclude(&id, &failure, exit, "no further node was touched"))
}

fn tell(results: &[Rolled], json: bool) {
    if json {
        terminal::json(&serde_json::json!({"schema": SCHEMA, "event": "patches_finished", "nodes": results}));
        return;
    }
    let rows = results
        .iter()
        .map(|result| [result.node.clone(), result.outcome.to_owned()]);
    for line in report::columns(rows) {
        terminal::data(&line);
    }
}

fn conclude(node: &str, failure: &NodeFailure, exit: Exit, what_else: &str) -> Failure {
    let error = &failure.error;
    let problem = anyhow!("{node} failed at {}: {}; {what_else}", error.step, error.message);
    let said = error.hint.as_ref().map(|hint| format!("{node} says: {hint}. "));
    Failure::new(exit, problem).hint(format!(
        "{}On Core, the same command goes on: nodes that are done have nothing to do",
        said.unwrap_or_default()
    ))
}

/// Refuses before anything is changed when a node does not answer, or is not the one of the inventory.
async fn all_ready(inventory: &Inventory, chosen: &[RemoteNode]) -> Result<(), Failure> {
    let answers = facts::gather(chosen).await;
    let mut problems = answers.problems;
    for (id, status) in &answers.facts {
        let Some(node) = inventory.node(id) else { continue };
        let found = preflight::identity(node, &inventory.implicit_role, status);
        problems.extend(found.into_iter().map(|problem| preflight::NodeProblem {
            node: id.clone(),
            problem,
        }));
    }
    if problems.is_empty() {
        return Ok(());
    }
    for line in report::problem_lines(&problems, inventory) {
        terminal::say(&line);
    }
    let mut ids: Vec<&str> = problems.iter().map(|problem| problem.node.as_str()).collect();
    ids.dedup();
    let problem = anyhow!(
        "not ready for patches: {}; nothing was changed on any node",
        ids.join(", ")
    );
    Err(Failure::new(Exit::Preflight, problem).hint("do as said above, then run the same command again"))
}

/// The lock of the orchestrator: patches and upgrades of the cluster do not meet.
async fn hold(settings: &Settings, inventory: &Inventory) -> Result<Lease, Failure> {
    let paths = NodePaths::new(&settings.node.root, &settings.node.state_dir);
    let wanted = Wanted {
        run: "of the cluster's patches".into(),
        about: "patches of the cluster".into(),
        term: inventory.lease.get(),
    };
    Ok(Lease::take(&paths, &wanted, &Clock::system()).await?)
}
