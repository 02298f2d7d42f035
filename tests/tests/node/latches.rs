//! Latches: what they skip, and what deleting one does.

use anyhow::Result;
use integration_tests::releases::TestRelease;

use crate::setup::Site;

/// A node on its way to a 2.0.0 whose health check fails: all modules are installed, the upgrade is not complete.
async fn half_way() -> Result<Site> {
    let mut two = TestRelease::standard("2.0.0");
    two.tail
        .push_str("[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"go-on\"]\ndeadline = \"0s\"\n");
    let mut site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.add_settings("[upgrade]\non_failure = \"stop\"\n")?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.upgrade_ends(21, &[])?;
    Ok(site)
}

#[tokio::test(flavor = "multi_thread")]
async fn r48_r49_r58_latched_modules_are_skipped_and_all_latches_go_at_the_end() -> Result<()> {
    let site = half_way().await?;
    assert_eq!(site.node.latches(), ["app", "console", "etc", "runner"]);
    assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    site.node.put("go-on", "")?;
    let said = site.node.upgrade_ends(0, &[])?;
    for module in ["app", "console", "etc", "runner"] {
        assert!(
            said.contains(&format!("module:{module}: skipped, its latch says")),
            "{said}"
        );
    }
    assert_eq!(site.node.latches(), Vec::<String>::new());
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert_eq!(site.node.leftovers()?, Vec::<std::path::PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r51_a_deleted_latch_has_its_module_installed_again() -> Result<()> {
    let site = half_way().await?;
    site.node.put("s/code/console/index.html", "broken")?;
    std::fs::remove_file(site.node.state("tmp/module-latches/console"))?;
    site.node.put("go-on", "")?;
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(!said.contains("module:console: skipped"), "{said}");
    // That one and no other.
    for module in ["app", "etc", "runner"] {
        assert!(
            said.contains(&format!("module:{module}: skipped, its latch says")),
            "{said}"
        );
    }
    assert_eq!(
        site.node.text("s/code/console/index.html").as_deref(),
        Some("version 2.0.0\n")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r49_a_latch_made_by_hand_is_honoured_with_a_warning() -> Result<()> {
    let site = Site::at_one().await?;
    site.node
        .put("var/stackato/upgrade/tmp/module-latches/console", "")?;
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(said.contains("latch of `console` was made by hand"), "{said}");
    assert_eq!(
        site.node.text("s/code/console/index.html").as_deref(),
        Some("version 1.0.0\n")
    );
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert_eq!(site.node.latches(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r49_a_latch_of_another_target_skips_nothing() -> Result<()> {
    let site = half_way().await?;
    site.repository.publish(&TestRelease::standard("2.0.1")).await?;
    site.node.upgrade_ends(0, &["--version", "2.0.1"])?;
    assert_eq!(
        site.node.text("s/code/console/index.html").as_deref(),
        Some("version 2.0.1\n")
    );
    assert_eq!(site.node.leftovers()?, Vec::<std::path::PathBuf>::new());
    Ok(())
}
