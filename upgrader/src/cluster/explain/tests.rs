use std::{path::Path, time::Duration};

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::{
    lock::Holder,
    plan::preflight::{NodeProblem, Problem},
};

const NODES: [(&str, &str); 3] = [("w1", "dea"), ("c1", "controller"), ("core", "primary")];

fn inventory() -> Inventory {
    let nodes = NODES
        .map(|(id, role)| format!("[[node]]\nid = \"{id}\"\naddress = \"{id}\"\nroles = [\"{role}\"]\n"));
    let text = nodes.concat();
    Inventory::parse(Path::new("cluster.toml"), &text).unwrap()
}

/// The status of a node at 1.0.0 with `more`.
fn status(id: &str, role: &str, more: &serde_json::Value) -> NodeStatus {
    let mut document = json!({
        "schema": 1, "node": id, "roles": [role], "version": "1.0.0", "kato": "0.1.0", "state": "idle"
    });
    document
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(document).unwrap()
}

fn answers(of: &[(&str, serde_json::Value)]) -> Answers {
    let mut answers = Answers::default();
    for (id, role) in NODES {
        let more = of
            .iter()
            .find(|(name, _)| *name == id)
            .map_or(json!({}), |(_, more)| more.clone());
        answers.facts.insert(id.into(), status(id, role, &more));
    }
    answers
}

fn plan() -> ClusterPlan {
    let nodes: Vec<_> = NODES
        .iter()
        .map(|(id, role)| {
            json!({"id": id, "address": id, "roles": [role], "place": {"why": "role", "role": role},
                   "from": "1.0.0", "action": "upgrade"})
        })
        .collect();
    serde_json::from_value(json!({
        "schema": 1, "id": "p1", "created": "2026-01-01T00:00:00Z", "cluster": "lab", "target": "2.0.0",
        "release_digest": format!("sha256:{}", "0".repeat(64)), "force": false, "nodes": nodes, "warnings": []
    }))
    .unwrap()
}

fn at_work() -> (lease::Record, lease::Standing) {
    let holder = Holder::here("r1", Path::new("/"), Timestamp::UNIX_EPOCH);
    let record = lease::Record {
        schema: 1,
        token: 7,
        holder,
        host: "core".into(),
        about: "the upgrade".into(),
        renewed: Timestamp::UNIX_EPOCH,
        renewed_uptime_secs: 0,
        term_secs: Duration::from_secs(60).as_secs(),
    };
    (record, lease::Standing::AtWork)
}

struct Case<'a> {
    answers: Answers,
    plan: Option<&'a ClusterPlan>,
    lease: Option<&'a (lease::Record, lease::Standing)>,
}

fn gate(case: &Case<'_>, id: &str) -> (Gate, String) {
    let inventory = inventory();
    let situation = Situation {
        inventory: &inventory,
        answers: &case.answers,
        plan: case.plan,
        lease: case.lease,
        wanted: None,
        lacks_maintenance: false,
    };
    let found = explain(&situation, inventory.node(id).unwrap());
    assert!(!found.changes.is_empty());
    (found.gate, found.why)
}

#[test]
fn c12_the_first_closed_gate_is_named() {
    let (plan, lease) = (plan(), at_work());
    let done = json!({"version": "2.0.0"});
    let case = |of: &[(&str, serde_json::Value)]| Case {
        answers: answers(of),
        plan: Some(&plan),
        lease: Some(&lease),
    };
    assert_eq!(
        gate(
            &Case {
                plan: None,
                ..case(&[])
            },
            "w1"
        )
        .0,
        Gate::NoPlan
    );
    assert_eq!(
        gate(
            &Case {
                lease: None,
                ..case(&[])
            },
            "w1"
        )
        .0,
        Gate::Orchestrator
    );
    let silent = (lease.0.clone(), lease::Standing::Silent { secs: 90 });
    assert_eq!(
        gate(
            &Case {
                lease: Some(&silent),
                ..case(&[])
            },
            "w1"
        )
        .0,
        Gate::Lock
    );
    assert_eq!(gate(&case(&[]), "w1"), (Gate::Order, "its turn is next".into()));
    assert_eq!(
        gate(&case(&[]), "core"),
        (Gate::Order, "2 nodes are before it: w1, c1".into())
    );
    assert_eq!(
        gate(&case(&[("w1", done.clone())]), "core").1,
        "1 node is before it: c1"
    );
    assert_eq!(gate(&case(&[("w1", done)]), "w1").0, Gate::None);
}

#[test]
fn c12_what_a_node_itself_says_comes_before_whose_turn_it_is() {
    let (plan, lease) = (plan(), at_work());
    let case = |more: serde_json::Value| Case {
        answers: answers(&[("w1", more)]),
        plan: Some(&plan),
        lease: Some(&lease),
    };
    let running = json!({"state": "running", "to": "2.0.0", "step": "retire",
                         "progress": {"step": "retire", "subject": "3 units of work are left", "done": 0, "total": 3}});
    let (found, why) = gate(&case(running), "w1");
    assert_eq!(found, Gate::OwnRun);
    assert!(
        why.contains("retire") && why.contains("3 units of work are left"),
        "{why}"
    );
    let error = json!({"step": "module:app", "message": "no space", "hint": "make room"});
    let failed = json!({"state": "failed", "to": "2.0.0", "step": "module:app", "error": error.clone()});
    let (found, why) = gate(&case(failed.clone()), "w1");
    assert_eq!(found, Gate::OwnFailure);
    assert!(why.contains("no space"), "{why}");
    assert_eq!(gate(&case(failed), "core").0, Gate::OtherFailure);
    assert_eq!(
        gate(&case(json!({"rolled_back": {"2.0.0": error}})), "w1").0,
        Gate::RolledBack
    );
    assert_eq!(gate(&case(json!({"roles": ["router"]})), "w1").0, Gate::Identity);
}

#[test]
fn c12_a_silent_node_is_explained_with_its_remedy() {
    let mut answers = answers(&[]);
    answers.facts.remove("w1");
    answers.problems.push(NodeProblem {
        node: "w1".into(),
        problem: Problem::Unreachable {
            detail: "no route".into(),
        },
    });
    let (found, why) = gate(
        &Case {
            answers,
            plan: None,
            lease: None,
        },
        "w1",
    );
    assert_eq!(
        (found, why.as_str()),
        (Gate::Answer, "it gives no answer: no route")
    );
}

#[test]
fn c12_a_pause_is_named_with_its_reason_before_the_order() {
    let (plan, lease, inventory) = (plan(), at_work(), inventory());
    let wanted = Wanted {
        schema: 1,
        plan: "p1".into(),
        wish: Wish::Pause,
        since: Timestamp::UNIX_EPOCH,
        reason: Some("lunch".into()),
    };
    let answers = answers(&[]);
    let situation = Situation {
        inventory: &inventory,
        answers: &answers,
        plan: Some(&plan),
        lease: Some(&lease),
        wanted: Some(&wanted),
        lacks_maintenance: false,
    };
    let found = explain(&situation, inventory.node("w1").unwrap());
    assert_eq!(found.gate, Gate::Wish);
    assert!(
        found.why.ends_with("lunch") && found.changes.contains("kato cluster resume"),
        "{found:?}"
    );
}
