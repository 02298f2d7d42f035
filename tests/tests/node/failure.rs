//! A module that fails: the marker, the next run, and what is never relaxed.

use std::{fs, time::Duration};

use anyhow::Result;
use integration_tests::{
    command,
    releases::{TestModule, TestRelease},
};
use serde_json::Value;

use crate::setup::Site;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn r52_r54_a_module_that_fails_stops_the_run_and_leaves_the_marker() -> Result<()> {
    let mut two = TestRelease::standard("2.0.0");
    two.modules.push(TestModule::failing_until("late", "allowed"));
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    let said = site.node.upgrade_ends(21, &[])?;
    assert!(
        said.contains("the command of the module late") && said.contains("hint: run the same command again"),
        "{said}"
    );
    let marker: Value = serde_json::from_slice(&fs::read(site.node.state("tmp/upgrade-failed"))?)?;
    assert_eq!(
        (&marker["step"], &marker["target"]),
        (&"module:late".into(), &"2.0.0".into())
    );
    assert_eq!(site.node.latches(), ["app", "console", "etc", "runner"]);
    // C01: the node is back in service although the upgrade failed.
    assert!(!site.node.path("platform/retired").exists());

    site.node.put("allowed", "")?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert!(site.node.path("allowed.done").exists());
    assert_eq!(site.node.leftovers()?, Vec::<std::path::PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r53_after_a_failure_missing_services_and_paths_are_warnings() -> Result<()> {
    let mut two = TestRelease::standard("2.0.0");
    two.head = "backup = [\"/s/state\"]\nrestart = \"none\"\n".into();
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    let before = site.node.product()?;
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(
        said.contains("s/state` saved, and it is not on this node"),
        "{said}"
    );
    assert_eq!(site.node.product()?, before);
    assert!(
        !site.node.state("tmp/upgrade-failed").exists(),
        "nothing was changed, so nothing is inconsistent"
    );

    site.node.put("var/stackato/upgrade/tmp/upgrade-failed", "")?;
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(said.contains("warning: the release wants"), "{said}");
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert!(!site.node.state("tmp/upgrade-failed").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r53_an_altered_download_is_refused_also_after_a_failure() -> Result<()> {
    let site = Site::at_one().await?;
    site.node.put("var/stackato/upgrade/tmp/upgrade-failed", "")?;
    let artifact = site.repository.target("console-2.0.0.tar.zst")?;
    let mut bytes = fs::read(&artifact)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    kato_shared::durable::write(&artifact, &bytes, 0o644)?;
    let before = site.node.product()?;
    let said = site.node.upgrade_ends(26, &[])?;
    assert!(said.contains("digest mismatch"), "{said}");
    assert_eq!(site.node.product()?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_node_is_not_upgraded() -> Result<()> {
    let site = Site::at_one().await?;
    site.node.put("platform/fail-health", "")?;
    let before = site.node.product()?;
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(
        said.contains("health does not work today")
            && said.contains("with `--tolerant` the same command takes the node as it is"),
        "{said}"
    );
    assert_eq!(site.node.product()?, before);
    Ok(())
}

/// A 2.0.0 with a module that makes the platform healthy.
fn healing() -> TestRelease {
    let mut two = TestRelease::standard("2.0.0");
    let shell = |script: &str| format!("[\"sh\", \"-c\", '{script}']");
    let install = format!(
        "policy = \"exec\"\ncmd = {}\nprobe = {}",
        shell("rm -f \"$KATO_ROOT/platform/fail-health\""),
        shell("test ! -e \"$KATO_ROOT/platform/fail-health\"")
    );
    two.modules.push(TestModule::new("healer", &install, &[]));
    two
}

#[tokio::test(flavor = "multi_thread")]
async fn r53_a_node_that_is_not_healthy_is_taken_as_it_is_when_that_is_asked_for_and_recorded() -> Result<()>
{
    let site = Site::with(&[TestRelease::standard("1.0.0"), healing()]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.put("platform/fail-health", "")?;
    let plan = command::run(
        site.node.kato(&["node", "upgrade", "--plan", "--tolerant"])?,
        LONG,
        &[],
    )?;
    let plan = String::from_utf8(plan.stdout)?;
    assert!(
        plan.contains("tolerant   --tolerant was given: missing services"),
        "{plan}"
    );
    // What is signed is as strict as ever.
    let artifact = site.repository.target("console-2.0.0.tar.zst")?;
    let whole = fs::read(&artifact)?;
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    kato_shared::durable::write(&artifact, &altered, 0o644)?;
    let before = site.node.product()?;
    site.node.upgrade_ends(26, &["--tolerant"])?;
    assert_eq!(site.node.product()?, before);
    kato_shared::durable::write(&artifact, &whole, 0o644)?;

    let said = site.node.upgrade_ends(0, &["--tolerant"])?;
    assert!(
        said.contains("health does not work today")
            && said.contains("(--tolerant was given, so this is no reason to stop)"),
        "{said}"
    );
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    let audit = fs::read_to_string(site.node.state("audit/audit.jsonl"))?;
    assert!(audit.contains(r#""tolerant":"--tolerant was given""#), "{audit}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_a_node_that_is_not_healthy_before_and_after_goes_back_to_how_it_was() -> Result<()> {
    let mut site = Site::at_one().await?;
    site.node.add_settings("[upgrade]\nsettle = \"1s\"\n")?;
    site.node.put("platform/fail-health", "")?;
    let before = site.node.product()?;
    let said = site.node.upgrade_ends(22, &["--tolerant"])?;
    assert!(
        said.contains("(the node was not healthy before the upgrade either)"),
        "{said}"
    );
    assert_eq!(site.node.product()?, before);
    assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    assert!(!site.node.path("platform/retired").exists());
    assert_eq!(site.node.leftovers()?, Vec::<std::path::PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c05_a_count_that_makes_no_sense_is_refused_and_nothing_is_changed() -> Result<()> {
    let site = Site::at_one().await?;
    site.node.put("platform/units", "a few")?;
    let before = site.node.product()?;
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(
        said.contains("the platform's `resident` printed `{\"count\": a few"),
        "{said}"
    );
    assert_eq!(site.node.product()?, before);
    assert!(!site.node.path("platform/retired").exists());
    assert!(!site.node.state("tmp/upgrade-failed").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_an_empty_record_is_an_error_that_says_where_a_copy_is() -> Result<()> {
    let site = Site::at_one().await?;
    site.node.put("var/stackato/upgrade/state/installed.json", "")?;
    let said = site.node.upgrade_ends(27, &[])?;
    assert!(
        said.contains("installed.json` is empty") && said.contains("hint: every backup has a copy"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_settings_file_is_refused_with_its_line() -> Result<()> {
    let mut site = Site::at_one().await?;
    site.node.add_settings("[upgrad]\n")?;
    let said = site.node.upgrade_ends(2, &[])?;
    assert!(
        said.contains("kato.toml:") && said.contains("did you mean `upgrade`?"),
        "{said}"
    );
    Ok(())
}
