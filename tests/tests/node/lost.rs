//! A node in the middle of an upgrade whose record is gone: the upgrade goes on or is given up, and a backup says what it holds.

use std::{fs, path::PathBuf, process::Output, time::Duration};

use anyhow::{Result, ensure};
use integration_tests::{
    command,
    node::names,
    releases::{TestModule, TestRelease},
};
use kato_shared::durable;
use kato_upgrader::module::tree::Entry;
use serde_json::Value;

use crate::setup::Site;

const LONG: Duration = Duration::from_secs(60);

/// A node half way from 1.0.0 to a 2.0.0 whose last module fails, and the product as it was before.
async fn half_way(settings: &str) -> Result<(Site, Vec<Entry>)> {
    let mut two = TestRelease::standard("2.0.0");
    two.modules
        .push(TestModule::failing_until("late", "platform/allowed"));
    let mut site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.add_settings(settings)?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.put("s/etc/local.conf", "only here")?;
    let before = site.node.product()?;
    let mut kato = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
    kato.env("KATO_KILL_AT", "latch.written:2");
    command::run(kato, LONG, &[])?;
    assert_ne!(site.node.product()?, before, "half of it is new");
    Ok((site, before))
}

fn lose(site: &Site) -> Result<()> {
    Ok(fs::remove_file(site.node.state("state/upgrade.json"))?)
}

fn kato(site: &Site, words: &[&str]) -> Result<Output> {
    command::run(site.node.kato(words)?, LONG, &[])
}

fn restore(site: &Site, code: i32, words: &[&str]) -> Result<String> {
    let output = kato(
        site,
        &[&["node", "restore", "--skip-confirmation"], words].concat(),
    )?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(
        output.status.code() == Some(code),
        "{words:?}: {:?}: {said}",
        output.status
    );
    Ok(said)
}

/// Everything that was there is back as it was. A version that is not in use, and what only lost notes knew, may lie beside it.
fn is_back(site: &Site, before: &[Entry]) -> Result<()> {
    let after = site.node.product()?;
    let lost: Vec<_> = before.iter().filter(|entry| !after.contains(entry)).collect();
    ensure!(lost.is_empty(), "{lost:?}");
    Ok(())
}

/// The backups: id, and the upgrade in whose middle each was taken.
fn backups(site: &Site) -> Result<Vec<(String, Option<String>)>> {
    let output = kato(site, &["node", "backup", "list", "--json"])?;
    let list: Value = serde_json::from_slice(&output.stdout)?;
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let all = list["backups"].as_array().cloned().unwrap_or_default();
    Ok(all
        .iter()
        .map(|backup| (text(&backup["id"]).unwrap_or_default(), text(&backup["amid"])))
        .filter(|(id, _)| id.starts_with("1.0.0"))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_an_upgrade_whose_record_is_lost_goes_on_with_its_backup_and_its_way_back() -> Result<()> {
    let (site, before) = half_way("[upgrade]\nmodule_attempts = 1\n").await?;
    let taken = backups(&site)?;
    assert_eq!(taken.len(), 1, "{taken:?}");
    lose(&site)?;
    let said = site.node.upgrade_ends(22, &[])?;
    assert!(said.contains("upgrade.json` is missing; the upgrade"), "{said}");
    assert!(
        !said.contains("local changes that the upgrade takes away"),
        "{said}"
    );
    assert_eq!(backups(&site)?, taken, "none was taken of half a release");
    assert_eq!(site.node.product()?, before);
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    restore(&site, 0, &["latest"])?;
    assert_eq!(site.node.product()?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_a_damaged_record_of_an_upgrade_is_moved_away_or_given_up_by_a_restoration() -> Result<()> {
    let (site, before) = half_way("").await?;
    let record = site.node.state("state/upgrade.json");
    durable::write(&record, b"{\"schema\":1,\"id", 0o644)?;
    let said = site.node.upgrade_ends(27, &[])?;
    assert!(
        said.contains("`kato node restore latest` gives the upgrade up"),
        "{said}"
    );
    let copy = site.node.copy_to(&site.folder.path().join("copy"))?;

    // Single paths would be restored into half a release.
    restore(&site, 20, &["latest", "/s/etc/app.conf"])?;
    let said = restore(&site, 0, &["latest"])?;
    assert!(said.contains("gives that upgrade up"), "{said}");
    // The user's own file is in no release: the comparison says so, and of nothing else.
    assert!(
        said.contains("1 file differs from what 1.0.0 installed"),
        "{said}"
    );
    is_back(&site, &before)?;
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());

    // The other remedy.
    fs::remove_file(copy.state("state/upgrade.json"))?;
    copy.put("platform/allowed", "")?;
    copy.upgrade_ends(0, &[])?;
    assert_eq!(copy.installed().as_deref(), Some("2.0.0"));
    assert_eq!(copy.text("s/etc/local.conf").as_deref(), Some("only here"));
    assert_eq!(copy.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_without_notes_the_backup_names_the_upgrade_and_without_both_it_is_refused() -> Result<()> {
    let (site, before) = half_way("").await?;
    lose(&site)?;
    fs::remove_dir_all(site.node.state("state/undo"))?;
    let copy = site.node.copy_to(&site.folder.path().join("copy"))?;
    let taken = backups(&site)?;
    let said = site.node.upgrade_ends(21, &[])?;
    assert!(said.contains("upgrade.json` is missing; the upgrade"), "{said}");
    assert_eq!(backups(&site)?, taken);
    restore(&site, 0, &["latest"])?;
    is_back(&site, &before)?;

    // Only latches are left: a restoration leaves none that would have the next upgrade skip modules.
    let latched = copy.copy_to(&site.folder.path().join("latched"))?;
    let work = latched.state("state/work");
    if work.exists() {
        fs::remove_dir_all(work)?;
    }
    assert_ne!(latched.latches(), Vec::<String>::new());
    let kato = latched.kato(&["node", "restore", "--skip-confirmation", "latest"])?;
    ensure!(command::run(kato, LONG, &[])?.status.success(), "restore");
    assert_eq!(latched.latches(), Vec::<String>::new());

    // Nothing leads back any more, and nothing says that it does.
    for (id, _) in &taken {
        fs::remove_dir_all(copy.state("backup").join(id))?;
    }
    let half = copy.product()?;
    let said = copy.upgrade_ends(27, &[])?;
    assert!(
        said.contains("is in the middle of one: modules were installed for 2.0.0"),
        "{said}"
    );
    assert!(
        said.contains("hint: `kato node upgrade --force` goes forward"),
        "{said}"
    );
    assert_eq!(copy.product()?, half);
    copy.put("platform/allowed", "")?;
    let said = copy.upgrade_ends(0, &["--force"])?;
    assert!(said.contains("holds half of a release"), "{said}");
    assert_eq!(copy.installed().as_deref(), Some("2.0.0"));
    assert_eq!(copy.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_a_backup_of_half_a_release_says_so_and_is_not_the_latest() -> Result<()> {
    let (site, before) = half_way("").await?;
    let taken = backups(&site)?;
    site.repository.publish(&TestRelease::standard("2.0.1")).await?;
    let said = site.node.upgrade_ends(0, &["--version", "2.0.1"])?;
    assert!(said.contains("holds half of a release"), "{said}");
    assert!(
        !said.contains("local changes that the upgrade takes away"),
        "{said}"
    );
    let all = backups(&site)?;
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0].1.as_deref(), Some(taken[0].0.as_str()), "{all:?}");
    assert_eq!(all[1], taken[0]);
    let said = restore(&site, 20, &[&all[0].0])?;
    assert!(said.contains("it holds half of a release"), "{said}");
    restore(&site, 0, &["latest"])?;
    is_back(&site, &before)?;
    assert!(
        names(&site.node.state("state"))
            .iter()
            .all(|name| name != "upgrade.json")
    );
    Ok(())
}
