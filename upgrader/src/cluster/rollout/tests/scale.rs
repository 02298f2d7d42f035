//! Two hundred nodes that talk: what a rollout takes of memory does not grow with the number of their events.

use std::{
    fmt::Write as _,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::Timestamp;
use kato_shared::Digest;

use super::*;
use crate::{
    cluster::{event::Line, facts, inventory::Inventory},
    exit::Exit,
    plan::{
        cluster::{Target, Wishes, plan},
        order::OrderRules,
    },
    ssh::fake::FakeNode,
};

const NODES: usize = 200;

/// How much more memory a rollout with two hundred thousand events may take than one with two thousand. Kept, they are several times that.
const MOST_GROWTH: u64 = 12 << 20;

/// How many events pass between two looks at the memory.
const EVERY: u64 = 2000;

/// Counts the events of nodes and looks at the memory of this process; keeps them where a test wants it to.
#[derive(Debug, Default)]
struct Scale {
    events: AtomicU64,
    most: AtomicU64,
    hoard: Option<Mutex<Vec<Line>>>,
}

impl Watcher for Scale {
    fn on(&self, line: &Line) {
        if !matches!(line, Line::Node(_)) {
            return;
        }
        if let Some(hoard) = &self.hoard {
            hoard.lock().unwrap().push(line.clone());
        }
        if self.events.fetch_add(1, Relaxed).is_multiple_of(EVERY) {
            self.most.fetch_max(resident(), Relaxed);
        }
    }
}

/// `VmRSS` of `proc_pid_status(5)`, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
    kib * 1024
}

fn inventory() -> Inventory {
    let mut text = "[rollout.role.dea]\nmax_in_flight = \"20%\"\n[[node]]\nid = \"core\"\naddress = \"core\"\nroles = [\"primary\"]\n".to_owned();
    for number in 1..NODES {
        writeln!(
            text,
            "[[node]]\nid = \"n{number:03}\"\naddress = \"n{number:03}\"\nroles = [\"dea\"]"
        )
        .unwrap();
    }
    Inventory::parse(Path::new("cluster.toml"), &text).unwrap()
}

/// A whole upgrade, staging and rollout, whose nodes each tell `talk` events of progress in both.
async fn upgrade(talk: u64, watcher: &Scale) {
    let inventory = inventory();
    let nodes: BTreeMap<String, RemoteNode> = inventory
        .nodes
        .iter()
        .map(|node| {
            let roles: Vec<&str> = node.roles.iter().map(String::as_str).collect();
            let fake = FakeNode::new(&node.id, &roles, "1.0.0");
            fake.talk(talk);
            let remote = RemoteNode::new(node.clone(), fake.host(), "/kato".into(), true);
            (node.id.clone(), remote)
        })
        .collect();
    let answers = facts::gather(nodes.values()).await;
    let target = Target {
        version: Version::new(2, 0, 0),
        digest: Digest::of(b"release"),
        rules: OrderRules::default(),
        roles: vec![],
    };
    let wishes = Wishes::default();
    let plan = plan(
        &inventory,
        &answers.facts,
        &target,
        &wishes,
        Timestamp::UNIX_EPOCH,
    )
    .unwrap();
    let errand = Errand {
        plan: plan.id.clone(),
        target: target.version,
        force: false,
        tolerant: false,
        apply_patches: false,
        cache_url: None,
        patience: Duration::from_secs(600),
        implicit_role: "base".into(),
    };
    assert_eq!(stage(&plan, &nodes, &errand, watcher).await, []);
    let control = Control::in_state_dir(Path::new("/nonexistent"));
    let rolled = roll_out(&plan, &nodes, &errand, &control, watcher).await;
    assert_eq!(rolled.exit(), Exit::Done);
    watcher.most.fetch_max(resident(), Relaxed);
}

#[tokio::test(start_paused = true)]
async fn c25_what_two_hundred_nodes_tell_is_passed_on_and_not_stored_up() {
    // The first run takes what any takes; the second has a hundred times as many events of progress.
    let few = Scale::default();
    upgrade(5, &few).await;
    let many = Scale::default();
    upgrade(500, &many).await;
    let (few_events, many_events) = (few.events.into_inner(), many.events.into_inner());
    assert!(
        few_events < 6_000 && many_events > 200_000,
        "{few_events} and {many_events} events"
    );
    let growth = |than: &AtomicU64| than.load(Relaxed).saturating_sub(few.most.load(Relaxed));
    let grown = growth(&many.most);
    assert!(
        grown < MOST_GROWTH,
        "{grown} bytes more with {many_events} events"
    );

    // The measure does see what is kept.
    let keeping = Scale {
        hoard: Some(Mutex::default()),
        ..Scale::default()
    };
    upgrade(500, &keeping).await;
    let grown = growth(&keeping.most);
    assert!(
        grown > 2 * MOST_GROWTH,
        "{grown} bytes more for {many_events} events that are kept"
    );
}
