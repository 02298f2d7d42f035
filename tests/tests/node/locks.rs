//! One run of a node at a time: who holds the lock is said, a dead holder's is broken on record, a living one's never.

use std::{fs, time::Duration};

use anyhow::Result;
use integration_tests::{command, node::TestNode};
use kato_shared::clock::Clock;
use kato_upgrader::lock::{Holder, Lock};
use serde_json::Value;

use crate::setup::Site;

const LONG: Duration = Duration::from_secs(60);

fn shown(node: &TestNode) -> Result<Value> {
    let output = command::run(node.kato(&["lock", "show", "--json"])?, LONG, &[])?;
    let mut value: Value = serde_json::from_slice(&output.stdout)?;
    Ok(value["locks"][0].take())
}

/// The exit code of `kato lock break`, and what it said.
fn broken(node: &TestNode) -> Result<(Option<i32>, String)> {
    let kato = node.kato(&["lock", "break", "--reason", "the console hangs"])?;
    let output = command::run(kato, LONG, &[])?;
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn c03_the_holder_of_the_lock_is_said_and_a_living_one_is_not_robbed() -> Result<()> {
    let site = Site::at_one().await?;
    assert_eq!(shown(&site.node)?["held"], false);
    assert_eq!(broken(&site.node)?.0, Some(0));

    let holder = Holder::here("r7", &site.node.root(), Clock::system().now());
    let _lock = Lock::take(&site.node.state("state/lock"), &holder).await?;
    let lock = shown(&site.node)?;
    assert_eq!(
        (&lock["held"], &lock["standing"]),
        (&true.into(), &"alive".into())
    );
    for key in ["run", "pid", "boot_id", "started", "command"] {
        assert!(!lock["holder"][key].is_null(), "{key} in {lock}");
    }
    let said = site.node.upgrade_ends(25, &[])?;
    assert!(
        said.contains(&format!("run r7, process {}", std::process::id())),
        "{said}"
    );
    let (code, said) = broken(&site.node)?;
    assert_eq!(code, Some(25));
    assert!(said.contains(&format!("kill {}", std::process::id())), "{said}");
    assert_eq!(shown(&site.node)?["held"], true);
    // The try is on record, with its reason.
    let log = fs::read_to_string(site.node.state("audit/audit.jsonl"))?;
    assert!(
        log.contains("\"what\":\"lock-break\"") && log.contains("\"reason\":\"the console hangs\""),
        "{log}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c03_a_lock_whose_holder_is_provably_dead_is_broken_on_record() -> Result<()> {
    let site = Site::at_one().await?;
    let dead = Holder {
        boot_id: "another boot".into(),
        ..Holder::here("r7", &site.node.root(), Clock::system().now())
    };
    let _left_open = Lock::take(&site.node.state("state/lock"), &dead).await?;
    assert_eq!(shown(&site.node)?["standing"], "other-boot");
    site.node.upgrade_ends(25, &[])?;
    assert_eq!(broken(&site.node)?.0, Some(0));
    let log = fs::read_to_string(site.node.state("audit/audit.jsonl"))?;
    assert!(
        log.lines()
            .any(|line| line.contains("lock-break") && line.contains("\"outcome\":\"done\""))
    );
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}
