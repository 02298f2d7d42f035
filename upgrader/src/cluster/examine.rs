//! Every node measured before anything is changed: what its upgrade means, and everything that is in the way of it.
//!
//! Flow: the releases on each node's way → what is to be measured → [`RemoteNode::survey`], all nodes at once → pure judgement
//! ([`preflight::fitness`], [`capacity::check`]) → the plan with what each node has to do.

use std::{collections::BTreeMap, path::PathBuf};

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use kato_shared::{clock::Clock, release::Release};

use super::{inventory::Inventory, remote::RemoteNode, target::Found};
use crate::plan::{
    capacity,
    cluster::{Action, ClusterPlan},
    facts::NodeStatus,
    preflight::{self, Asked, NodeProblem},
    survey::{self, Survey},
};

/// How many nodes are asked at a time.
const AT_ONCE: usize = 32;

/// What came of it.
#[derive(Debug, Default)]
pub struct Examined {
    /// Everything that is in the way.
    pub problems: Vec<NodeProblem>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Measures the nodes of `plan` and adds to it what each has to do.
///
/// # Cancel safety
/// Dropping it ends the calls that are under way; nothing is changed.
pub async fn examine(
    inventory: &Inventory,
    nodes: &BTreeMap<String, RemoteNode>,
    facts: &BTreeMap<String, NodeStatus>,
    found: &Found,
    plan: &mut ClusterPlan,
    clock: &Clock,
) -> Examined {
    let answers = ask_all(nodes, facts, found, plan, clock).await;
    let Answers {
        surveys,
        silent,
        unknown,
    } = answers;
    let mut examined = Examined {
        problems: silent,
        warnings: Vec::new(),
    };
    for planned in plan
        .nodes
        .iter_mut()
        .filter(|node| node.action == Action::Upgrade)
    {
        let Some((asked, survey)) = surveys.get(&planned.id) else {
            continue;
        };
        let way = way(found, planned.from.as_ref());
        let (work, needs) = survey.work(&planned.roles, planned.from.as_ref(), &way, plan.created);
        let unfit = preflight::fitness(survey, asked, &needs, &inventory.preflight);
        examined
            .problems
            .extend(unfit.into_iter().map(|problem| NodeProblem {
                node: planned.id.clone(),
                problem,
            }));
        planned.work = Some(work);
    }
    let surveys: BTreeMap<String, Survey> = surveys
        .into_iter()
        .map(|(id, (_, survey))| (id, survey))
        .collect();
    let is_out = |(id, status): (&String, &NodeStatus)| status.out_of_service.then(|| id.clone());
    let out: Vec<String> = facts.iter().filter_map(is_out).collect();
    let (short, mute) = capacity::check(&plan.batches, &surveys, &out);
    examined.problems.extend(short);
    examined.warn(
        &unknown,
        "measured only when their turn comes, because their kato is older than this one",
    );
    examined.warn(
        &mute,
        "not known whether their work has room elsewhere, because `[platform].capacity` is not set",
    );
    examined
}

impl Examined {
    fn warn(&mut self, ids: &[String], what: &str) {
        if !ids.is_empty() {
            self.warnings.push(format!("{}: {what}", ids.join(", ")));
        }
    }
}

/// The nodes' answers, sorted by what they are.
#[derive(Default)]
struct Answers {
    surveys: BTreeMap<String, (Asked, Survey)>,
    /// Those that gave none.
    silent: Vec<NodeProblem>,
    /// Those that do not know the question.
    unknown: Vec<String>,
}

async fn ask_all(
    nodes: &BTreeMap<String, RemoteNode>,
    facts: &BTreeMap<String, NodeStatus>,
    found: &Found,
    plan: &ClusterPlan,
    clock: &Clock,
) -> Answers {
    // Who is at the target says only how much work it could take.
    let questions = plan.nodes.iter().filter_map(|planned| {
        let node = nodes.get(&planned.id)?;
        facts.get(&planned.id)?;
        let way = way(found, planned.from.as_ref());
        let way = way.iter().map(|(release, _)| *release);
        let way = way.filter(|_| planned.action == Action::Upgrade);
        Some((node, survey::places(way, &planned.roles)))
    });
    let mut asked = stream::iter(questions)
        .map(|(node, places)| ask(node, places.into_iter().collect(), clock))
        .buffer_unordered(AT_ONCE);
    let mut answers = Answers::default();
    while let Some((id, asked, answer)) = asked.next().await {
        match answer {
            Ok(Some(survey)) => {
                answers.surveys.insert(id, (asked, survey));
            }
            Ok(None) => answers.unknown.push(id),
            Err(problem) => answers.silent.push(NodeProblem { node: id, problem }),
        }
    }
    answers.silent.sort_by(|a, b| a.node.cmp(&b.node));
    answers.unknown.sort_unstable();
    answers
}

async fn ask(
    node: &RemoteNode,
    places: Vec<PathBuf>,
    clock: &Clock,
) -> (String, Asked, Result<Option<Survey>, preflight::Problem>) {
    let before: Timestamp = clock.now();
    let answer = node.survey(&places).await;
    let asked = Asked {
        before,
        after: clock.now(),
    };
    (node.node.id.clone(), asked, answer)
}

/// The releases that a node with `from` goes through.
fn way<'f>(
    found: &'f Found,
    from: Option<&kato_shared::release::Version>,
) -> Vec<(&'f Release, kato_shared::Digest)> {
    let target = &found.target.version;
    let versions = match from {
        Some(from) if from != target => found.graph.hops(from, target).unwrap_or_default(),
        // Installed once more, or for the first time.
        Some(_) | None => vec![target.clone()],
    };
    let releases = versions.iter().filter_map(|version| found.releases.get(version));
    releases.map(|(release, digest)| (release, *digest)).collect()
}

#[cfg(test)]
mod tests;
