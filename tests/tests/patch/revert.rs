//! The way back: after a failure, by what was kept, by modules of the patch's own.

use std::path::PathBuf;

use anyhow::Result;
use integration_tests::releases::TestModule;

use crate::site::{Site, TestPatch};

/// A patch with all policies: it adds, changes and replaces.
pub(crate) fn broad(id: u32, name: &'static str) -> TestPatch {
    let etc = TestModule::new(
        "etc-fix",
        "policy = \"overlay\"\ndest = \"/s/etc\"",
        &[("app.conf", "patched\n"), ("new/sub.conf", "patched\n")],
    );
    let console = TestModule::new(
        "console-fix",
        "policy = \"replace\"\ndest = \"/s/code/console\"",
        &[("index.html", "patched\n")],
    );
    let app = TestModule::new(
        "app-fix",
        "policy = \"versioned\"\ndest = \"/s/code/app\"",
        &[("VERSION", "patched\n")],
    );
    TestPatch::new(id, name, vec![etc, console, app])
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_a_patch_of_every_policy_is_taken_back_to_the_last_byte_without_the_network() -> Result<()> {
    let mut site = Site::with(&[], &[broad(1, "broad")]).await?;
    site.node.put("s/etc/own.conf", "mine\n")?;
    let before = site.node.product()?;
    site.ends(0, &["install"])?;
    assert_eq!(site.conf(), "patched\n");
    assert_eq!(
        site.node.text("s/code/app/current/VERSION").as_deref(),
        Some("patched\n")
    );
    assert_eq!(site.node.text("s/code/console/sub/page.html"), None);
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());

    // Nobody answers any more.
    site.node.take_from(&"http://127.0.0.1:9/".parse()?)?;
    let restarts = site.node.calls("restart");
    site.ends(0, &["revert"])?;
    assert_eq!(site.node.product()?, before);
    assert_eq!(site.node.calls("restart"), restarts + 1);
    assert_eq!(site.states()?, "broad=outstanding");
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    assert!(!site.node.state("state/patches/kept/broad").exists());
    assert!(site.ends(20, &["revert"])?.contains("no patch is installed"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_only_what_nothing_builds_on_is_taken_back_and_older_content_never_covers_newer() -> Result<()> {
    let patches = [
        TestPatch::of_etc(1, "one", &[("app.conf", "one\n")]),
        TestPatch::of_etc(2, "two", &[("app.conf", "two\n")]),
        TestPatch::of_etc(3, "apart", &[("apart.conf", "apart\n")]),
    ];
    let site = Site::with(&[], &patches).await?;
    site.ends(0, &["install", "two"])?;
    let said = site.ends(20, &["install", "one"])?;
    assert!(
        said.contains("`two`, which is newer") && said.contains("kato patch revert two"),
        "{said}"
    );
    site.ends(0, &["revert"])?;
    site.ends(0, &["install"])?;
    assert_eq!(site.conf(), "two\n");
    let said = site.ends(20, &["revert", "one"])?;
    assert!(
        said.contains("before two") && said.contains("kato patch revert two"),
        "{said}"
    );
    // Not the newest, and nothing builds on it.
    site.ends(0, &["revert", "two"])?;
    assert_eq!(
        (site.conf().as_str(), site.states()?.as_str()),
        ("one\n", "one=installed two=outstanding apart=installed")
    );
    site.ends(0, &["revert", "one"])?;
    assert_eq!(site.conf(), "version 1.0.0\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_a_patch_that_fails_is_rolled_back_and_only_tried_again_by_its_name() -> Result<()> {
    let check = "[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n";
    let site = Site::with(&[], &[broad(1, "broken").with_tail(check)]).await?;
    let before = site.node.product()?;
    let said = site.ends(22, &["install"])?;
    assert!(
        said.contains("the patch `broken` failed and was rolled back"),
        "{said}"
    );
    assert_eq!(site.node.product()?, before);
    assert_eq!(site.states()?, "broken=rolled-back");
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    let said = site.ends(0, &["install"])?;
    assert!(
        said.contains("was rolled back here before and is left out"),
        "{said}"
    );
    assert_eq!(site.node.product()?, before);
    site.node.put("healthy", "")?;
    site.ends(0, &["install", "broken"])?;
    assert_eq!(site.states()?, "broken=installed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_a_patch_that_is_not_finished_goes_on_or_back_and_nothing_else_begins() -> Result<()> {
    let check = "[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n";
    let mut site = Site::with(&[], &[broad(1, "slow").with_tail(check)]).await?;
    site.node.add_settings("[upgrade]\non_failure = \"stop\"\n")?;
    let before = site.node.product()?;
    site.ends(21, &["install"])?;
    assert_eq!(site.conf(), "patched\n");
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(
        said.contains("the patch `slow` is not finished") && said.contains("kato patch revert slow"),
        "{said}"
    );
    assert_eq!(site.status()?["in_progress"], "slow");
    let copy = site.node.copy_to(&site.folder.path().join("copy"))?;
    // Back …
    site.ends(0, &["revert", "slow"])?;
    assert_eq!(site.node.product()?, before);
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    // … or forward, as after a restart of the machine.
    copy.put("healthy", "")?;
    copy.upgrade_ends(0, &["--resume"])?;
    assert_eq!(copy.text("s/etc/app.conf").as_deref(), Some("patched\n"));
    assert_eq!(copy.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_a_patch_may_bring_its_own_way_back() -> Result<()> {
    let mut patch = TestPatch::of_etc(1, "own-way", &[("app.conf", "patched\n"), ("added", "patched\n")]);
    patch.revert = Some(("etc-back", "by its own way\n"));
    let site = Site::with(&[], &[patch]).await?;
    site.ends(0, &["install"])?;
    assert_eq!(site.conf(), "patched\n");
    site.ends(0, &["revert"])?;
    assert_eq!(
        (site.conf().as_str(), site.node.text("s/etc/added")),
        ("by its own way\n", None)
    );
    assert_eq!(site.states()?, "own-way=outstanding");
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_what_was_changed_since_is_in_a_backup_when_the_patch_is_taken_back() -> Result<()> {
    let site = Site::with(&[], &[TestPatch::of_etc(1, "one", &[("app.conf", "one\n")])]).await?;
    site.ends(0, &["install"])?;
    site.node.put("s/etc/app.conf", "mine\n")?;
    site.ends(0, &["revert"])?;
    assert_eq!(site.conf(), "version 1.0.0\n");
    let backups = integration_tests::node::names(&site.node.state("backup"));
    let newest = backups
        .last()
        .map(|name| site.node.state("backup").join(name))
        .unwrap_or_default();
    let manifest = std::fs::read_to_string(newest.join("manifest.json"))?;
    let mine = kato_shared::Digest::of(b"mine\n").to_string();
    assert!(manifest.contains(&mine), "{manifest}");
    assert!(manifest.contains("state/patches/record.json"), "{manifest}");
    Ok(())
}
