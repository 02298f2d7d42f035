//! Which nodes are upgraded next: a pure function of how every node stands and of the rules of the roles.
//!
//! Nodes go in groups, in the order of their places; a group begins when the one before it is through. Within a group the canaries
//! go first, then as many at a time as the rules allow. The same function makes the batches of a plan (as if all went well) and
//! decides during the rollout (as it went).
//!
//! A node does not do its work while it is at work on its upgrade, and also when somebody has taken it out of service or when it gives no
//! answer, wanted or not ([`Absence`]): all of that counts for `min_available`. To upgrade a node that was retired costs nothing. Where no
//! `min_available` is set, who was away when the plan was made holds nobody up (whether work has room is asked elsewhere); who goes away
//! afterwards does. A run that is at work on a node is by our doing, whoever began it and whether the node is wanted now or not; to follow
//! it takes nobody else out.
//!
//! Invariants, tested with clusters and outcomes by chance: no role, and not the cluster as a whole, has more nodes out of service by
//! our doing than `max_in_flight` and `max_in_flight_total`; no role falls below `min_available` by our doing; nothing is begun after
//! too many failures; Core is alone and last, and waits for all.

mod halt;

pub use self::halt::Halt;
use super::{absence::Absence, policy::Policies};

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
    /// Why it is not in service, apart from that.
    pub absent: Option<Absence>,
    /// Whether that was so when the plan was made: who said yes to it knew.
    pub was_absent: bool,
    /// Whether a run is at work on it that this rollout does not follow (yet): of an earlier call, or begun by hand.
    pub is_busy: bool,
}

impl Member {
    /// Whether its turn has not come.
    pub fn is_waiting(&self) -> bool {
        self.state == Standing::Waiting
    }

    /// Whether it does not do its work.
    fn is_out(&self) -> bool {
        self.is_ours() || self.absent.is_some()
    }

    /// Whether it does not do its work by our doing.
    const fn is_ours(&self) -> bool {
        self.state.is_out() || self.is_busy
    }

    /// Its id, and why it is out.
    fn complaint(&self) -> String {
        let why = if self.is_busy {
            "is being upgraded"
        } else {
            self.absent.map_or("is out of service", Absence::text)
        };
        format!("{} {why}", self.id)
    }
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
    /// Whether the node does not do its work by our doing, as far as we know.
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
                        (member.state, member.is_busy) = (Standing::There, false);
                        member.absent = member.absent.and_then(Absence::after_upgrade);
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
    if member.is_busy {
        return None;
    }
    let others = u32::try_from(members.iter().filter(|other| !other.is_core).count()).unwrap_or(u32::MAX);
    let (out, most) = (ours(members.iter(), taken), policies.total.at_most(others));
    if out >= most {
        return Some(Halt::TooManyInAll {
            node: member.id.clone(),
            out,
            most,
            missing: complaints(members.iter()),
        });
    }
    let mut roles = member.roles.iter();
    roles.find_map(|role| too_many_of(role, member, taken, members, policies))
}

/// Why the rules of `role` do not let `member` go.
fn too_many_of(
    role: &String,
    member: &Member,
    taken: &[&Member],
    members: &[Member],
    policies: &Policies,
) -> Option<Halt> {
    let policy = policies.of(role);
    let all = count(with(members, role), |_any| true);
    let taken: Vec<&Member> = taken
        .iter()
        .copied()
        .filter(|other| other.roles.contains(role))
        .collect();
    let (out, most) = (
        ours(with(members, role), &taken),
        policy.max_in_flight.at_most(all),
    );
    let (node, role) = (member.id.clone(), role.clone());
    if out >= most {
        return Some(Halt::TooManyOut {
            node,
            missing: complaints(with(members, &role)),
            role,
            out,
            most,
        });
    }
    let is_missing = |other: &&Member| other.is_out() && other.id != member.id;
    let missing: Vec<String> = with(members, &role)
        .filter(is_missing)
        .map(Member::complaint)
        .collect();
    let going = taken.iter().filter(|other| !other.is_out()).count();
    let gone = u32::try_from(missing.len() + going + usize::from(member.is_out())).unwrap_or(u32::MAX);
    let is_missed = |other: &&Member| {
        other.was_absent && other.absent.is_some() && !other.is_busy && other.id != member.id
    };
    let missed = u32::try_from(with(members, &role).filter(is_missed).count()).unwrap_or(u32::MAX);
    let (available, least) = (all.saturating_sub(gone), policy.least(all, missed));
    let is_too_few = match member.absent {
        None => available.saturating_sub(1) < least,
        // It may serve all the same, cut off from Core alone.
        Some(Absence::Silent) => available < least,
        // What is out already takes nobody's place.
        Some(Absence::Retired | Absence::RetiredByHand) => false,
    };
    is_too_few.then_some(Halt::TooFew {
        node,
        role,
        available,
        least,
        missing,
    })
}

/// Those of `members` that are out of service by our doing, each with the reason.
fn complaints<'m>(members: impl Iterator<Item = &'m Member>) -> Vec<String> {
    members
        .filter(|member| member.is_ours())
        .map(Member::complaint)
        .collect()
}

/// How many of `members` are out of service by our doing when `taken` are; each counts once.
fn ours<'m>(members: impl Iterator<Item = &'m Member>, taken: &[&Member]) -> u32 {
    let is_taken = |member: &Member| taken.iter().any(|other| other.id == member.id);
    let out = members
        .filter(|member| member.is_ours() || is_taken(member))
        .count();
    u32::try_from(out).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
