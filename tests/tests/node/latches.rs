//! Latches: what they skip, and what deleting one does.

use anyhow::Result;
use integration_tests::releases::{TestModule, TestRelease};

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

#[tokio::test(flavor = "multi_thread")]
async fn r58_a_folder_where_a_latch_or_the_marker_goes_is_refused_before_anything_is_changed() -> Result<()> {
    let site = Site::at_one().await?;
    let before = site.node.product()?;
    for stranger in [
        "tmp/module-latches/notes",
        "tmp/module-latches/console",
        "tmp/upgrade-failed",
    ] {
        let stranger = site.node.state(stranger);
        std::fs::create_dir_all(stranger.join("of a person"))?;
        let said = site.node.upgrade_ends(20, &[])?;
        let path = stranger.display();
        assert!(
            said.contains(&format!(
                "`{path}` is a folder, where kato keeps a small file of its own"
            )) && said.contains("hint: nothing was changed; move it away"),
            "{said}"
        );
        assert_eq!(site.node.product()?, before);
        std::fs::remove_dir_all(&stranger)?;
    }
    site.node.upgrade_ends(0, &[])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r58_a_folder_that_appears_there_later_is_warned_of_and_does_not_undo_a_success() -> Result<()> {
    let mut two = TestRelease::standard("2.0.0");
    // Made while the node is verified, which is after the last look at it.
    let check = |stranger: &str| {
        let folder = format!("var/stackato/upgrade/tmp/{stranger}");
        format!("[[check]]\nid = \"command\"\nargv = [\"mkdir\", \"-p\", \"{folder}\"]\ndeadline = \"0s\"\n")
    };
    two.tail
        .push_str(&(check("module-latches/notes") + &check("upgrade-failed/notes")));
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    let said = site.node.upgrade_ends(0, &[])?;
    for stranger in ["tmp/module-latches/notes", "tmp/upgrade-failed"] {
        let path = site.node.state(stranger);
        assert!(
            said.contains(&format!("warning: `{}` is not kato's and stays", path.display())),
            "{said}"
        );
        assert!(path.is_dir());
    }
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert_eq!(site.node.latches(), ["notes"]);
    // Nothing is left to be done.
    site.node.upgrade_ends(0, &[])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r58_a_folder_in_the_place_of_a_latch_is_refused_before_its_module_works_also_in_the_middle_of_an_upgrade()
-> Result<()> {
    let mut two = TestRelease::standard("2.0.0");
    two.modules
        .push(TestModule::failing_until("late", "platform/allowed"));
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.upgrade_ends(21, &[])?;
    site.node.put("platform/allowed", "")?;
    let strangers = ["late", "notes"].map(|name| site.node.state("tmp/module-latches").join(name));
    for stranger in &strangers {
        std::fs::create_dir_all(stranger)?;
    }
    let before = site.node.product()?;
    let [late, notes] = &strangers;
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(
        said.contains(&format!("error: `{}` is a folder", late.display())),
        "{said}"
    );
    assert_eq!(site.node.product()?, before);
    std::fs::remove_dir(late)?;
    // Of no module: nothing needs its place.
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(said.contains(&format!("`{}` is", notes.display())), "{said}");
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}
