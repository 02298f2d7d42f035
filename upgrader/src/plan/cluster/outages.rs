//! Roles that are down while a node of them is upgraded, because nobody stands in: no other node has the role, none that has it is in
//! service, or all that are in service are upgraded together; and roles of which fewer stay than one would think, because some were away before.

use std::collections::BTreeMap;

use super::{Action, ClusterPlan, PlannedNode};

/// The line of the plan about them; `None` when every role has somebody.
pub(super) fn warning(plan: &ClusterPlan) -> Option<String> {
    let alone: Vec<String> = plan
        .upgrades()
        .flat_map(|node| {
            let roles = node.roles.iter().filter(|role| **role != plan.implicit_role);
            roles.filter_map(|role| alone(plan, node, role))
        })
        .collect();
    (!alone.is_empty()).then(|| {
        format!(
            "nobody stands in for a node that is upgraded and alone has a role: {}",
            alone.join(", ")
        )
    })
}

/// The line about roles all of whose nodes that are in service are upgraded in one batch; `None` when there are none.
pub(super) fn together(plan: &ClusterPlan) -> Option<String> {
    let down: Vec<String> = plan
        .batches
        .iter()
        .flat_map(|batch| {
            let in_batch = |node: &PlannedNode| batch.contains(&node.id);
            let mut roles: BTreeMap<String, Vec<&PlannedNode>> = BTreeMap::new();
            for node in plan.nodes.iter().filter(|node| node.absent.is_none()) {
                let own = node.roles.iter().filter(|role| **role != plan.implicit_role);
                for role in own {
                    roles.entry(role.to_lowercase()).or_default().push(node);
                }
            }
            // A single node was told already.
            roles.retain(|_, nodes| nodes.len() > 1 && nodes.iter().all(|node| in_batch(node)));
            roles
                .into_iter()
                .map(|(role, nodes)| {
                    let ids: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
                    format!("{role} ({})", ids.join(", "))
                })
                .collect::<Vec<_>>()
        })
        .collect();
    (!down.is_empty()).then(|| {
        format!(
            "all nodes of a role that are in service are upgraded together, and the role is down meanwhile; `min_available` or a smaller `max_in_flight` keeps some: {}",
            down.join(", ")
        )
    })
}

/// The line about roles whose upgrades go on although nodes of them are away, and nothing but room for the work decides; `None` when there
/// are none. Roles that are down are not told once more.
pub(super) fn thinned(plan: &ClusterPlan) -> Option<String> {
    let mut roles: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for node in plan.nodes.iter().filter(|node| node.action == Action::LeftOut) {
        let Some(absent) = node.absent else { continue };
        for role in node.roles.iter().filter(|role| **role != plan.implicit_role) {
            let has = |other: &PlannedNode| other.roles.iter().any(|own| own.eq_ignore_ascii_case(role));
            let stands_in = |other: &&PlannedNode| has(other) && alone(plan, other, role).is_none();
            let is_free = plan.policies.of(&role.to_lowercase()).min_available.is_none();
            if is_free && plan.upgrades().any(|other| stands_in(&other)) {
                roles
                    .entry(role)
                    .or_default()
                    .push(format!("{} {}", node.id, absent.text()));
            }
        }
    }
    let roles: Vec<String> = roles
        .into_iter()
        .map(|(role, away)| format!("{role} ({})", away.join("; ")))
        .collect();
    (!roles.is_empty()).then(|| {
        format!(
            "nodes that are left out and away do not hold the others back, because no `min_available` says so; only room for their work is asked for: {}",
            roles.join(", ")
        )
    })
}

/// The role with its node, and those that have it as well and are not in service; `None` when somebody stands in.
fn alone(plan: &ClusterPlan, node: &PlannedNode, role: &str) -> Option<String> {
    let has = |other: &&PlannedNode| {
        other.id != node.id && other.roles.iter().any(|own| own.eq_ignore_ascii_case(role))
    };
    let mut said = vec![node.id.clone()];
    for other in plan.nodes.iter().filter(has) {
        let absent = other.absent?;
        said.push(format!("{} {}", other.id, absent.text()));
    }
    Some(format!("{role} ({})", said.join("; ")))
}
