//! The verbs on every node, from Core: the same command with `--local` on each, one node at a time, Core last.
//!
//! Short verbs are asked of all nodes at once. Installing and taking back are runs that belong to their node: started
//! detached, followed by number, found again after a lost connection; see [`drive`]. Every node fetches what it needs before
//! the first one is changed, and after the first failure no further node is touched.
//!
//! Deliberately absent: a record on Core. Nodes know which patches they have, so the same command again goes on.

mod drive;

use std::{path::Path, time::Duration};

use anyhow::anyhow;
use futures_util::{StreamExt as _, stream};
use kato_shared::clock::Clock;
use serde::Serialize;

use self::drive::Drive;
use super::status::NodePatches;
use crate::{
    cli::Context,
    cluster::{
        self, connect,
        errand::NodeFailure,
        event::{Line, Watcher},
        facts,
        inventory::{Inventory, InventoryNode},
        remote::RemoteNode,
        report,
    },
    exit::{Exit, Failure},
    lock::{Holder, Lock, LockError},
    paths::NodePaths,
    plan::{
        order::{self, OrderNode, OrderRules},
        preflight,
    },
    report::terminal,
    settings::Settings,
};

/// The version of the JSON documents.
const SCHEMA: u32 = 1;
/// How long a node may take for a short verb; `update` reads metadata on the way.
const SHORT: Duration = Duration::from_secs(180);
/// How many nodes are asked at a time.
const AT_ONCE: usize = 16;

/// Which nodes a command is for.
#[derive(Debug, Clone)]
pub enum Scope {
    /// This one.
    Here,
    /// Those of the cluster.
    Nodes(Box<Nodes>),
}

/// Nodes of a cluster.
#[derive(Debug, Clone)]
pub struct Nodes {
    inventory: Inventory,
    /// Their ids, first one first.
    ids: Vec<String>,
}

/// How a command goes about its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It asks for [`NodePatches`].
    Status,
    /// It is over in a moment.
    Short,
    /// It is a run of the engine.
    Run,
    /// It is a run, before which every node fetches what it needs.
    StagedRun,
}

/// The command for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// How it goes about its nodes.
    pub kind: Kind,
    /// The words behind `kato patch`.
    pub words: Vec<String>,
    /// Data is printed as JSON.
    pub json: bool,
}

/// Decides which nodes a command is for: with `local` this one, with `node` that one, else on Core all.
///
/// # Errors
/// [`Failure`] with 20 elsewhere than on Core, with what to do; with 2 for a node that the inventory does not have.
pub fn scope(settings: &Settings, config: &Path, local: bool, node: Option<&str>) -> Result<Scope, Failure> {
    let own = cluster::own_id(settings);
    if local || node == Some(own.as_str()) {
        return Ok(Scope::Here);
    }
    let core_role = OrderRules::default().core_role;
    if !Inventory::path_beside(config).exists() {
        let is_core = settings
            .node
            .roles
            .iter()
            .any(|role| role.eq_ignore_ascii_case(&core_role));
        if is_core && node.is_none() {
            return Ok(Scope::Here);
        }
        return Err(off_core(&own, None));
    }
    let inventory = cluster::load(settings, config)?;
    let core = inventory.core().clone();
    if own != core.id {
        return Err(off_core(&own, Some(&core)));
    }
    let ids = match node {
        Some(wanted) => {
            let found = inventory
                .nodes
                .iter()
                .find(|node| node.id == wanted || node.address == wanted);
            let found = found.ok_or_else(|| unknown(wanted, &inventory))?;
            if found.id == own {
                return Ok(Scope::Here);
            }
            vec![found.id.clone()]
        }
        None => in_order(&inventory),
    };
    Ok(Scope::Nodes(Box::new(Nodes { inventory, ids })))
}

fn off_core(own: &str, core: Option<&InventoryNode>) -> Failure {
    let place = core.map_or_else(String::new, |core| {
        format!(" (`{}` at {})", core.id, core.address)
    });
    let problem =
        anyhow!("this is `{own}`, and patches of the whole cluster are a matter of its Core node{place}");
    Failure::new(Exit::Preflight, problem)
        .hint("add `--local` for this node alone, or run the command on Core")
}

fn unknown(wanted: &str, inventory: &Inventory) -> Failure {
    let ids: Vec<_> = inventory.nodes.iter().map(|node| node.id.as_str()).collect();
    let problem = anyhow!("no node of the inventory has the id or address `{wanted}`");
    Failure::new(Exit::Usage, problem).hint(format!("the nodes are {}", ids.join(", ")))
}

/// The ids of all nodes in the order of roles, Core last.
fn in_order(inventory: &Inventory) -> Vec<String> {
    let nodes: Vec<_> = inventory
        .nodes
        .iter()
        .map(|node| OrderNode {
            id: &node.id,
            roles: &node.roles,
        })
        .collect();
    let rules = OrderRules {
        core_role: inventory.core_role.clone(),
        implicit_role: inventory.implicit_role.clone(),
        ..OrderRules::default()
    };
    let order = order::order(&nodes, &rules);
    order.nodes.into_iter().map(|placed| placed.id).collect()
}

/// Runs `call` on `nodes`.
///
/// # Errors
/// [`Failure`]: 20 when a node is not ready, 24 when some nodes did it and one failed, else that node's own code.
pub async fn run(nodes: &Nodes, call: Call, settings: &Settings, context: &Context) -> Result<Exit, Failure> {
    let all = connect::connect(&nodes.inventory, settings, &context.config)?;
    let chosen: Vec<RemoteNode> = nodes.ids.iter().filter_map(|id| all.get(id)).cloned().collect();
    let outcome = match call.kind {
        Kind::Status | Kind::Short => short(nodes, &chosen, &call).await,
        Kind::Run | Kind::StagedRun => roll(nodes, &chosen, &call, settings).await,
    };
    connect::close(&all).await;
    outcome
}

// === Short verbs ===

/// What one node answered.
#[derive(Debug, Serialize)]
struct Answer {
    node: String,
    /// The document that it printed.
    #[serde(rename = "answer")]
    document: Option<serde_json::Value>,
    /// Why there is none.
    problem: Option<String>,
    #[serde(skip)]
    exit: Exit,
    #[serde(skip)]
    said: String,
}

async fn short(nodes: &Nodes, chosen: &[RemoteNode], call: &Call) -> Result<Exit, Failure> {
    let mut words = vec!["patch"];
    words.extend(call.words.iter().map(String::as_str));
    words.push("--json");
    let words = &words;
    let answers: Vec<Answer> = stream::iter(chosen)
        .map(|node| async move { ask(node, words).await })
        .buffered(AT_ONCE)
        .collect()
        .await;
    if call.json {
        terminal::json(&serde_json::json!({
            "schema": SCHEMA, "cluster": nodes.inventory.name, "nodes": answers,
        }));
    } else {
        for answer in &answers {
            print(answer, call.kind);
        }
    }
    let Some(failed) = answers.iter().find(|answer| answer.problem.is_some()) else {
        return Ok(Exit::Done);
    };
    let some = answers.iter().any(|answer| answer.problem.is_none());
    let exit = if some { Exit::Partial } else { failed.exit };
    let problem = anyhow!(
        "{}: {}",
        failed.node,
        failed.problem.as_deref().unwrap_or_default()
    );
    Err(Failure::new(exit, problem).hint("do as said above, then run the same command again"))
}

async fn ask(node: &RemoteNode, words: &[&str]) -> Answer {
    let id = node.node.id.clone();
    let failed = |exit, problem: String| Answer {
        node: id.clone(),
        document: None,
        problem: Some(problem),
        exit,
        said: String::new(),
    };
    match node.run(words, SHORT).await {
        Err(error) => failed(Exit::TryAgain, error.to_string()),
        Ok(output) if output.ended.is_success() => Answer {
            node: id,
            document: serde_json::from_str(output.stdout.trim()).ok(),
            problem: None,
            exit: Exit::Done,
            said: output.stderr,
        },
        Ok(output) => {
            let (exit, said) = drive::refusal(&output);
            failed(exit, said)
        }
    }
}

fn print(answer: &Answer, kind: Kind) {
    let node = &answer.node;
    if let Some(problem) = &answer.problem {
        terminal::say(&format!("{node}: {problem}"));
        return;
    }
    let document = answer.document.clone().unwrap_or_default();
    let patches = serde_json::from_value::<NodePatches>(document.clone());
    if let (Kind::Status, Ok(patches)) = (kind, patches) {
        terminal::data(&format!("{node}:"));
        for line in super::status::text(&patches).lines() {
            terminal::data(format!("  {line}").trim_end());
        }
        return;
    }
    let done = document.get("done").and_then(serde_json::Value::as_str);
    terminal::data(&format!("{node}: {}", done.unwrap_or_else(|| answer.said.trim())));
}

// === Runs ===

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

async fn roll(
    nodes: &Nodes,
    chosen: &[RemoteNode],
    call: &Call,
    settings: &Settings,
) -> Result<Exit, Failure> {
    let _held = hold(settings).await?;
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
async fn hold(settings: &Settings) -> Result<Lock, Failure> {
    let paths = NodePaths::new(&settings.node.root, &settings.node.state_dir);
    let run = "of the cluster's patches";
    let holder = Holder::here(run, &settings.node.root, Clock::system().now());
    let taken = Lock::take(&paths.state_dir().join("state/cluster.lock"), &holder).await;
    taken.map_err(|error| match error {
        LockError::Held { .. } => {
            Failure::new(Exit::LockHeld, error).hint("wait for it; `kato status` shows how far it is")
        }
        LockError::Io { .. } | LockError::Durable(_) => {
            Failure::new(Exit::Preflight, error).hint("run it as root, on the Core node")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(id: &str, roles: &[&str]) -> Settings {
        let mut settings = Settings::default();
        settings.node.id = id.into();
        settings.node.roles = roles.iter().map(ToString::to_string).collect();
        settings
    }

    fn hint(scope: Result<Scope, Failure>) -> String {
        let failure = scope.unwrap_err();
        assert_eq!(failure.exit, Exit::Preflight);
        format!("{failure}; {}", failure.hint.as_deref().unwrap_or_default())
    }

    #[test]
    fn r70_core_means_the_whole_cluster_in_role_order_and_other_nodes_only_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("kato.toml");
        let lone = |roles: &[&str], local| scope(&settings("n1", roles), &config, local, None);
        assert!(matches!(lone(&["primary"], false), Ok(Scope::Here)));
        assert!(matches!(lone(&["dea"], true), Ok(Scope::Here)));
        assert!(hint(lone(&["dea"], false)).contains("`--local`"));

        let text = "[[node]]\nid = \"core\"\naddress = \"10.0.0.1\"\nroles = [\"primary\"]\n\
                    [[node]]\nid = \"c1\"\naddress = \"10.0.0.2\"\nroles = [\"controller\"]\n\
                    [[node]]\nid = \"w1\"\naddress = \"10.0.0.3\"\nroles = [\"dea\"]\n";
        kato_shared::durable::write(&folder.path().join("cluster.toml"), text.as_bytes(), 0o644).unwrap();
        let ids = |node: Option<&str>| match scope(&settings("core", &["primary"]), &config, false, node)
            .unwrap()
        {
            Scope::Nodes(nodes) => nodes.ids.join(" "),
            Scope::Here => "here".into(),
        };
        assert_eq!(ids(None), "w1 c1 core");
        assert_eq!(ids(Some("10.0.0.2")), "c1");
        assert_eq!(ids(Some("core")), "here");
        let elsewhere = scope(&settings("w1", &["dea"]), &config, false, None);
        assert!(hint(elsewhere).contains("`core` at 10.0.0.1"));
        let unknown = scope(&settings("core", &["primary"]), &config, false, Some("x"));
        assert_eq!(unknown.unwrap_err().exit, Exit::Usage);
    }
}
