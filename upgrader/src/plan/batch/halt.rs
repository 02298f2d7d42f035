//! Why a rollout begins no further node, in words, and what an operator can do about each.

use serde::Serialize;

/// Why no further node is begun although some have not had their turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Halt {
    /// Too many nodes of a role failed.
    #[error("{} with the role {role} failed, {allowed} may", nodes(*count))]
    Failures {
        /// The role.
        role: String,
        /// How many failed.
        count: u32,
        /// How many may.
        allowed: u32,
    },
    /// Too many nodes of a role stopped answering.
    #[error("{} with the role {role} stopped answering, {allowed} may", nodes(*count))]
    Unreachable {
        /// The role.
        role: String,
        /// How many stopped.
        count: u32,
        /// How many may.
        allowed: u32,
    },
    /// A node cannot go out of service without too few being left.
    #[error(
        "{node} cannot go out of service: {} with the role {role} in service, and {least} must stay{}",
        nodes(*available), said(missing)
    )]
    TooFew {
        /// The node.
        node: String,
        /// The role.
        role: String,
        /// How many are in service.
        available: u32,
        /// How many must stay.
        least: u32,
        /// Those that are not in service, each with the reason.
        missing: Vec<String>,
    },
    /// As many nodes of a role as may be out of service are so, and none of them will come back by itself.
    #[error(
        "{node} cannot go out of service: {} with the role {role} out by an upgrade, and no more than {most} may be{}",
        nodes(*out), said(missing)
    )]
    TooManyOut {
        /// The node.
        node: String,
        /// The role.
        role: String,
        /// How many are out.
        out: u32,
        /// How many may be.
        most: u32,
        /// Those that are, each with the reason.
        missing: Vec<String>,
    },
    /// As many nodes as may be out of service in the whole cluster are so, and none of them will come back by itself.
    #[error("{node} cannot go out of service: {} out by an upgrade, and no more than {most} may be in all{}", nodes(*out), said(missing))]
    TooManyInAll {
        /// The node.
        node: String,
        /// How many are out.
        out: u32,
        /// How many may be.
        most: u32,
        /// Those that are, each with the reason.
        missing: Vec<String>,
    },
    /// Core is not upgraded before the others.
    #[error("Core waits for {}", behind.join(", "))]
    CoreWaits {
        /// Those that are behind.
        behind: Vec<String>,
    },
}

impl Halt {
    /// The node whose turn it is, where one is meant.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::TooFew { node, .. } | Self::TooManyOut { node, .. } | Self::TooManyInAll { node, .. } => {
                Some(node)
            }
            Self::Failures { .. } | Self::Unreachable { .. } | Self::CoreWaits { .. } => None,
        }
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::TooFew { role, missing, .. } if !missing.is_empty() => format!(
                "bring the others back (`kato node rejoin --node ID`, `kato explain ID`), or let fewer be in service by `min_available` in [rollout.role.{role}] of cluster.toml"
            ),
            Self::TooManyOut { missing, .. } | Self::TooManyInAll { missing, .. } if !missing.is_empty() => {
                "wait until the others are through or bring them back (`kato explain ID`), or loosen the rules in [rollout] of cluster.toml".into()
            }
            Self::TooFew { role, .. } | Self::TooManyOut { role, .. } => format!(
                "loosen the rules in [rollout.role.{role}] of cluster.toml, or give the role more nodes"
            ),
            Self::TooManyInAll { .. } => {
                "raise `max_in_flight_total` in [rollout] of cluster.toml".into()
            }
            Self::Failures { .. } | Self::Unreachable { .. } | Self::CoreWaits { .. } => {
                "put right what failed; the same command goes on".into()
            }
        }
    }
}

fn nodes(count: u32) -> String {
    kato_shared::counted(count, "node", "nodes")
}

fn said(missing: &[String]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    format!(" ({})", missing.join(", "))
}
