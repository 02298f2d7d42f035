//! What releases demand of patches, and what they do to them.

use std::path::PathBuf;

use anyhow::Result;
use integration_tests::releases::TestRelease;

use crate::site::{Site, TestPatch};

fn patches() -> [TestPatch; 3] {
    [
        TestPatch::of_etc(1, "one", &[("app.conf", "one\n")]),
        TestPatch::of_etc(2, "two", &[("two.conf", "two\n")]),
        TestPatch::of_etc(3, "contained", &[("three.conf", "three\n")]),
    ]
}

fn two() -> TestRelease {
    let mut two = TestRelease::standard("2.0.0");
    // Patches restarted the services, so what runs now says 1.0.0 until it is restarted again.
    two.head = "restart = \"services\"\n".into();
    two.head
        .push_str("required_patches = [\"one\"]\nsupersedes_patches = [\"one\", \"contained\"]\n");
    two
}

#[tokio::test(flavor = "multi_thread")]
async fn r02_a_release_that_needs_a_patch_is_refused_before_anything_and_names_it() -> Result<()> {
    let site = Site::with(&[two()], &patches()).await?;
    let before = site.node.product()?;
    for more in [&[][..], &["--force"], &["--download-only"], &["--plan"]] {
        let said = site.node.upgrade_ends(20, more)?;
        assert!(
            said.contains("release 2.0.0 needs patches that this node does not have: one"),
            "{said}"
        );
        assert!(
            said.contains("kato patch install one") && said.contains("--apply-patches"),
            "{said}"
        );
    }
    assert_eq!(site.host.count(".tar.zst"), 0);
    assert_eq!(site.node.product()?, before);
    // With it the upgrade goes, and tells of the other one that is outstanding; the third comes with the release.
    site.ends(0, &["install", "one"])?;
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(
        said.contains("warning: 1 patch of 1.0.0 is not installed (1 required): two;"),
        "{said}"
    );
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r02_apply_patches_installs_them_first_and_the_release_takes_their_place() -> Result<()> {
    let site = Site::with(&[two()], &patches()).await?;
    let said = site.node.upgrade_ends(0, &["--apply-patches"])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    // What a patch brought is the vendor's, not a local change that has to be saved.
    assert_eq!(site.conf(), "version 2.0.0\n");
    assert!(!said.contains("was changed here"), "{said}");
    assert_eq!(site.node.saved()?, Vec::<PathBuf>::new());
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    // `two` was for 1.0.0 and is gone with it; its own file is nobody's any more.
    assert_eq!(site.node.text("s/etc/two.conf"), None);
    assert_eq!(site.states()?, "");
    let all = String::from_utf8(site.patch(&["status", "-l", "-a"])?.stdout)?;
    assert!(
        all.contains("contained in the installed release") && all.contains("for other releases"),
        "{all}"
    );
    assert!(!site.node.state("state/patches/kept/one").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r02_a_way_with_patches_that_is_cut_off_is_gone_to_its_end_by_the_same_command() -> Result<()> {
    let site = Site::with(&[two()], &patches()).await?;
    for place in ["patch.recorded", "patch.settled", "record.installed"] {
        let node = site.node.copy_to(&site.folder.path().join(place))?;
        let mut kato = node.kato(&["node", "upgrade", "--skip-confirmation", "--apply-patches"])?;
        kato.env("KATO_KILL_AT", place);
        integration_tests::command::run(kato, crate::site::LONG, &[])?;
        // The patches are not asked for again: they are part of the way.
        node.upgrade_ends(0, &[])?;
        assert_eq!(node.installed().as_deref(), Some("2.0.0"), "{place}");
        assert_eq!(
            node.text("s/etc/app.conf").as_deref(),
            Some("version 2.0.0\n"),
            "{place}"
        );
        assert_eq!(node.leftovers()?, Vec::<PathBuf>::new(), "{place}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r02_every_release_on_the_way_is_asked() -> Result<()> {
    let mut three = TestRelease::standard("3.0.0");
    three
        .head
        .push_str("required_patches = [\"contained\", \"unheard-of\"]\n[from]\nmin = \"2.0.0\"\n");
    let site = Site::with(&[two(), three], &patches()).await?;
    let said = site
        .node
        .upgrade_ends(20, &["--version", "3.0.0", "--apply-patches"])?;
    // 2.0.0 brings `contained`; `one` could be installed; nobody can install the other.
    assert!(
        said.contains("release 3.0.0 needs patches that this node does not have: unheard-of"),
        "{said}"
    );
    assert!(said.contains("unheard-of cannot be installed on 1.0.0"), "{said}");
    site.ends(0, &["mark", "-i", "one"])?;
    site.node.upgrade_ends(0, &["--version", "2.0.0"])?;
    Ok(())
}
