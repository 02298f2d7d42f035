//! The batches of a rollout, one after the other: who is at work, how each came out, and what waits between two batches.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use kato_shared::release::Version;
use tokio::time::Instant;

use super::{
    drive,
    result::{Reason, Rolled, of_turn, untouched},
    service,
};
use crate::{
    cluster::{
        control::{Control, Wanted, Wish},
        errand::{Errand, NodeFailure},
        event::{ClusterEvent, NodeResult, Outcome, Watcher},
        next::{Goal, report},
        remote::RemoteNode,
    },
    exit::Exit,
    plan::{
        absence::Absence,
        batch::{self, Halt, Member, Standing, Turn},
        cluster::{Action, ClusterPlan, PlannedNode},
    },
};

/// How often the operator's wish is looked at while nothing else happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A rollout under way.
pub(super) struct Rollout<'a> {
    plan: &'a ClusterPlan,
    nodes: &'a BTreeMap<String, RemoteNode>,
    errand: &'a Errand,
    control: &'a Control,
    watcher: &'a dyn Watcher,
    members: Vec<Member>,
    results: BTreeMap<String, NodeResult>,
    failures: Vec<(String, NodeFailure)>,
}

impl<'a> Rollout<'a> {
    pub(super) fn new(
        plan: &'a ClusterPlan,
        nodes: &'a BTreeMap<String, RemoteNode>,
        errand: &'a Errand,
        control: &'a Control,
        watcher: &'a dyn Watcher,
    ) -> Self {
        Self {
            plan,
            nodes,
            errand,
            control,
            watcher,
            members: plan.members(),
            results: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// To the end, or to the point from which nothing further may be begun.
    pub(super) async fn run(mut self) -> Rolled {
        self.skip();
        let reason = loop {
            let policies = &self.plan.policies;
            let asked = match batch::next(&self.members, policies) {
                Turn::Begin(ids) => ids,
                // Whoever is missing may be back since it was looked at last.
                Turn::Stop(Halt::TooFew { node, .. }) => vec![node],
                Turn::Stop(halt) => break Some(Reason::Rules(halt)),
                // A batch is awaited before the next turn is asked for, so nobody is at work here.
                Turn::Wait | Turn::Through => break None,
            };
            if let Some(reason) = admitted(self.control, &self.plan.id, self.watcher).await {
                break Some(reason);
            }
            match service::turn(&mut self.members, policies, self.nodes, &asked).await {
                Turn::Begin(ids) => self.batch(&ids).await,
                Turn::Stop(halt) => break Some(Reason::Rules(halt)),
                Turn::Wait | Turn::Through => break None,
            }
        };
        self.conclude(reason)
    }

    /// Nodes that need nothing, and those that are left out.
    fn skip(&mut self) {
        for planned in &self.plan.nodes {
            let (to, outcome) = match planned.action {
                Action::Upgrade => continue,
                Action::None => {
                    self.watcher.on(&ClusterEvent::NodeSkipped {
                        node: planned.id.clone(),
                        version: self.plan.target.clone(),
                    }
                    .into());
                    (Some(self.plan.target.clone()), Outcome::AlreadyThere)
                }
                Action::LeftOut => (planned.from.clone(), Outcome::LeftOut),
            };
            self.results
                .insert(planned.id.clone(), untouched(planned, to, outcome));
        }
    }

    fn wanted(&self) -> Option<Wanted> {
        self.control.wanted(&self.plan.id)
    }

    /// One batch, from the cordon to the end of its soak.
    async fn batch(&mut self, ids: &[String]) {
        self.stand(ids, |_| Standing::AtWork);
        self.watcher
            .on(&ClusterEvent::BatchStarted { nodes: ids.to_vec() }.into());
        if ids.len() > 1 {
            // All at once, and before the first is emptied: what leaves one must not move to the next.
            join_all(ids.iter().map(|id| self.cordon(id))).await;
        }
        let turns = join_all(self.planned(ids).map(|planned| self.turn(planned))).await;
        for (result, failed) in turns {
            self.record(result, failed);
        }
        self.soak(ids).await;
    }

    fn planned<'p>(&'p self, ids: &'p [String]) -> impl Iterator<Item = &'p PlannedNode> {
        self.plan.nodes.iter().filter(|node| ids.contains(&node.id))
    }

    /// Takes a node out of service without waiting until it is empty. Its own run does the same once more and waits, so that a
    /// failure here costs a second move of some work and nothing else.
    async fn cordon(&self, id: &str) {
        let Some(node) = self.nodes.get(id) else { return };
        if let Some(detail) = node.cordon(&self.errand.plan).await {
            self.watcher.on(&ClusterEvent::NodeNotCordoned {
                node: id.to_owned(),
                detail,
            }
            .into());
        }
    }

    /// One node, and how it came out.
    async fn turn(&self, planned: &PlannedNode) -> (NodeResult, Option<NodeFailure>) {
        let began = Instant::now();
        let outcome = drive(planned, Goal::Upgrade, self.nodes, self.errand, self.watcher).await;
        let (result, failed) = match outcome {
            Ok(version) => (of_turn(planned, version, began, Outcome::Upgraded), None),
            Err(failed) => {
                let version = failed.version.clone();
                (of_turn(planned, version, began, Outcome::Failed), Some(failed))
            }
        };
        // A node that was taken out of service with its batch and whose run never began is put back; a run puts its own back.
        if failed.as_ref().is_some_and(|failed| !failed.is_lost)
            && let Some(node) = self.nodes.get(&planned.id)
        {
            node.uncordon().await;
        }
        self.watcher.on(&finished(&result, failed.as_ref()).into());
        (result, failed)
    }

    fn record(&mut self, result: NodeResult, failed: Option<NodeFailure>) {
        let id = result.node.clone();
        let standing = match &failed {
            None => Standing::There,
            Some(failed) if failed.is_lost => Standing::Unreachable,
            Some(failed) => Standing::Failed {
                is_out: failed.is_out,
            },
        };
        self.stand(std::slice::from_ref(&id), |_| standing);
        if let Some(member) = self
            .members
            .iter_mut()
            .find(|member| member.id == id && failed.is_none())
        {
            member.absent = member.absent.and_then(Absence::after_upgrade);
        }
        self.results.insert(id.clone(), result);
        self.failures.extend(failed.map(|failed| (id, failed)));
    }

    fn stand(&mut self, ids: &[String], standing: impl Fn(&Member) -> Standing) {
        for member in self.members.iter_mut().filter(|member| ids.contains(&member.id)) {
            member.state = standing(member);
            // From here on this rollout follows it.
            member.is_busy = false;
        }
    }

    /// Lets time pass after a batch, then looks whether its nodes are still fine. The last batch has nobody to protect.
    async fn soak(&mut self, ids: &[String]) {
        let soak = self.members_of(ids).flat_map(|member| &member.roles);
        let soak = soak.map(|role| self.plan.policies.of(role).soak.get()).max();
        let soak = soak.unwrap_or_default();
        let is_last = !self
            .members
            .iter()
            .any(|member| member.state == Standing::Waiting);
        let there: Vec<String> = self
            .members_of(ids)
            .filter(|member| member.state == Standing::There)
            .map(|member| member.id.clone())
            .collect();
        if soak.is_zero() || is_last || there.is_empty() {
            return;
        }
        self.watcher.on(&ClusterEvent::SoakStarted {
            nodes: there.clone(),
            seconds: soak.as_secs(),
        }
        .into());
        let end = Instant::now() + soak;
        while Instant::now() < end && self.wanted().is_none_or(|wanted| wanted.wish != Wish::Abort) {
            tokio::time::sleep_until(end.min(Instant::now() + LOOK_EVERY)).await;
        }
        let checks = join_all(self.members_of(&there).map(|member| self.still_fine(member))).await;
        for (id, failed) in there.into_iter().zip(checks) {
            let Some(failed) = failed else { continue };
            if let Some(mut result) = self.results.remove(&id) {
                result.outcome = Outcome::Failed;
                result.to.clone_from(&failed.version);
                self.watcher.on(&finished(&result, Some(&failed)).into());
                self.record(result, Some(failed));
            }
        }
    }

    fn members_of<'m>(&'m self, ids: &'m [String]) -> impl Iterator<Item = &'m Member> {
        self.members.iter().filter(|member| ids.contains(&member.id))
    }

    /// Why a node that was upgraded is not fine any more.
    async fn still_fine(&self, member: &Member) -> Option<NodeFailure> {
        let node = self.nodes.get(&member.id)?;
        let failed = |text: String, version: Option<Version>, is_out: bool| NodeFailure {
            exit: Exit::Failed,
            error: report("soak", &text, Some("look at the node; the same command goes on")),
            version,
            is_lost: false,
            is_out,
        };
        match node.status().await {
            Ok(status) if !status.is_settled_at(&self.plan.target) => Some(failed(
                "it was upgraded, and is not at the target any more".into(),
                status.version,
                status.out_of_service,
            )),
            // Whom an operator had taken out of service before, the upgrade has left so.
            Ok(status) if status.out_of_service && member.absent != Some(Absence::RetiredByHand) => {
                Some(failed(
                    "it was upgraded, and is not in service any more".into(),
                    status.version,
                    true,
                ))
            }
            Ok(status) => {
                let sick = node.sickness().await?;
                let text = format!("it was upgraded, and is not healthy any more: {sick}");
                Some(failed(text, status.version, false))
            }
            Err(problem) => Some(NodeFailure {
                is_lost: true,
                ..failed(
                    format!("it was upgraded, and does not answer any more: {problem}"),
                    Some(self.plan.target.clone()),
                    true,
                )
            }),
        }
    }

    /// The table, in the plan's order.
    fn conclude(mut self, reason: Option<Reason>) -> Rolled {
        let nodes = self.plan.nodes.iter().map(|planned| {
            let result = self.results.remove(&planned.id);
            result.unwrap_or_else(|| untouched(planned, planned.from.clone(), Outcome::NotReached))
        });
        Rolled {
            nodes: nodes.collect(),
            failures: self.failures,
            reason,
        }
    }
}

/// Waits while the rollout of `plan` is paused; why it is not to go on, when it was aborted.
///
/// # Cancel safety
/// It only looks.
pub async fn admitted(control: &Control, plan: &str, watcher: &dyn Watcher) -> Option<Reason> {
    let mut paused = false;
    loop {
        match control.wanted(plan) {
            None => {
                if paused {
                    watcher.on(&ClusterEvent::ClusterResumed.into());
                }
                return None;
            }
            Some(Wanted {
                wish: Wish::Abort,
                reason,
                ..
            }) => return Some(Reason::Aborted { reason }),
            Some(wanted) => {
                if !std::mem::replace(&mut paused, true) {
                    watcher.on(&ClusterEvent::ClusterPaused {
                        since: wanted.since,
                        reason: wanted.reason,
                    }
                    .into());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

fn finished(result: &NodeResult, failed: Option<&NodeFailure>) -> ClusterEvent {
    let node = result.node.clone();
    match failed {
        None => ClusterEvent::NodeFinished {
            node,
            result: result.clone(),
        },
        Some(failed) => ClusterEvent::NodeFailed {
            node,
            exit: failed.exit,
            error: failed.error.clone(),
        },
    }
}

#[cfg(test)]
mod tests;
