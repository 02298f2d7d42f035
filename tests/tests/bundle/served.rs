//! The other side: a bundle goes into an empty store, and `serve --offline` answers from it with the same bytes.
//!
//! The origin still listens while nobody may ask it: each connection to it would be counted.

use std::fs;

use anyhow::{Result, ensure};
use integration_tests::{command, proxy::Settings};

use crate::{SOON, Site, only};

/// Asks for `url` as somebody at the site would, with `more` arguments; returns the status and the body.
fn curl(site: &Site, url: &str, more: &[&str]) -> Result<(String, Vec<u8>)> {
    let body = site.path("body");
    let mut curl = command::new("curl");
    curl.args(["-sS", "-w", "%{http_code}", "-o"])
        .arg(&body)
        .args(more)
        .arg(url);
    let status = command::success("curl", command::run(curl, SOON, &[])?)?;
    Ok((status, fs::read(body)?))
}

async fn served(more: &[&str]) -> Result<()> {
    let site = Site::new(12).await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    let mut export = Site::export(&store, &key, &out);
    export.extend(more);
    site.ok(&export, &[])?;
    let bundle = only(&site.path("out"))?.display().to_string();
    let (there, public) = (site.at("there"), site.at("key.pub"));
    site.ok(&Site::import(&bundle, &there, &public), &[])?;
    // Nothing of the first side is left: what is served can only come from the bundle.
    fs::remove_dir_all(&store)?;
    fs::remove_dir_all(&out)?;
    all_is_served(&site).await
}

/// What was recorded is served from the store `there`, by both doors, and the origin is not asked.
pub(crate) async fn all_is_served(site: &Site) -> Result<()> {
    let before = site.origin.connections();
    let proxy = Settings::new(&site.path("there"))
        .upstream("pkg", &site.origin.url("/"))
        .arguments(&["--offline"])
        .start()
        .await?;
    let mirror = format!("http://{}", proxy.data);
    for (path, body) in &site.contents {
        let (status, found) = curl(site, &format!("{mirror}/pkg{path}"), &[])?;
        ensure!(status == "200" && found == *body, "mirror: {path}: {status}");
        let (status, found) = curl(site, &site.origin.url(path), &["--proxy", &mirror])?;
        ensure!(status == "200" && found == *body, "proxy: {path}: {status}");
    }
    let doctor = site.ok(&["doctor", "--server", &mirror], &[])?;
    ensure!(doctor.contains("no origin is asked"), "{doctor}");
    ensure!(
        !site.path("there/misses.jsonl").exists(),
        "doctor has missed something"
    );
    let (status, _) = curl(site, &format!("{mirror}/pkg/pool/unknown.deb"), &[])?;
    ensure!(status == "404", "what the bundle has not: {status}");
    ensure!(
        site.origin.connections() == before,
        "the origin was contacted {} times",
        site.origin.connections() - before
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_served_on_the_other_side_without_the_origin() -> Result<()> {
    served(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_served_on_the_other_side_without_the_origin() -> Result<()> {
    served(&["--volume", "131072"]).await
}
