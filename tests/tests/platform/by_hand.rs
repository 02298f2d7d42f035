//! `kato node retire` and `kato node rejoin`.

use std::process::Output;

use anyhow::{Context as _, Result};
use integration_tests::command;
use serde_json::Value;

use crate::{LONG, retiring::Site};

fn run(site: &Site, arguments: &[&str]) -> Result<Output> {
    command::run(site.node.kato(arguments)?, LONG, &[])
}

fn json(output: &Output) -> Result<Value> {
    serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn c02_a_node_that_was_retired_by_hand_stays_out_of_service_after_its_upgrade() -> Result<()> {
    let site = Site::at_one().await?;
    let retired = json(&run(&site, &["node", "retire", "--json"])?)?;
    assert_eq!(
        (
            &retired["node"],
            &retired["out_of_service"],
            &retired["left"]["count"]
        ),
        (&"n1".into(), &true.into(), &0.into())
    );
    let status = json(&run(&site, &["node", "upgrade", "--status", "--json"])?)?;
    assert_eq!(status["retired_by"], "hand");
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert_eq!(site.node.calls("rejoin"), 0);
    assert!(site.node.path("platform/retired").exists());

    let back = run(&site, &["node", "rejoin"])?;
    assert_eq!(String::from_utf8(back.stdout)?, "n1 is in service\n");
    assert!(!site.node.path("platform/retired").exists());
    assert!(!site.node.state("state/out-of-service.json").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_a_node_that_does_not_become_empty_by_hand_is_back_at_once() -> Result<()> {
    let site = Site::at_one().await?;
    site.node.put("platform/units", "2")?;
    let refused = run(&site, &["node", "retire", "--timeout", "1s"])?;
    let said = String::from_utf8(refused.stderr)?;
    assert_eq!(refused.status.code(), Some(20), "{said}");
    assert!(said.contains("2 units of work"), "{said}");
    assert!(!site.node.path("platform/retired").exists());
    assert!(!site.node.state("state/out-of-service.json").exists());

    let kept = run(
        &site,
        &[
            "node",
            "retire",
            "--timeout",
            "1s",
            "--on-timeout",
            "proceed",
            "--json",
        ],
    )?;
    assert_eq!(json(&kept)?["left"]["count"], 2);
    let forced = run(
        &site,
        &[
            "node",
            "retire",
            "--timeout",
            "1s",
            "--on-timeout",
            "force",
            "--json",
        ],
    )?;
    assert_eq!(json(&forced)?["left"]["count"], 0);
    Ok(())
}
