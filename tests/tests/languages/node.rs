//! npm.

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use integration_tests::{command, origin::Resource};
use ssri::{Algorithm, IntegrityOpts};

use crate::site::{Site, document, put, run, succeed, tarball};

/// The packument's form for installations.
const ABBREVIATED: &str = "application/vnd.npm.install-v1+json";
const TARBALL: &str = "/@site/hello/-/hello-1.0.0.tgz";
/// As npm writes the name of a scoped package into a path.
const PACKUMENT: &str = "/@site%2fhello";

/// Serves the package `@site/hello`; returns its tarball.
fn publish(site: &Site) -> Result<Vec<u8>> {
    let folder = site.folder("package-of-npm")?;
    put(
        &folder,
        "package/package.json",
        br#"{"name":"@site/hello","version":"1.0.0"}"#,
    )?;
    put(&folder, "package/index.js", b"module.exports = 'hello'\n")?;
    let bytes = tarball(&folder, "package")?;
    let integrity = IntegrityOpts::new()
        .algorithm(Algorithm::Sha512)
        .chain(&bytes)
        .result();
    let packument = format!(
        r#"{{"name":"@site/hello","dist-tags":{{"latest":"1.0.0"}},"versions":{{"1.0.0":{{"name":"@site/hello","version":"1.0.0","dist":{{"integrity":"{integrity}","tarball":"{}"}}}}}}}}"#,
        site.files.url(TARBALL)
    );
    let packument = document(packument, ABBREVIATED).header("vary", "accept-encoding, accept");
    site.index.serve(PACKUMENT, packument);
    site.files.serve(TARBALL, Resource::cacheable(bytes.clone()));
    Ok(bytes)
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

const PROJECT: &[u8] = br#"{"name":"project","version":"1.0.0","dependencies":{"@site/hello":"1.0.0"}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn npm_ci_installs_and_again_without_the_origins() -> Result<()> {
    let mut site = Site::start("npm", "npm").await?;
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

/// The host of tarballs has other bytes than `dist.integrity` says.
#[tokio::test(flavor = "multi_thread")]
async fn a_tarball_that_is_not_what_its_packument_says_is_never_stored() -> Result<()> {
    let site = Site::start("npm", "npm").await?;
    let bytes = publish(&site)?;
    let mut other = bytes.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
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
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("EINTEGRITY"), "{said}");
    site.proxy.wait_for_log("not stored: a tarball").await?;
    let stored = site.proxy.client().get(&site.files.url(TARBALL));
    let (response, _) = stored
        .header("cache-control", "only-if-cached, max-stale")
        .fetch()
        .await?;
    assert_eq!(response.status, 504, "nothing is stored of it");

    // The origin is repaired: so is the installation.
    site.files.serve(TARBALL, Resource::cacheable(bytes.clone()));
    succeed(npm(&site, &first, &["ci", "--no-audit"])).await?;
    let stored = site.proxy.client().get(&site.files.url(TARBALL));
    site.proxy.wait_until_stored(&stored, &bytes).await?;
    Ok(())
}
