//! pip.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
pub(crate) use integration_tests::published::{SIMPLE_JSON as JSON, WHEEL};
use integration_tests::{command, origin::Resource, published};
use tokio::time::{Duration, Instant};

use crate::site::{Site, put, run, succeed};

/// How long what was wrong may be refused after it was mended.
const SOON: Duration = Duration::from_secs(20);

/// A wheel with one module.
pub(crate) fn wheel(site: &Site) -> Result<Vec<u8>> {
    published::wheel(&site.folder("wheel")?)
}

/// Serves the wheel and the page of its project, in the form of `content_type`; returns the wheel's digest.
pub(crate) fn publish(site: &Site, wheel: &[u8], content_type: &str) -> String {
    published::publish_wheel(&site.index, &site.files, wheel, content_type)
}

/// `pip install` into `target`, with nothing but the cache to ask and only what has this digest.
fn install(site: &Site, target: &Path, digest: &str) -> Result<std::process::Command> {
    let wanted = format!("hello-site==1.0 --hash=sha256:{digest}\n");
    let requirements = put(target, "requirements.txt", wanted.as_bytes())?;
    let mut pip = command::new("/usr/bin/python3");
    pip.env("HOME", target).env("PIP_CONFIG_FILE", "/dev/null");
    pip.args(["-m", "pip", "install", "--isolated", "--no-cache-dir"]);
    pip.args(["--disable-pip-version-check", "--retries", "0", "--no-deps"]);
    pip.args(["--index-url", &format!("{}/pypi/simple/", site.url())]);
    pip.args(["--require-hashes", "--target"])
        .arg(target.join("site"));
    pip.arg("-r").arg(requirements);
    Ok(pip)
}

async fn twice(mut site: Site, content_type: &str) -> Result<()> {
    let wheel = wheel(&site)?;
    let digest = publish(&site, &wheel, content_type);

    let first = site.folder("first")?;
    succeed(install(&site, &first, &digest)?).await?;
    assert_eq!(
        fs::read_to_string(first.join("site/hello_site.py"))?,
        "SAID = 'hello'\n"
    );
    let wheels = format!("/packages/{WHEEL}");
    assert_eq!(
        site.files.requests(&wheels).len(),
        1,
        "asked through us, and once"
    );
    let stored = site.proxy.client().get(&site.files.url(&wheels));
    site.proxy.wait_until_stored(&stored, &wheel).await?;

    site.cut_off().await;
    let second = site.folder("second")?;
    succeed(install(&site, &second, &digest)?).await?;
    assert_eq!(
        fs::read_to_string(second.join("site/hello_site.py"))?,
        "SAID = 'hello'\n"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pip_installs_with_hashes_from_a_json_index_and_again_without_the_origins() -> Result<()> {
    twice(Site::start("pypi", "pypi").await?, JSON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pip_installs_with_hashes_from_an_html_index_and_again_without_the_origins() -> Result<()> {
    twice(Site::start("pypi", "pypi").await?, "text/html").await
}

#[tokio::test(flavor = "multi_thread")]
async fn pip_installs_by_the_preset_and_again_without_the_origins() -> Result<()> {
    let (index, files) = ("https://index.example/", "https://files.example/");
    twice(Site::of_preset("pypi", index, Some(files)).await?, JSON).await
}

/// The origin has other bytes under the wheel's name than the index says, of the same size.
#[tokio::test(flavor = "multi_thread")]
async fn a_wheel_that_is_not_what_the_index_says_is_refused_and_never_stored() -> Result<()> {
    let site = Site::start("pypi", "pypi").await?;
    let wheel = wheel(&site)?;
    let digest = publish(&site, &wheel, JSON);
    let mut other = wheel.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    let path = format!("/packages/{WHEEL}");
    site.files.serve(&path, Resource::cacheable(other));
    let first = site.folder("first")?;
    let refused = run(install(&site, &first, &digest)?).await?;
    assert!(!refused.status.success());
    // By the cache, not by pip.
    site.proxy.wait_for_log("digest mismatch").await?;
    let stored = site.proxy.client().get(&site.files.url(&path));
    let (response, _) = stored
        .header("cache-control", "only-if-cached, max-stale")
        .fetch()
        .await?;
    assert_eq!(response.status, 504, "nothing is stored of it");

    // The origin is repaired: so is the installation.
    site.files.serve(&path, Resource::cacheable(wheel.clone()));
    let second = site.folder("second")?;
    let since = Instant::now();
    while let Err(error) = succeed(install(&site, &second, &digest)?).await {
        // What was wrong is refused for some seconds without asking.
        ensure!(since.elapsed() < SOON, "it stays refused: {error}");
    }
    Ok(())
}
