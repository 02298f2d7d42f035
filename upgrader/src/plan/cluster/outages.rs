//! Roles that are down while a node of them is upgraded, because nobody stands in: no other node has the role, or none that has it is in
//! service.

use super::{ClusterPlan, PlannedNode};

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
