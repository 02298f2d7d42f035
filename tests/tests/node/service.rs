//! Out of service and back: retire, rejoin, restart, one run at a time, detached runs.

use std::{fs, time::Duration};

use anyhow::Result;
use integration_tests::{command, releases::TestRelease, wait};
use serde_json::Value;

use crate::setup::Site;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn r38_c05_the_node_is_retired_until_the_count_says_empty_twice_and_put_back() -> Result<()> {
    let site = Site::at_one().await?;
    fs::remove_file(site.node.path("platform/calls"))?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!((site.node.calls("retire"), site.node.calls("rejoin")), (1, 1));
    // Once to see whether somebody else retired it, twice to see it empty.
    assert_eq!(site.node.calls("resident"), 3);
    assert!(!site.node.path("platform/retired").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_c04_a_node_that_does_not_become_empty_is_put_back_at_once_and_nothing_is_changed() -> Result<()>
{
    let mut site = Site::at_one().await?;
    site.node.add_settings("[upgrade]\nretire_timeout = \"1s\"\n")?;
    site.node.put("platform/units", "3")?;
    let before = site.node.product()?;
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(
        said.contains("3 units of work") && said.contains("the node is back in service"),
        "{said}"
    );
    assert!(!site.node.path("platform/retired").exists());
    assert!(!site.node.state("state/out-of-service.json").exists());
    assert_eq!(site.node.product()?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c02_a_node_that_somebody_else_took_out_of_service_stays_out() -> Result<()> {
    let site = Site::at_one().await?;
    site.node.put("platform/retired", "")?;
    fs::remove_file(site.node.path("platform/calls"))?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert_eq!((site.node.calls("retire"), site.node.calls("rejoin")), (0, 0));
    assert!(site.node.path("platform/retired").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_services_are_restarted_and_the_version_is_read_back() -> Result<()> {
    let mut two = TestRelease::standard("2.0.0");
    two.head = "restart = \"services\"\n".into();
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.text("platform/running").as_deref(), Some("2.0.0\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_a_restart_of_the_machine_ends_the_run_and_resume_goes_on_after_it() -> Result<()> {
    let mut two = TestRelease::standard("2.0.0");
    two.head = "restart = \"reboot\"\n".into();
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node
        .put("proc/sys/kernel/random/boot_id", "the first boot")?;
    site.node.put("platform/reboot-fails", "")?;
    for _same_boot in 0..2 {
        let said = site.node.upgrade_ends(75, &[])?;
        assert!(said.contains("kato node upgrade --resume"), "{said}");
        assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    }
    assert_eq!(site.node.calls("reboot"), 2);
    fs::remove_file(site.node.path("platform/reboot-fails"))?;
    site.node.upgrade_ends(75, &["--resume"])?;
    assert!(
        site.node.path("platform/retired").exists(),
        "it is out of service until it is verified"
    );
    let said = site.node.upgrade_ends(0, &["--resume"])?;
    assert!(
        said.contains("restart: skipped, the machine was restarted"),
        "{said}"
    );
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert!(!site.node.path("platform/retired").exists());
    let said = site.node.upgrade_ends(0, &["--resume"])?;
    assert!(said.contains("no interrupted upgrade"), "{said}");
    Ok(())
}

/// A site whose 2.0.0 waits in its health check until the file `go-on` is there.
async fn waiting() -> Result<Site> {
    let mut two = TestRelease::standard("2.0.0");
    two.tail
        .push_str("[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"go-on\"]\n");
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    Ok(site)
}

fn json(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn c21_a_detached_run_outlives_its_session_and_its_events_can_be_followed() -> Result<()> {
    let site = waiting().await?;
    let detach = [
        "node",
        "upgrade",
        "--skip-confirmation",
        "--detach",
        "--run",
        "r-1",
    ];
    let started = command::run(site.node.kato(&detach)?, LONG, &[])?;
    let started = json(&started);
    assert_eq!((&started["schema"], &started["run"]), (&1.into(), &"r-1".into()));
    let after = started["after_seq"].as_u64().expect("a number");

    wait::until("the health check of the run", LONG, || {
        let events = fs::read_to_string(site.node.state("state/events.jsonl")).unwrap_or_default();
        events.contains("waiting for test -e go-on").then_some(())
    })?;
    let status = command::run(
        site.node.kato(&["node", "upgrade", "--status", "--json"])?,
        LONG,
        &[],
    )?;
    let status = json(&status);
    assert_eq!(
        (&status["state"], &status["run"], &status["step"]),
        (&"running".into(), &"r-1".into(), &"verify".into())
    );
    assert_eq!(status["out_of_service"], true);

    // A second run is refused with the first one's name, in the foreground and detached.
    let said = site.node.upgrade_ends(25, &[])?;
    assert!(said.contains("run r-1, process "), "{said}");
    let other = [
        "node",
        "upgrade",
        "--skip-confirmation",
        "--detach",
        "--run",
        "r-2",
    ];
    let refused = command::run(site.node.kato(&other)?, LONG, &[])?;
    assert_eq!(refused.status.code(), Some(25));
    assert_eq!(json(&refused)["holder"]["run"], "r-1");

    site.node.put("go-on", "")?;
    let after = after.to_string();
    let follow = command::run(
        site.node
            .kato(&["node", "events", "--after", &after, "--follow"])?,
        LONG,
        &[],
    )?;
    let text = String::from_utf8(follow.stdout)?;
    let events: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(
        events.first().map(|event| event["event"].clone()),
        Some("run_started".into())
    );
    assert_eq!(
        events.last().map(|event| event["event"].clone()),
        Some("run_finished".into())
    );
    assert!(events.iter().all(|event| event["run"] == "r-1"));
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_a_run_that_is_stopped_puts_the_node_back_into_service() -> Result<()> {
    let site = waiting().await?;
    let mut child = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
    let mut child = child.stderr(std::process::Stdio::null()).spawn()?;
    wait::until("the health check of the run", LONG, || {
        let events = fs::read_to_string(site.node.state("state/events.jsonl")).unwrap_or_default();
        events.contains("waiting for test -e go-on").then_some(())
    })?;
    assert!(site.node.path("platform/retired").exists());
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    let status = command::end(&mut child, "kato node upgrade", LONG)?;
    assert_eq!(status.code(), Some(75));
    assert!(!site.node.path("platform/retired").exists());
    site.node.put("go-on", "")?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.leftovers()?, Vec::<std::path::PathBuf>::new());
    Ok(())
}
