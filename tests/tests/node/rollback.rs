//! The way back: a node whose upgrade fails is again what it was, and does not try for ever.

use std::{fs, path::PathBuf};

use anyhow::Result;
use integration_tests::{
    command,
    node::names,
    releases::{TestModule, TestRelease},
};
use serde_json::Value;

use crate::setup::Site;

/// A release that restarts services.
fn with_services(version: &str) -> TestRelease {
    let mut release = TestRelease::standard(version);
    release.head = "restart = \"services\"\n".into();
    release
}

/// The same, but never healthy before the file `healthy` is on the node.
fn unhealthy(version: &str) -> TestRelease {
    let mut release = with_services(version);
    release
        .tail
        .push_str("[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n");
    release
}

async fn site(two: TestRelease) -> Result<Site> {
    let site = Site::with(&[with_services("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    Ok(site)
}

fn status(site: &Site) -> Result<Value> {
    let kato = site.node.kato(&["node", "upgrade", "--status", "--json"])?;
    let output = command::run(kato, std::time::Duration::from_secs(60), &[])?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_a_node_that_does_not_become_healthy_is_again_what_it_was_and_the_release_is_not_tried_again()
-> Result<()> {
    let site = site(unhealthy("2.0.0")).await?;
    site.node.put("s/etc/app.conf", "changed here")?;
    site.node.put("s/etc/local.conf", "only here")?;
    site.node.put("s/code/console/theme.css", "a theme")?;
    let before = site.node.product()?;

    let said = site.node.upgrade_ends(22, &["--json"])?;
    assert!(said.contains("this node runs 1.0.0 again"), "{said}");
    assert_eq!(site.node.product()?, before);
    assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    assert_eq!(site.node.text("platform/running").as_deref(), Some("1.0.0\n"));
    assert!(!site.node.path("platform/retired").exists());
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    let status = status(&site)?;
    assert_eq!(
        (&status["state"], &status["version"]),
        (&"idle".into(), &"1.0.0".into())
    );
    assert_eq!(status["rolled_back"]["2.0.0"]["step"], "verify");

    // Not for ever; nothing is touched, whatever the marker says.
    let calls = site.node.calls("restart");
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(
        said.contains("2.0.0 was rolled back on this node") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(
        (site.node.product()?, site.node.calls("restart")),
        (before, calls)
    );

    // The cause is gone, and somebody says so.
    site.node.put("healthy", "")?;
    site.node.upgrade_ends(0, &["--force"])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert!(!site.node.state("state/quarantine.json").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_a_newer_release_is_tried_after_a_rollback() -> Result<()> {
    let site = site(unhealthy("2.0.0")).await?;
    site.node.upgrade_ends(22, &[])?;
    site.repository.publish(&with_services("2.0.1")).await?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.1"));
    assert!(!site.node.state("state/quarantine.json").exists());
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_a_module_that_fails_again_and_again_ends_in_the_old_release() -> Result<()> {
    let mut two = with_services("2.0.0");
    two.modules.push(TestModule::failing_until("late", "allowed"));
    let mut site = site(two).await?;
    site.node.add_settings("[upgrade]\nmodule_attempts = 2\n")?;
    let before = site.node.product()?;
    site.node.upgrade_ends(21, &[])?;
    assert_ne!(site.node.product()?, before, "half way, and resumable");
    let said = site.node.upgrade_ends(22, &[])?;
    assert!(said.contains("module:late"), "{said}");
    assert_eq!(site.node.product()?, before);
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_past_the_point_of_no_return_the_node_stops_and_the_plan_says_where_that_is() -> Result<()> {
    let mut two = unhealthy("2.0.0");
    for module in &mut two.modules {
        if module.name == "etc" {
            module.keys.push_str("reversible = false\n");
        }
    }
    let site = site(two).await?;
    let plan = command::run(
        site.node.kato(&["node", "upgrade", "--plan"])?,
        std::time::Duration::from_secs(60),
        &[],
    )?;
    let plan = String::from_utf8(plan.stdout)?;
    assert!(
        plan.contains("way back   until module:etc: the module etc cannot be undone"),
        "{plan}"
    );
    site.node.upgrade_ends(21, &[])?;
    assert_eq!(site.node.latches(), ["app", "console", "etc", "runner"]);
    site.node.put("healthy", "")?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_a_way_back_that_fails_says_what_is_where_and_the_same_command_goes_on() -> Result<()> {
    let site = site(with_services("2.0.0")).await?;
    let before = site.node.product()?;
    site.node.put("platform/fail-restart", "")?;
    let said = site.node.upgrade_ends(23, &[])?;
    assert!(
        said.contains("the way back from 2.0.0 to 1.0.0 failed in restart")
            && said.contains("modules that are back: runner, etc, console, app; that are not: none")
            && said.contains("the backup is "),
        "{said}"
    );
    assert_eq!(status(&site)?["going_back_to"], "1.0.0");
    let refused = site.node.upgrade_ends(20, &["--download-only"])?;
    assert!(refused.contains("on its way back to 1.0.0"), "{refused}");
    fs::remove_file(site.node.path("platform/fail-restart"))?;
    site.node.upgrade_ends(22, &[])?;
    assert_eq!(site.node.product()?, before);
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_a_lost_original_is_named_and_force_goes_forward_instead() -> Result<()> {
    let site = site(unhealthy("2.0.0")).await?;
    site.node.put("platform/fail-restart", "")?;
    // Nothing is undone yet when the originals go: the run is killed as soon as the way back is decided.
    let mut kato = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
    kato.env("KATO_KILL_AT", "rollback.decided");
    command::run(kato, std::time::Duration::from_secs(60), &[])?;
    let code = site.node.path("s/code");
    let kept = names(&code)
        .into_iter()
        .find(|name| name.starts_with("console.old-"));
    fs::remove_dir_all(code.join(kept.expect("the original is kept")))?;
    let said = site.node.upgrade_ends(23, &[])?;
    assert!(
        said.contains("s/code/console` cannot be put back")
            && said.contains("modules that are back: runner, etc, app; that are not: console;"),
        "{said}"
    );
    fs::remove_file(site.node.path("platform/fail-restart"))?;
    site.node.put("healthy", "")?;
    let said = site.node.upgrade_ends(0, &["--force"])?;
    assert!(said.contains("the way back to 1.0.0 is given up"), "{said}");
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_a_machine_that_was_restarted_is_restarted_again_on_its_way_back() -> Result<()> {
    let mut two = unhealthy("2.0.0");
    two.head = "restart = \"reboot\"\n".into();
    let site = site(two).await?;
    let before = site.node.product()?;
    site.node
        .put("proc/sys/kernel/random/boot_id", "the first boot")?;
    site.node.upgrade_ends(75, &[])?;
    // The new release is not healthy after the restart: back, by another restart.
    let said = site.node.upgrade_ends(75, &["--resume"])?;
    assert!(said.contains("going back to 1.0.0"), "{said}");
    assert_eq!(site.node.calls("reboot"), 2);
    site.node.upgrade_ends(22, &["--resume"])?;
    assert_eq!(site.node.text("platform/running").as_deref(), Some("1.0.0\n"));
    fs::remove_dir_all(site.node.path("proc"))?;
    assert_eq!(site.node.product()?, before);
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}
