//! How the cluster is: `kato node list` and `kato status`, asked from the nodes in this moment.

mod rollout;

use std::{collections::BTreeMap, path::Path};

use kato_shared::{clock::Clock, release::Version};
use serde::Serialize;

pub(super) use self::rollout::{Rollout, headline, vanished};
use super::{
    connect,
    control::Wanted,
    facts::{self, Answers},
    inventory::Inventory,
    report,
};
use crate::{
    document,
    exit::{Exit, Failure},
    lease::{self, Standing},
    licence,
    lock::{self, Holder},
    maintenance::{self, Maintenance},
    paths::NodePaths,
    plan::{
        cluster::ClusterPlan,
        facts::{NodeStatus, RunState},
        preflight::{NodeProblem, Problem},
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
    /// Nodes of the plan that the inventory does not have any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vanished: Vec<&'a str>,
    /// What an operator wants of the plan: a pause, or that it is given up.
    wish: Option<&'a Wanted>,
    /// The orchestrator that is at work now.
    orchestrator: Option<&'a Holder>,
    /// Who has the lock of the cluster, or had it last.
    lease: Option<Leased<'a>>,
    /// The upgrade that has turned maintenance mode on.
    maintenance: Option<&'a maintenance::Record>,
    /// The upgrade for which the licence limits are waived.
    licence: Option<licence::Record>,
    nodes: Vec<Listed<'a>>,
}

#[derive(Debug, Serialize)]
struct Leased<'a> {
    #[serde(flatten)]
    record: &'a lease::Record,
    standing: Standing,
}

/// `kato node list`.
///
/// # Errors
/// [`Failure`] as of [`super::run`] when there is no inventory or this is not Core. A node that does not answer is no failure.
pub async fn list(settings: &Settings, config: &Path, json: bool) -> Result<Exit, Failure> {
    let (inventory, answers) = ask(settings, config).await?;
    let answers = own_words(answers, &inventory);
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
    let answers = own_words(answers, &inventory);
    if json {
        terminal::document(&document(settings, &inventory, &answers)?);
        return Ok(Exit::Done);
    }
    terminal::data(&headline(&Rollout::of(settings)?, &inventory, &answers));
    if let Some(left) = Maintenance::of(settings, &Clock::system()).left_on() {
        terminal::data(&left);
    }
    if let Some(left) = licence::left_waived(settings) {
        terminal::data(&left);
    }
    print(&inventory, &answers);
    for line in failures(&answers) {
        terminal::say(&line);
    }
    Ok(Exit::Done)
}

/// The plan that was followed last from this Core.
///
/// # Errors
/// [`Failure`] when it is damaged.
pub(super) fn last_plan(settings: &Settings) -> Result<Option<ClusterPlan>, Failure> {
    let path = paths(settings).state_dir().join("state/plan.json");
    Ok(document::read(&path, "the plan of an upgrade of the cluster")?)
}

/// Who orchestrates from this Core, or did last.
pub(super) fn last_lease(settings: &Settings) -> Option<(lease::Record, Standing)> {
    lease::look(&paths(settings))
}

/// Where Core keeps things.
pub(super) fn paths(settings: &Settings) -> NodePaths {
    NodePaths::new(&settings.node.root, &settings.node.state_dir)
}

/// `kato status --json`, one line.
///
/// # Errors
/// [`Failure`] when the plan is damaged.
pub(super) fn document(
    settings: &Settings,
    inventory: &Inventory,
    answers: &Answers,
) -> Result<String, Failure> {
    let Rollout { plan, lease, wanted } = Rollout::of(settings)?;
    let orchestrator = lock::holder(&paths(settings).cluster_lock());
    let maintenance = Maintenance::of(settings, &Clock::system()).ours()?;
    let status = ClusterStatus {
        schema: SCHEMA,
        cluster: &inventory.name,
        vanished: plan
            .as_ref()
            .map_or_else(Vec::new, |plan| vanished(plan, inventory)),
        wish: wanted.as_ref(),
        plan: plan.as_ref(),
        orchestrator: orchestrator.as_ref(),
        lease: lease.as_ref().map(|(record, standing)| Leased {
            record,
            standing: *standing,
        }),
        maintenance: maintenance.as_ref(),
        licence: licence::waived(settings),
        nodes: listed(inventory, answers),
    };
    serde_json::to_string(&status).map_err(|error| Failure::new(Exit::Bug, error))
}

/// Asks every node of the inventory.
///
/// # Errors
/// As [`list`].
pub(super) async fn ask(settings: &Settings, config: &Path) -> Result<(Inventory, Answers), Failure> {
    let inventory = super::load(settings, config)?;
    super::refuse_off_core(settings, &inventory)?;
    let nodes = connect::ready(&inventory, settings, config).await?;
    let answers = facts::gather(nodes.values()).await;
    connect::close(&nodes).await;
    Ok((inventory, answers))
}

/// What another node says at a node's address is no answer of it: its version and state would be taken for the node's.
pub(super) fn own_words(answers: Answers, inventory: &Inventory) -> Answers {
    let Answers { facts, mut problems } = answers;
    let (facts, strangers): (BTreeMap<_, _>, BTreeMap<_, _>) =
        facts.into_iter().partition(|(id, status)| *id == status.node);
    problems.extend(strangers.into_iter().map(|(node, status)| NodeProblem {
        node,
        problem: Problem::OtherNode {
            answered: terminal::flat(&status.node).into_owned(),
        },
    }));
    let place = |id: &String| inventory.nodes.iter().position(|node| node.id == *id);
    problems.sort_by_key(|found| place(&found.node));
    Answers { facts, problems }
}

/// What failed on nodes, with what to do about it.
fn failures(answers: &Answers) -> Vec<String> {
    let failed = answers
        .facts
        .values()
        .filter(|status| status.state == RunState::Failed);
    failed
        .filter_map(|status| {
            let error = status.error.as_ref()?;
            let hint = error.hint.iter().map(|hint| format!("\n  hint: {hint}"));
            Some(format!(
                "{}: {}: {}{}",
                status.node,
                error.step,
                error.message,
                hint.collect::<String>()
            ))
        })
        .collect()
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
        let version = status.map_or_else(|| "?".into(), version);
        [
            node.id.clone(),
            node.address.clone(),
            inventory.shown_roles(node),
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

/// The version of a node, for people.
pub(super) fn version(status: &NodeStatus) -> String {
    let version = status.version.as_ref();
    version.map_or_else(|| "none".into(), Version::to_string)
}

/// What a node is doing, for people.
pub(super) fn state(status: &NodeStatus) -> String {
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
        RunState::Running => {
            let subject = status.progress.as_ref();
            let subject = subject.map_or_else(String::new, |progress| format!(" ({})", progress.subject));
            format!("upgrading{to}{at}{subject}")
        }
        RunState::Failed => format!("failed{to}{at}"),
        RunState::Interrupted if status.restarting => format!("waits for its restart{to}"),
        RunState::Interrupted => format!("interrupted{to}{at}"),
    };
    if status.out_of_service {
        format!("{text}, out of service")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        let node = |id: &str, role: &str| {
            format!("[[node]]\nid = \"{id}\"\naddress = \"{id}\"\nroles = [\"{role}\"]\n")
        };
        let text = [node("core", "primary"), node("b1", "base"), node("w1", "dea")].concat();
        Inventory::parse(Path::new("cluster.toml"), &text).unwrap()
    }

    /// At the address of `asked`, `answered` says that it is at 2.0.0.
    fn answer(asked: &str, answered: &str) -> (String, NodeStatus) {
        let document = serde_json::json!({
            "schema": 1, "node": answered, "roles": [], "version": "2.0.0", "kato": "0.1.0", "state": "idle"
        });
        (asked.to_owned(), serde_json::from_value(document).unwrap())
    }

    #[test]
    fn what_another_node_says_at_an_address_is_no_answer() {
        let answers = Answers {
            facts: [
                answer("b1", "zz\u{1b}[2J"),
                answer("core", "core"),
                answer("w1", "w1"),
            ]
            .into(),
            problems: Vec::new(),
        };
        let own = own_words(answers, &inventory());
        assert_eq!(own.facts.keys().collect::<Vec<_>>(), ["core", "w1"]);
        let said = own.problems[0].problem.to_string();
        assert!(
            said.contains("answers the node `zz") && !said.contains('\u{1b}'),
            "{said}"
        );
    }

    #[test]
    fn r67_a_node_that_stands_at_its_restart_is_neither_idle_nor_cut_off() {
        for (more, expected) in [
            (
                r#""state": "interrupted", "restarting": true"#,
                "waits for its restart to 2.0.0",
            ),
            (r#""state": "interrupted""#, "interrupted to 2.0.0 at restart"),
        ] {
            let text = format!(
                r#"{{"schema": 1, "node": "w1", "roles": [], "version": "1.0.0", "kato": "0.1.0", "to": "2.0.0", "step": "restart", {more}}}"#
            );
            let status: NodeStatus = serde_json::from_str(&text).unwrap();
            assert_eq!(state(&status), expected);
        }
    }

    #[test]
    fn a_silent_node_does_not_make_the_others_incomplete() {
        let plan = serde_json::json!({
            "schema": 1, "id": "p1", "created": "2026-01-01T00:00:00Z", "cluster": "lab", "target": "2.0.0",
            "release_digest": kato_shared::Digest::of(b"release"), "force": false, "nodes": [], "warnings": [],
        });
        let rollout = Rollout {
            plan: Some(serde_json::from_value(plan).unwrap()),
            lease: None,
            wanted: None,
        };
        let said = |facts: &[&str]| {
            let answers = Answers {
                facts: facts.iter().map(|id| answer(id, id)).collect(),
                problems: Vec::new(),
            };
            headline(&rollout, &inventory(), &answers)
        };
        assert!(said(&["b1", "core", "w1"]).ends_with("3 of 3 nodes are there; complete"));
        assert!(
            said(&["core", "w1"]).ends_with("b1 gave no answer, all that did are there"),
            "{}",
            said(&["core", "w1"])
        );
    }
}
