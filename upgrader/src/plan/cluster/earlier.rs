//! A plan beside another one: whether it goes on with it, what is left of it, and whether it still binds a call without a version.

use std::collections::BTreeMap;

use super::{Action, ClusterPlan, PlannedNode};
use crate::plan::facts::{NodeStatus, RunState};

impl ClusterPlan {
    /// Whether `earlier` decided the same, so that this call continues it. Versions and skips differ as nodes get done;
    /// `--force` always begins anew.
    pub fn continues(&self, earlier: &Self) -> bool {
        let same = |a: &PlannedNode, b: &PlannedNode| {
            a.id == b.id && a.address == b.address && a.roles == b.roles && a.place == b.place
        };
        !self.force
            && !earlier.force
            && earlier.schema == self.schema
            && earlier.target == self.target
            && earlier.release_digest == self.release_digest
            && earlier.policies == self.policies
            && earlier.nodes.len() == self.nodes.len()
            && earlier.nodes.iter().zip(&self.nodes).all(|(a, b)| same(a, b))
            // A node that went backwards was restored or built anew by somebody: another story than ours.
            && earlier.nodes.iter().zip(&self.nodes).all(|(a, b)| b.from >= a.from)
            // A finished plan is not continued: what is to be done now is new.
            && self.upgrades().all(|now| earlier.upgrades().any(|then| then.id == now.id))
    }

    /// This plan as the continuation of `earlier`: its name, and the versions that the nodes had when it began.
    #[must_use]
    pub fn continuing(mut self, earlier: &Self) -> Self {
        self.id.clone_from(&earlier.id);
        self.created = earlier.created;
        self.batches.clone_from(&earlier.batches);
        self.artifacts.clone_from(&earlier.artifacts);
        for (node, before) in self.nodes.iter_mut().zip(&earlier.nodes) {
            node.from.clone_from(&before.from);
        }
        self
    }

    /// The nodes that the upgrade `run` is not done with when everything that this plan upgrades is at the target: those that this one leaves
    /// out and `run` does not, and those on which a run is at work. `kept` is the plan on file; where it is not the one of `run`, nobody
    /// knows any more whom that was for, and every node counts.
    pub fn leaves_behind(&self, run: &str, kept: Option<&Self>) -> Vec<&str> {
        let of_run = kept.filter(|kept| kept.id == run && kept.target == self.target);
        let is_of_run = |id: &str| of_run.is_none_or(|plan| plan.upgrades().any(|node| node.id == id));
        let left_out = self.nodes.iter().filter(|node| node.action == Action::LeftOut);
        left_out
            .filter(|node| node.busy || is_of_run(&node.id))
            .map(|node| node.id.as_str())
            .collect()
    }

    /// How many nodes of `earlier`, another plan, are at its target or beyond as this one was made, and how many it upgrades.
    pub fn reached_of(&self, earlier: &Self) -> (usize, usize) {
        let is_there = |node: &&PlannedNode| {
            let now = self.nodes.iter().find(|now| now.id == node.id);
            now.is_some_and(|now| !now.busy && now.from.as_ref() >= Some(&earlier.target))
        };
        (
            earlier.upgrades().filter(is_there).count(),
            earlier.upgrades().count(),
        )
    }

    /// Whether this plan was begun and is not done: somebody who repeats the command without a version means its target, whatever was
    /// published meanwhile. A target that a node rolled back, or that a node has gone beyond, binds nobody.
    pub fn binds(&self, facts: &BTreeMap<String, NodeStatus>) -> bool {
        let target = &self.target;
        let name = target.to_string();
        let of_upgrades = || self.upgrades().filter_map(|node| facts.get(&node.id));
        let is_over = facts.values().any(|status| {
            status.rolled_back.contains_key(&name)
                || status.version.as_ref().is_some_and(|version| version > target)
        });
        let is_open = |status: &NodeStatus| {
            status.version.as_ref() != Some(target)
                || status.state != RunState::Idle && status.to.as_ref() == Some(target)
        };
        !self.force && !is_over && of_upgrades().any(is_open)
    }
}
