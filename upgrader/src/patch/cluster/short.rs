//! Short verbs: all nodes are asked at once, and each answers with a document.

use std::time::Duration;

use anyhow::anyhow;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;

use super::{Call, Kind, Nodes, SCHEMA, drive};
use crate::{
    cluster::remote::RemoteNode,
    exit::{Exit, Failure},
    patch::status::{self, NodePatches},
    report::terminal,
};

/// How long a node may take for a short verb; `update` reads metadata on the way.
const SHORT: Duration = Duration::from_secs(180);
/// How many nodes are asked at a time.
const AT_ONCE: usize = 16;

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

pub(super) async fn short(nodes: &Nodes, chosen: &[RemoteNode], call: &Call) -> Result<Exit, Failure> {
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
        for line in status::text(&patches).lines() {
            terminal::data(format!("  {line}").trim_end());
        }
        return;
    }
    let done = document.get("done").and_then(serde_json::Value::as_str);
    terminal::data(&format!("{node}: {}", done.unwrap_or_else(|| answer.said.trim())));
}
