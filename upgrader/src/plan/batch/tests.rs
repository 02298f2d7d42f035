//! Turns by table, and rollouts with clusters, rules and outcomes by chance.

use kato_shared::settings::HumanDuration;
use proptest::prelude::*;

use super::*;
use crate::plan::policy::{Amount, RolePolicy};

/// Members from words: `dea:w1` is a node of the first group, `controller+router:c1` one of the next, and so on; `!` is failed,
/// `?` silent, `=` there, `-` left out, `*` at work.
fn members(words: &[&str]) -> Vec<Member> {
    let groups = ["dea", "controller", "router", "base", "data", "primary"];
    words
        .iter()
        .map(|word| {
            let (roles, id) = word.split_once(':').unwrap();
            let state = match roles.chars().next().unwrap() {
                '!' => Standing::Failed { is_out: false },
                '#' => Standing::Failed { is_out: true },
                '?' => Standing::Unreachable,
                '=' => Standing::There,
                '-' => Standing::LeftOut,
                '*' => Standing::AtWork,
                _ => Standing::Waiting,
            };
            let roles: Vec<String> = roles
                .trim_start_matches(|c: char| !c.is_ascii_alphabetic())
                .split('+')
                .map(String::from)
                .collect();
            let group = groups.iter().position(|group| *group == roles[0]).unwrap();
            Member {
                id: id.into(),
                is_core: roles[0] == "primary",
                roles,
                group: u32::try_from(group).unwrap(),
                state,
            }
        })
        .collect()
}

fn policies(dea: RolePolicy) -> Policies {
    Policies {
        every: RolePolicy::default(),
        role: [("dea".to_owned(), dea)].into(),
    }
}

fn at_once(count: u32) -> RolePolicy {
    RolePolicy {
        max_in_flight: Amount::Count(count),
        ..RolePolicy::default()
    }
}

fn batches(words: &[&str], policies: &Policies) -> String {
    let (batches, halt) = foresee(&members(words), policies);
    let mut words: Vec<String> = batches.iter().map(|batch| batch.join("+")).collect();
    words.extend(halt.map(|halt| format!("| {halt}")));
    words.join(" ")
}

const LAB: [&str; 10] = [
    "dea:w1",
    "dea:w2",
    "dea:w3",
    "controller:c1",
    "controller:c2",
    "router:r1",
    "router:r2",
    "base:b1",
    "data:d1",
    "primary:core",
];

#[test]
fn r25_without_rules_one_node_at_a_time_and_core_last() {
    assert_eq!(
        batches(&LAB, &Policies::default()),
        "w1 w2 w3 c1 c2 r1 r2 b1 d1 core"
    );
}

#[test]
fn r21_more_at_once_is_explicit_and_only_for_its_role() {
    assert_eq!(
        batches(&LAB, &policies(at_once(3))),
        "w1 w2+w3 c1 c2 r1 r2 b1 d1 core"
    );
}

#[test]
fn c24_canaries_go_first_and_one_that_is_there_already_counts() {
    let two = RolePolicy {
        canaries: 2,
        ..at_once(10)
    };
    let five = ["dea:1", "dea:2", "dea:3", "dea:4", "dea:5"];
    assert_eq!(batches(&five, &policies(two.clone())), "1+2 3+4+5");
    let one_there = ["=dea:1", "dea:2", "dea:3", "dea:4", "dea:5"];
    assert_eq!(batches(&one_there, &policies(two)), "2 3+4+5");
    let none = RolePolicy {
        canaries: 0,
        ..at_once(10)
    };
    assert_eq!(batches(&five, &policies(none)), "1+2+3+4+5");
}

#[test]
fn c24_a_node_with_two_roles_obeys_the_rules_of_both() {
    // Each controller is a router, too: one at a time because of the routers.
    let words = [
        "=controller:c0",
        "controller+router:c1",
        "controller+router:c2",
        "router:r1",
    ];
    let rules = Policies {
        every: RolePolicy::default(),
        role: [("controller".to_owned(), at_once(2))].into(),
    };
    assert_eq!(batches(&words, &rules), "c1 c2 r1");
}

#[test]
fn c24_enough_nodes_stay_in_service() {
    let most_stay = |least: Amount| {
        policies(RolePolicy {
            canaries: 0,
            min_available: least,
            ..at_once(10)
        })
    };
    let three = ["dea:1", "dea:2", "dea:3"];
    assert_eq!(batches(&three, &most_stay(Amount::Count(1))), "1+2 3");
    assert_eq!(batches(&three, &most_stay(Amount::AllBut(1))), "1 2 3");
    assert_eq!(
        batches(&three, &most_stay(Amount::Percent(100))),
        "| 1 cannot go out of service: 3 nodes with the role dea are in service, and 3 must stay"
    );
    // One that failed and is out is missing already.
    let lenient = Policies {
        every: RolePolicy::default(),
        role: [(
            "dea".to_owned(),
            RolePolicy {
                max_failures: 1,
                min_available: Amount::Count(2),
                ..at_once(2)
            },
        )]
        .into(),
    };
    assert_eq!(
        batches(&["#dea:1", "dea:2", "dea:3"], &lenient),
        "| 2 cannot go out of service: 2 nodes with the role dea are in service, and 2 must stay"
    );
    assert_eq!(batches(&["!dea:1", "dea:2", "dea:3"], &lenient), "2 3");
}

#[test]
fn r54_failures_beyond_the_allowed_stop_everything_and_core_waits_for_all() {
    let words = ["!dea:1", "dea:2", "controller:c1", "primary:core"];
    assert_eq!(
        batches(&words, &Policies::default()),
        "| 1 nodes with the role dea failed, 0 may"
    );
    let one_may = policies(RolePolicy {
        max_failures: 1,
        ..RolePolicy::default()
    });
    assert_eq!(batches(&words, &one_may), "2 c1 | Core waits for 1");
    assert_eq!(
        batches(&["?dea:1", "dea:2"], &one_may),
        "| 1 nodes with the role dea stopped answering, 0 may"
    );
    assert_eq!(
        batches(&["-dea:1", "dea:2", "primary:core"], &one_may),
        "2 | Core waits for 1"
    );
}

#[test]
fn nothing_is_begun_while_a_batch_is_at_work() {
    let words = members(&["*dea:1", "dea:2", "controller:c1"]);
    assert_eq!(next(&words, &policies(at_once(5))), Turn::Wait);
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        (0_u32..5).prop_map(Amount::Count),
        (0_u8..=100).prop_map(Amount::Percent),
        (0_u32..3).prop_map(Amount::AllBut),
    ]
}

fn policy() -> impl Strategy<Value = RolePolicy> {
    (0_u32..4, amount(), 0_u32..3, 0_u32..3, amount()).prop_map(
        |(canaries, max_in_flight, max_failures, max_unreachable, min_available)| RolePolicy {
            canaries,
            max_in_flight,
            max_failures,
            max_unreachable,
            min_available,
            soak: HumanDuration::from_secs(0),
        },
    )
}

fn cluster() -> impl Strategy<Value = Vec<Member>> {
    let roles = prop_oneof![
        Just("dea"),
        Just("controller"),
        Just("controller+router"),
        Just("router"),
        Just("base"),
        Just("-dea"),
        Just("=dea"),
    ];
    prop::collection::vec(roles, 1..20).prop_map(|roles| {
        let words: Vec<String> = roles
            .iter()
            .enumerate()
            .map(|(number, role)| format!("{role}:n{number}"))
            .chain(["primary:core".to_owned()])
            .collect();
        members(&words.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

/// How a turn ends: fine, failed in service, failed out of service, silent.
const OUTCOMES: [Standing; 4] = [
    Standing::There,
    Standing::Failed { is_out: false },
    Standing::Failed { is_out: true },
    Standing::Unreachable,
];

/// What must hold when `ids` are begun.
fn check(members: &[Member], ids: &[String], policies: &Policies) {
    assert!(!ids.is_empty());
    let begun: Vec<&Member> = members.iter().filter(|member| ids.contains(&member.id)).collect();
    assert_eq!(begun.len(), ids.len(), "each once");
    assert!(begun.iter().all(|member| member.state == Standing::Waiting));
    if begun.iter().any(|member| member.is_core) {
        let others = members.iter().filter(|member| !member.is_core);
        assert!(begun.len() == 1 && others.into_iter().all(|member| member.state == Standing::There));
        return;
    }
    for role in begun.iter().flat_map(|member| &member.roles) {
        let all = count(with(members, role), |_any| true);
        let going = begun.iter().filter(|member| member.roles.contains(role)).count();
        let out = count(with(members, role), Standing::is_out) + u32::try_from(going).unwrap();
        let policy = policies.of(role);
        assert!(
            out <= policy.max_in_flight.at_most(all),
            "{role}: {out} of {all} are out"
        );
        assert!(
            all - out >= policy.min_available.at_least(all),
            "{role}: {out} of {all} are out"
        );
        let failed = count(with(members, role), |state| {
            matches!(state, Standing::Failed { .. })
        });
        assert!(failed <= policy.max_failures, "{role}: {failed} failed");
    }
}

proptest! {
    #[test]
    fn c24_the_rules_hold_in_every_rollout(
        mut members in cluster(),
        every in policy(),
        dea in policy(),
        outcomes in prop::collection::vec(prop_oneof![6 => Just(0_usize), 1 => 1_usize..4], 40),
    ) {
        let policies = Policies { every, role: [("dea".to_owned(), dea)].into() };
        let mut outcomes = outcomes.into_iter();
        let mut turns = 0;
        while let Turn::Begin(ids) = next(&members, &policies) {
            check(&members, &ids, &policies);
            for member in members.iter_mut().filter(|member| ids.contains(&member.id)) {
                member.state = OUTCOMES[outcomes.next().unwrap_or(0)];
            }
            turns += 1;
            prop_assert!(turns <= members.len(), "it ends");
        }
    }

    #[test]
    fn what_is_foreseen_is_what_happens_when_nothing_fails(members in cluster(), dea in policy()) {
        let policies = policies(dea);
        let (batches, halt) = foresee(&members, &policies);
        let begun: Vec<&String> = batches.iter().flatten().collect();
        let waiting = members.iter().filter(|member| member.state == Standing::Waiting);
        if halt.is_none() {
            prop_assert_eq!(begun.len(), waiting.count());
        }
    }
}
