//! What preflight makes of an upgrade that has begun, and of what would cost the node its way on.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, path::Path, process::Stdio, time::Duration};

use anyhow::Result;
use integration_tests::{
    command,
    releases::{TestModule, TestRelease},
    wait,
};
use kato_shared::durable;

use crate::setup::Site;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn r56_what_has_begun_is_gone_on_with_although_half_of_it_is_not_healthy() -> Result<()> {
    let site = Site::at_one().await?;
    let mut kato = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
    kato.env("KATO_KILL_AT", "latch.written");
    command::run(kato, LONG, &[])?;
    assert_eq!(site.node.latches().len(), 1);
    site.node.put("platform/fail-health", "")?;
    let asked = site.node.calls("health");

    let mut again = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
    let again = again.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // The first question is preflight's; what is whole is healthy again.
    wait::until("the platform is asked", LONG, || {
        (site.node.calls("health") > asked).then_some(())
    })?;
    wait::until("all modules are installed", LONG, || {
        (site.node.latches().len() == 4).then_some(())
    })?;
    fs::remove_file(site.node.path("platform/fail-health"))?;
    let ended = again.wait_with_output()?;
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(
        said.contains("the upgrade has begun, so this is no reason to stop"),
        "{said}"
    );
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c08_no_release_is_installed_over_the_state_of_kato() -> Result<()> {
    for install in [
        "policy = \"replace\"\ndest = \"/var/stackato\"",
        "policy = \"overlay\"\ndest = \"/var/stackato/upgrade/state\"",
    ] {
        let mut two = TestRelease::standard("2.0.0");
        two.modules
            .push(TestModule::new("bold", install, &[("upgrade/file", "x")]));
        let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        let (before, retired) = (site.node.product()?, site.node.calls("retire"));
        let said = site.node.upgrade_ends(20, &[])?;
        assert!(said.contains("where kato keeps its state"), "{said}");
        assert_eq!(site.node.product()?, before);
        assert_eq!(site.node.calls("retire"), retired);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r39_r45_a_file_of_any_name_is_listed_kept_and_brought_back() -> Result<()> {
    let site = Site::at_one().await?;
    let odd = OsStr::from_bytes(b"odd-\xff");
    let file = site.node.path("s/etc").join(odd);
    durable::write(&file, b"x", 0o644)?;
    let listed = command::run(site.node.kato(&["customizations", "scan", "--json"])?, LONG, &[])?;
    let said = String::from_utf8_lossy(&listed.stdout);
    assert!(
        listed.status.code() == Some(11) && said.contains(r"escaped:/s/etc/odd-\\xff"),
        "{said}"
    );
    site.node.upgrade_ends(0, &["--plan"])?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(fs::read(&file)?, b"x");

    fs::remove_file(&file)?;
    for words in [
        &["node", "backup", "verify"][..],
        &["node", "backup", "list", "--json"],
    ] {
        let output = command::run(site.node.kato(words)?, LONG, &[])?;
        assert!(output.status.success(), "{output:?}");
    }
    let mut restore = site
        .node
        .kato(&["node", "restore", "latest", "--skip-confirmation"])?;
    restore.arg(Path::new("/s/etc").join(odd));
    let output = command::run(restore, LONG, &[])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(fs::read(&file)?, b"x");
    Ok(())
}
