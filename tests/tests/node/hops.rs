//! Several releases on the way: planned as one, downloaded as one, installed one after the other.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use integration_tests::{command, releases::TestRelease};
use serde_json::Value;

use crate::setup::Site;

/// A 3.0.0 that upgrades from 2.0.0 only.
fn three() -> TestRelease {
    let mut three = TestRelease::standard("3.0.0");
    three.head.push_str("[from]\nmin = \"2.0.0\"\n");
    three
}

async fn site(two: TestRelease, three: TestRelease) -> Result<Site> {
    let site = Site::with(&[TestRelease::standard("1.0.0"), two, three]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    Ok(site)
}

fn plan(site: &Site, arguments: &[&str]) -> Result<String> {
    let mut kato = site.node.kato(&["node", "upgrade", "--plan"])?;
    kato.args(arguments);
    Ok(String::from_utf8(
        command::run(kato, Duration::from_secs(60), &[])?.stdout,
    )?)
}

#[tokio::test(flavor = "multi_thread")]
async fn c18_the_plan_shows_every_release_on_the_way_and_the_space_for_all() -> Result<()> {
    let site = site(TestRelease::standard("2.0.0").with_payload(1 << 20), three()).await?;
    let text = plan(&site, &[])?;
    assert!(
        text.contains("n1: 1.0.0 → 2.0.0")
            && text.contains("n1: 2.0.0 → 3.0.0")
            && text.contains("2 releases, one after the other: 1.0.0 → 2.0.0 → 3.0.0"),
        "{text}"
    );
    assert!(
        text.contains("way back   until record: then only its backup leads back to 2.0.0"),
        "{text}"
    );
    let first: Value = serde_json::from_str(&plan(&site, &["--json"])?)?;
    assert_eq!(
        (&first["to"], &first["then"][0]["to"]),
        (&"2.0.0".into(), &"3.0.0".into())
    );
    // Equal is nothing to do, and one release is one plan.
    site.node.upgrade_ends(0, &["--version", "2.0.0"])?;
    assert!(!plan(&site, &[])?.contains("releases, one after the other"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_c18_everything_for_the_whole_way_is_there_before_the_first_change() -> Result<()> {
    let site = site(TestRelease::standard("2.0.0"), three()).await?;
    let before = site.node.product()?;
    site.node.upgrade_ends(0, &["--download-only"])?;
    assert_eq!(site.node.product()?, before);
    let Site {
        host, node, folder, ..
    } = site;
    drop(host);
    node.upgrade_ends(0, &["--offline"])?;
    assert_eq!(node.installed().as_deref(), Some("3.0.0"));
    assert_eq!(node.leftovers()?, Vec::<PathBuf>::new());
    drop(folder);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c18_a_way_that_is_cut_off_between_two_releases_is_gone_to_its_end() -> Result<()> {
    let site = site(TestRelease::standard("2.0.0"), three()).await?;
    for place in ["record.installed", "record.attempt"] {
        let node = site.node.copy_to(&site.folder.path().join(place))?;
        let mut kato = node.kato(&["node", "upgrade", "--skip-confirmation"])?;
        kato.env("KATO_KILL_AT", place);
        command::run(kato, Duration::from_secs(60), &[])?;
        assert_eq!(node.installed().as_deref(), Some("2.0.0"), "{place}");
        // It has begun, so a resume is enough; and what was downloaded for it is still there.
        site.host.reset();
        node.upgrade_ends(0, &["--resume"])?;
        assert_eq!(node.installed().as_deref(), Some("3.0.0"), "{place}");
        assert_eq!(site.host.count(".tar.zst"), 0, "{place}");
        assert_eq!(node.leftovers()?, Vec::<PathBuf>::new(), "{place}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c18_c23_a_release_that_fails_leaves_the_node_at_the_one_before() -> Result<()> {
    let mut last = three();
    last.tail
        .push_str("[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n");
    let site = site(TestRelease::standard("2.0.0"), last).await?;
    // The way leads further than to the one that fails.
    let mut four = TestRelease::standard("4.0.0");
    four.head.push_str("[from]\nmin = \"3.0.0\"\n");
    site.repository.publish(&four).await?;
    let said = site.node.upgrade_ends(22, &[])?;
    assert!(said.contains("this node runs 2.0.0 again"), "{said}");
    let status = site.node.kato(&["node", "upgrade", "--status"])?;
    let status = command::run(status, Duration::from_secs(60), &[])?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.contains("idle; the last upgrade was rolled back"),
        "{status}"
    );
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert_eq!(
        site.node.text("s/code/console/index.html").as_deref(),
        Some("version 2.0.0\n")
    );
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c18_what_bars_the_way_is_said_before_anything_is_changed() -> Result<()> {
    // No release jumps over a floor.
    let mut floor = TestRelease::standard("2.0.0");
    floor.head.push_str("floor = true\n");
    let site = site(floor, TestRelease::standard("3.0.0")).await?;
    assert!(plan(&site, &[])?.contains("1.0.0 → 2.0.0 → 3.0.0"));

    // A newer kato than there will be by then; the release before it would work.
    let mut needy = TestRelease::standard("4.0.0");
    needy
        .head
        .push_str("min_upgrader = \"99.0.0\"\n[from]\nmin = \"3.0.0\"\n");
    site.repository.publish(&needy).await?;
    let before = site.node.product()?;
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(
        said.contains("release 4.0.0 needs kato 99.0.0 or newer"),
        "{said}"
    );
    assert_eq!(site.node.product()?, before);

    // A version that is blocked, with the publisher's reason.
    let mut blocking = TestRelease::standard("5.0.0");
    blocking.head.push_str(
        "[from]\nmin = \"1.0.0\"\nedges = [\"1.0.0\"]\n[[from.blocked]]\nversion = \"1.0.0\"\nreason = \"loses its sessions\"\n",
    );
    site.repository.publish(&blocking).await?;
    let said = site.node.upgrade_ends(20, &["--version", "5.0.0"])?;
    assert!(
        said.contains("5.0.0 blocks upgrades from 1.0.0: loses its sessions"),
        "{said}"
    );
    assert_eq!(site.node.product()?, before);
    Ok(())
}
