//! Whether a node is in service whatever its turn is: what `min_available` counts. Pure; asked again before each batch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    batch::Member,
    facts::{NodeStatus, RunState},
};

/// Why a node does not do its work although no upgrade of this rollout is at work on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Absence {
    /// An upgrade took it out of service and has not put it back; its own turn does.
    Retired,
    /// An operator took it out of service; it stays out until the operator puts it back.
    RetiredByHand,
    /// It gives no answer.
    Silent,
}

impl Absence {
    /// Of a node by what it said; `None` while it is in service.
    pub fn of(status: Option<&NodeStatus>) -> Option<Self> {
        match status {
            None => Some(Self::Silent),
            Some(status) if !status.out_of_service => None,
            Some(status) if status.is_retired_by_hand() => Some(Self::RetiredByHand),
            Some(_) => Some(Self::Retired),
        }
    }

    /// What is left of it when the node was upgraded and nothing failed.
    pub const fn after_upgrade(self) -> Option<Self> {
        match self {
            Self::Retired | Self::Silent => None,
            Self::RetiredByHand => Some(self),
        }
    }

    /// For people, behind the name of the node.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Retired => "is out of service",
            Self::RetiredByHand => "was taken out of service by hand",
            Self::Silent => "does not answer",
        }
    }
}

/// Notes how the nodes in `asked` are in this moment; `facts` has the status of those that answered.
pub fn note(members: &mut [Member], asked: &[String], facts: &BTreeMap<String, NodeStatus>) {
    for member in members.iter_mut().filter(|member| asked.contains(&member.id)) {
        let status = facts.get(&member.id);
        member.absent = Absence::of(status);
        member.is_busy = is_busy(status);
    }
}

/// Whether a run is at work on a node by what it said.
pub fn is_busy(status: Option<&NodeStatus>) -> bool {
    status.is_some_and(|status| status.state == RunState::Running)
}

/// The nodes on whose service the next turn of the group of `ids` depends: those that share a role with a node that waits there, and those
/// that were busy when they were asked last. Nobody where no role has a second node.
pub fn peers(members: &[Member], ids: &[String]) -> Vec<String> {
    let groups: Vec<u32> = members
        .iter()
        .filter(|member| ids.contains(&member.id) && !member.is_core)
        .map(|member| member.group)
        .collect();
    let coming = || {
        members
            .iter()
            .filter(|member| groups.contains(&member.group) && member.is_waiting())
    };
    let is_peer = |member: &&Member| {
        let shares = |other: &Member| {
            other.id != member.id && other.roles.iter().any(|role| member.roles.contains(role))
        };
        member.is_busy || coming().any(shares)
    };
    members
        .iter()
        .filter(is_peer)
        .map(|member| member.id.clone())
        .collect()
}
