//! How the cluster is: `kato node list` and `kato status`, asked from the nodes in this moment.

use std::path::Path;

use kato_shared::release::Version;
use serde::Serialize;

use super::{
    connect,
    facts::{self, Answers},
    inventory::Inventory,
    report,
};
use crate::{
    document,
    exit::{Exit, Failure},
    lock::{self, Holder},
    paths::NodePaths,
    plan::{
        cluster::ClusterPlan,
        facts::{NodeStatus, RunState},
    },
    report::terminal,
    settings::Settings,
};

/// The version of the JSON documents.
const SCHEMA: u32 = 1;

/// `kato node list --json`, and the nodes of `kato status --json`.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    id: &'a str,
    address: &'a str,
    roles: &'a [String],
    core: bool,
    /// `None` when the node gave no answer.
    status: Option<&'a NodeStatus>,
    /// Why it gave none.
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct NodeList<'a> {
    schema: u32,
    cluster: &'a str,
    nodes: Vec<Listed<'a>>,
}

#[derive(Debug, Serialize)]
struct ClusterStatus<'a> {
    schema: u32,
    cluster: &'a str,
    /// The plan that was followed last.
    plan: Option<&'a ClusterPlan>,
    /// The orchestrator that is at work now.
    orchestrator: Option<&'a Holder>,
    nodes: Vec<Listed<'a>>,
}

/// `kato node list`.
///
/// # Errors
/// [`Failure`] as of [`super::run`] when there is no inventory or this is not Core. A node that does not answer is no failure.
pub async fn list(settings: &Settings, config: &Path, json: bool) -> Result<Exit, Failure> {
    let (inventory, answers) = ask(settings, config).await?;
    if json {
        terminal::json(&NodeList {
            schema: SCHEMA,
            cluster: &inventory.name,
            nodes: listed(&inventory, &answers),
        });
    } else {
        print(&inventory, &answers);
    }
    Ok(Exit::Done)
}

/// `kato status`: the nodes, and what the orchestrator is doing.
///
/// # Errors
/// As [`list`].
pub async fn status(settings: &Settings, config: &Path, json: bool) -> Result<Exit, Failure> {
    let (inventory, answers) = ask(settings, config).await?;
    let state = NodePaths::new(&settings.node.root, &settings.node.state_dir)
        .state_dir()
        .join("state");
    let orchestrator = lock::holder(&state.join("cluster.lock"));
    let plan =
        document::read::<ClusterPlan>(&state.join("plan.json"), "the plan of an upgrade of the cluster")?;
    if json {
        terminal::json(&ClusterStatus {
            schema: SCHEMA,
            cluster: &inventory.name,
            plan: plan.as_ref(),
            orchestrator: orchestrator.as_ref(),
            nodes: listed(&inventory, &answers),
        });
        return Ok(Exit::Done);
    }
    terminal::data(&headline(plan.as_ref(), orchestrator.as_ref(), &answers));
    print(&inventory, &answers);
    Ok(Exit::Done)
}

async fn ask(settings: &Settings, config: &Path) -> Result<(Inventory, Answers), Failure> {
    let inventory = super::load(settings, config)?;
    super::refuse_off_core(settings, &inventory)?;
    let nodes = connect::connect(&inventory, settings, config)?;
    let answers = facts::gather(nodes.values()).await;
    connect::close(&nodes).await;
    Ok((inventory, answers))
}

fn listed<'a>(inventory: &'a Inventory, answers: &'a Answers) -> Vec<Listed<'a>> {
    let listed = |node: &'a super::inventory::InventoryNode| Listed {
        id: &node.id,
        address: &node.address,
        roles: &node.roles,
        core: node.id == inventory.core().id,
        status: answers.facts.get(&node.id),
        problem: answers
            .problems
            .iter()
            .find(|found| found.node == node.id)
            .map(|found| found.problem.to_string()),
    };
    inventory.nodes.iter().map(listed).collect()
}

/// The table on stdout, and on stderr why a node gave no answer.
fn print(inventory: &Inventory, answers: &Answers) {
    let header = ["node", "address", "roles", "version", "kato", "state"].map(String::from);
    let rows = inventory.nodes.iter().map(|node| {
        let status = answers.facts.get(&node.id);
        let version = status.map_or_else(
            || "?".into(),
            |status| {
                status
                    .version
                    .as_ref()
                    .map_or_else(|| "none".into(), Version::to_string)
            },
        );
        [
            node.id.clone(),
            node.address.clone(),
            node.roles.join(","),
            version,
            status.map_or_else(|| "?".into(), |status| status.kato.clone()),
            status.map_or_else(|| "no answer".into(), state),
        ]
    });
    for line in report::columns(std::iter::once(header).chain(rows)) {
        terminal::data(&line);
    }
    for line in report::problem_lines(&answers.problems, inventory) {
        terminal::say(&line);
    }
}

fn state(status: &NodeStatus) -> String {
    let to = status
        .to
        .as_ref()
        .map_or_else(String::new, |to| format!(" to {to}"));
    let at = status
        .step
        .as_ref()
        .map_or_else(String::new, |step| format!(" at {step}"));
    let text = match status.state {
        RunState::Idle => "idle".into(),
        RunState::Running => format!("upgrading{to}{at}"),
        RunState::Failed => format!("failed{to}{at}"),
        RunState::Interrupted => format!("interrupted{to}{at}"),
    };
    if status.out_of_service {
        format!("{text}, out of service")
    } else {
        text
    }
}

/// One line about the rollout.
fn headline(plan: Option<&ClusterPlan>, orchestrator: Option<&Holder>, answers: &Answers) -> String {
    let Some(plan) = plan else {
        return match orchestrator {
            Some(holder) => format!("an upgrade is being planned (process {})", holder.pid),
            None => "no upgrade of the cluster was begun from here".into(),
        };
    };
    let there = plan
        .nodes
        .iter()
        .filter(|node| {
            answers
                .facts
                .get(&node.id)
                .is_some_and(|status| status.is_settled_at(&plan.target))
        })
        .count();
    let count = plan.nodes.len();
    let what = match orchestrator {
        Some(holder) => format!("at work (process {}, since {})", holder.pid, holder.started),
        None if there == count => "complete".into(),
        None => format!("not complete; go on with `{}`", super::AGAIN),
    };
    format!(
        "upgrade to {}: {there} of {count} nodes are there; {what}",
        plan.target
    )
}
