//! Plans from facts, and which of them is the continuation of which.

use std::path::Path;

use super::*;
use crate::plan::facts::RunState;

fn inventory() -> Inventory {
    let text = r#"
        [cluster]
        name = "site-a"
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
    Inventory::parse(Path::new("cluster.toml"), text).unwrap()
}

fn facts(versions: [(&str, &str); 3]) -> BTreeMap<String, NodeStatus> {
    versions
        .into_iter()
        .map(|(id, version)| {
            let status = NodeStatus {
                schema: 1,
                node: id.into(),
                roles: vec![],
                version: Some(version.parse().unwrap()),
                kato: "0.1.0".into(),
                state: RunState::Idle,
                run: None,
                to: None,
                step: None,
                last_seq: 0,
                out_of_service: false,
                retired_by: None,
                error: None,
                progress: None,
                restarting: false,
                rolled_back: BTreeMap::new(),
            };
            (id.to_owned(), status)
        })
        .collect()
}

fn target() -> Target {
    Target {
        version: Version::new(2, 0, 0),
        digest: Digest::of(b"release"),
        rules: OrderRules::default(),
        roles: vec!["*".into()],
    }
}

fn make(facts: &BTreeMap<String, NodeStatus>, wishes: &Wishes, secs: i64) -> ClusterPlan {
    let now = Timestamp::from_second(secs).unwrap();
    plan(&inventory(), facts, &target(), wishes, now).unwrap()
}

const OLD: [(&str, &str); 3] = [("core", "1.0.0"), ("c1", "1.0.0"), ("w1", "1.0.0")];
const HALF: [(&str, &str); 3] = [("core", "1.0.0"), ("c1", "1.0.0"), ("w1", "2.0.0")];

#[test]
fn c25_a_node_at_the_target_is_skipped_and_force_does_it_again() {
    let actions = |plan: &ClusterPlan| plan.upgrades().map(|node| node.id.clone()).collect::<Vec<_>>();
    assert_eq!(
        actions(&make(&facts(HALF), &Wishes::default(), 0)),
        ["c1", "core"]
    );
    let force = Wishes {
        force: true,
        ..Wishes::default()
    };
    assert_eq!(actions(&make(&facts(HALF), &force, 0)), ["w1", "c1", "core"]);
    let mut interrupted = facts(HALF);
    interrupted.get_mut("w1").unwrap().state = RunState::Interrupted;
    assert_eq!(
        actions(&make(&interrupted, &Wishes::default(), 0)),
        ["w1", "c1", "core"]
    );
}

#[test]
fn c07_roles_without_a_second_node_are_named() {
    let plan = make(&facts(HALF), &Wishes::default(), 0);
    assert_eq!(
        plan.warnings,
        [
            "nobody stands in for a node that is upgraded and alone has a role: controller (c1), primary (core)"
        ]
    );
}

#[test]
fn c07_roles_whose_nodes_are_upgraded_together_are_named() {
    let text = r#"
        [rollout]
        canaries = 0
        max_in_flight = 2
        [[node]]
        id = "core"
        address = "10.0.0.1"
        roles = ["primary"]
        [[node]]
        id = "c1"
        address = "10.0.0.2"
        roles = ["controller"]
        [[node]]
        id = "c2"
        address = "10.0.0.3"
        roles = ["Controller"]
    "#;
    let made = |text: &str, away: bool| {
        let inventory = Inventory::parse(Path::new("cluster.toml"), text).unwrap();
        let mut facts = facts([("core", "1.0.0"), ("c1", "1.0.0"), ("c2", "1.0.0")]);
        facts.get_mut("c2").unwrap().out_of_service = away;
        let now = Timestamp::UNIX_EPOCH;
        plan(&inventory, &facts, &target(), &Wishes::default(), now)
            .unwrap()
            .warnings
    };
    let is_told = |warnings: &[String]| {
        warnings
            .iter()
            .any(|line| line.contains("upgraded together") && line.ends_with("controller (c1, c2)"))
    };
    assert!(is_told(&made(text, false)), "{:?}", made(text, false));
    // One after the other, and with one that is away already, which has a line of its own.
    let one = text.replace("max_in_flight = 2", "max_in_flight = 1");
    assert!(!is_told(&made(&one, false)));
    assert!(!is_told(&made(text, true)), "{:?}", made(text, true));
}

#[test]
fn r06_an_upgrade_has_ended_when_none_of_its_nodes_is_left_behind() {
    let only_w1 = Wishes {
        choice: Choice {
            only: vec!["w1".into()],
            ..Choice::default()
        },
        ..Wishes::default()
    };
    let whole = make(&facts(OLD), &Wishes::default(), 0);
    let part = make(&facts(HALF), &only_w1, 9);
    // A part of it, with nothing to do or with something.
    assert_eq!(part.leaves_behind(&whole.id, Some(&whole)), ["c1", "core"]);
    let part = make(&facts(OLD), &only_w1, 9);
    assert_eq!(part.leaves_behind(&whole.id, Some(&whole)), ["c1", "core"]);
    // The part that was a plan of its own.
    assert!(part.leaves_behind(&part.id, Some(&part)).is_empty());
    // Nobody knows any more what the earlier one was for; who leaves nobody out ends it.
    assert_eq!(part.leaves_behind("gone", Some(&part)), ["c1", "core"]);
    assert_eq!(part.leaves_behind("gone", None), ["c1", "core"]);
    assert!(
        make(&facts(HALF), &Wishes::default(), 9)
            .leaves_behind("gone", None)
            .is_empty()
    );
    // A run is at work on a node that nobody asked for.
    let mut busy = facts(OLD);
    busy.get_mut("c1").unwrap().state = RunState::Running;
    let part = make(&busy, &only_w1, 9);
    assert_eq!(part.leaves_behind(&part.id, Some(&part)), ["c1"]);
    assert!(
        part.members()
            .iter()
            .any(|member| member.id == "c1" && member.is_busy)
    );

    assert_eq!(
        make(&facts(HALF), &Wishes::default(), 9).reached_of(&whole),
        (1, 3)
    );
    assert_eq!(make(&busy, &Wishes::default(), 9).reached_of(&whole), (0, 3));
}

#[test]
fn the_same_facts_make_the_same_plan() {
    let a = make(&facts(OLD), &Wishes::default(), 60);
    assert_eq!(a, make(&facts(OLD), &Wishes::default(), 60));
    assert!(a.id.starts_with("19700101T000100Z-"), "{}", a.id);
    assert_ne!(a.id, make(&facts(OLD), &Wishes::default(), 61).id);
}

#[test]
fn r56_a_second_call_continues_the_plan_of_the_first() {
    let first = make(&facts(OLD), &Wishes::default(), 0);
    let second = make(&facts(HALF), &Wishes::default(), 9);
    assert!(second.continues(&first));
    let continued = second.clone().continuing(&first);
    assert_eq!(continued.id, first.id);
    assert_eq!(continued.nodes[0].from, Some(Version::new(1, 0, 0)));
    assert_eq!(continued.nodes[0].action, Action::None);
    // Another order, a forced run, and a node that went back are other plans.
    let other_order = Wishes {
        role_order: Some(vec!["controller".into()]),
        ..Wishes::default()
    };
    assert!(!make(&facts(HALF), &other_order, 9).continues(&first));
    let force = Wishes {
        force: true,
        ..Wishes::default()
    };
    assert!(!make(&facts(HALF), &force, 9).continues(&first));
    assert!(!make(&facts(OLD), &Wishes::default(), 10).continues(&second));
}

#[test]
fn r30_the_operators_order_is_over_the_releases_and_a_wrong_one_is_refused() {
    let wishes = |role: &str| Wishes {
        role_order: Some(vec![role.into()]),
        ..Wishes::default()
    };
    let ids: Vec<_> = make(&facts(OLD), &wishes("Controller"), 0)
        .nodes
        .into_iter()
        .map(|node| node.id)
        .collect();
    assert_eq!(ids, ["c1", "w1", "core"]);
    let refused = plan(
        &inventory(),
        &facts(OLD),
        &target(),
        &wishes("*"),
        Timestamp::UNIX_EPOCH,
    );
    assert!(
        matches!(refused, Err(RoleOrderError::Unknown { .. })),
        "{refused:?}"
    );
}

#[test]
fn c24_the_plan_has_the_batches_of_its_rules() {
    let plan = make(&facts(HALF), &Wishes::default(), 0);
    assert_eq!(plan.batches, [["c1"], ["core"]]);
    let mut other = plan.clone();
    other.policies.every.max_failures = 1;
    assert!(!other.continues(&plan), "other rules are another plan");
}

#[test]
fn c25_who_is_left_out_stays_and_core_waits_for_them() {
    let choice = |only: &[&str], exclude: &[&str]| Choice {
        only: only.iter().map(ToString::to_string).collect(),
        exclude: exclude.iter().map(ToString::to_string).collect(),
    };
    let batches = |choice: Choice| {
        let wishes = Wishes {
            choice,
            ..Wishes::default()
        };
        make(&facts(OLD), &wishes, 0).batches.concat()
    };
    assert_eq!(batches(choice(&[], &["c1"])), ["w1"]);
    assert_eq!(batches(choice(&["dea", "controller"], &[])), ["w1", "c1"]);
    // By the id of its only member, and Core alone while the others are behind.
    assert_eq!(batches(choice(&["c1"], &[])), ["c1"]);
    assert!(batches(choice(&["core"], &[])).is_empty());
    let refused = choice(&[], &["w9"]).check(&inventory()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "`w9` is neither a node nor a role of this cluster: nodes are core, c1, w1; roles are base, controller, dea, primary"
    );
    assert!(choice(&["DEA"], &["core"]).check(&inventory()).is_ok());
    assert_eq!(
        choice(&["base"], &[])
            .check(&inventory())
            .unwrap_err()
            .to_string(),
        "`base` means the nodes that have no other role, and every node of this cluster has one"
    );
}

#[test]
fn a_plan_is_read_back_as_it_was_written() {
    let plan = make(&facts(OLD), &Wishes::default(), 0);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<ClusterPlan>(&text).unwrap(), plan);
}

#[test]
fn r56_an_unfinished_plan_binds_the_next_call_and_a_finished_one_nobody() {
    let plan = make(&facts(OLD), &Wishes::default(), 0);
    assert!(plan.binds(&facts(OLD)));
    assert!(plan.binds(&facts(HALF)));
    let all = [("core", "2.0.0"), ("c1", "2.0.0"), ("w1", "2.0.0")];
    assert!(!plan.binds(&facts(all)));
    // A patch that failed on a node that is there is another story; the end of its upgrade is not.
    let mut busy = facts(all);
    busy.get_mut("w1").unwrap().state = RunState::Failed;
    assert!(!plan.binds(&busy));
    busy.get_mut("w1").unwrap().to = Some(Version::new(2, 0, 0));
    assert!(plan.binds(&busy));
    // Somebody was led back from it, or is beyond it.
    let mut back = facts(HALF);
    let error = crate::run::event::ErrorReport {
        step: "verify".into(),
        message: "it broke".into(),
        hint: None,
    };
    back.get_mut("c1")
        .unwrap()
        .rolled_back
        .insert("2.0.0".into(), error);
    assert!(!plan.binds(&back));
    assert!(!plan.binds(&facts([("core", "1.0.0"), ("c1", "1.0.0"), ("w1", "3.0.0")])));
}

#[test]
fn the_plan_names_the_inventory_that_it_was_made_from() {
    let one = make(&facts(OLD), &Wishes::default(), 0).inventory_digest;
    assert_eq!(one, make(&facts(HALF), &Wishes::default(), 9).inventory_digest);
    let mut other = inventory();
    other.nodes[1].address = "10.0.0.9".into();
    assert_ne!(one, Some(other.digest()));
}

/// The batches of a cluster of `nodes` (id, role), of which `silent` gives no answer.
fn batches_of(nodes: &[(&str, &str)], order: Option<&[&str]>, silent: &[&str]) -> (String, Vec<String>) {
    use std::fmt::Write as _;
    let mut text = "[rollout]\nmax_in_flight = 5\nmin_available = 0\n".to_owned();
    for (number, (id, role)) in nodes.iter().enumerate() {
        writeln!(
            text,
            "[[node]]\nid = \"{id}\"\naddress = \"10.0.0.{number}\"\nroles = [\"{role}\"]"
        )
        .unwrap();
    }
    let inventory = Inventory::parse(Path::new("cluster.toml"), &text).unwrap();
    let one = facts(OLD)["w1"].clone();
    let answers = nodes.iter().filter(|(id, _)| !silent.contains(id));
    let facts = answers.map(|(id, _)| ((*id).to_owned(), one.clone())).collect();
    let exclude = silent.iter().map(ToString::to_string).collect();
    let wishes = Wishes {
        role_order: order.map(|order| order.iter().map(ToString::to_string).collect()),
        choice: Choice {
            only: vec![],
            exclude,
        },
        ..Wishes::default()
    };
    let plan = plan(&inventory, &facts, &target(), &wishes, Timestamp::UNIX_EPOCH).unwrap();
    let batches: Vec<String> = plan.batches.iter().map(|batch| batch.join("+")).collect();
    (batches.join(" "), plan.warnings)
}

#[test]
fn r25_nodes_with_other_roles_are_never_upgraded_together() {
    // Data services of three kinds, two of one kind, all behind the list: each kind by itself.
    let nodes = [
        ("core", "primary"),
        ("d1", "mysql"),
        ("d2", "redis"),
        ("d3", "mysql"),
        ("d4", "rabbit"),
        ("d5", "mysql"),
    ];
    assert_eq!(batches_of(&nodes, None, &[]).0, "d1 d3+d5 d2 d4 core");
    // An order that names few roles puts the others behind it, and not into one bag.
    let few = [
        ("core", "primary"),
        ("d1", "mysql"),
        ("r1", "router"),
        ("w1", "dea"),
        ("w2", "dea"),
    ];
    let order = ["primary", "router"];
    assert_eq!(batches_of(&few, Some(&order), &[]).0, "r1 d1 w1 w2 core");
}

#[test]
fn c07_a_role_whose_other_nodes_are_silent_is_down() {
    let nodes = [("core", "primary"), ("w1", "dea"), ("w2", "dea")];
    let (batches, warnings) = batches_of(&nodes, None, &["w2"]);
    assert_eq!(batches, "w1");
    assert!(
        warnings
            .iter()
            .any(|warning| warning.ends_with("alone has a role: dea (w1; w2 does not answer)")),
        "{warnings:?}"
    );
    let (_, warnings) = batches_of(&nodes, None, &[]);
    assert!(
        warnings.iter().all(|warning| !warning.contains("dea")),
        "{warnings:?}"
    );
}

/// Core, a worker, and two nodes that have only the role that every node has, one of them without a word of it.
fn with_base_nodes(core: &str, implicit: &str) -> Inventory {
    let node =
        |id: &str, roles: &str| format!("[[node]]\nid = \"{id}\"\naddress = \"{id}\"\nroles = [{roles}]\n");
    let text = format!(
        "[cluster]\ncore_role = \"{core}\"\nimplicit_role = \"{implicit}\"\n[rollout.role.{implicit}]\nmax_failures = 1\n{}{}{}{}",
        node("core", &format!("\"{core}\"")),
        node("w1", "\"dea\""),
        node("b1", ""),
        node("b2", &format!("\"{implicit}\"")),
    );
    Inventory::parse(Path::new("cluster.toml"), &text).unwrap()
}

fn plan_of(inventory: &Inventory, wishes: &Wishes) -> Result<ClusterPlan, RoleOrderError> {
    let facts = facts([("core", "1.0.0"), ("w1", "1.0.0"), ("b1", "1.0.0")]);
    plan(inventory, &facts, &target(), wishes, Timestamp::UNIX_EPOCH)
}

#[test]
fn r27_the_role_that_every_node_has_is_one_word_in_every_place() {
    // By its default name, and by another; the release goes on calling it by its own.
    for (core, name) in [("primary", "base"), ("hub", "common")] {
        let inventory = with_base_nodes(core, name);
        assert_eq!(inventory.shown_roles(inventory.node("b1").unwrap()), name);
        let upgraded = |wishes: Wishes| {
            wishes.choice.check(&inventory).unwrap();
            let plan = plan_of(&inventory, &wishes).unwrap();
            let ids: Vec<String> = plan.upgrades().map(|node| node.id.clone()).collect();
            (ids.join(" "), plan.nodes[1].place.to_string())
        };
        let whole = ("w1 b1 b2 core".to_owned(), format!("has no role but {name}"));
        assert_eq!(upgraded(Wishes::default()), whole);
        let chosen = |only: &[&str], exclude: &[&str]| {
            let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
            let choice = Choice {
                only: words(only),
                exclude: words(exclude),
            };
            let wishes = Wishes {
                choice,
                ..Wishes::default()
            };
            upgraded(wishes).0
        };
        assert_eq!(chosen(&[name], &[]), "b1 b2");
        assert_eq!(chosen(&[], &[name]), "w1");
        let first = Wishes {
            role_order: Some(vec![name.to_uppercase(), "dea".into()]),
            ..Wishes::default()
        };
        assert_eq!(upgraded(first).0, "b1 b2 w1 core");
    }
}

#[test]
fn r27_the_name_that_the_role_has_elsewhere_is_no_role_here() {
    let inventory = with_base_nodes("primary", "common");
    let wishes = Wishes {
        role_order: Some(vec!["base".into()]),
        ..Wishes::default()
    };
    assert_eq!(
        plan_of(&inventory, &wishes).unwrap_err().to_string(),
        "`base` in the role order is no role of this cluster: valid are common, controller, dea, primary, router"
    );
    let only = Choice {
        only: vec!["base".into()],
        ..Choice::default()
    };
    let refused = only.check(&inventory).unwrap_err().to_string();
    assert!(refused.ends_with("roles are common, dea, primary"), "{refused}");
}
