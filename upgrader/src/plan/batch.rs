//! Which nodes are upgraded next: a pure function of how every node stands and of the rules of the roles.
//!
//! Nodes go in groups, in the order of their places; a group begins when the one before it is through. Within a group the canaries
//! go first, then as many at a time as the rules allow. The same function makes the batches of a plan (as if all went well) and
//! decides during the rollout (as it went).
//!
//! Invariants, tested with clusters and outcomes by chance: no role has more nodes out of service than `max_in_flight`; no role
//! falls below `min_available` by our doing; nothing is begun after too many failures; Core is alone and last, and waits for all.

use serde::Serialize;

use super::policy::Policies;

/// A node as far as its turn is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// The roles whose rules it obeys, in lower case.
    pub roles: Vec<String>,
    /// The number of its group; smaller ones come first.
    pub group: u32,
    /// Whether it is Core.
    pub is_core: bool,
    /// How it stands.
    pub state: Standing,
}

/// How a node stands in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its turn has not come.
    Waiting,
    /// It is being upgraded.
    AtWork,
    /// It is at the target.
    There,
    /// It stays as it is, because the operator said so.
    LeftOut,
    /// Its upgrade failed.
    Failed {
        /// Whether it is out of service.
        is_out: bool,
    },
    /// It stopped answering in the middle of its upgrade.
    Unreachable,
}

impl Standing {
    /// Whether the node does not do its work, as far as we know.
    const fn is_out(self) -> bool {
        matches!(
            self,
            Self::AtWork | Self::Failed { is_out: true } | Self::Unreachable
        )
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Begin these.
    Begin(Vec<String>),
    /// Wait for those that are at work.
    Wait,
    /// Begin no further one.
    Stop(Halt),
    /// Every node had its turn.
    Through,
}

/// Why no further node is begun although some have not had their turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Halt {
    /// Too many nodes of a role failed.
    #[error("{count} nodes with the role {role} failed, {allowed} may")]
    Failures {
        /// The role.
        role: String,
        /// How many failed.
        count: u32,
        /// How many may.
        allowed: u32,
    },
    /// Too many nodes of a role stopped answering.
    #[error("{count} nodes with the role {role} stopped answering, {allowed} may")]
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
        "{node} cannot go out of service: {available} nodes with the role {role} are in service, and {least} must stay"
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
    },
    /// As many nodes of a role as may be out of service are so, and none of them will come back by itself.
    #[error(
        "{node} cannot go out of service: {out} nodes with the role {role} are out, and no more than {most} may be"
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
    },
    /// Core is not upgraded before the others.
    #[error("Core waits for {}", behind.join(", "))]
    CoreWaits {
        /// Those that are behind.
        behind: Vec<String>,
    },
}

/// Decides.
pub fn next(members: &[Member], policies: &Policies) -> Turn {
    if members.iter().any(|member| member.state == Standing::AtWork) {
        return Turn::Wait;
    }
    if let Some(halt) = too_many(members, policies) {
        return Turn::Stop(halt);
    }
    let waiting = |member: &&Member| member.state == Standing::Waiting;
    let Some(group) = members.iter().filter(waiting).map(|member| member.group).min() else {
        return Turn::Through;
    };
    let mut candidates = members
        .iter()
        .filter(waiting)
        .filter(|member| member.group == group)
        .peekable();
    if let Some(core) = candidates.peek().filter(|member| member.is_core) {
        let behind: Vec<String> = members
            .iter()
            .filter(|member| !member.is_core && member.state != Standing::There)
            .map(|member| member.id.clone())
            .collect();
        if !behind.is_empty() {
            return Turn::Stop(Halt::CoreWaits { behind });
        }
        // Core's role has no second node that could stand in for it; its rules cannot ask for one.
        return Turn::Begin(vec![core.id.clone()]);
    }
    let room = canaries_left(members, group, policies);
    let (mut taken, mut refused): (Vec<&Member>, Option<Halt>) = (Vec::new(), None);
    for member in candidates {
        if taken.len() as u64 >= room {
            break;
        }
        match in_the_way(member, &taken, members, policies) {
            None => taken.push(member),
            Some(halt) => refused = refused.or(Some(halt)),
        }
    }
    match (taken.is_empty(), refused) {
        (true, Some(halt)) => Turn::Stop(halt),
        _ => Turn::Begin(taken.into_iter().map(|member| member.id.clone()).collect()),
    }
}

/// The batches of a rollout in which nothing fails, and why it cannot reach all nodes, if it cannot.
pub fn foresee(members: &[Member], policies: &Policies) -> (Vec<Vec<String>>, Option<Halt>) {
    let mut members = members.to_vec();
    let mut batches = Vec::new();
    loop {
        match next(&members, policies) {
            Turn::Begin(ids) => {
                for member in &mut members {
                    if ids.contains(&member.id) {
                        member.state = Standing::There;
                    }
                }
                batches.push(ids);
            }
            Turn::Stop(halt) => return (batches, Some(halt)),
            Turn::Wait | Turn::Through => return (batches, None),
        }
    }
}

/// The nodes that obey the rules of `role`.
fn with<'m>(members: &'m [Member], role: &'m str) -> impl Iterator<Item = &'m Member> {
    members
        .iter()
        .filter(move |member| member.roles.iter().any(|own| own == role))
}

fn count<'m>(members: impl Iterator<Item = &'m Member>, is: impl Fn(Standing) -> bool) -> u32 {
    let number = members.filter(|member| is(member.state)).count();
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Whether a role has had more failures than its rules allow.
fn too_many(members: &[Member], policies: &Policies) -> Option<Halt> {
    let roles = members.iter().flat_map(|member| &member.roles);
    roles.into_iter().find_map(|role| {
        let policy = policies.of(role);
        let failed = count(with(members, role), |state| {
            matches!(state, Standing::Failed { .. })
        });
        let lost = count(with(members, role), |state| state == Standing::Unreachable);
        if failed > policy.max_failures {
            return Some(Halt::Failures {
                role: role.clone(),
                count: failed,
                allowed: policy.max_failures,
            });
        }
        (lost > policy.max_unreachable).then(|| Halt::Unreachable {
            role: role.clone(),
            count: lost,
            allowed: policy.max_unreachable,
        })
    })
}

/// How many nodes of the group may go now for the sake of its canaries.
fn canaries_left(members: &[Member], group: u32, policies: &Policies) -> u64 {
    let of_group = || members.iter().filter(|member| member.group == group);
    let there = u64::from(count(of_group(), |state| state == Standing::There));
    let wanted = of_group()
        .flat_map(|member| &member.roles)
        .map(|role| u64::from(policies.of(role).canaries))
        .max()
        .unwrap_or(0);
    if there >= wanted { u64::MAX } else { wanted - there }
}

/// Why `member` cannot go together with those that are `taken`.
fn in_the_way(member: &Member, taken: &[&Member], members: &[Member], policies: &Policies) -> Option<Halt> {
    member.roles.iter().find_map(|role| {
        let policy = policies.of(role);
        let all = count(with(members, role), |_any| true);
        let going = taken.iter().filter(|other| other.roles.contains(role)).count();
        let going = u32::try_from(going).unwrap_or(u32::MAX);
        let out = count(with(members, role), Standing::is_out).saturating_add(going);
        let available = all.saturating_sub(out);
        let (most, least) = (
            policy.max_in_flight.at_most(all),
            policy.min_available.at_least(all),
        );
        let (node, role) = (member.id.clone(), role.clone());
        if available.saturating_sub(1) < least {
            return Some(Halt::TooFew {
                node,
                role,
                available,
                least,
            });
        }
        (out >= most).then_some(Halt::TooManyOut {
            node,
            role,
            out,
            most,
        })
    })
}

#[cfg(test)]
mod tests;
