//! The network goes away: nothing is lost, and the same command goes on.

use std::time::Duration;

use anyhow::Result;
use integration_tests::{
    command,
    cutter::{Cut, Cutter},
    releases::TestRelease,
    static_server::{Fault, StaticServer},
};

use jiff::SignedDuration;
use kato_shared::clock::Clock;

use crate::setup::Site;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn r42_an_upgrade_host_that_is_gone_is_try_again_later_and_the_same_command_goes_on() -> Result<()> {
    let mut site = Site::at_one().await?;
    let before = site.node.product()?;
    site.host.fail("console-2.0.0.tar.zst", Fault::Status(404));
    let said = site.node.upgrade_ends(75, &[])?;
    assert!(said.contains("hint:"), "{said}");
    assert_eq!(site.node.product()?, before);

    let Site { host, repository, .. } = site;
    let address = host.address();
    drop(host);
    let said = site.node.upgrade_ends(75, &[])?;
    assert!(said.contains("does not answer"), "{said}");
    assert_eq!(site.node.product()?, before);

    let host = StaticServer::start(&repository.dir()).await?;
    assert_ne!(host.address(), address);
    site.node.take_from(&host.url())?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    // R42: what was there before the host went away was not fetched again.
    assert_eq!(host.count("app-2.0.0.tar.zst"), 0);
    assert_eq!(host.count("console-2.0.0.tar.zst"), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r42_a_server_without_tags_and_ranges_that_breaks_every_third_answer_off_holds_no_upgrade_up()
-> Result<()> {
    let mut site = Site::at_one().await?;
    site.host.fail("", Fault::Plain);
    let cutter = Cutter::start(site.host.address())?;
    site.node.take_from(&cutter.url())?;

    // Where nothing comes through whole, the run ends soon and says so.
    let before = site.node.product()?;
    cutter.arm(1, Cut::Every);
    let said = site.node.upgrade_ends(75, &[])?;
    assert!(
        said.contains(" broke off after ") && said.contains("look for what cuts connections on the way"),
        "{said}"
    );
    assert!(cutter.requests() < 20, "{:?}", cutter.paths());
    assert_eq!(site.node.product()?, before);

    cutter.arm(3, Cut::Every);
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    // Documents and archives were among them.
    assert!(cutter.requests() >= 9, "{:?}", cutter.paths());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c17_an_upgrade_that_has_everything_is_finished_without_the_network() -> Result<()> {
    let mut two = TestRelease::standard("2.0.0");
    two.tail
        .push_str("[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"go-on\"]\ndeadline = \"0s\"\n");
    let mut site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.add_settings("[upgrade]\non_failure = \"stop\"\n")?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.upgrade_ends(21, &[])?;
    site.node.put("go-on", "")?;
    let Site {
        host, node, folder, ..
    } = site;
    drop(host);
    let said = node.upgrade_ends(0, &[])?;
    assert!(said.contains("goes on without the network"), "{said}");
    assert_eq!(node.installed().as_deref(), Some("2.0.0"));
    drop(folder);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_an_upgrade_that_has_begun_is_finished_although_the_metadata_expired_meanwhile() -> Result<()> {
    let long_ago = Clock::system().now() - SignedDuration::from_hours(24 * 10);
    for again in [&["--skip-confirmation"][..], &["--resume"]] {
        let site = Site::at_one().await?;
        // What was only downloaded is not begun: the expiry is refused as ever.
        site.node.upgrade_ends(0, &["--download-only"])?;
        site.repository.clone().at(long_ago).refresh().await?;
        let said = site.node.upgrade_ends(26, &[])?;
        assert!(said.contains("metadata is expired"), "{said}");

        site.repository.refresh().await?;
        let mut kato = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
        kato.env("KATO_KILL_AT", "latch.written");
        command::run(kato, LONG, &[])?;
        assert_eq!(site.node.latches().len(), 1);
        site.repository.clone().at(long_ago).refresh().await?;
        // Another version than the one that has begun is no way around it.
        site.node.upgrade_ends(26, &["--version", "1.0.0", "--force"])?;
        let mut kato = site.node.kato(&["node", "upgrade"])?;
        kato.args(again);
        let ended = command::run(kato, LONG, &[])?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(0), "{again:?}: {said}");
        assert!(
            said.contains("metadata is expired") && said.contains("so the upgrade goes on"),
            "{said}"
        );
        assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r07_hosts_that_cannot_be_reached_are_named_before_anything_is_downloaded() -> Result<()> {
    let mut site = Site::at_one().await?;
    let gone = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let there = site.host.url();
    site.node.add_settings(&format!(
        "[upgrade]\nhosts = [\"{there}no/such/page\", \"http://{gone}/v2/\"]\n"
    ))?;
    site.host.reset();
    let said = site.node.upgrade_ends(75, &[])?;
    assert!(
        said.contains(&format!("the server {gone} does not answer")) && said.contains("nothing was changed"),
        "{said}"
    );
    assert!(!said.contains("no/such/page"), "{said}");
    assert_eq!(site.host.count(".tar.zst"), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r34_a_node_whose_journal_a_newer_kato_wrote_is_left_alone() -> Result<()> {
    let site = Site::at_one().await?;
    let path = site.node.state("state/journal.jsonl");
    let text = std::fs::read_to_string(&path)?;
    let newer = text
        .lines()
        .last()
        .unwrap_or_default()
        .replace("\"schema\":1", "\"schema\":2");
    let text = format!("{text}{newer}\n");
    kato_shared::durable::write(&path, text.as_bytes(), 0o644)?;
    let before = site.node.product()?;
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(
        said.contains("has the format 2") && said.contains("hint:"),
        "{said}"
    );
    assert_eq!(
        (std::fs::read_to_string(&path)?, site.node.product()?),
        (text, before)
    );
    let journal = path.display().to_string();
    let kato = site.node.kato(&["node", "self-test", "--journal", &journal])?;
    let output = command::run(kato, Duration::from_secs(30), &[])?;
    assert!(!output.status.success());
    Ok(())
}
