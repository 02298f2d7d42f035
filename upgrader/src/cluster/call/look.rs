//! Everything that is in the way, found before anything is changed and said at once: nodes that do not answer or are not who they should be,
//! ways that lead nowhere, what the nodes measured, rules that would never let a node have its turn, and the platform's maintenance mode.

use std::collections::BTreeMap;

use anyhow::anyhow;

use super::{Call, interruptible};
use crate::{
    cluster::{
        conflicts::{Manner, conflicts},
        event::{ClusterEvent, Finding, Line, Watcher},
        examine::{Ground, examine},
        facts,
        remote::RemoteNode,
        report,
        target::{self, Found},
    },
    exit::{Exit, Failure},
    plan::{
        cluster::{self as planning, Action, ClusterPlan, PlannedNode, Wishes},
        estimate::estimate,
        facts::NodeStatus,
        order::Place,
        preflight::{self, NodeProblem, Problem},
    },
    prepare,
    report::terminal,
};

/// What came of it.
pub(super) struct Look {
    /// The plan, with what each node has to do.
    pub(super) plan: ClusterPlan,
    /// Everything that is in the way.
    pub(super) problems: Vec<NodeProblem>,
    /// Whether every node that is wanted has said how it is.
    pub(super) is_whole: bool,
}

impl Call<'_> {
    /// Chooses the release; where nobody outside may be asked, the cache on Core is started for it and asked alone.
    async fn find(&self, facts: &BTreeMap<String, NodeStatus>) -> Result<Found, Failure> {
        let mut request = self.bound(facts)?;
        if request.offline {
            let cache = prepare::offline(self.settings, &self.inventory, &request).await?;
            request.cache_url = Some(cache);
        }
        target::find(self.settings, &request, facts).await
    }

    /// Looks.
    ///
    /// # Errors
    /// [`Failure`] when there is no release to look for: with the nodes' problems (20) when there are some, which may be why.
    pub(super) async fn look(&self, nodes: &BTreeMap<String, RemoteNode>) -> Result<Look, Failure> {
        let (facts, mut problems) = self.facts(nodes).await;
        let is_whole = problems.is_empty();
        let found = match Box::pin(self.find(&facts)).await {
            Ok(found) => found,
            Err(failure) => {
                self.refuse(&problems)?;
                return Err(failure);
            }
        };
        for (id, status) in &facts {
            problems.extend(of(
                id,
                preflight::way(status, &found.target.version, &found.graph),
            ));
        }
        let earlier = self.earlier()?;
        problems.extend(self.forgotten(earlier.as_ref(), &facts));
        problems.extend(self.unlicensed());
        let mut plan = self.plan(&facts, &found)?;
        problems.extend(self.denied(&plan));
        if plan.upgrades().next().is_some() {
            problems.extend(self.paused(earlier.as_ref(), &plan));
            plan.warnings.extend(Self::replaced(earlier.as_ref(), &plan));
            problems.extend(self.measured(nodes, &facts, &found, &mut plan).await?);
            problems.extend(self.of_the_site(&mut plan).await?);
            // What is begun asks each node while it stages, and has downloaded by then what the answer needs.
            if self.request.plan_only {
                // Who has not said how it is would keep us waiting once more, and is named already.
                let mut answering = nodes.clone();
                answering.retain(|id, _| facts.contains_key(id));
                problems.extend(self.conflicting(&answering, &mut plan).await?);
            }
        }
        Ok(Look {
            plan,
            problems: in_order(problems),
            is_whole,
        })
    }

    /// The status of every node, and what is wrong with those that are wanted; that of the others is only said.
    async fn facts(
        &self,
        nodes: &BTreeMap<String, RemoteNode>,
    ) -> (BTreeMap<String, NodeStatus>, Vec<NodeProblem>) {
        let answers = facts::gather(nodes.values()).await;
        let mut problems = answers.problems;
        for (id, status) in &answers.facts {
            let Some(node) = self.inventory.node(id) else {
                continue;
            };
            let found = preflight::identity(node, &self.inventory.implicit_role, status);
            problems.extend(of(id, found));
        }
        // Who is left out needs not even be there.
        let (wanted, others): (Vec<_>, Vec<_>) = problems.into_iter().partition(|found| {
            let node = self.inventory.node(&found.node);
            node.is_none_or(|node| self.request.choice.wants(node, &self.inventory.implicit_role))
        });
        for line in report::problem_lines(&others, &self.inventory) {
            terminal::say(&line);
        }
        (answers.facts, wanted)
    }

    fn plan(&self, facts: &BTreeMap<String, NodeStatus>, found: &Found) -> Result<ClusterPlan, Failure> {
        let wishes = Wishes {
            role_order: self.request.role_order.clone(),
            force: self.request.force,
            choice: self.request.choice.clone(),
        };
        let mut plan = planning::plan(&self.inventory, facts, &found.target, &wishes, self.clock.now())
            .map_err(|error| Failure::new(Exit::Usage, error).hint("correct the list of `--role-order`"))?;
        if self.request.tolerant {
            plan.warnings
                .push("--tolerant was given: a node that is not healthy is upgraded as it is".into());
        }
        Ok(plan)
    }

    /// Nodes that were asked for by name and are not upgraded all the same (C10).
    fn denied(&self, plan: &ClusterPlan) -> Vec<NodeProblem> {
        let choice = &self.request.choice;
        let is_named = |node: &&PlannedNode| {
            let known = self.inventory.node(&node.id);
            known.is_some_and(|node| choice.names(node, &self.inventory.implicit_role))
        };
        let left_out = plan.nodes.iter().filter(|node| node.action == Action::LeftOut);
        let denied = left_out.filter(is_named).map(|node| {
            let (why, remedy) = if node.place == Place::Core && !plan.spared.is_empty() {
                (
                    format!(
                        "{} stay behind, and Core is upgraded last",
                        plan.spared.join(", ")
                    ),
                    "upgrade them as well, or take it out of `--only`",
                )
            } else {
                (
                    "`--exclude` names it as well".to_owned(),
                    "take it out of one of the two",
                )
            };
            NodeProblem {
                node: node.id.clone(),
                problem: Problem::Said {
                    what: format!("it was asked for by `--only` and would be left out: {why}"),
                    remedy: remedy.to_owned(),
                },
            }
        });
        denied.collect()
    }

    /// Has the nodes measured, and adds to the plan what came of it.
    async fn measured(
        &self,
        nodes: &BTreeMap<String, RemoteNode>,
        facts: &BTreeMap<String, NodeStatus>,
        found: &Found,
        plan: &mut ClusterPlan,
    ) -> Result<Vec<NodeProblem>, Failure> {
        let ground = Ground {
            inventory: &self.inventory,
            facts,
            found,
            apply_patches: self.request.apply_patches,
            cache: prepare::through(self.settings, &self.inventory, &self.request),
        };
        let examined = interruptible(examine(&ground, nodes, plan, &self.clock)).await?;
        plan.warnings.extend(examined.warnings);
        let (bytes, speed) = (plan.bytes_once(), self.inventory.line_speed);
        plan.estimate = estimate(&plan.batches, bytes, speed, &self.history());
        Ok(examined.problems)
    }

    /// What modules would refuse, as each node knows it.
    async fn conflicting(
        &self,
        nodes: &BTreeMap<String, RemoteNode>,
        plan: &mut ClusterPlan,
    ) -> Result<Vec<NodeProblem>, Failure> {
        let manner = Manner {
            tolerant: self.request.tolerant,
            apply_patches: self.request.apply_patches,
            development: self.request.development,
        };
        let (problems, later) = interruptible(conflicts(nodes, plan, manner)).await?;
        plan.warnings.extend(later);
        Ok(problems)
    }

    /// What no single node is to blame for; told as Core's, where it is put right.
    async fn of_the_site(&self, plan: &mut ClusterPlan) -> Result<Vec<NodeProblem>, Failure> {
        let core = &self.inventory.core().id;
        let mut said = Vec::new();
        let halt = plan.foresee().1.map(|halt| NodeProblem {
            node: halt.node().unwrap_or(core).to_owned(),
            problem: Problem::Said {
                what: halt.to_string(),
                remedy: halt.remedy(),
            },
        });
        match self.maintenance().check(self.may_ask()).await {
            Ok(()) => {}
            // Who only looks at the plan may turn it on later.
            Err(failure) if failure.exit == Exit::Preflight && self.request.plan_only => {
                plan.warnings.push(terminal::describe(&failure));
            }
            Err(failure) if failure.exit == Exit::Preflight => {
                let remedy = failure.hint.clone().unwrap_or_default();
                said.push((terminal::describe(&failure), remedy));
            }
            Err(failure) => return Err(failure),
        }
        let problem = |(what, remedy)| NodeProblem {
            node: core.clone(),
            problem: Problem::Said { what, remedy },
        };
        Ok(halt.into_iter().chain(said.into_iter().map(problem)).collect())
    }

    /// Refuses when anything is in the way, all of it in one list with the remedies.
    ///
    /// # Errors
    /// [`Failure`] with 20.
    pub(super) fn refuse(&self, problems: &[NodeProblem]) -> Result<(), Failure> {
        if problems.is_empty() {
            return Ok(());
        }
        self.say_problems(problems);
        let mut ids: Vec<&str> = problems.iter().map(|problem| problem.node.as_str()).collect();
        ids.dedup();
        let what = anyhow!(
            "not ready to be upgraded: {}; nothing was changed on any node",
            ids.join(", ")
        );
        Err(Failure::new(Exit::Preflight, what).hint("do as said above, then run the same command again"))
    }

    /// The list, for people, and for programs as one event.
    pub(super) fn say_problems(&self, problems: &[NodeProblem]) {
        for line in report::problem_lines(problems, &self.inventory) {
            terminal::say(&line);
        }
        if self.request.json && !self.request.plan_only {
            let finding = |found: &NodeProblem| Finding {
                node: found.node.clone(),
                problem: found.problem.to_string(),
                remedy: report::remedy(found, &self.inventory),
            };
            let findings = problems.iter().map(finding).collect();
            report::Json.on(&Line::from(ClusterEvent::ClusterRefused { findings }));
        }
    }
}

/// By node, and of each node in the order in which they were found.
fn in_order(mut problems: Vec<NodeProblem>) -> Vec<NodeProblem> {
    problems.sort_by(|one, other| one.node.cmp(&other.node));
    problems
}

fn of(id: &str, problems: Vec<Problem>) -> impl Iterator<Item = NodeProblem> {
    problems.into_iter().map(move |problem| NodeProblem {
        node: id.to_owned(),
        problem,
    })
}
