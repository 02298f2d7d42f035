//! What must hold before anything is changed on any node; every violation is found before the first is reported.
//!
//! Pure: from the inventory, the nodes' answers and the graph of releases to a list of problems with their remedies.

mod problem;

use jiff::Timestamp;
use kato_shared::{
    release::{Graph, PatchList, Release, Version},
    settings::{ByteSize, HumanDuration, range},
};
use serde::{Deserialize, Serialize};

pub use self::problem::{NodeProblem, Problem};
use super::{
    facts::{NodeStatus, RunState},
    survey::Survey,
};
use crate::{
    cluster::inventory::InventoryNode,
    patch::choice::{self, Here, Missing},
    space::{self, Need},
};

/// More than any node has, in bytes.
const MOST_MEMORY: u64 = 64 << 40;

/// `[preflight]`: what every node must be able to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// How far a node's clock may be from Core's.
    #[serde(deserialize_with = "range::duration::<_, _, 1, 86_400>")]
    pub clock_skew: HumanDuration,
    /// How much memory must be available on a node.
    #[serde(deserialize_with = "range::size::<_, _, 0, MOST_MEMORY>")]
    pub memory: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clock_skew: HumanDuration::from_secs(60),
            memory: ByteSize::mib(64),
        }
    }
}

/// When a node was asked and when its answer was there, by Core's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Before the question.
    pub before: Timestamp,
    /// After the answer.
    pub after: Timestamp,
}

/// The newest status document that this build understands.
const STATUS_SCHEMA: u32 = 1;

/// The problems of one node that do not depend on the wanted release.
pub fn identity(node: &InventoryNode, implicit_role: &str, status: &NodeStatus) -> Vec<Problem> {
    let mut problems = Vec::new();
    if status.schema > STATUS_SCHEMA {
        problems.push(Problem::Schema {
            schema: status.schema,
            kato: status.kato.clone(),
        });
    }
    if status.node != node.id {
        problems.push(Problem::OtherNode {
            answered: status.node.clone(),
        });
    }
    let (by_node, by_inventory) = (
        roles(&status.roles, implicit_role),
        roles(&node.roles, implicit_role),
    );
    if by_node != by_inventory {
        problems.push(Problem::RolesDiffer {
            node: by_node,
            inventory: by_inventory,
        });
    }
    problems
}

/// The problems of one node on its way to `target`.
pub fn way(status: &NodeStatus, target: &Version, graph: &Graph) -> Vec<Problem> {
    let mut problems = Vec::new();
    // A run to an older release is on the way, or can be finished on it; one that leads further cannot be undone.
    if let Some(to) = status
        .to
        .as_ref()
        .filter(|to| status.state != RunState::Idle && *to > target)
    {
        problems.push(Problem::Busy {
            to: to.clone(),
            running: status.state == RunState::Running,
        });
    }
    if let Some(Err(error)) = status.version.as_ref().map(|version| graph.hops(version, target)) {
        problems.push(Problem::NoWay(error));
    }
    problems
}

/// What a node's measurements say against its upgrade, which needs `needs`.
pub fn fitness(survey: &Survey, asked: &Asked, needs: &[Need], limits: &Limits) -> Vec<Problem> {
    let mut problems = Vec::new();
    // The node looked at its clock somewhere between question and answer; only what is outside of that is its fault.
    let limit = i64::try_from(limits.clock_skew.get().as_secs()).unwrap_or(i64::MAX);
    let ahead = survey.time.as_second() - asked.after.as_second();
    let behind = asked.before.as_second() - survey.time.as_second();
    let (seconds, is_ahead) = if ahead > behind {
        (ahead, true)
    } else {
        (behind, false)
    };
    if seconds > limit {
        problems.push(Problem::ClockSkew {
            seconds,
            is_ahead,
            limit: limits.clock_skew,
        });
    }
    if let Some(have) = survey
        .memory_available
        .filter(|have| *have < limits.memory.bytes())
    {
        problems.push(Problem::Memory {
            have,
            need: limits.memory.bytes(),
        });
    }
    if let Err(shortfall) = space::judge(survey.on_mounts(needs)) {
        problems.push(Problem::Space(shortfall));
    }
    problems
}

/// What a node that was measured says against its upgrade beside its room: its lock, its line to `cache`, its patches. `status` is what it said
/// before; a run of ours that is at work is no obstacle. With `apply_patches` those that can be installed are no obstacle either.
pub fn readiness(
    survey: &Survey,
    status: &NodeStatus,
    cache: Option<&str>,
    (list, way): (&PatchList, &[&Release]),
    apply_patches: bool,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(holder) = survey
        .held_by
        .as_ref()
        .filter(|_| status.state != RunState::Running)
    {
        problems.push(Problem::Locked {
            holder: holder.clone(),
        });
    }
    if let (Some(detail), Some(cache)) = (&survey.cut_off, cache) {
        problems.push(Problem::CutOff {
            cache: cache.to_owned(),
            detail: detail.clone(),
        });
    }
    // An upgrade that has begun has passed the gate.
    if let (Some(patches), Some(version), RunState::Idle) = (&survey.patches, &status.version, status.state) {
        let here = Here {
            version,
            roles: &status.roles,
            patches,
        };
        let way: Vec<&Release> = way
            .iter()
            .copied()
            .filter(|release| release.version != *version)
            .collect();
        problems.extend(patches_missing(
            choice::gate(&here, list, &way).missing,
            apply_patches,
        ));
    }
    problems
}

fn patches_missing(missing: Vec<Missing>, apply_patches: bool) -> Option<Problem> {
    let missing: Vec<Missing> = missing
        .into_iter()
        .filter(|missing| !(apply_patches && missing.can_be_installed))
        .collect();
    Some(Problem::Patches {
        release: missing.first()?.release.clone(),
        can_be_installed: missing.iter().all(|missing| missing.can_be_installed),
        missing: missing.into_iter().map(|missing| missing.name).collect(),
    })
}

/// Roles as they compare: lower case, sorted, without the one that everybody has.
fn roles(given: &[String], implicit_role: &str) -> Vec<String> {
    let mut roles: Vec<String> = given
        .iter()
        .map(|role| role.to_lowercase())
        .filter(|role| !role.eq_ignore_ascii_case(implicit_role))
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

#[cfg(test)]
mod tests {
    use kato_shared::release::{GraphEntry, HopError, graph::Graph};

    use super::*;
    use crate::{
        cluster::inventory::{SshSettings, Transport},
        ssh::Ended,
    };

    fn node() -> InventoryNode {
        InventoryNode {
            id: "w1".into(),
            address: "10.0.0.3".into(),
            roles: vec!["dea".into()],
            transport: Transport::Ssh,
            kato: None,
            config: "/etc/kato/kato.toml".into(),
        }
    }

    fn status() -> NodeStatus {
        serde_json::from_value(serde_json::json!({
            "schema": 1, "node": "w1", "roles": ["DEA", "base"], "version": "1.0.0", "kato": "0.1.0", "state": "idle",
            "added_later": true
        }))
        .unwrap()
    }

    fn graph() -> Graph {
        let entry = |version: &str| GraphEntry {
            version: version.parse().unwrap(),
            channel: "stable".into(),
            from: kato_shared::release::Sources::default(),
            floor: false,
        };
        Graph {
            schema: 1,
            product: "demo".into(),
            releases: vec![entry("1.0.0"), entry("2.0.0")],
        }
    }

    #[test]
    fn a_node_that_is_as_the_inventory_says_has_no_problem() {
        assert_eq!(identity(&node(), "base", &status()), []);
        assert_eq!(way(&status(), &Version::new(2, 0, 0), &graph()), []);
    }

    #[test]
    fn r26_roles_that_changed_since_the_inventory_was_written_are_a_problem() {
        let mut status = status();
        status.roles = vec!["controller".into(), "dea".into()];
        let problems = identity(&node(), "base", &status);
        assert_eq!(
            problems[0].to_string(),
            "its settings say roles [controller, dea], the inventory says [dea]"
        );
    }

    #[test]
    fn c12_a_wrong_clock_too_little_memory_and_space_are_found_together() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let survey = crate::plan::survey::tests::survey("w1");
        // The node says midnight.
        let asked = |before: &str, after: &str| Asked {
            before: at(before),
            after: at(after),
        };
        let limits = Limits::default();
        let in_time = asked("2025-12-31T23:59:30Z", "2026-01-01T00:00:10Z");
        assert_eq!(fitness(&survey, &in_time, &[], &limits), []);
        // A slow answer is no wrong clock.
        let slow = asked("2025-12-31T23:50:00Z", "2026-01-01T00:00:10Z");
        assert_eq!(fitness(&survey, &slow, &[], &limits), []);
        let need = Need {
            path: "/var/backup/x".into(),
            bytes: 11,
            inodes: 1,
            purpose: "backup",
        };
        let hour = asked("2026-01-01T01:00:00Z", "2026-01-01T01:00:01Z");
        let poor = Survey {
            memory_available: Some(1 << 20),
            ..survey
        };
        let problems: Vec<String> = fitness(&poor, &hour, &[need], &limits)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            problems[0],
            "its clock is 3600 s behind Core's, at most 1m is allowed"
        );
        assert_eq!(
            problems[1],
            "1.0 MiB of memory are available, 64.0 MiB are needed"
        );
        assert!(
            problems[2].starts_with("not enough space on `/var/backup`"),
            "{problems:?}"
        );
        assert_eq!(problems.len(), 3);
    }

    #[test]
    fn a_node_that_is_not_the_one_of_the_inventory_is_a_problem() {
        let mut status = status();
        status.node = "w2".into();
        status.schema = 2;
        let problems: Vec<_> = identity(&node(), "base", &status)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            problems,
            [
                "its kato 0.1.0 speaks status schema 2, this one up to 1",
                "at its address answers the node `w2`"
            ]
        );
    }

    #[test]
    fn r35_a_downgrade_and_a_run_to_elsewhere_are_problems() {
        let mut status = status();
        status.version = Some(Version::new(2, 0, 0));
        status.to = Some(Version::new(2, 0, 0));
        status.state = RunState::Failed;
        let problems = way(&status, &Version::new(1, 0, 0), &graph());
        assert_eq!(problems[0].to_string(), "a run to 2.0.0 is not finished");
        assert!(matches!(problems[1], Problem::NoWay(HopError::Downgrade { .. })));
    }

    #[test]
    fn r17_a_changed_host_key_is_compared_before_it_is_accepted() {
        let problem = Problem::Unreachable {
            detail: "`w1` at 10.0.0.3 cannot be reached: Host key verification failed.".into(),
        };
        let remedy = problem.remedy(&node(), &SshSettings::default());
        for expected in [
            "at its console",
            "`ssh-keygen -R 10.0.0.3`",
            "`ssh stackato@10.0.0.3`",
        ] {
            assert!(remedy.contains(expected), "{remedy}");
        }
    }

    #[test]
    fn r17_a_refusing_sudo_is_named_with_its_remedy() {
        let problem = Problem::NoStatus {
            program: "sudo -n kato".into(),
            ended: Ended::Exit(1),
            error: "sudo: a password is required".into(),
            hint: None,
        };
        assert_eq!(
            problem.to_string(),
            "asking `sudo -n kato` for its status ended with exit code 1: sudo: a password is required"
        );
        let remedy = problem.remedy(&node(), &SshSettings::default());
        assert!(
            remedy.contains("ssh stackato@10.0.0.3 sudo -n -l") && remedy.contains("NOPASSWD"),
            "{remedy}"
        );
    }
}
