//! The documented order, case by case, and what holds for every cluster.

use proptest::{collection::vec, prelude::*, sample::subsequence};

use super::*;

/// `"w1=dea,base core=primary"` as nodes.
fn nodes(text: &str) -> Vec<(String, Vec<String>)> {
    text.split_whitespace()
        .map(|word| {
            let (id, roles) = word.split_once('=').unwrap_or((word, ""));
            let roles = roles
                .split(',')
                .filter(|role| !role.is_empty())
                .map(String::from)
                .collect();
            (id.to_owned(), roles)
        })
        .collect()
}

fn borrowed(nodes: &[(String, Vec<String>)]) -> Vec<OrderNode<'_>> {
    nodes.iter().map(|(id, roles)| OrderNode { id, roles }).collect()
}

fn rules(list: &str) -> OrderRules {
    OrderRules {
        list: list.split(',').map(String::from).collect(),
        ..OrderRules::default()
    }
}

fn ids(text: &str, rules: &OrderRules) -> String {
    let nodes = nodes(text);
    let order = order(&borrowed(&nodes), rules);
    order
        .nodes
        .iter()
        .map(|placed| placed.id.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn r27_the_default_is_dea_controller_router_base_primary() {
    let cluster = "core=primary b1=base r1=router c1=controller w1=dea";
    assert_eq!(ids(cluster, &OrderRules::default()), "w1 c1 r1 b1 core");
}

#[test]
fn r27_roles_are_compared_without_case() {
    assert_eq!(
        ids("core=PRIMARY c1=Controller w1=DEA", &OrderRules::default()),
        "w1 c1 core"
    );
    assert_eq!(
        ids("core=primary c1=controller w1=dea", &rules("Controller,DEA")),
        "c1 w1 core"
    );
}

#[test]
fn r28_a_node_stands_at_its_first_role_of_the_list() {
    // c1 is also a dea, so it goes with the deas.
    assert_eq!(
        ids(
            "core=primary c1=controller,dea r1=router,base w1=dea",
            &OrderRules::default()
        ),
        "c1 w1 r1 core"
    );
}

#[test]
fn r28_role_order_base_matches_only_alone() {
    // Everything has `base`: were it matched as the other roles are, mysql would go before core's last listed peer.
    let cluster = "core=primary,base w1=dea,base alone=base nothing= db=mysql,base";
    assert_eq!(ids(cluster, &OrderRules::default()), "w1 alone nothing db core");
    assert_eq!(ids(cluster, &rules("base,dea")), "alone nothing w1 db core");
}

#[test]
fn r29_unlisted_nodes_come_after_the_listed_and_before_core() {
    assert_eq!(
        ids(
            "pg=postgresql core=primary mq=rabbit w1=dea b=base",
            &OrderRules::default()
        ),
        "w1 b mq pg core"
    );
}

#[test]
fn r30_core_is_last_even_when_it_has_the_first_role() {
    assert_eq!(ids("core=primary,dea w1=dea", &OrderRules::default()), "w1 core");
}

#[test]
fn r30_a_list_with_primary_early_warns_and_keeps_core_last() {
    let cluster = nodes("core=primary w1=dea c1=controller");
    let order = order(&borrowed(&cluster), &rules("primary,controller,dea"));
    assert_eq!(
        order.warnings,
        ["the role order names primary before controller, dea; Core is upgraded last all the same"]
    );
    assert_eq!(order.nodes.last().unwrap().id, "core");
    assert_eq!(order.nodes[0].id, "c1");
}

#[test]
fn r30_an_unknown_role_is_refused_with_the_valid_ones() {
    let cluster = nodes("core=primary w1=dea db=mysql");
    let read = |asked: &[&str]| {
        let asked: Vec<String> = asked.iter().map(|role| (*role).to_owned()).collect();
        read_role_order(
            &asked,
            &borrowed(&cluster),
            &["*".into(), "stager".into()],
            &OrderRules::default(),
        )
    };
    assert_eq!(
        read(&["dea", "contoller"]).unwrap_err().to_string(),
        "`contoller` in the role order is no role of this cluster: valid are base, controller, dea, mysql, primary, \
         router, stager"
    );
    assert_eq!(
        read(&[]).unwrap_err().to_string().split(':').next(),
        Some("the role order is empty")
    );
    assert_eq!(read(&[" MySQL", "dea", "DEA"]).unwrap(), ["mysql", "dea"]);
}

#[test]
fn r30_nodes_at_the_same_place_go_by_their_id() {
    assert_eq!(
        ids("core=primary w3=dea w1=dea w2=dea", &OrderRules::default()),
        "w1 w2 w3 core"
    );
}

#[test]
fn every_place_says_why() {
    let cluster = nodes("core=primary w1=dea b=base db=mysql,base");
    let order = order(&borrowed(&cluster), &OrderRules::default());
    let reasons: Vec<_> = order.nodes.iter().map(|node| node.place.to_string()).collect();
    assert_eq!(
        reasons,
        [
            "has the role dea",
            "has no role but base",
            "mysql is not in the order",
            "Core, always last"
        ]
    );
}

const ROLES: [&str; 8] = [
    "dea",
    "controller",
    "router",
    "base",
    "mysql",
    "redis",
    "stager",
    "DEA",
];

fn roles() -> impl Strategy<Value = Vec<String>> {
    subsequence(ROLES.to_vec(), 0..=4).prop_map(|roles| roles.into_iter().map(String::from).collect())
}

/// A cluster with Core somewhere in it.
fn cluster() -> impl Strategy<Value = Vec<(String, Vec<String>)>> {
    (vec(roles(), 1..12), any::<prop::sample::Index>()).prop_map(|(all, core)| {
        let core = core.index(all.len());
        all.into_iter()
            .enumerate()
            .map(|(at, mut roles)| {
                if at == core {
                    roles.push("primary".into());
                }
                (format!("n{at}"), roles)
            })
            .collect()
    })
}

fn role_list() -> impl Strategy<Value = Vec<String>> {
    subsequence(
        vec!["dea", "controller", "router", "base", "primary", "mysql"],
        1..=6,
    )
    .prop_shuffle()
    .prop_map(|list| list.into_iter().map(String::from).collect())
}

proptest! {
    #[test]
    fn r28_r29_r30_hold_for_every_cluster_and_every_list(cluster in cluster(), list in role_list(), seed in any::<u64>()) {
        let rules = OrderRules { list: list.clone(), ..OrderRules::default() };
        let placed = order(&borrowed(&cluster), &rules).nodes;

        // Core last, and a permutation of the nodes.
        prop_assert_eq!(&placed.last().unwrap().place, &Place::Core);
        prop_assert_eq!(placed.iter().filter(|node| node.place == Place::Core).count(), 1);
        let mut given: Vec<_> = cluster.iter().map(|(id, _)| id.clone()).collect();
        let mut got: Vec<_> = placed.iter().map(|node| node.id.clone()).collect();
        given.sort();
        got.sort();
        prop_assert_eq!(given, got);

        // The same order from any listing of the same nodes.
        let mut shuffled = cluster.clone();
        shuffled.sort_by_key(|(id, _)| id.bytes().fold(seed, |hash, byte| hash.rotate_left(9) ^ u64::from(byte)));
        prop_assert_eq!(&order(&borrowed(&shuffled), &rules).nodes, &placed);

        // Ranks never fall: listed roles in the order of the list, then unlisted, then Core.
        let rank = |place: &Place| match place {
            Place::Role { role } | Place::ImplicitAlone { role } => list.iter().position(|listed| listed == role).unwrap(),
            Place::Unlisted { .. } => list.len(),
            Place::Core => list.len() + 1,
        };
        prop_assert!(placed.is_sorted_by_key(|node| rank(&node.place)));
    }
}
