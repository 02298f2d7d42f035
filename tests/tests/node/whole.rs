//! The whole way from one release to the next.

use std::{fs, time::Duration};

use anyhow::Result;
use integration_tests::{command, node::names, releases::TestRelease};
use serde_json::Value;

use crate::setup::Site;

/// The installed version, wherever it can be seen.
fn seen(site: &Site) -> Vec<Option<String>> {
    let line = |path: &str| {
        site.node
            .text(path)
            .map(|text| text.trim().replace("version ", ""))
    };
    vec![
        line("s/code/app/current/VERSION"),
        line("s/code/console/index.html"),
        line("s/etc/nginx/site.conf"),
        site.node
            .text("s/bin/runner")
            .map(|text| text.trim().replace("#!/bin/sh\necho ", "")),
        site.node.installed(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn r33_a_node_goes_from_one_release_to_the_next_by_all_policies() -> Result<()> {
    let site = Site::at_one().await?;
    assert_eq!(seen(&site), vec![Some("1.0.0".to_owned()); 5]);
    let output = site.node.upgrade(&["--json"])?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(seen(&site), vec![Some("2.0.0".to_owned()); 5]);
    assert_eq!(site.node.leftovers()?, Vec::<std::path::PathBuf>::new());

    let events: Vec<Value> = String::from_utf8(output.stdout)?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let steps: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "step_finished")
        .filter_map(|event| event["step"].as_str())
        .collect();
    assert_eq!(
        steps.join(" "),
        "stage preflight retire backup module:app module:console module:etc module:runner verify rejoin record"
    );
    let last = events.last().expect("a run tells its end");
    assert_eq!(
        (&last["event"], &last["exit"], &last["version"]),
        (&"run_finished".into(), &"done".into(), &"2.0.0".into())
    );
    let numbers: Vec<_> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{numbers:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r35_a_node_at_the_newest_release_has_nothing_to_do_and_an_older_one_is_refused() -> Result<()> {
    let site = Site::at_one().await?;
    site.node.upgrade_ends(0, &[])?;
    let before = site.node.product()?;
    site.host.reset();
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(said.contains("already at 2.0.0"), "{said}");
    assert_eq!(site.host.count(".tar.zst"), 0);
    let said = site.node.upgrade_ends(20, &["--version", "1.0.0", "--force"])?;
    assert!(said.contains("older than the installed 2.0.0"), "{said}");
    let said = site.node.upgrade_ends(20, &["--version", "7.0.0"])?;
    assert!(said.contains("published: 1.0.0, 2.0.0"), "{said}");
    assert_eq!(site.node.product()?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r36_force_installs_the_same_release_once_more() -> Result<()> {
    let site = Site::at_one().await?;
    let pristine = site.node.product()?;
    site.node.put("s/code/console/index.html", "broken by hand")?;
    site.node.upgrade_ends(0, &["--version", "1.0.0", "--force"])?;
    assert_eq!(site.node.product()?, pristine);
    assert_eq!(site.node.leftovers()?, Vec::<std::path::PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r66_without_a_terminal_the_flag_is_asked_for_by_its_name() -> Result<()> {
    let site = Site::at_one().await?;
    let output = command::run(
        site.node.kato(&["node", "upgrade"])?,
        Duration::from_secs(60),
        &[],
    )?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--skip-confirmation"), "{said}");
    assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_printed_and_nothing_is_changed() -> Result<()> {
    let site = Site::at_one().await?;
    let before = site.node.product()?;
    let output = command::run(
        site.node.kato(&["node", "upgrade", "--plan", "--json"])?,
        Duration::from_secs(60),
        &[],
    )?;
    let plan: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&plan["from"], &plan["to"]), (&"1.0.0".into(), &"2.0.0".into()));
    assert_eq!(plan["modules"].as_array().map(Vec::len), Some(4));
    assert_eq!(plan["retire"], "dea");
    assert_eq!(site.node.product()?, before);
    assert!(!site.node.state("state/upgrade.json").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r37_r42_download_only_makes_an_upgrade_without_the_network_possible() -> Result<()> {
    let site = Site::at_one().await?;
    let before = site.node.product()?;
    site.node.upgrade_ends(0, &["--download-only"])?;
    assert_eq!(site.node.product()?, before);
    let Site {
        host, node, folder, ..
    } = site;
    drop(host);
    node.upgrade_ends(0, &["--offline"])?;
    assert_eq!(node.installed().as_deref(), Some("2.0.0"));
    drop(folder);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r45_local_changes_are_saved_and_local_files_survive() -> Result<()> {
    let site = Site::at_one().await?;
    site.node.put("s/etc/app.conf", "changed here")?;
    site.node.put("s/etc/local.conf", "new here")?;
    site.node.put("s/code/console/theme.css", "theme")?;
    let said = site.node.upgrade_ends(0, &[])?;
    assert_eq!(
        site.node.text("s/etc/app.conf").as_deref(),
        Some("version 2.0.0\n")
    );
    assert_eq!(site.node.text("s/etc/local.conf").as_deref(), Some("new here"));
    let saved = site.node.saved()?;
    assert_eq!(saved.len(), 1);
    assert_eq!(
        fs::read_to_string(site.node.state("backup").join(&saved[0]))?,
        "changed here"
    );
    assert!(
        said.contains("app.conf was changed here; the local file is saved as"),
        "{said}"
    );
    // R44: what was in a replaced folder is gone from there, and in the backup.
    assert_eq!(site.node.text("s/code/console/theme.css"), None);
    assert!(said.contains("1 file in"), "{said}");
    let backups = names(&site.node.state("backup"));
    let newest = backups
        .iter()
        .find(|name| name.starts_with("1.0.0-to-2.0.0"))
        .expect("a backup");
    let manifest = fs::read_to_string(site.node.state("backup").join(newest).join("manifest.json"))?;
    assert!(manifest.contains("s/code/console/theme.css"));
    assert!(
        site.node
            .state("backup")
            .join(newest)
            .join("platform/platform-state")
            .exists()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r01_releases_on_the_way_are_installed_one_after_the_other() -> Result<()> {
    let mut three = TestRelease::standard("3.0.0");
    three.head.push_str("[from]\nmin = \"2.0.0\"\n");
    let site = Site::with(&[
        TestRelease::standard("1.0.0"),
        TestRelease::standard("2.0.0"),
        three,
    ])
    .await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(seen(&site), vec![Some("3.0.0".to_owned()); 5]);
    let backups = names(&site.node.state("backup"));
    assert!(
        backups.iter().any(|name| name.starts_with("1.0.0-to-2.0.0")),
        "{backups:?}"
    );
    assert!(
        backups.iter().any(|name| name.starts_with("2.0.0-to-3.0.0")),
        "{backups:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r67_status_tells_version_and_state() -> Result<()> {
    let site = Site::at_one().await?;
    let output = command::run(
        site.node.kato(&["node", "upgrade", "--status", "--json"])?,
        Duration::from_secs(60),
        &[],
    )?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        (&status["version"], &status["state"]),
        (&"1.0.0".into(), &"idle".into())
    );
    assert_eq!(
        (&status["out_of_service"], &status["error"]),
        (&false.into(), &Value::Null)
    );
    Ok(())
}
