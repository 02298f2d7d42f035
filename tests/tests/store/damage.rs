//! Damage in stored content: found by the scrub and by `verify`, put away, fetched anew.

use std::{fs::File, io::Write, os::unix::fs::FileExt, path::PathBuf};

use anyhow::{Context, Result, ensure};
use integration_tests::{command, origin::Resource, proxy::program};

use crate::{MIB, Site, assert_same, content, files};

/// The content file of a store that has one.
fn content_file(site: &Site) -> Result<PathBuf> {
    let found = files(&site.cache.path().join("content-v2"))?;
    found.into_iter().next().context("no content file")
}

/// Flips a byte in the middle, which no size shows.
fn damage(path: &PathBuf) -> Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let middle = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle)?;
    file.write_all_at(&[byte[0] ^ 0x40], middle)?;
    Ok(file.flush()?)
}

#[tokio::test]
async fn verify_names_the_damaged_url_puts_the_content_away_and_it_is_fetched_anew() -> Result<()> {
    let site = Site::new().await?;
    let proxy = site.start("").await?;
    let body = content(3 * MIB, 3);
    site.origin.serve("/a", Resource::cacheable(body.clone()));
    let request = proxy.client().get("/files/a");
    request.fetch().await?;
    proxy.wait_until_stored(&request, &body).await?;
    damage(&content_file(&site)?)?;
    let mut verify = command::new(program()?);
    verify.args(["verify", "--admin", &proxy.admin.to_string()]);
    let told = command::run(verify, std::time::Duration::from_secs(60), &[])?;
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(told.status.code() == Some(21), "{}: {text}", told.status);
    ensure!(text.contains(&site.origin.url("/a")), "{text}");
    let last = text.lines().last().unwrap_or_default();
    ensure!(
        last.starts_with("1 contents") && last.contains("1 damaged"),
        "{last}"
    );
    ensure!(
        proxy.stats().await?.quarantined.len() == 1,
        "nothing in quarantine"
    );
    let (response, got) = request.fetch().await?;
    ensure!(
        response.cache_status().contains("fwd=uri-miss"),
        "{}",
        response.cache_status()
    );
    assert_same(&got, &body, "fetched anew");
    Ok(())
}

#[tokio::test]
async fn the_scrub_finds_damage_by_itself() -> Result<()> {
    let site = Site::new().await?;
    let proxy = site
        .start("scrub_interval = \"1s\"\nscrub_rate = \"1GiB\"")
        .await?;
    let body = content(2 * MIB, 4);
    site.origin.serve("/a", Resource::cacheable(body.clone()));
    let request = proxy.client().get("/files/a");
    request.fetch().await?;
    proxy.wait_until_stored(&request, &body).await?;
    damage(&content_file(&site)?)?;
    proxy.wait_for_stats(|stats| stats.quarantined.len() == 1).await?;
    assert_same(&request.fetch().await?.1, &body, "fetched anew");
    Ok(())
}

#[tokio::test]
async fn a_file_that_was_cut_short_while_it_is_stored_breaks_one_answer_at_most() -> Result<()> {
    let site = Site::new().await?;
    let proxy = site.start("").await?;
    let body = content(3 * MIB, 5);
    site.origin.serve("/a", Resource::cacheable(body.clone()));
    let request = proxy.client().get("/files/a");
    request.fetch().await?;
    proxy.wait_until_stored(&request, &body).await?;
    File::options()
        .write(true)
        .open(content_file(&site)?)?
        .set_len(MIB as u64)?;
    let got = request.send().await?.finish().await?;
    ensure!(
        !got.looks_whole || got.bytes == body,
        "a cut file was served as whole"
    );
    assert_same(&request.fetch().await?.1, &body, "fetched anew");
    Ok(())
}
