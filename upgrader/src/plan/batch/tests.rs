//! Turns by table, and rollouts with clusters, rules and outcomes by chance.

use kato_shared::settings::HumanDuration;
use proptest::prelude::*;

use super::*;
use crate::plan::policy::{Amount, RolePolicy};

/// Members from words: `dea:w1` is a node of the first group, `controller+router:c1` one of the next, and so on; `!` is failed,
/// `?` silent, `=` there, `-` left out, `*` at work. Behind the id: `~` gives no answer, `^` was retired by hand, `v` by an upgrade,
/// `&` has a run at work on it.
fn members(words: &[&str]) -> Vec<Member> {
    let groups = ["dea", "controller", "router", "base", "data", "primary"];
    words
        .iter()
        .map(|word| {
            let (roles, id) = word.split_once(':').unwrap();
            let absent = match id.chars().last().unwrap() {
                '~' => Some(Absence::Silent),
                '^' => Some(Absence::RetiredByHand),
                'v' => Some(Absence::Retired),
                _ => None,
            };
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
                id: id.trim_end_matches(['~', '^', 'v', '&']).into(),
                is_busy: id.ends_with('&'),
                is_core: roles[0] == "primary",
                roles,
                group: u32::try_from(group).unwrap(),
                state,
                absent,
                was_absent: false,
            }
        })
        .collect()
}

fn policies(dea: RolePolicy) -> Policies {
    Policies {
        role: [("dea".to_owned(), dea)].into(),
        ..Policies::default()
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
        role: [("controller".to_owned(), at_once(2))].into(),
        ..Policies::default()
    };
    assert_eq!(batches(&words, &rules), "c1 c2 r1");
}

#[test]
fn c24_enough_nodes_stay_in_service() {
    let most_stay = |least: Amount| {
        policies(RolePolicy {
            canaries: 0,
            min_available: Some(least),
            ..at_once(10)
        })
    };
    let three = ["dea:1", "dea:2", "dea:3"];
    assert_eq!(batches(&three, &most_stay(Amount::Count(1))), "1+2 3");
    assert_eq!(batches(&three, &most_stay(Amount::AllBut(1))), "1 2 3");
    assert_eq!(
        batches(&three, &most_stay(Amount::Percent(100))),
        "| 1 cannot go out of service: 3 nodes with the role dea in service, and 3 must stay"
    );
    // One that failed and is out is missing already.
    let lenient = Policies {
        role: [(
            "dea".to_owned(),
            RolePolicy {
                max_failures: 1,
                min_available: Some(Amount::Count(2)),
                ..at_once(2)
            },
        )]
        .into(),
        ..Policies::default()
    };
    assert_eq!(
        batches(&["#dea:1", "dea:2", "dea:3"], &lenient),
        "| 2 cannot go out of service: 2 nodes with the role dea in service, and 2 must stay (1 is out of service)"
    );
    assert_eq!(batches(&["!dea:1", "dea:2", "dea:3"], &lenient), "2 3");
}

#[test]
fn c07_who_is_silent_or_retired_is_not_in_service_wanted_or_not() {
    let one_stays = policies(RolePolicy {
        min_available: Some(Amount::Count(1)),
        ..RolePolicy::default()
    });
    let none_must = policies(RolePolicy {
        min_available: Some(Amount::Count(0)),
        ..RolePolicy::default()
    });
    let default = Policies::default();
    for (words, rules, expected) in [
        (
            &["dea:w1", "-dea:w2~"][..],
            &one_stays,
            "| w1 cannot go out of service: 1 node with the role dea in service, and 1 must stay (w2 does not answer)",
        ),
        (
            &["-dea:w1^", "dea:w2"][..],
            &one_stays,
            "| w2 cannot go out of service: 1 node with the role dea in service, and 1 must stay (w1 was taken out of service by hand)",
        ),
        // Also one that is at the target already.
        (
            &["=dea:w1~", "dea:w2"][..],
            &default,
            "| w2 cannot go out of service: 1 node with the role dea in service, and 1 must stay (w1 does not answer)",
        ),
        // Without a rule the sick one counts as the one that may be out; where it says so the last one goes.
        (&["dea:w1", "-dea:w2~"][..], &none_must, "w1"),
        (&["dea:w1", "dea:w2", "-dea:w3~"][..], &one_stays, "w1 w2"),
        // Its own upgrade costs no service that is there, and puts it back, unless it was retired by hand.
        (&["dea:w1v", "dea:w2"][..], &one_stays, "w1 w2"),
        (
            &["dea:w1^", "dea:w2"][..],
            &one_stays,
            "w1 | w2 cannot go out of service: 1 node with the role dea in service, and 1 must stay (w1 was taken out of service by hand)",
        ),
        (&["dea:w1^"][..], &default, "w1"),
    ] {
        assert_eq!(batches(words, rules), expected, "{words:?}");
    }
}

#[test]
fn c24_no_more_are_out_in_the_whole_cluster_than_the_cap_says() {
    let mut rules = policies(at_once(10));
    rules.total = Amount::Count(2);
    assert_eq!(batches(&LAB, &rules), "w1 w2+w3 c1 c2 r1 r2 b1 d1 core");
    let six = ["dea:1", "dea:2", "dea:3", "dea:4", "dea:5", "dea:6"];
    assert_eq!(batches(&six, &rules), "1 2+3 4+5 6");
    rules.total = Amount::Percent(50);
    assert_eq!(batches(&six, &rules), "1 2+3+4 5+6");
}

#[test]
fn c07_without_a_number_who_was_away_before_the_plan_locks_nobody_out_of_the_remedy() {
    let default = Policies::default();
    let two_stay = policies(RolePolicy {
        min_available: Some(Amount::Count(2)),
        ..RolePolicy::default()
    });
    for (words, known, rules, expected) in [
        (&["dea:w1", "dea:w2", "-dea:w3~"][..], "w3", &default, "w1 w2"),
        (&["dea:w1", "-dea:w2~"][..], "w2", &default, "w1"),
        (&["dea:w1", "dea:w2", "-dea:w3^"][..], "w3", &default, "w1 w2"),
        (
            &["dea:w1", "dea:w2", "dea:w3", "-dea:w4~"][..],
            "w4",
            &policies(at_once(2)),
            "w1 w2+w3",
        ),
        // A number that was written down is a promise, whoever is away.
        (
            &["dea:w1", "dea:w2", "-dea:w3~"][..],
            "w3",
            &two_stay,
            "| w1 cannot go out of service: 2 nodes with the role dea in service, and 2 must stay (w3 does not answer)",
        ),
        // Who goes away behind the operator's back stops it, beside one who was away before as well.
        (
            &["dea:w1", "=dea:w2~", "-dea:w3~"][..],
            "w3",
            &default,
            "| w1 cannot go out of service: 1 node with the role dea in service, and 1 must stay (w2 does not answer, w3 does not answer)",
        ),
        // And one that came back is one of them again.
        (
            &["dea:w1", "=dea:w2~", "-dea:w3"][..],
            "w3",
            &default,
            "| w1 cannot go out of service: 2 nodes with the role dea in service, and 2 must stay (w2 does not answer)",
        ),
    ] {
        let mut all = members(words);
        for member in &mut all {
            member.was_absent = member.id == known;
        }
        let (batches, halt) = foresee(&all, rules);
        let mut said: Vec<String> = batches.iter().map(|batch| batch.join("+")).collect();
        said.extend(halt.map(|halt| format!("| {halt}")));
        assert_eq!(said.join(" "), expected, "{words:?}");
    }
}

#[test]
fn r25_a_run_that_is_at_work_counts_whether_its_node_is_wanted_or_not() {
    let default = Policies::default();
    let both = policies(RolePolicy {
        canaries: 0,
        ..at_once(2)
    });
    let mut one_in_all = both.clone();
    one_in_all.total = Amount::Count(1);
    for (words, rules, expected) in [
        (
            &["-dea:w1&", "dea:w2"][..],
            &default,
            "| w2 cannot go out of service: 1 node with the role dea out by an upgrade, and no more than 1 may be (w1 is being upgraded)",
        ),
        // Its own run is followed first, and the other one waits for its end.
        (&["dea:w1", "dea:w2&"][..], &default, "w2 w1"),
        // Two that are at work already are followed, though no rule would have begun both.
        (&["dea:w1&", "dea:w2&", "dea:w3"][..], &default, "w1 w2 w3"),
        // It takes one of the places, and one of the promised.
        (&["-dea:w1&", "dea:w2", "dea:w3"][..], &both, "w2 w3"),
        (
            &["-controller:c1&", "dea:w2"][..],
            &one_in_all,
            "| w2 cannot go out of service: 1 node out by an upgrade, and no more than 1 may be in all (c1 is being upgraded)",
        ),
        (&["-controller:c1&", "dea:w2"][..], &default, "w2"),
    ] {
        assert_eq!(batches(words, rules), expected, "{words:?}");
    }
}

#[test]
fn c07_who_is_asked_before_a_batch_are_those_that_share_a_role_with_it() {
    let all = members(&["=dea:w1", "dea:w2", "-dea:w3", "controller:c1", "primary:core"]);
    let peers = |ids: &[&str]| {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        crate::plan::absence::peers(&all, &ids).join(" ")
    };
    assert_eq!(peers(&["w2"]), "w1 w3");
    assert_eq!(peers(&["c1"]), "");
    assert_eq!(peers(&["core"]), "");
}

#[test]
fn r54_failures_beyond_the_allowed_stop_everything_and_core_waits_for_all() {
    let words = ["!dea:1", "dea:2", "controller:c1", "primary:core"];
    assert_eq!(
        batches(&words, &Policies::default()),
        "| 1 node with the role dea failed, 0 may"
    );
    let one_may = policies(RolePolicy {
        max_failures: 1,
        ..RolePolicy::default()
    });
    assert_eq!(batches(&words, &one_may), "2 c1 | Core waits for 1");
    assert_eq!(
        batches(&["?dea:1", "dea:2"], &one_may),
        "| 1 node with the role dea stopped answering, 0 may"
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
    (0_u32..4, amount(), 0_u32..3, 0_u32..3, prop::option::of(amount())).prop_map(
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
    let absence = prop_oneof![8 => Just(""), 1 => Just("~"), 1 => Just("^"), 1 => Just("v"), 1 => Just("&")];
    prop::collection::vec((roles, absence), 1..20).prop_map(|nodes| {
        let words: Vec<String> = nodes
            .iter()
            .enumerate()
            .map(|(number, (role, absence))| format!("{role}:n{number}{absence}"))
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
    let others = u32::try_from(members.iter().filter(|member| !member.is_core).count()).unwrap();
    // To follow a run that is at work takes nobody out.
    let fresh = || begun.iter().filter(|member| !member.is_busy);
    let in_all = ours(members.iter(), &begun);
    assert!(
        fresh().next().is_none() || in_all <= policies.total.at_most(others),
        "{in_all} of {others} are out"
    );
    for role in fresh().flat_map(|member| &member.roles) {
        let all = count(with(members, role), |_any| true);
        let ours = ours(with(members, role), &begun);
        let policy = policies.of(role);
        assert!(
            ours <= policy.max_in_flight.at_most(all),
            "{role}: {ours} of {all} are out by us"
        );
        // Who was out before takes nobody's place.
        let fell = begun
            .iter()
            .any(|member| member.roles.contains(role) && member.absent.is_none() && !member.is_busy);
        let is_out = |member: &&Member| member.is_out() || begun.iter().any(|other| other.id == member.id);
        let out = u32::try_from(with(members, role).filter(is_out).count()).unwrap();
        assert!(
            !fell || all - out >= policy.least(all, 0),
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
        total in amount(),
        outcomes in prop::collection::vec(prop_oneof![6 => Just(0_usize), 1 => 1_usize..4], 40),
    ) {
        let policies = Policies { total, every, role: [("dea".to_owned(), dea)].into() };
        let mut outcomes = outcomes.into_iter();
        let mut turns = 0;
        while let Turn::Begin(ids) = next(&members, &policies) {
            check(&members, &ids, &policies);
            for member in members.iter_mut().filter(|member| ids.contains(&member.id)) {
                member.state = OUTCOMES[outcomes.next().unwrap_or(0)];
                member.is_busy = false;
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
