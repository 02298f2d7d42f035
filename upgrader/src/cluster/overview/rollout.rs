//! The rollout in one line: how far it is, who is at work on it, and what an operator wants of it.

use super::{last_lease, last_plan, paths};
use crate::{
    cluster::{
        AGAIN,
        control::{Control, Wanted},
        facts::Answers,
        inventory::Inventory,
    },
    exit::Failure,
    lease::{self, Standing},
    plan::cluster::ClusterPlan,
    settings::Settings,
};

/// What Core knows of the rollout without asking a node.
#[derive(Debug)]
pub(in crate::cluster) struct Rollout {
    /// The plan that was followed last.
    pub(in crate::cluster) plan: Option<ClusterPlan>,
    /// Who orchestrates, or did last.
    pub(in crate::cluster) lease: Option<(lease::Record, Standing)>,
    /// What an operator wants of the plan.
    pub(in crate::cluster) wanted: Option<Wanted>,
}

impl Rollout {
    /// As Core's files say.
    ///
    /// # Errors
    /// [`Failure`] when the plan is damaged.
    pub(in crate::cluster) fn of(settings: &Settings) -> Result<Self, Failure> {
        let plan = last_plan(settings)?;
        let control = Control::in_state_dir(paths(settings).state_dir());
        let wanted = plan.as_ref().and_then(|plan| control.wanted(&plan.id));
        let lease = last_lease(settings);
        Ok(Self { plan, lease, wanted })
    }
}

/// Nodes that `plan` upgrades and that the inventory does not have any more.
pub(in crate::cluster) fn vanished<'p>(plan: &'p ClusterPlan, inventory: &Inventory) -> Vec<&'p str> {
    let ids = plan.upgrades().map(|node| node.id.as_str());
    ids.filter(|id| inventory.node(id).is_none()).collect()
}

/// One line about the rollout.
pub(in crate::cluster) fn headline(rollout: &Rollout, inventory: &Inventory, answers: &Answers) -> String {
    let held = rollout
        .lease
        .as_ref()
        .filter(|(_, standing)| *standing != Standing::Free);
    let Some(plan) = &rollout.plan else {
        return match held {
            Some((record, _)) => format!("an upgrade is being planned (process {})", record.holder.pid),
            None => "no upgrade of the cluster was begun from here".into(),
        };
    };
    let is_there = |id: &String| {
        let status = answers.facts.get(id);
        status.is_some_and(|status| status.is_settled_at(&plan.target))
    };
    let there = inventory.nodes.iter().filter(|node| is_there(&node.id)).count();
    let silent: Vec<&str> = inventory
        .nodes
        .iter()
        .map(|node| node.id.as_str())
        .filter(|id| !answers.facts.contains_key(*id))
        .collect();
    let (count, gone) = (inventory.nodes.len(), vanished(plan, inventory));
    let what = match (held, &rollout.wanted) {
        (None, Some(wanted)) if there < count => wanted.text(),
        (Some((record, Standing::AtWork)), wanted) => {
            let (pid, since) = (record.holder.pid, record.holder.started);
            let wish = wanted.as_ref().map(|wanted| format!("; {}", wanted.text()));
            format!(
                "at work (process {pid}, since {since:.0}){}",
                wish.unwrap_or_default()
            )
        }
        (Some((record, standing)), _) => format!(
            "process {} has it, and {}; `kato lock show` says more",
            record.holder.pid,
            standing.text()
        ),
        (None, _) if there == count && gone.is_empty() => "complete".into(),
        (None, _) if there == count => "all that the inventory still has".into(),
        (None, _) if there + silent.len() == count && there > 0 => {
            format!("{} gave no answer, all that did are there", silent.join(", "))
        }
        (None, _) => format!("not complete; go on with `{AGAIN}`"),
    };
    let gone = match gone[..] {
        [] => String::new(),
        _ => format!(
            "; the plan has {} as well, and cluster.toml does not",
            gone.join(", ")
        ),
    };
    format!(
        "upgrade to {}: {there} of {} there; {what}{gone}",
        plan.target,
        kato_shared::counted(count, "node is", "nodes are")
    )
}
