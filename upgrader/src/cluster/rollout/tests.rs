//! Whole rollouts over nodes that live in memory: order, faults, and an orchestrator that is killed at every point.

use std::{
    future::Future,
    path::Path,
    pin::pin,
    sync::Mutex,
    task::{Context, Poll, Waker},
    time::Duration,
};

use jiff::Timestamp;
use kato_shared::Digest;

use super::*;
use crate::{
    cluster::{
        event::{Line, Outcome},
        facts,
        inventory::Inventory,
    },
    exit::Exit,
    plan::{
        cluster::{Target, Wishes, plan},
        order::OrderRules,
    },
    run::event::EventKind,
    ssh::fake::{FakeNode, Fault},
};

const INVENTORY: &str = r#"
    [[node]]
    id = "core"
    address = "10.0.0.1"
    roles = ["primary"]
    [[node]]
    id = "c1"
    address = "10.0.0.2"
    roles = ["controller"]
    [[node]]
    id = "w1"
    address = "10.0.0.3"
    roles = ["dea"]
"#;

/// Everything that was told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<Line>>);

impl Watcher for Told {
    fn on(&self, line: &Line) {
        self.0.lock().unwrap().push(line.clone());
    }
}

impl Told {
    fn events(&self) -> Vec<String> {
        let name = |line: &Line| match line {
            Line::Node(event) => format!("{}#{}", event.node, event.seq),
            Line::Cluster { event, .. } => serde_json::to_value(event).unwrap()["event"]
                .as_str()
                .unwrap()
                .to_owned(),
        };
        self.0.lock().unwrap().iter().map(name).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.events().iter().any(|event| event == name)
    }

    /// The nodes whose runs finished, in that order.
    fn finished(&self) -> Vec<String> {
        let finished = |line: &Line| match line {
            Line::Node(event) if matches!(event.kind, EventKind::RunFinished { .. }) => {
                Some(event.node.clone())
            }
            Line::Node(_) | Line::Cluster { .. } => None,
        };
        self.0.lock().unwrap().iter().filter_map(finished).collect()
    }
}

/// The three nodes, w1 with `faults`.
struct Cluster {
    fakes: [FakeNode; 3],
    nodes: BTreeMap<String, RemoteNode>,
}

impl Cluster {
    fn new(faults: &[Fault]) -> Self {
        let fakes = [
            FakeNode::new("core", &["primary"], "1.0.0"),
            FakeNode::new("c1", &["controller"], "1.0.0"),
            FakeNode::new("w1", &["dea"], "1.0.0").with_faults(faults),
        ];
        let inventory = inventory();
        let nodes = fakes
            .iter()
            .map(|fake| {
                let node = inventory.node(crate::ssh::Host::node(fake)).unwrap().clone();
                (
                    node.id.clone(),
                    RemoteNode::new(node, fake.host(), "/kato".into(), true),
                )
            })
            .collect();
        Self { fakes, nodes }
    }

    fn w1(&self) -> &FakeNode {
        &self.fakes[2]
    }

    fn all_at(&self, version: &str) -> bool {
        self.fakes
            .iter()
            .all(|fake| fake.version() == version.parse().ok())
    }

    /// Facts, plan and rollout, as one call of the command does them.
    async fn upgrade(&self, told: &dyn Watcher) -> Rolled {
        let answers = facts::gather(self.nodes.values()).await;
        assert_eq!(answers.problems, []);
        let target = Target {
            version: Version::new(2, 0, 0),
            digest: Digest::of(b"release"),
            rules: OrderRules::default(),
            roles: vec![],
        };
        let plan = plan(
            &inventory(),
            &answers.facts,
            &target,
            &Wishes::default(),
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        roll_out(&plan, &self.nodes, &errand(&plan.id), &open_road(), told).await
    }
}

fn inventory() -> Inventory {
    Inventory::parse(Path::new("cluster.toml"), INVENTORY).unwrap()
}

/// A control that nobody has ever written to.
fn open_road() -> Control {
    Control::in_state_dir(Path::new("/nonexistent"))
}

fn errand(plan: &str) -> Errand {
    Errand {
        plan: plan.into(),
        target: Version::new(2, 0, 0),
        force: false,
        tolerant: false,
        apply_patches: false,
        cache_url: Some("http://10.0.0.1:3180/".parse().unwrap()),
        patience: Duration::from_secs(600),
        implicit_role: "base".into(),
    }
}

fn versions(rolled: &Rolled) -> Vec<(String, Outcome)> {
    rolled
        .nodes
        .iter()
        .map(|node| (node.node.clone(), node.outcome))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn r25_r30_one_node_at_a_time_in_order_and_core_last() {
    let cluster = Cluster::new(&[]);
    let told = Told::default();
    let rolled = cluster.upgrade(&told).await;
    assert_eq!(rolled.exit(), Exit::Done);
    assert!(cluster.all_at("2.0.0"));
    assert_eq!(told.finished(), ["w1", "c1", "core"]);
    // One at a time: no event of a node stands between those of another.
    let mut nodes: Vec<_> = told
        .events()
        .into_iter()
        .filter_map(|name| name.split_once('#').map(|(node, _)| node.to_owned()))
        .collect();
    nodes.dedup();
    assert_eq!(nodes, ["w1", "c1", "core"]);
    assert!(cluster.w1().starts()[0].contains("--cache-url http://10.0.0.1:3180/"));
}

/// Reads slowly, keeps nothing, and looks how far the node is ahead of it.
#[derive(Debug)]
struct Slow {
    node: FakeNode,
    seen: std::sync::atomic::AtomicU64,
    most_ahead: std::sync::atomic::AtomicU64,
}

impl Watcher for Slow {
    fn on(&self, line: &Line) {
        use std::sync::atomic::Ordering::Relaxed;
        if let Line::Node(event) = line
            && event.node == "w1"
        {
            self.seen.fetch_add(1, Relaxed);
            self.most_ahead
                .fetch_max(self.node.told().saturating_sub(event.seq), Relaxed);
        }
    }
}

#[tokio::test]
async fn a_node_that_talks_without_end_is_slowed_down_and_not_stored_up() {
    const TALK: u64 = 100_000;
    let cluster = Cluster::new(&[]);
    cluster.w1().talk(TALK);
    let slow = Slow {
        node: cluster.w1().clone(),
        seen: 0.into(),
        most_ahead: 0.into(),
    };
    let rolled = cluster.upgrade(&slow).await;
    assert_eq!(rolled.exit(), Exit::Done);
    assert!(slow.seen.into_inner() > TALK);
    // Whatever it has to say, so much of it is on the way at most: the stream's buffer and one in each hand.
    let ahead = slow.most_ahead.into_inner();
    assert!((1..=80).contains(&ahead), "{ahead} events were stored up");
}

#[tokio::test(start_paused = true)]
async fn c21_a_cut_connection_does_not_disturb_the_run_and_no_event_is_missed_or_told_twice() {
    for cut in 0..8 {
        let cluster = Cluster::new(&[Fault::CutAfter(cut), Fault::Unreachable, Fault::Unreachable]);
        let told = Told::default();
        assert_eq!(cluster.upgrade(&told).await.exit(), Exit::Done, "cut after {cut}");
        assert!(cluster.all_at("2.0.0"));
        assert_eq!(cluster.w1().starts().len(), 1, "cut after {cut}");
        let of_w1: Vec<_> = told
            .events()
            .into_iter()
            .filter(|name| name.starts_with("w1#"))
            .collect();
        let expected: Vec<_> = (1..=8).map(|seq| format!("w1#{seq}")).collect();
        assert_eq!(of_w1, expected, "cut after {cut}");
        assert!(told.has("node_lost") && told.has("node_back"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_is_lost_is_not_repeated() {
    let cluster = Cluster::new(&[Fault::LoseStart]);
    let told = Told::default();
    assert_eq!(cluster.upgrade(&told).await.exit(), Exit::Done);
    assert_eq!(cluster.w1().starts().len(), 1);
    assert_eq!(told.finished(), ["w1", "c1", "core"]);
}

#[tokio::test(start_paused = true)]
async fn a_kato_that_hangs_for_a_moment_is_waited_for_as_a_lost_connection_is() {
    let cluster = Cluster::new(&[Fault::CutAfter(2), Fault::Hang]);
    let told = Told::default();
    assert_eq!(cluster.upgrade(&told).await.exit(), Exit::Done);
    assert!(told.has("node_lost") && told.has("node_back"));
    assert_eq!(cluster.w1().starts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_killed_run_is_resumed_once_and_a_second_kill_stops_the_rollout() {
    let cluster = Cluster::new(&[Fault::KillAfter(3)]);
    let told = Told::default();
    assert_eq!(cluster.upgrade(&told).await.exit(), Exit::Done);
    assert_eq!(cluster.w1().starts().len(), 2);
    assert!(told.has("node_interrupted"));

    let cluster = Cluster::new(&[Fault::KillAfter(3), Fault::KillAfter(2)]);
    let rolled = cluster.upgrade(&Told::default()).await;
    assert_eq!(rolled.exit(), Exit::Failed);
    assert!(rolled.failures[0].1.error.message.contains("was killed again"));
}

#[tokio::test(start_paused = true)]
async fn r54_r56_the_first_failure_stops_the_rollout_and_the_same_command_continues_it() {
    let cluster = Cluster::new(&[Fault::FailStep("module:app")]);
    let rolled = cluster.upgrade(&Told::default()).await;
    // Nothing was upgraded before: the node's own code.
    assert_eq!(rolled.exit(), Exit::Failed);
    let expected = [
        ("w1", Outcome::Failed),
        ("c1", Outcome::NotReached),
        ("core", Outcome::NotReached),
    ];
    assert_eq!(
        versions(&rolled),
        expected.map(|(id, outcome)| (id.to_owned(), outcome))
    );
    assert!(cluster.fakes[0].starts().is_empty() && cluster.fakes[1].starts().is_empty());

    assert_eq!(cluster.upgrade(&Told::default()).await.exit(), Exit::Done);
    assert!(cluster.all_at("2.0.0"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_behind_an_upgraded_node_is_24_and_done_nodes_are_one_question_the_next_time() {
    let mut cluster = Cluster::new(&[]);
    let c1 = FakeNode::new("c1", &["controller"], "1.0.0").with_faults(&[Fault::FailStep("stage")]);
    let node = cluster.nodes["c1"].node.clone();
    cluster.nodes.insert(
        "c1".into(),
        RemoteNode::new(node, c1.host(), "/kato".into(), false),
    );
    let rolled = cluster.upgrade(&Told::default()).await;
    assert_eq!(rolled.exit(), Exit::Partial);
    assert_eq!(rolled.failures[0].0, "c1");

    let before = cluster.w1().calls();
    let told = Told::default();
    let rolled = cluster.upgrade(&told).await;
    assert_eq!(rolled.exit(), Exit::Done);
    assert_eq!(rolled.nodes[0].outcome, Outcome::AlreadyThere);
    assert_eq!(cluster.w1().calls() - before, 1);
    assert!(told.has("node_skipped"));
}

#[tokio::test(start_paused = true)]
async fn c10_a_run_that_says_done_is_not_believed_without_the_version() {
    let cluster = Cluster::new(&[Fault::Lie]);
    let rolled = cluster.upgrade(&Told::default()).await;
    assert_eq!(rolled.exit(), Exit::Failed);
    let error = rolled.failures[0].1.error.clone();
    assert_eq!(
        error.message,
        "the run ended, but the node has 1.0.0 instead of 2.0.0"
    );
}

#[tokio::test(start_paused = true)]
async fn r26_a_node_whose_roles_changed_after_the_plan_is_not_touched() {
    let cluster = Cluster::new(&[]);
    let answers = facts::gather(cluster.nodes.values()).await;
    let target = Target {
        version: Version::new(2, 0, 0),
        digest: Digest::of(b"release"),
        rules: OrderRules::default(),
        roles: vec![],
    };
    let plan = plan(
        &inventory(),
        &answers.facts,
        &target,
        &Wishes::default(),
        Timestamp::UNIX_EPOCH,
    )
    .unwrap();
    cluster.w1().set_roles(&["dea", "controller"]);
    let rolled = roll_out(
        &plan,
        &cluster.nodes,
        &errand(&plan.id),
        &open_road(),
        &Told::default(),
    )
    .await;
    assert_eq!(rolled.exit(), Exit::Preflight);
    assert!(cluster.fakes.iter().all(|fake| fake.starts().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_at_work_is_joined_and_one_to_elsewhere_is_in_the_way() {
    let cluster = Cluster::new(&[]);
    cluster.w1().begin_run("by-hand", "2.0.0");
    let told = Told::default();
    assert_eq!(cluster.upgrade(&told).await.exit(), Exit::Done);
    assert!(cluster.w1().starts().is_empty());
    assert!(told.has("node_attached"));

    let cluster = Cluster::new(&[]);
    cluster.w1().begin_run("by-hand", "3.0.0");
    assert_eq!(cluster.upgrade(&Told::default()).await.exit(), Exit::LockHeld);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stays_silent_is_given_up_after_the_patience_and_may_be_taken_up_again() {
    let faults = vec![Fault::Unreachable; 400];
    let cluster = Cluster::new(&[]);
    let told = Told::default();
    let answers = facts::gather(cluster.nodes.values()).await;
    let silent = cluster.w1().clone().with_faults(&faults);
    let target = Target {
        version: Version::new(2, 0, 0),
        digest: Digest::of(b"release"),
        rules: OrderRules::default(),
        roles: vec![],
    };
    let plan = plan(
        &inventory(),
        &answers.facts,
        &target,
        &Wishes::default(),
        Timestamp::UNIX_EPOCH,
    )
    .unwrap();
    let rolled = roll_out(&plan, &cluster.nodes, &errand(&plan.id), &open_road(), &told).await;
    assert_eq!(rolled.exit(), Exit::TryAgain);
    assert!(rolled.failures[0].1.error.message.contains("no answer for 10m"));
    // Backed off: ten minutes are not filled with calls.
    assert!(silent.calls() < 150, "{} calls", silent.calls());
}

/// Polls `work` `polls` times and then drops it, as SIGKILL does; the nodes' own work is not in it.
async fn killed_after(work: impl Future<Output = Rolled>, polls: usize) -> Option<Rolled> {
    let mut work = pin!(work);
    for _ in 0..polls {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(rolled) = work.as_mut().poll(&mut context) {
            return Some(rolled);
        }
        // Others get their turn, and whoever waits for the time gets it.
        tokio::time::advance(Duration::from_millis(500)).await;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn r56_an_orchestrator_killed_at_any_point_is_followed_by_one_that_finishes() {
    let mut points = 0;
    for polls in 1..2000 {
        let cluster = Cluster::new(&[]);
        if killed_after(cluster.upgrade(&Told::default()), polls)
            .await
            .is_some()
        {
            break;
        }
        points += 1;
        let exit = cluster.upgrade(&Told::default()).await.exit();
        assert_eq!(exit, Exit::Done, "after {polls} polls");
        assert!(cluster.all_at("2.0.0"));
        for fake in &cluster.fakes {
            assert_eq!(fake.starts().len(), 1, "{fake:?} after {polls} polls");
        }
    }
    assert!((30..1999).contains(&points), "{points} points were tried");
}

#[tokio::test(start_paused = true)]
async fn r37_every_node_has_what_it_needs_before_the_first_is_changed() {
    let cluster = Cluster::new(&[]);
    let answers = facts::gather(cluster.nodes.values()).await;
    let planned = plan(
        &inventory(),
        &answers.facts,
        &Target {
            version: Version::new(2, 0, 0),
            digest: Digest::of(b"release"),
            rules: OrderRules::default(),
            roles: vec![],
        },
        &Wishes::default(),
        Timestamp::UNIX_EPOCH,
    )
    .unwrap();
    let told = Told::default();
    let failed = stage(&planned, &cluster.nodes, &errand(&planned.id), &told).await;
    assert_eq!(failed, []);
    assert!(cluster.all_at("1.0.0"));
    for fake in &cluster.fakes {
        assert!(
            fake.starts()[0].contains("--download-only"),
            "{:?}",
            fake.starts()
        );
    }
    assert_eq!(
        roll_out(
            &planned,
            &cluster.nodes,
            &errand(&planned.id),
            &open_road(),
            &told
        )
        .await
        .exit(),
        Exit::Done
    );
    assert!(cluster.all_at("2.0.0"));

    let cluster = Cluster::new(&[Fault::FailStep("stage")]);
    let mut failed = stage(&planned, &cluster.nodes, &errand(&planned.id), &told).await;
    let (node, failure) = failed.pop().unwrap();
    assert_eq!(failed, []);
    assert_eq!((node.as_str(), failure.error.step.as_str()), ("w1", "stage"));
    assert!(cluster.all_at("1.0.0"));
}
