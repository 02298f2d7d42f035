//! Every node measured before anything is changed: what its upgrade means, and everything that is in the way of it.
//!
//! Flow: the releases on each node's way → what is to be measured → [`RemoteNode::survey`], all nodes at once → pure judgement
//! ([`preflight::fitness`], [`capacity::check`]) → the plan with what each node has to do.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use kato_shared::{
    clock::Clock,
    release::{Install, Release},
};

use super::{inventory::Inventory, remote::RemoteNode, target::Found};
use crate::{
    plan::{
        capacity,
        cluster::{Action, ClusterPlan, PlannedArtifact, PlannedNode},
        facts::NodeStatus,
        node::modules_for,
        preflight::{self, Asked, NodeProblem},
        survey::{self, Survey},
    },
    run,
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

/// What the nodes are measured for.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The nodes and the rules.
    pub inventory: &'a Inventory,
    /// What each node said of itself; one that gave no answer is not measured.
    pub facts: &'a BTreeMap<String, NodeStatus>,
    /// The releases.
    pub found: &'a Found,
    /// Whether outstanding patches are installed first.
    pub apply_patches: bool,
    /// Host and port that the nodes will download through.
    pub cache: Option<String>,
}

/// Measures the nodes of `plan` and adds to it what each has to do, and what all of them need together.
///
/// # Cancel safety
/// Dropping it ends the calls that are under way; nothing is changed.
pub async fn examine(
    ground: &Ground<'_>,
    nodes: &BTreeMap<String, RemoteNode>,
    plan: &mut ClusterPlan,
    clock: &Clock,
) -> Examined {
    let (facts, found) = (ground.facts, ground.found);
    let answers = ask_all(ground, nodes, plan, clock).await;
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
        if let Some((asked, survey)) = surveys.get(&planned.id) {
            let unfit = judge(ground, planned, (asked, survey), plan.created);
            examined
                .problems
                .extend(unfit.into_iter().map(|problem| NodeProblem {
                    node: planned.id.clone(),
                    problem,
                }));
        }
    }
    plan.artifacts = artifacts(plan, found);
    let surveys: BTreeMap<String, Survey> = surveys
        .into_iter()
        .map(|(id, (_, survey))| (id, survey))
        .collect();
    let is_out = |(id, status): (&String, &NodeStatus)| status.out_of_service.then(|| id.clone());
    let out: Vec<String> = facts.iter().filter_map(is_out).collect();
    let judged = capacity::check(&plan.batches, &surveys, &out);
    // Nodes that gave no answer may have room, and what is in their way is said already; with those that are left out nobody reckons.
    let is_known = |node: &PlannedNode| facts.contains_key(&node.id) || node.action == Action::LeftOut;
    if plan.nodes.iter().all(is_known) {
        examined.problems.extend(judged.short);
    }
    examined.warn(
        &unknown,
        "measured only when their turn comes, because their kato is older than this one",
    );
    examined.warn(
        &judged.mute,
        "whether their work has room elsewhere could not be judged, because `[platform].capacity` is not set there or gave no answer",
    );
    examined.warnings.extend(judged.unsure);
    examined
}

/// What a node has to do, which goes into the plan, and what its answer says against it.
fn judge(
    ground: &Ground<'_>,
    planned: &mut PlannedNode,
    (asked, survey): (&Asked, &Survey),
    now: Timestamp,
) -> Vec<preflight::Problem> {
    let way = way(ground.found, planned.from.as_ref());
    let (work, needs) = survey.work(&planned.roles, planned.from.as_ref(), &way, now);
    planned.work = Some(work);
    let mut unfit = preflight::fitness(survey, asked, &needs, &ground.inventory.preflight);
    if let Some(status) = ground.facts.get(&planned.id) {
        let releases: Vec<&Release> = way.iter().map(|(release, _)| *release).collect();
        let patches = (&ground.found.patches, releases.as_slice());
        let cache = ground.cache.as_deref();
        unfit.extend(preflight::readiness(
            survey,
            status,
            cache,
            patches,
            ground.apply_patches,
        ));
    }
    unfit
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
    ground: &Ground<'_>,
    nodes: &BTreeMap<String, RemoteNode>,
    plan: &ClusterPlan,
    clock: &Clock,
) -> Answers {
    // Who is at the target says only how much work it could take.
    let questions = plan.nodes.iter().filter_map(|planned| {
        let node = nodes.get(&planned.id)?;
        ground.facts.get(&planned.id)?;
        let is_upgraded = planned.action == Action::Upgrade;
        let way = way(ground.found, planned.from.as_ref());
        let way = way.iter().map(|(release, _)| *release);
        let places = survey::places(way.filter(|_| is_upgraded), &planned.roles);
        let question = run::survey::Asked {
            places: places.into_iter().collect(),
            local_changes: is_upgraded,
            cache: ground.cache.clone().filter(|_| is_upgraded),
        };
        Some((node, question))
    });
    let mut asked = stream::iter(questions)
        .map(|(node, question)| ask(node, question, clock))
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
    question: run::survey::Asked,
    clock: &Clock,
) -> (String, Asked, Result<Option<Survey>, preflight::Problem>) {
    let before: Timestamp = clock.now();
    let answer = node.survey(&question).await;
    let asked = Asked {
        before,
        after: clock.now(),
    };
    (node.node.id.clone(), asked, answer)
}

/// What the nodes of `plan` that are upgraded install on their ways, each once.
fn artifacts(plan: &ClusterPlan, found: &Found) -> Vec<PlannedArtifact> {
    let mut all = BTreeMap::new();
    for planned in plan.upgrades() {
        for (release, _) in way(found, planned.from.as_ref()) {
            for module in modules_for(release, &planned.roles) {
                let artifact = release.artifacts.get(&module.artifact);
                all.extend(artifact.map(|artifact| {
                    let target = artifact.target.clone();
                    (artifact.sha256, (target, artifact.size))
                }));
                if let Install::Image { images } = &module.install {
                    all.extend(
                        images
                            .iter()
                            .map(|image| (image.digest, (image.name.clone(), image.size))),
                    );
                }
            }
        }
    }
    let mut artifacts: Vec<PlannedArtifact> = all
        .into_iter()
        .map(|(digest, (name, bytes))| PlannedArtifact { name, digest, bytes })
        .collect();
    artifacts.sort_unstable();
    artifacts
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
