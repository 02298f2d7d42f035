//! Rollouts of several nodes at a time: cordons, allowed failures, pauses, soaks.

use std::{fmt::Write as _, path::Path, sync::Mutex};

use jiff::Timestamp;
use kato_shared::Digest;

use super::*;
use crate::{
    cluster::{event::Line, facts, inventory::Inventory},
    plan::{
        cluster::{Target, Wishes, plan},
        order::OrderRules,
    },
    ssh::fake::{FakeNode, Fault},
};

#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Watcher for Told {
    fn on(&self, line: &Line) {
        if let Line::Cluster { event, .. } = line {
            let event = serde_json::to_value(event).unwrap();
            let text = format!("{} {}", event["event"], event["nodes"]).replace('"', "");
            self.0.lock().unwrap().push(text.replace(" null", ""));
        }
    }
}

impl Told {
    fn of(&self, event: &str) -> Vec<String> {
        let told = self.0.lock().unwrap();
        told.iter()
            .filter(|text| text.starts_with(event))
            .cloned()
            .collect()
    }
}

/// Core and four workers, by the rules in `rollout`; the workers in `faulty` with their faults.
struct Site {
    inventory: Inventory,
    fakes: BTreeMap<String, FakeNode>,
    nodes: BTreeMap<String, RemoteNode>,
    folder: tempfile::TempDir,
}

impl Site {
    fn new(rollout: &str, faulty: &[(&str, &[Fault])]) -> Self {
        let mut text =
            format!("{rollout}\n[[node]]\nid = \"core\"\naddress = \"10.0.0.1\"\nroles = [\"primary\"]\n");
        for (number, id) in ["w1", "w2", "w3", "w4"].iter().enumerate() {
            write!(
                text,
                "[[node]]\nid = \"{id}\"\naddress = \"10.0.1.{number}\"\nroles = [\"dea\"]\n"
            )
            .unwrap();
        }
        let inventory = Inventory::parse(Path::new("cluster.toml"), &text).unwrap();
        let (mut fakes, mut nodes) = (BTreeMap::new(), BTreeMap::new());
        for node in &inventory.nodes {
            let roles: Vec<&str> = node.roles.iter().map(String::as_str).collect();
            let own = faulty.iter().find(|(id, _)| *id == node.id);
            let fake =
                FakeNode::new(&node.id, &roles, "1.0.0").with_faults(own.map_or(&[], |(_, faults)| *faults));
            nodes.insert(
                node.id.clone(),
                RemoteNode::new(node.clone(), fake.host(), "/kato".into(), true),
            );
            fakes.insert(node.id.clone(), fake);
        }
        Self {
            inventory,
            fakes,
            nodes,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn control(&self) -> Control {
        Control::in_state_dir(self.folder.path())
    }

    async fn plan(&self) -> ClusterPlan {
        let answers = facts::gather(self.nodes.values()).await;
        let target = Target {
            version: Version::new(2, 0, 0),
            digest: Digest::of(b"release"),
            rules: OrderRules::default(),
            roles: vec![],
        };
        let wishes = Wishes::default();
        plan(
            &self.inventory,
            &answers.facts,
            &target,
            &wishes,
            Timestamp::UNIX_EPOCH,
        )
        .unwrap()
    }

    async fn roll_out(&self, told: &Told) -> Rolled {
        self.roll_out_by(&self.control(), told).await
    }

    async fn roll_out_by(&self, control: &Control, told: &Told) -> Rolled {
        let plan = self.plan().await;
        let errand = Errand {
            plan: plan.id.clone(),
            target: plan.target.clone(),
            force: false,
            tolerant: false,
            apply_patches: false,
            cache_url: None,
            patience: Duration::from_secs(600),
            implicit_role: "base".into(),
        };
        Rollout::new(&plan, &self.nodes, &errand, control, told)
            .run()
            .await
    }

    fn outcomes(rolled: &Rolled) -> Vec<(&str, Outcome)> {
        rolled
            .nodes
            .iter()
            .map(|result| (result.node.as_str(), result.outcome))
            .collect()
    }

    /// Nobody may be left out of service by a rollout.
    fn assert_all_in_service(&self) {
        for (id, fake) in &self.fakes {
            assert!(!fake.is_out(), "{id} was left out of service");
        }
    }
}

const TWO: &str = "[rollout.role.dea]\nmax_in_flight = 2\ncanaries = 1\n";

#[tokio::test(start_paused = true)]
async fn c24_a_batch_is_cordoned_as_a_whole_before_the_first_of_it_is_emptied() {
    let site = Site::new(TWO, &[]);
    let told = Told::default();
    let rolled = site.roll_out(&told).await;
    assert_eq!(rolled.exit(), Exit::Done);
    assert_eq!(
        told.of("batch_started"),
        [
            "batch_started [w1]",
            "batch_started [w2,w3]",
            "batch_started [w4]",
            "batch_started [core]"
        ]
    );
    let cordons = |id: &str| site.fakes[id].cordons().len();
    assert_eq!(["w1", "w2", "w3", "w4", "core"].map(cordons), [0, 1, 1, 0, 0]);
    site.assert_all_in_service();
}

#[tokio::test(start_paused = true)]
async fn c24_allowed_failures_do_not_stop_the_others_but_core_waits() {
    let rules = format!("{TWO}max_failures = 1\n");
    let faults: &[(&str, &[Fault])] = &[("w2", &[Fault::FailStep("module:app")])];
    let site = Site::new(&rules, faults);
    let rolled = site.roll_out(&Told::default()).await;
    assert_eq!(rolled.exit(), Exit::Partial);
    assert_eq!(
        Site::outcomes(&rolled),
        [
            ("w1", Outcome::Upgraded),
            ("w2", Outcome::Failed),
            ("w3", Outcome::Upgraded),
            ("w4", Outcome::Upgraded),
            ("core", Outcome::NotReached),
        ]
    );
    site.assert_all_in_service();
    // The same command again ends it.
    assert_eq!(site.roll_out(&Told::default()).await.exit(), Exit::Done);
}

#[tokio::test(start_paused = true)]
async fn r54_a_batch_with_a_failure_ends_and_nothing_is_begun_behind_it() {
    let faults: &[(&str, &[Fault])] = &[("w2", &[Fault::FailStep("module:app")])];
    let site = Site::new(TWO, faults);
    let rolled = site.roll_out(&Told::default()).await;
    assert_eq!(rolled.exit(), Exit::Partial);
    let outcomes = Site::outcomes(&rolled);
    assert_eq!(outcomes[2], ("w3", Outcome::Upgraded), "it was at work");
    assert_eq!(outcomes[3], ("w4", Outcome::NotReached));
    assert!(site.fakes["w4"].starts().is_empty());
    site.assert_all_in_service();
}

#[tokio::test(start_paused = true)]
async fn c24_a_node_that_falls_ill_while_it_is_watched_counts_as_failed() {
    let site = Site::new("[rollout]\nsoak = \"5m\"\n", &[]);
    site.fakes["w1"].fall_ill();
    let told = Told::default();
    let before = Instant::now();
    let rolled = site.roll_out(&told).await;
    assert!(
        before.elapsed() >= Duration::from_secs(300),
        "{:?}",
        before.elapsed()
    );
    assert_eq!(told.of("soak_started"), ["soak_started [w1]"]);
    assert_eq!(Site::outcomes(&rolled)[0], ("w1", Outcome::Failed));
    assert_eq!(Site::outcomes(&rolled)[1], ("w2", Outcome::NotReached));
    assert!(
        rolled.failures[0]
            .1
            .error
            .message
            .contains("not healthy any more")
    );
}

#[tokio::test(start_paused = true)]
async fn c24_who_was_retired_by_hand_before_is_as_fine_after_a_soak_and_who_is_retired_in_it_is_not() {
    let site = Site::new("[rollout]\nsoak = \"5m\"\n", &[]);
    site.fakes["w1"].retire_by_hand();
    let told = Told::default();
    let retired = async {
        // In the middle of the soak of the second one.
        tokio::time::sleep(Duration::from_secs(450)).await;
        site.fakes["w2"].retire_by_hand();
    };
    let (rolled, ()) = tokio::join!(site.roll_out(&told), retired);
    assert_eq!(
        told.of("soak_started"),
        ["soak_started [w1]", "soak_started [w2]"]
    );
    let outcomes = Site::outcomes(&rolled);
    assert_eq!(outcomes[0], ("w1", Outcome::Upgraded));
    assert_eq!(outcomes[1], ("w2", Outcome::Failed));
    assert_eq!(outcomes[2], ("w3", Outcome::NotReached));
    let message = &rolled.failures[0].1.error.message;
    assert!(message.contains("not in service any more"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn c25_a_paused_rollout_waits_and_goes_on_and_an_aborted_one_begins_nothing() {
    let site = Site::new(TWO, &[]);
    let plan = site.plan().await.id;
    let (control, told) = (site.control(), Told::default());
    let now = Timestamp::UNIX_EPOCH;
    control.want(&plan, Wish::Pause, None, now).unwrap();
    let resume = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(
            site.fakes.values().all(|fake| fake.starts().is_empty()),
            "begun in a pause"
        );
        control.clear().unwrap();
    };
    let (rolled, ()) = tokio::join!(site.roll_out(&told), resume);
    assert_eq!(rolled.exit(), Exit::Done);
    assert_eq!(
        (told.of("cluster_paused").len(), told.of("cluster_resumed").len()),
        (1, 1)
    );

    let site = Site::new(TWO, &[]);
    let reason = Some("wrong day".to_owned());
    site.control()
        .want(&plan, Wish::Abort, reason.clone(), now)
        .unwrap();
    let rolled = site.roll_out(&Told::default()).await;
    assert_eq!(rolled.reason, Some(Reason::Aborted { reason }));
    assert_eq!(rolled.exit(), Exit::Declined);
    assert!(site.fakes.values().all(|fake| fake.starts().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn c07_who_is_in_service_is_looked_at_again_before_each_batch() {
    const THREE_STAY: &str = "[rollout.role.dea]\nmin_available = 3\n";
    // In a pause somebody takes w4 away. Its own upgrade costs nothing and gives it back to the others.
    let site = Site::new(THREE_STAY, &[]);
    let plan = site.plan().await;
    let (control, told) = (site.control(), Told::default());
    let now = Timestamp::UNIX_EPOCH;
    control.want(&plan.id, Wish::Pause, None, now).unwrap();
    let meanwhile = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        site.fakes["w4"].retire();
        control.clear().unwrap();
    };
    let (rolled, ()) = tokio::join!(site.roll_out(&told), meanwhile);
    assert_eq!(rolled.exit(), Exit::Done);
    assert_eq!(told.of("batch_started")[0], "batch_started [w4]");

    // A machine that is gone for good stops the rollout, one that misses a call does not.
    for (misses, exit) in [(1, Exit::Done), (20, Exit::Preflight)] {
        let site = Site::new(THREE_STAY, &[]);
        control.want(&plan.id, Wish::Pause, None, now).unwrap();
        let meanwhile = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let gone = vec![Fault::Unreachable; misses];
            site.fakes["w3"].clone().with_faults(&gone);
            site.fakes["w4"].clone().with_faults(&gone);
            control.clear().unwrap();
        };
        let told = Told::default();
        let (rolled, ()) = tokio::join!(site.roll_out_by(&control, &told), meanwhile);
        assert_eq!(rolled.exit(), exit, "{misses}: {:?}", rolled.reason);
    }
}
