//! The plan of a cluster's upgrade: which node when and why, decided once from facts and then followed.
//!
//! Pure. The plan is written to Core before the first node is touched and not changed afterwards; what is done is asked from
//! the nodes. A second call that comes to the same decision therefore continues the first one's plan ([`ClusterPlan::continues`]).

use std::collections::BTreeMap;

use jiff::Timestamp;
use kato_shared::{Digest, release::Version};
use serde::{Deserialize, Serialize};

use super::{
    facts::NodeStatus,
    order::{self, OrderNode, OrderRules, Place, RoleOrderError},
};
use crate::cluster::inventory::Inventory;

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
}

/// What is to be done with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is upgraded.
    Upgrade,
    /// It is at the target already.
    None,
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
    let mut rules = target.rules.clone();
    // What this cluster calls its special roles is the inventory's word, not the release's.
    rules.core_role.clone_from(&inventory.core_role);
    rules.implicit_role.clone_from(&inventory.implicit_role);
    if let Some(asked) = &wishes.role_order {
        let known: Vec<String> = rules.list.iter().chain(&target.roles).cloned().collect();
        rules.list = order::read_role_order(asked, &to_order, &known)?;
    }
    let ordered = order::order(&to_order, &rules);
    let nodes = ordered
        .nodes
        .into_iter()
        .filter_map(|placed| {
            let node = inventory.node(&placed.id)?;
            let status = facts.get(&placed.id);
            let settled = status.is_some_and(|status| status.is_settled_at(&target.version));
            Some(PlannedNode {
                id: placed.id,
                address: node.address.clone(),
                roles: node.roles.clone(),
                place: placed.place,
                from: status.and_then(|status| status.version.clone()),
                action: if settled && !wishes.force {
                    Action::None
                } else {
                    Action::Upgrade
                },
            })
        })
        .collect();
    let mut plan = ClusterPlan {
        schema: SCHEMA,
        id: String::new(),
        created: now,
        cluster: inventory.name.clone(),
        target: target.version.clone(),
        release_digest: target.digest,
        force: wishes.force,
        nodes,
        warnings: ordered.warnings,
    };
    plan.warnings.extend(outages(inventory, &plan));
    plan.id = plan.derive_id();
    Ok(plan)
}

/// Roles that one node alone has: while that node is upgraded, nobody stands in for it.
fn outages(inventory: &Inventory, plan: &ClusterPlan) -> Option<String> {
    let is_alone = |role: &&String| {
        **role != inventory.implicit_role
            && inventory.nodes.iter().filter(|node| node.has_role(role)).count() == 1
    };
    let alone: Vec<String> = plan
        .upgrades()
        .flat_map(|node| {
            let roles = node.roles.iter().filter(is_alone);
            roles.map(|role| format!("{role} ({})", node.id))
        })
        .collect();
    (!alone.is_empty()).then(|| {
        format!(
            "nobody stands in for a node that is upgraded and alone has a role: {}",
            alone.join(", ")
        )
    })
}

impl ClusterPlan {
    /// The nodes that are upgraded, in order.
    pub fn upgrades(&self) -> impl Iterator<Item = &PlannedNode> {
        self.nodes.iter().filter(|node| node.action == Action::Upgrade)
    }

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
        for (node, before) in self.nodes.iter_mut().zip(&earlier.nodes) {
            node.from.clone_from(&before.from);
        }
        self
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
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::facts::RunState;

    fn inventory() -> Inventory {
        let text = r#"
            [cluster]
            name = "site-a"
            [[node]]
            id = "core"
            address = "10.0.0.1"
            roles = ["primary"]
            [[node]]
            id = "c1"
            address = "10.0.0.2"
            roles = ["controller"]
            [[node]]
            id = "w1"
            address = "10.0.0.3"
            roles = ["dea"]
        "#;
        Inventory::parse(Path::new("cluster.toml"), text).unwrap()
    }

    fn facts(versions: [(&str, &str); 3]) -> BTreeMap<String, NodeStatus> {
        versions
            .into_iter()
            .map(|(id, version)| {
                let status = NodeStatus {
                    schema: 1,
                    node: id.into(),
                    roles: vec![],
                    version: Some(version.parse().unwrap()),
                    kato: "0.1.0".into(),
                    state: RunState::Idle,
                    run: None,
                    to: None,
                    step: None,
                    last_seq: 0,
                    out_of_service: false,
                    error: None,
                };
                (id.to_owned(), status)
            })
            .collect()
    }

    fn target() -> Target {
        Target {
            version: Version::new(2, 0, 0),
            digest: Digest::of(b"release"),
            rules: OrderRules::default(),
            roles: vec!["*".into()],
        }
    }

    fn make(facts: &BTreeMap<String, NodeStatus>, wishes: &Wishes, secs: i64) -> ClusterPlan {
        let now = Timestamp::from_second(secs).unwrap();
        plan(&inventory(), facts, &target(), wishes, now).unwrap()
    }

    const OLD: [(&str, &str); 3] = [("core", "1.0.0"), ("c1", "1.0.0"), ("w1", "1.0.0")];
    const HALF: [(&str, &str); 3] = [("core", "1.0.0"), ("c1", "1.0.0"), ("w1", "2.0.0")];

    #[test]
    fn c25_a_node_at_the_target_is_skipped_and_force_does_it_again() {
        let actions = |plan: &ClusterPlan| plan.upgrades().map(|node| node.id.clone()).collect::<Vec<_>>();
        assert_eq!(
            actions(&make(&facts(HALF), &Wishes::default(), 0)),
            ["c1", "core"]
        );
        let force = Wishes {
            force: true,
            ..Wishes::default()
        };
        assert_eq!(actions(&make(&facts(HALF), &force, 0)), ["w1", "c1", "core"]);
        let mut interrupted = facts(HALF);
        interrupted.get_mut("w1").unwrap().state = RunState::Interrupted;
        assert_eq!(
            actions(&make(&interrupted, &Wishes::default(), 0)),
            ["w1", "c1", "core"]
        );
    }

    #[test]
    fn c07_roles_without_a_second_node_are_named() {
        let plan = make(&facts(HALF), &Wishes::default(), 0);
        assert_eq!(
            plan.warnings,
            [
                "nobody stands in for a node that is upgraded and alone has a role: controller (c1), primary (core)"
            ]
        );
    }

    #[test]
    fn the_same_facts_make_the_same_plan() {
        let a = make(&facts(OLD), &Wishes::default(), 60);
        assert_eq!(a, make(&facts(OLD), &Wishes::default(), 60));
        assert!(a.id.starts_with("19700101T000100Z-"), "{}", a.id);
        assert_ne!(a.id, make(&facts(OLD), &Wishes::default(), 61).id);
    }

    #[test]
    fn r56_a_second_call_continues_the_plan_of_the_first() {
        let first = make(&facts(OLD), &Wishes::default(), 0);
        let second = make(&facts(HALF), &Wishes::default(), 9);
        assert!(second.continues(&first));
        let continued = second.clone().continuing(&first);
        assert_eq!(continued.id, first.id);
        assert_eq!(continued.nodes[0].from, Some(Version::new(1, 0, 0)));
        assert_eq!(continued.nodes[0].action, Action::None);
        // Another order, a forced run, and a node that went back are other plans.
        let other_order = Wishes {
            role_order: Some(vec!["controller".into()]),
            ..Wishes::default()
        };
        assert!(!make(&facts(HALF), &other_order, 9).continues(&first));
        let force = Wishes {
            force: true,
            ..Wishes::default()
        };
        assert!(!make(&facts(HALF), &force, 9).continues(&first));
        assert!(!make(&facts(OLD), &Wishes::default(), 10).continues(&second));
    }

    #[test]
    fn r30_the_operators_order_is_over_the_releases_and_a_wrong_one_is_refused() {
        let wishes = |role: &str| Wishes {
            role_order: Some(vec![role.into()]),
            force: false,
        };
        let ids: Vec<_> = make(&facts(OLD), &wishes("Controller"), 0)
            .nodes
            .into_iter()
            .map(|node| node.id)
            .collect();
        assert_eq!(ids, ["c1", "w1", "core"]);
        let refused = plan(
            &inventory(),
            &facts(OLD),
            &target(),
            &wishes("*"),
            Timestamp::UNIX_EPOCH,
        );
        assert!(
            matches!(refused, Err(RoleOrderError::Unknown { .. })),
            "{refused:?}"
        );
    }
}
