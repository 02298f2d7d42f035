//! Asks all nodes how they are, at once: a cluster of hundreds answers in the time of its slowest node.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use super::remote::RemoteNode;
use crate::plan::{
    facts::NodeStatus,
    preflight::{NodeProblem, Problem},
};

/// How many nodes are asked at a time. More gains nothing on a Core with few cores, and sshd's own limit for connections that
/// are not logged in yet (`MaxStartups`) counts per node.
const AT_ONCE: usize = 32;

/// What the nodes answered.
#[derive(Debug, Default)]
pub struct Answers {
    /// The status of each node that answered.
    pub facts: BTreeMap<String, NodeStatus>,
    /// The problems of those that did not.
    pub problems: Vec<NodeProblem>,
}

/// Asks `nodes`. The problems are in the order of the nodes' ids.
///
/// # Cancel safety
/// Dropping it ends the calls that are under way.
pub async fn gather(nodes: impl IntoIterator<Item = &RemoteNode>) -> Answers {
    let mut waiting: Vec<RemoteNode> = nodes.into_iter().cloned().collect();
    let mut asked = JoinSet::new();
    let mut answers = BTreeMap::new();
    loop {
        while asked.len() < AT_ONCE
            && let Some(node) = waiting.pop()
        {
            asked.spawn(async move { (node.node.id.clone(), node.status().await) });
        }
        match asked.join_next().await {
            None => break,
            Some(Ok((id, answer))) => {
                answers.insert(id, answer);
            }
            // A task ends early only when this function is dropped; then nobody reads the answers.
            Some(Err(error)) => tracing::error!(%error, "a question to a node was not finished"),
        }
    }
    sort(answers)
}

fn sort(answers: BTreeMap<String, Result<NodeStatus, Problem>>) -> Answers {
    let mut sorted = Answers::default();
    for (node, answer) in answers {
        match answer {
            Ok(status) => {
                sorted.facts.insert(node, status);
            }
            Err(problem) => sorted.problems.push(NodeProblem { node, problem }),
        }
    }
    sorted
}
