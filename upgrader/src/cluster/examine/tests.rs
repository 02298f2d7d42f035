//! Two hundred nodes, asked and planned within bounds.

use std::{fmt::Write as _, path::Path};

use kato_shared::{
    Digest,
    release::{Graph, GraphEntry, PatchList, SCHEMA, Sources, Version},
};
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::{
    cluster::facts as asking,
    plan::{
        cluster::{Target, Wishes, plan},
        order::OrderRules,
    },
    ssh::fake::FakeNode,
};

const ROLES: [&str; 4] = ["dea", "dea", "controller", "router"];

fn inventory(count: usize, rollout: &str) -> Inventory {
    let mut text =
        format!("{rollout}\n[[node]]\nid = \"core\"\naddress = \"10.0.0.1\"\nroles = [\"primary\"]\n");
    for number in 1..count {
        let role = ROLES[number % ROLES.len()];
        writeln!(
            text,
            "[[node]]\nid = \"n{number:03}\"\naddress = \"10.1.{}.{}\"\nroles = [\"{role}\"]",
            number / 250,
            number % 250 + 1
        )
        .unwrap();
    }
    Inventory::parse(Path::new("cluster.toml"), &text).unwrap()
}

fn found() -> Found {
    let document = json!({
        "schema": 1, "product": "demo", "version": "2.0.0", "published": "2026-01-01T00:00:00Z",
        "artifacts": {"a": {"target": "artifacts/a", "sha256": Digest::of(b"a"), "size": 100}},
        "modules": [{"name": "app", "artifact": "a", "roles": ["*"],
                     "install": {"policy": "versioned", "dest": "/s/app"}}],
    });
    let release = Release::from_json("r", &serde_json::to_vec(&document).unwrap()).unwrap();
    let entry = |version: &str| GraphEntry {
        version: version.parse().unwrap(),
        channel: "stable".into(),
        from: Sources::default(),
        floor: false,
    };
    Found {
        patches: PatchList::default(),
        target: Target {
            version: release.version.clone(),
            digest: Digest::of(b"r"),
            rules: OrderRules::default(),
            roles: vec!["*".into()],
        },
        graph: Graph {
            schema: SCHEMA,
            product: "demo".into(),
            releases: vec![entry("1.0.0"), entry("2.0.0")],
        },
        releases: [(Version::new(2, 0, 0), (release, Digest::of(b"r")))].into(),
    }
}

fn ground<'a>(
    inventory: &'a Inventory,
    facts: &'a BTreeMap<String, NodeStatus>,
    found: &'a Found,
) -> Ground<'a> {
    Ground {
        inventory,
        facts,
        found,
        apply_patches: false,
        cache: None,
    }
}

fn cluster(inventory: &Inventory) -> (BTreeMap<String, RemoteNode>, BTreeMap<String, FakeNode>) {
    let (mut nodes, mut fakes) = (BTreeMap::new(), BTreeMap::new());
    for node in &inventory.nodes {
        let roles: Vec<&str> = node.roles.iter().map(String::as_str).collect();
        let fake = FakeNode::new(&node.id, &roles, "1.0.0");
        nodes.insert(
            node.id.clone(),
            RemoteNode::new(node.clone(), fake.host(), "/kato".into(), true),
        );
        fakes.insert(node.id.clone(), fake);
    }
    (nodes, fakes)
}

#[tokio::test]
async fn c25_two_hundred_nodes_are_asked_and_planned_in_seconds_with_two_questions_each() {
    let inventory = inventory(200, "[rollout.role.dea]\nmax_in_flight = \"10%\"\n");
    let (nodes, fakes) = cluster(&inventory);
    let found = found();
    let began = Instant::now();
    let answers = asking::gather(nodes.values()).await;
    assert_eq!(answers.problems, []);
    let wishes = Wishes::default();
    let mut plan = plan(
        &inventory,
        &answers.facts,
        &found.target,
        &wishes,
        Clock::system().now(),
    )
    .unwrap();
    let clock = Clock::system();
    let ground = ground(&inventory, &answers.facts, &found);
    let examined = examine(&ground, &nodes, &mut plan, &clock).await;
    let took = began.elapsed();
    assert!(took.as_secs() < 5, "{took:?}");
    assert_eq!((examined.problems, examined.warnings), (vec![], vec![]));
    assert_eq!(plan.upgrades().count(), 200);
    assert!(
        plan.nodes
            .iter()
            .all(|node| node.work.as_ref().unwrap().download_bytes == 100)
    );
    assert!(fakes.values().all(|fake| fake.calls() == 2));
    // The one artifact, however many nodes install it.
    assert_eq!(plan.bytes_once(), 100);
    assert_eq!(plan.batches.concat().len(), 200);
    assert!(plan.batches.len() < 120, "{} batches", plan.batches.len());
}

#[tokio::test(start_paused = true)]
async fn c25_two_hundred_nodes_behind_a_slow_line_are_asked_many_at_a_time() {
    let inventory = inventory(200, "");
    let (nodes, fakes) = cluster(&inventory);
    // What a login and the start of a program take on a far node.
    for fake in fakes.values() {
        fake.take_time(std::time::Duration::from_millis(300));
    }
    let (found, clock, began) = (found(), Clock::system(), Instant::now());
    let answers = asking::gather(nodes.values()).await;
    let mut plan = plan(
        &inventory,
        &answers.facts,
        &found.target,
        &Wishes::default(),
        clock.now(),
    )
    .unwrap();
    let ground = ground(&inventory, &answers.facts, &found);
    let examined = examine(&ground, &nodes, &mut plan, &clock).await;
    // The clock stands still but for the waiting: one after the other it were two minutes.
    let took = began.elapsed();
    assert!(took.as_secs() < 5, "{took:?}");
    assert_eq!((answers.problems, examined.problems), (vec![], vec![]));
}

#[tokio::test]
async fn r22_where_the_room_for_work_cannot_be_judged_the_plan_says_so() {
    let inventory = inventory(6, "");
    let (nodes, fakes) = cluster(&inventory);
    let workers: Vec<String> = inventory
        .nodes
        .iter()
        .filter(|node| node.has_role("dea"))
        .map(|node| node.id.clone())
        .collect();
    for id in &workers {
        fakes[id].keep_capacity_secret();
    }
    let (found, clock) = (found(), Clock::system());
    let answers = asking::gather(nodes.values()).await;
    let mut plan = plan(
        &inventory,
        &answers.facts,
        &found.target,
        &Wishes::default(),
        clock.now(),
    )
    .unwrap();
    let ground = ground(&inventory, &answers.facts, &found);
    let examined = examine(&ground, &nodes, &mut plan, &clock).await;
    assert_eq!(examined.problems, []);
    assert_eq!(
        examined.warnings,
        [format!(
            "{}: whether their work has room elsewhere could not be judged, because `[platform].capacity` is not set there or gave no answer",
            workers.join(", ")
        )]
    );
}

#[tokio::test]
async fn r22_everything_in_the_way_is_found_before_anything_is_changed() {
    // All workers at once: nobody is left to take their work.
    let inventory = inventory(5, "[rollout.role.dea]\nmax_in_flight = \"100%\"\ncanaries = 0\n");
    let (nodes, fakes) = cluster(&inventory);
    let found = found();
    let answers = asking::gather(nodes.values()).await;
    let wishes = Wishes::default();
    let mut plan = plan(
        &inventory,
        &answers.facts,
        &found.target,
        &wishes,
        Clock::system().now(),
    )
    .unwrap();
    let clock = Clock::held_at(Clock::system().now() + jiff::SignedDuration::from_hours(1));
    let ground = ground(&inventory, &answers.facts, &found);
    let examined = examine(&ground, &nodes, &mut plan, &clock).await;
    let found: Vec<String> = examined
        .problems
        .iter()
        .map(|found| format!("{}: {}", found.node, found.problem))
        .collect();
    let clocks = found.iter().filter(|text| text.contains("behind Core's")).count();
    assert_eq!(clocks, 5, "{found:?}");
    assert!(
        found.last().unwrap().contains("the others have room for 0"),
        "{found:?}"
    );
    assert!(fakes.values().all(|fake| fake.starts().is_empty()));
}
