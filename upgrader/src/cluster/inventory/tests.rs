//! What an inventory may and may not say.

use super::*;

fn read(text: &str) -> Result<Inventory, String> {
    Inventory::parse(Path::new("cluster.toml"), text).map_err(|error| error.to_string())
}

const CORE: &str = "[[node]]\nid = \"core\"\naddress = \"10.0.0.1\"\nroles = [\"primary\"]\n";

#[test]
fn the_example_in_config_is_an_inventory() {
    let inventory = read(include_str!("../../../../config/cluster.toml")).unwrap();
    assert_eq!(inventory.core().id, "core");
    assert_eq!(inventory.nodes.len(), 3);
    // What stands there as default is the default.
    assert_eq!(inventory.ssh, SshSettings::default());
    assert_eq!(inventory.core_role, ClusterFragment::default().core_role);
    assert_eq!(inventory.implicit_role, ClusterFragment::default().implicit_role);
    assert_eq!(inventory.lease, ClusterFragment::default().lease);
    assert_eq!(
        inventory.rollout.every,
        crate::plan::policy::RolePolicy::default()
    );
    assert_eq!(inventory.preflight, Limits::default());
    for node in &inventory.nodes {
        assert_eq!(node.config, default_config());
        assert_eq!(node.transport, Transport::Ssh);
    }
}

#[test]
fn r11_exactly_one_node_is_core() {
    assert_eq!(
        read("").unwrap_err(),
        "cluster.toml: no node is listed: expected one `[[node]]` each, one of them with the role `primary`"
    );
    assert_eq!(
        read("[[node]]\nid = \"a\"\naddress = \"a\"\nroles = [\"dea\"]\n").unwrap_err(),
        "cluster.toml: no node has the role `primary`: expected exactly one, the Core node"
    );
    let second = "[[node]]\nid = \"b\"\naddress = \"b\"\nroles = [\"PRIMARY\"]\n";
    assert_eq!(
        read(&format!("{CORE}{second}")).unwrap_err(),
        "cluster.toml: core, b have the role `primary`: expected exactly one, the Core node"
    );
}

#[test]
fn r11_another_product_may_call_its_core_otherwise() {
    let text =
        "[cluster]\ncore_role = \"Hub\"\n[[node]]\nid = \"h\"\naddress = \"h\"\nroles = [\"hub\", \"dea\"]\n";
    assert_eq!(read(text).unwrap().core().id, "h");
}

#[test]
fn r27_roles_are_read_in_any_case_and_once() {
    let text = "[[node]]\nid = \"core\"\naddress = \"10.0.0.1\"\nroles = [\"Primary\", \"DEA\", \"dea\"]\n";
    assert_eq!(read(text).unwrap().core().roles, ["primary", "dea"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let error = read(&format!("{CORE}role = \"dea\"\n")).unwrap_err();
    assert!(error.starts_with("cluster.toml:5: unknown key `role`"), "{error}");
    assert!(error.contains("did you mean `roles`?"), "{error}");
}

#[test]
fn a_node_is_listed_once() {
    let twin = "[[node]]\nid = \"core\"\naddress = \"10.0.0.2\"\n";
    assert_eq!(
        read(&format!("{CORE}{twin}")).unwrap_err(),
        "cluster.toml: `core` and `core` have the same id `core`"
    );
    let twin = "[[node]]\nid = \"w1\"\naddress = \"10.0.0.1\"\n";
    assert_eq!(
        read(&format!("{CORE}{twin}")).unwrap_err(),
        "cluster.toml: `core` and `w1` have the same address `10.0.0.1`"
    );
}

#[test]
fn local_nodes_share_an_address_but_not_a_settings_file() {
    let local = |id: &str, role: &str, config: &str| {
        format!(
            "[[node]]\nid = \"{id}\"\naddress = \"127.0.0.1\"\nroles = [\"{role}\"]\ntransport = \"local\"\nconfig = \"{config}\"\n"
        )
    };
    assert!(read(&(local("core", "primary", "/a.toml") + &local("w1", "dea", "/b.toml"))).is_ok());
    assert_eq!(
        read(&(local("core", "primary", "/a.toml") + &local("w1", "dea", "/a.toml"))).unwrap_err(),
        "cluster.toml: `core` and `w1` have the same config `/a.toml`"
    );
}

#[test]
fn a_word_that_ssh_would_take_for_an_option_is_refused() {
    for (key, text) in [
        ("address", CORE.replace("10.0.0.1", "-oProxyCommand=sh")),
        ("address", CORE.replace("10.0.0.1", "a b")),
        ("id", CORE.replace("\"core\"", "\"../core\"")),
        ("role", CORE.replace("\"primary\"", "\"primary,dea\"")),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(&format!("is no {key}")), "{error}");
    }
    assert!(read(&CORE.replace("10.0.0.1", "fe80::1%eth0")).is_ok());
}

#[test]
fn c24_rules_that_nobody_can_obey_and_rules_for_nobody_are_refused() {
    let with = |text: &str| read(&format!("{text}\n{CORE}")).map(|inventory| inventory.rollout);
    let nothing = with("[rollout]\nmax_in_flight = 0").unwrap_err();
    assert!(nothing.contains("no node could be upgraded"), "{nothing}");
    assert_eq!(
        with("[rollout.role.daemon]\nmax_failures = 1").unwrap_err(),
        "cluster.toml: `[rollout.role.daemon]` is about a role that no node has"
    );
    let option = with("[ssh]\nuser = \"-x\"").unwrap_err();
    assert!(option.contains("user") && option.contains("-x"), "{option}");
    let wrong = with("[rollout]\nmin_available = \"half\"").unwrap_err();
    assert!(wrong.contains("`half` is no number of nodes"), "{wrong}");
    assert_eq!(
        with("[rollout.role.Primary]\nsoak = \"1m\"").unwrap().role.len(),
        1
    );
}

/// A section, a key of it, values out of its range, and what is said of them.
type OutOfRange = (&'static str, &'static str, &'static [&'static str], String);

const COUNTS: &[&str] = &["-1", "100001", "99999999999999999999"];
const AMOUNTS: &[&str] = &["-1", "100001", "\"101%\"", "\"-1\"", "\"n-\""];
const NOTHING: &[&str] = &["0", "\"0%\"", "\"0\""];

fn duration(range: &str) -> String {
    format!("expected a duration with its unit from {range}")
}

fn size(range: &str) -> String {
    format!("expected a size with its unit from {range}")
}

fn some() -> String {
    "expected a number of nodes from 1 to 100000, a share from `1%` to `100%`".into()
}

fn amount() -> String {
    "expected a number from 0 to 100000, a share from `0%` to `100%`".into()
}

fn once() -> [OutOfRange; 9] {
    let lease = &["\"0s\"", "\"1s\"", "\"2h\"", "60", "\"60\""];
    let speed = &["\"0\"", "\"1B\"", "\"2TiB\"", "10"];
    [
        ("cluster", "lease", lease, duration("`2s` to `1h`")),
        ("cluster", "line_speed", speed, size("`1KiB` to `1TiB`")),
        (
            "ssh",
            "connect_timeout",
            &["\"0s\"", "\"6m\"", "10"],
            duration("`1s` to `5m`"),
        ),
        (
            "ssh",
            "keep_alive",
            &["\"0s\"", "\"2s\"", "\"2h\""],
            duration("`3s` to `1h`"),
        ),
        (
            "ssh",
            "patience",
            &["\"-1s\"", "\"8d\"", "600"],
            duration("`0s` to `7days`"),
        ),
        (
            "preflight",
            "clock_skew",
            &["\"0s\"", "\"2d\"", "60"],
            duration("`1s` to `1day`"),
        ),
        (
            "preflight",
            "memory",
            &["\"-1\"", "\"65TiB\"", "64"],
            size("`0B` to `64TiB`"),
        ),
        ("rollout", "max_in_flight_total", NOTHING, some()),
        ("rollout", "max_in_flight_total", AMOUNTS, amount()),
    ]
}

/// The rules of a role, in `section`.
fn rules(section: &'static str) -> [OutOfRange; 7] {
    let nodes = || "expected a number of nodes from 0 to 100000".to_owned();
    [
        (section, "canaries", COUNTS, nodes()),
        (section, "max_failures", COUNTS, nodes()),
        (section, "max_unreachable", COUNTS, nodes()),
        (section, "max_in_flight", NOTHING, some()),
        (section, "max_in_flight", AMOUNTS, amount()),
        (section, "min_available", AMOUNTS, amount()),
        (
            section,
            "soak",
            &["\"-1s\"", "\"8d\"", "0"],
            duration("`0s` to `7days`"),
        ),
    ]
}

#[test]
fn every_number_out_of_its_range_is_refused_with_line_unit_and_range() {
    let sections = ["rollout", "rollout.role.primary"];
    let table: Vec<OutOfRange> = once()
        .into_iter()
        .chain(sections.into_iter().flat_map(rules))
        .collect();
    for (section, key, values, expected) in &table {
        for value in *values {
            let said = read(&format!("{CORE}\n[{section}]\n{key} = {value}\n")).unwrap_err();
            assert!(
                said.starts_with("cluster.toml:7: "),
                "{section}.{key} = {value}: {said}"
            );
            assert!(
                said.contains(expected.as_str()),
                "{section}.{key} = {value}: {said}"
            );
        }
    }
    // Every key with a number is in the table: whoever adds one gives it a range.
    let example = include_str!("../../../../config/cluster.toml");
    let keys = example.lines().filter_map(|line| {
        let (key, value) = line.trim_start_matches("# ").split_once(" = ")?;
        let is_number = value
            .trim_start_matches('"')
            .starts_with(|c: char| c.is_ascii_digit());
        let is_amount = value.starts_with("\"n-");
        (key != "address" && (is_number || is_amount)).then_some(key)
    });
    let keys: BTreeSet<&str> = keys.collect();
    let known: BTreeSet<&str> = table.iter().map(|(_, key, ..)| *key).collect();
    assert_eq!(keys, known);
}
