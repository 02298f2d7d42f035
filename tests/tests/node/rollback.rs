//! The way back: a node whose upgrade fails is again what it was, and does not try for ever.

use std::{fs, path::PathBuf};

use anyhow::Result;
use integration_tests::{
    command,
    node::names,
    releases::{TestModule, TestRelease},
};
use kato_shared::durable;
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
async fn c23_a_release_that_was_rolled_back_is_tried_again_without_the_network() -> Result<()> {
    let mut three = with_services("3.0.0");
    three.head.push_str("[from]\nmin = \"2.0.0\"\n");
    let site = Site::with(&[with_services("1.0.0"), unhealthy("2.0.0"), three]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.upgrade_ends(22, &[])?;
    assert!(!site.node.kept()?.is_empty());
    let before = site.node.product()?;
    let Site {
        host, node, folder, ..
    } = site;
    drop(host);

    // Refused as with the network, until somebody forces it; a look changes nothing.
    let said = node.upgrade_ends(20, &["--offline"])?;
    assert!(said.contains("2.0.0 was rolled back on this node"), "{said}");
    let said = node.upgrade_ends(75, &[])?;
    assert!(said.contains("does not answer"), "{said}");
    let said = node.upgrade_ends(75, &["--offline", "--force", "--version", "3.1.0"])?;
    assert!(said.contains("nothing was downloaded before"), "{said}");
    let plan = node.upgrade(&["--offline", "--force", "--plan"])?;
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("1.0.0 → 2.0.0 → 3.0.0"), "{plan}");
    assert_eq!(node.product()?, before);

    // One archive is altered meanwhile: what is kept is verified again.
    let staged: Vec<_> = node.kept()?.into_iter().collect();
    let archive = staged
        .iter()
        .find(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x28\xb5\x2f\xfd")));
    let archive = archive.expect("an archive is kept");
    let bytes = fs::read(archive)?;
    durable::write(archive, b"altered", 0o644)?;
    node.upgrade_ends(26, &["--offline", "--force"])?;
    assert_eq!(node.product()?, before);
    durable::write(archive, &bytes, 0o644)?;

    // The same release fails again, and is kept again.
    node.upgrade_ends(22, &["--offline", "--force"])?;
    assert_eq!(node.kept()?.into_iter().collect::<Vec<_>>(), staged);
    node.put("healthy", "")?;
    node.upgrade_ends(0, &["--offline", "--force"])?;
    assert_eq!(node.installed().as_deref(), Some("3.0.0"));
    assert_eq!(node.leftovers()?, Vec::<PathBuf>::new());
    assert!(names(&node.state("staging")).is_empty());
    drop(folder);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_a_newer_release_is_tried_after_a_rollback() -> Result<()> {
    let site = site(unhealthy("2.0.0")).await?;
    site.node.upgrade_ends(22, &[])?;
    assert!(!site.node.kept()?.is_empty());
    site.repository.publish(&with_services("2.0.1")).await?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.1"));
    assert!(names(&site.node.state("staging")).is_empty());
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
    killed_before_the_way_back(&site)?;
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

/// The id of the backup of the upgrade.
fn backup(site: &Site) -> String {
    let mut backups = names(&site.node.state("backup")).into_iter();
    backups
        .find(|name| name.starts_with("1.0.0-to-2.0.0"))
        .expect("a backup")
}

/// The node of `site` is killed as soon as its way back is decided: nothing is undone yet.
fn killed_before_the_way_back(site: &Site) -> Result<()> {
    let mut kato = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
    kato.env("KATO_KILL_AT", "rollback.decided");
    command::run(kato, std::time::Duration::from_secs(60), &[])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_a_note_of_the_undo_journal_that_is_lost_holds_no_other_module_up_and_the_backup_has_it()
-> Result<()> {
    for damage in [Some(&b"{\"schema\":1,\"ord"[..]), Some(b""), None] {
        let site = site(unhealthy("2.0.0")).await?;
        site.node.put("s/code/console/theme.css", "a theme")?;
        let before = site.node.product()?;
        killed_before_the_way_back(&site)?;
        let note = site.node.state("state/undo/console.json");
        match damage {
            Some(bytes) => durable::write(&note, bytes, 0o600)?,
            None => durable::remove(&note)?,
        }
        for _again in 0..2 {
            let said = site.node.upgrade_ends(23, &[])?;
            let id = backup(&site);
            assert!(
                said.contains(
                    "failed in undo:console; modules that are back: runner, etc, app; that are not: console;"
                ) && said.contains(&note.display().to_string())
                    && said.contains(&format!(
                        "`kato node restore {id}` brings the whole node back to 1.0.0"
                    )),
                "{said}"
            );
            assert_eq!(
                said.contains("moved away, `kato node upgrade --force`"),
                damage.is_some(),
                "{said}"
            );
            assert_eq!(
                site.node.text("s/etc/app.conf").as_deref(),
                Some("version 1.0.0\n")
            );
            assert_eq!(
                site.node.text("s/code/console/index.html").as_deref(),
                Some("version 2.0.0\n")
            );
        }
        let id = backup(&site);
        let restore = site.node.kato(&["node", "restore", "--skip-confirmation", &id])?;
        let output = command::run(restore, std::time::Duration::from_secs(60), &[])?;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(site.node.product()?, before);
        assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
        site.node.put("healthy", "")?;
        site.node.upgrade_ends(0, &[])?;
        assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_several_lost_notes_are_each_named_with_why_and_kato_waits_for_nobody_else() -> Result<()> {
    let site = site(unhealthy("2.0.0")).await?;
    killed_before_the_way_back(&site)?;
    let note = |module: &str| site.node.state(&format!("state/undo/{module}.json"));
    durable::write(&note("etc"), b"\0\0\0", 0o600)?;
    durable::remove(&note("app"))?;
    let said = site.node.upgrade_ends(23, &[])?;
    assert!(
        said.contains("failed in undo:etc; modules that are back: runner, console; that are not: etc, app (the note that leads back")
            && said.contains("what leads back is lost for etc, app: `kato node restore"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_a_note_that_is_damaged_when_it_is_no_longer_needed_keeps_no_upgrade_from_its_end() -> Result<()>
{
    let mut site = site(unhealthy("2.0.0")).await?;
    site.node.add_settings("[upgrade]\non_failure = \"stop\"\n")?;
    site.node.upgrade_ends(21, &[])?;
    durable::write(&site.node.state("state/undo/console.json"), b"{", 0o600)?;
    site.node.put("healthy", "")?;
    site.node.upgrade_ends(0, &[])?;
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
