//! npm.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::Result;
use integration_tests::{
    command,
    origin::Resource,
    published::{self, ABBREVIATED, PACKUMENT, TARBALL, integrity},
};
use tokio::time::{Duration, Instant};

use crate::site::{Site, document, put, run, succeed, until_it_succeeds};

/// How long what was wrong may be refused after it was mended.
const SOON: Duration = Duration::from_secs(20);

/// Serves the package `@site/hello`; returns its tarball.
pub(crate) fn publish(site: &Site) -> Result<Vec<u8>> {
    published::publish_npm(&site.index, &site.files, &site.folder("package-of-npm")?)
}

/// npm in `folder`, with nothing but the cache to ask and nothing remembered.
fn npm(site: &Site, folder: &Path, arguments: &[&str]) -> Command {
    let mut npm = command::new("npm");
    npm.current_dir(folder).env("HOME", folder).args(arguments);
    npm.arg(format!("--registry={}/npm/", site.url()));
    npm.arg(format!("--cache={}", folder.join("remembered").display()));
    npm.args(["--no-fund", "--no-update-notifier", "--fetch-retries=0"]);
    npm
}

pub(crate) const PROJECT: &[u8] =
    br#"{"name":"project","version":"1.0.0","dependencies":{"@site/hello":"1.0.0"}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn npm_ci_installs_and_again_without_the_origins() -> Result<()> {
    twice(Site::start("npm", "npm").await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_ci_installs_by_the_preset_and_again_without_the_origins() -> Result<()> {
    twice(Site::of_preset("npm", "https://npm.example/", None).await?).await
}

async fn twice(mut site: Site) -> Result<()> {
    let bytes = publish(&site)?;
    let first = site.folder("first")?;
    put(&first, "package.json", PROJECT)?;
    succeed(npm(
        &site,
        &first,
        &["install", "--package-lock-only", "--no-audit"],
    ))
    .await?;
    succeed(npm(&site, &first, &["ci", "--no-audit"])).await?;
    let installed = "node_modules/@site/hello/index.js";
    assert_eq!(
        fs::read_to_string(first.join(installed))?,
        "module.exports = 'hello'\n"
    );
    assert_eq!(
        site.files.requests(TARBALL).len(),
        1,
        "asked through us, and once"
    );
    let stored = site.proxy.client().get(&site.files.url(TARBALL));
    site.proxy.wait_until_stored(&stored, &bytes).await?;

    site.cut_off().await;
    let second = site.folder("second")?;
    put(&second, "package.json", PROJECT)?;
    put(
        &second,
        "package-lock.json",
        &fs::read(first.join("package-lock.json"))?,
    )?;
    succeed(npm(&site, &second, &["ci", "--no-audit"])).await?;
    assert_eq!(
        fs::read_to_string(second.join(installed))?,
        "module.exports = 'hello'\n"
    );
    Ok(())
}

/// npm audits by default, and goes on where it cannot.
#[tokio::test(flavor = "multi_thread")]
async fn npm_installs_although_its_audit_is_refused() -> Result<()> {
    let site = Site::start("npm", "npm").await?;
    publish(&site)?;
    let folder = site.folder("first")?;
    put(&folder, "package.json", PROJECT)?;
    succeed(npm(&site, &folder, &["install", "--audit"])).await?;
    let audit = run(npm(&site, &folder, &["audit"])).await?;
    let said = String::from_utf8_lossy(&audit.stderr).into_owned();
    assert!(!audit.status.success() && said.contains("404"), "{said}");
    assert!(
        site.index
            .requests("/-/npm/v1/security/advisories/bulk")
            .is_empty()
    );
    Ok(())
}

/// The host of tarballs has other bytes than `dist.integrity` says, which the cache notices before npm has them all.
#[tokio::test(flavor = "multi_thread")]
async fn a_tarball_that_is_not_what_its_packument_says_is_refused_and_never_stored() -> Result<()> {
    let site = Site::start("npm", "npm").await?;
    let bytes = publish(&site)?;
    let mut other = bytes.clone();
    // The byte that names the operating system (RFC 1952 §2.3): the archive unpacks as before, and only the digest tells.
    other[9] ^= 1;
    site.files.serve(TARBALL, Resource::cacheable(other));
    let first = site.folder("first")?;
    put(&first, "package.json", PROJECT)?;
    succeed(npm(
        &site,
        &first,
        &["install", "--package-lock-only", "--no-audit"],
    ))
    .await?;
    let refused = run(npm(&site, &first, &["ci", "--no-audit"])).await?;
    assert!(!refused.status.success());
    // By the cache, which has asked once more, and names both digests.
    site.proxy
        .wait_for_log("digest mismatch: expected sha512:")
        .await?;
    site.files.wait_for_requests(TARBALL, 2).await?;
    refused_by_the_cache(&site, &site.files.url(TARBALL)).await?;
    let stored = site.proxy.client().get(&site.files.url(TARBALL));
    let (response, _) = stored
        .header("cache-control", "only-if-cached, max-stale")
        .fetch()
        .await?;
    assert_eq!(response.status, 504, "nothing is stored of it");

    // The origin is repaired: so is the installation.
    site.files.serve(TARBALL, Resource::cacheable(bytes.clone()));
    until_it_succeeds(|| npm(&site, &first, &["ci", "--no-audit"])).await?;
    let stored = site.proxy.client().get(&site.files.url(TARBALL));
    site.proxy.wait_until_stored(&stored, &bytes).await?;
    Ok(())
}

/// Nobody gets the whole of what is at `url`: 502, or, where it was on its way before the verdict, a connection that breaks.
async fn refused_by_the_cache(site: &Site, url: &str) -> Result<()> {
    if let Ok((response, body)) = site.proxy.client().fetch(url).await {
        let said = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(response.status, 502, "{said}");
        assert!(said.contains("digest mismatch"), "{said}");
    }
    Ok(())
}

/// Packuments that are older than `integrity` have `shasum` alone; tarballs above some size are sent while they come.
#[tokio::test]
async fn a_tarball_is_held_against_what_is_promised_by_whatever_function_whole_or_in_a_stream() -> Result<()>
{
    let site = Site::start("npm", "npm").await?;
    let client = site.proxy.client();
    for (name, size, sha1) in [("a", 1000, true), ("b", 1_000_000, false), ("c", 1_000_000, true)] {
        let good: Vec<u8> = (0..size).map(|nth: u32| nth.to_le_bytes()[1]).collect();
        let mut wrong = good.clone();
        wrong[500] ^= 1;
        let promise = if sha1 {
            let sha1 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &good);
            let mut hex = String::new();
            for byte in sha1.as_ref() {
                write!(hex, "{byte:02x}")?;
            }
            format!(r#""shasum":"{hex}""#)
        } else {
            format!(r#""integrity":"{}""#, integrity(&good))
        };
        let path = format!("/{name}.tgz");
        let url = site.files.url(&path);
        let packument = format!(r#"{{"versions":{{"1.0.0":{{"dist":{{"tarball":"{url}",{promise}}}}}}}}}"#);
        site.index
            .serve(&format!("/{name}"), document(packument, "application/json"));
        site.files.serve(&path, Resource::cacheable(wrong));
        client.fetch(&format!("/npm/{name}")).await?;
        for _ in 0..2 {
            refused_by_the_cache(&site, &url).await?;
        }
        site.files.serve(&path, Resource::cacheable(good.clone()));
        let (mut response, mut body) = client.fetch(&url).await?;
        // What was wrong is refused for some seconds without asking.
        let since = Instant::now();
        while response.status == 502 && since.elapsed() < SOON {
            (response, body) = client.fetch(&url).await?;
        }
        let said = String::from_utf8_lossy(&body[..body.len().min(600)]);
        assert!(
            (response.status, body == good) == (200, true),
            "{name}: {} {said}",
            response.status
        );
        site.proxy.wait_until_stored(&client.get(&url), &good).await?;
        // Proved once, it is not asked about again, whatever the client wishes.
        let asked = site.files.requests(&path).len();
        let (response, _) = client
            .get(&url)
            .header("cache-control", "no-cache")
            .fetch()
            .await?;
        assert_eq!(
            (response.status, site.files.requests(&path).len()),
            (200, asked),
            "{name}"
        );
    }
    Ok(())
}

/// The tarball came before anything was known about it.
#[tokio::test]
async fn what_is_stored_is_held_against_what_is_promised_later() -> Result<()> {
    let site = Site::start("npm", "npm").await?;
    let bytes = publish(&site)?;
    let client = site.proxy.client();
    let url = site.files.url(TARBALL);
    client.fetch(&url).await?;
    site.proxy.wait_until_stored(&client.get(&url), &bytes).await?;
    client.fetch(&format!("/npm{PACKUMENT}")).await?;
    client.fetch(&url).await?;
    assert_eq!(site.files.requests(TARBALL).len(), 1, "it is what was promised");

    let other = document(r#"{"versions":{}}"#, ABBREVIATED);
    site.index.serve(PACKUMENT, other);
    site.files.serve("/wrong.tgz", Resource::cacheable("wrong"));
    let wrong = site.files.url("/wrong.tgz");
    client.fetch(&wrong).await?;
    site.proxy
        .wait_until_stored(&client.get(&wrong), b"wrong")
        .await?;
    let packument = format!(
        r#"{{"versions":{{"1.0.0":{{"dist":{{"tarball":"{wrong}","integrity":"{}"}}}}}}}}"#,
        integrity(b"right")
    );
    site.index.serve("/wrong", document(packument, ABBREVIATED));
    client.fetch("/npm/wrong").await?;
    refused_by_the_cache(&site, &wrong).await
}
