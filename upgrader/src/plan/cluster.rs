//! The plan of a cluster's upgrade: which node when and why, decided once from facts and then followed.
//!
//! Pure. The plan is written to Core before the first node is touched and not changed afterwards; what is done is asked from
//! the nodes. A second call that comes to the same decision therefore continues the first one's plan ([`ClusterPlan::continues`]).

mod choice;
mod earlier;
mod outages;

use std::collections::BTreeMap;

use jiff::Timestamp;
use kato_shared::{Digest, release::Version};
use serde::{Deserialize, Serialize};

pub use self::choice::{Choice, ChoiceError};
use super::{
    absence::{self, Absence},
    batch::{self, Halt, Member, Standing},
    estimate::Estimate,
    facts::NodeStatus,
    order::{self, OrderNode, OrderRules, Place, RoleOrderError},
    policy::Policies,
    survey::NodeWork,
};
use crate::cluster::inventory::{Inventory, InventoryNode};

/// The version of the plan's format.
pub const SCHEMA: u32 = 1;

/// The release that the cluster is upgraded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its version.
    pub version: Version,
    /// The digest of its document.
    pub digest: Digest,
    /// The order and the special roles that the release gives.
    pub rules: OrderRules,
    /// Every role that its modules name.
    pub roles: Vec<String>,
}

/// What the operator asked beyond the version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `--role-order`.
    pub role_order: Option<Vec<String>>,
    /// `--force`: nodes that are at the target are done once more.
    pub force: bool,
    /// `--only` and `--exclude`.
    pub choice: Choice,
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPlan {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// The plan's id; the runs on the nodes are named after it.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// The cluster's name.
    pub cluster: String,
    /// The version that every node has in the end.
    pub target: Version,
    /// The digest of the release document.
    pub release_digest: Digest,
    /// Whether nodes that are at the target are done once more.
    pub force: bool,
    /// The nodes in order.
    pub nodes: Vec<PlannedNode>,
    /// The ids of the nodes that are upgraded together, in order, as far as nothing fails.
    #[serde(default)]
    pub batches: Vec<Vec<String>>,
    /// The rules of the roles.
    #[serde(default)]
    pub policies: Policies,
    /// The order of roles that the operator asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_order: Option<Vec<String>>,
    /// The role that says nothing about a node.
    #[serde(default)]
    pub implicit_role: String,
    /// The role of Core.
    #[serde(default)]
    pub core_role: String,
    /// The digest of the inventory that the plan was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory_digest: Option<Digest>,
    /// What the nodes that are upgraded install, each once.
    #[serde(default)]
    pub artifacts: Vec<PlannedArtifact>,
    /// The token of the lease under which it was made; every command of it carries that one or a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// How long it will take, where anything is known about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// The nodes that stay behind and for which Core is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spared: Vec<String>,
    /// What the operator should know before saying yes.
    pub warnings: Vec<String>,
}

/// A node in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedNode {
    /// Its id.
    pub id: String,
    /// Its address.
    pub address: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Why it stands where it stands.
    pub place: Place,
    /// The installed version when the plan was made.
    pub from: Option<Version>,
    /// Whether anything is to be done.
    pub action: Action,
    /// Why it is not in service, when the plan was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<Absence>,
    /// Whether a run was at work on it then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub busy: bool,
    /// What that is, as far as the node could be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<NodeWork>,
}

/// Something that nodes install.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlannedArtifact {
    /// The name of its target, or of the image.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What is to be done with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is upgraded.
    Upgrade,
    /// It is at the target already.
    None,
    /// It stays as it is, because the operator left it out or because it is Core and others stay behind.
    LeftOut,
}

/// Makes the plan. `facts` has the status of every node of the inventory; a node without one is planned as never installed.
///
/// # Errors
/// [`RoleOrderError`] when the operator's list of roles has a word that is no role.
pub fn plan(
    inventory: &Inventory,
    facts: &BTreeMap<String, NodeStatus>,
    target: &Target,
    wishes: &Wishes,
    now: Timestamp,
) -> Result<ClusterPlan, RoleOrderError> {
    let to_order: Vec<OrderNode<'_>> = inventory
        .nodes
        .iter()
        .map(|node| OrderNode {
            id: &node.id,
            roles: &node.roles,
        })
        .collect();
    // What this cluster calls its special roles is the inventory's word, not the release's.
    let mut rules = target
        .rules
        .clone()
        .called(&inventory.core_role, &inventory.implicit_role);
    if let Some(asked) = &wishes.role_order {
        rules.list = order::read_role_order(asked, &to_order, &target.roles, &rules)?;
    }
    let ordered = order::order(&to_order, &rules);
    let nodes = ordered.nodes.into_iter().filter_map(|placed| {
        let status = facts.get(&placed.id);
        Some(planned(
            inventory.node(&placed.id)?,
            placed.place,
            status,
            target,
            wishes,
            &inventory.implicit_role,
        ))
    });
    let mut plan = ClusterPlan {
        schema: SCHEMA,
        id: String::new(),
        created: now,
        cluster: inventory.name.clone(),
        target: target.version.clone(),
        release_digest: target.digest,
        force: wishes.force,
        nodes: nodes.collect(),
        batches: Vec::new(),
        policies: inventory.rollout.clone(),
        role_order: wishes.role_order.clone(),
        implicit_role: inventory.implicit_role.clone(),
        core_role: inventory.core_role.clone(),
        inventory_digest: Some(inventory.digest()),
        artifacts: Vec::new(),
        fence: None,
        estimate: None,
        spared: Vec::new(),
        warnings: ordered.warnings,
    };
    let spared = choice::spare_core(&mut plan);
    plan.warnings.extend(spared);
    plan.warnings.extend(outages::warning(&plan));
    plan.warnings.extend(outages::thinned(&plan));
    plan.batches = plan.foresee().0;
    plan.warnings.extend(outages::together(&plan));
    plan.id = plan.derive_id();
    Ok(plan)
}

/// A node at its place.
fn planned(
    node: &InventoryNode,
    place: Place,
    status: Option<&NodeStatus>,
    target: &Target,
    wishes: &Wishes,
    implicit: &str,
) -> PlannedNode {
    let settled = status.is_some_and(|status| status.is_settled_at(&target.version));
    let action = if settled && !wishes.force {
        Action::None
    } else if wishes.choice.wants(node, implicit) {
        Action::Upgrade
    } else {
        Action::LeftOut
    };
    PlannedNode {
        id: node.id.clone(),
        address: node.address.clone(),
        roles: node.roles.clone(),
        place,
        from: status.and_then(|status| status.version.clone()),
        action,
        absent: Absence::of(status),
        busy: absence::is_busy(status),
        work: None,
    }
}

impl ClusterPlan {
    /// The nodes that are upgraded, in order.
    pub fn upgrades(&self) -> impl Iterator<Item = &PlannedNode> {
        self.nodes.iter().filter(|node| node.action == Action::Upgrade)
    }

    /// Bytes that the nodes install, each file counted once: what crosses the line to the upgrade host at most.
    pub fn bytes_once(&self) -> u64 {
        self.artifacts.iter().map(|artifact| artifact.bytes).sum()
    }

    /// The batches when nothing fails, and why the rules let some nodes never have their turn, if they do.
    pub fn foresee(&self) -> (Vec<Vec<String>>, Option<Halt>) {
        batch::foresee(&self.members(), &self.policies)
    }

    /// The nodes as they stand at the beginning, for [`batch::next`].
    pub fn members(&self) -> Vec<Member> {
        let mut group = 0;
        let mut before: Option<&Place> = None;
        let mut members = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            if before.is_some_and(|place| *place != node.place) {
                group += 1;
            }
            before = Some(&node.place);
            members.push(Member {
                id: node.id.clone(),
                roles: self.roles_with_rules(node),
                group,
                is_core: node.place == Place::Core,
                state: match node.action {
                    Action::Upgrade => Standing::Waiting,
                    Action::None => Standing::There,
                    Action::LeftOut => Standing::LeftOut,
                },
                absent: node.absent,
                was_absent: node.absent.is_some() && !node.busy,
                is_busy: node.busy,
            });
        }
        members
    }

    /// The roles whose rules a node obeys. The one that everybody has counts only for nodes that have no other, and Core's own
    /// has no second node that could stand in for it.
    fn roles_with_rules(&self, node: &PlannedNode) -> Vec<String> {
        let own = node.roles.iter().filter(|role| **role != self.implicit_role);
        let own: Vec<String> = own.map(|role| role.to_lowercase()).collect();
        if own.is_empty() {
            return vec![self.implicit_role.clone()];
        }
        own.into_iter().filter(|role| *role != self.core_role).collect()
    }

    /// The time, for people, and a few digits that tell plans of the same second apart.
    fn derive_id(&self) -> String {
        let mut text = format!("{}|{}|{}", self.cluster, self.release_digest, self.created);
        for node in &self.nodes {
            text.push('|');
            text.push_str(&node.id);
        }
        let digits = Digest::of(text.as_bytes()).hex();
        format!("{}-{}", self.created.strftime("%Y%m%dT%H%M%SZ"), &digits[..6])
    }
}

#[cfg(test)]
mod tests;
