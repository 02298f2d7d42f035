//! The other side: a bundle goes into an empty store, and `serve --offline` answers from it with the same bytes.
//!
//! The origin still listens while nobody may ask it: each connection to it would be counted.

use std::fs;

use anyhow::{Result, ensure};
use integration_tests::{command, origin::Resource, proxy::Settings, published::put};

use crate::{SOON, Site, only, record};

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

/// A site with a bundle of four tags of an image, and of the list that its registry gave.
async fn with_tags() -> Result<Site> {
    let site = Site::new(1).await?;
    let image = site.contents.iter().find(|(path, _)| path.ends_with("/1.0"));
    let manifest = image.map(|(_, body)| body.clone()).unwrap_or_default();
    let mut filling = Settings::new(&site.path("here"))
        .upstream("pkg", &site.origin.url("/"))
        .start()
        .await?;
    for (path, body) in [
        ("/v2/app/manifests/2.0", manifest.clone()),
        ("/v2/app/manifests/1.10", manifest.clone()),
        ("/v2/app/manifests/Latest", manifest),
        (
            "/v2/app/tags/list",
            br#"{"name":"app","tags":["1.0","9.9"]}"#.to_vec(),
        ),
    ] {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let resource = Resource::cacheable(body.clone()).header("content-type", kind);
        site.origin.serve(path, resource);
        record(&filling, path, &body).await?;
    }
    filling.terminate()?;
    filling.ended().await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    site.ok(&Site::export(&store, &key, &out), &[])?;
    let bundle = only(&site.path("out"))?.display().to_string();
    let (there, public) = (site.at("there"), site.at("key.pub"));
    site.ok(&Site::import(&bundle, &there, &public), &[])?;
    Ok(site)
}

/// A registry's list of tags that was recorded names what is not here; what the snapshot holds is listed, page by page, and is what skopeo reads.
#[tokio::test(flavor = "multi_thread")]
async fn the_tags_that_a_snapshot_holds_are_listed() -> Result<()> {
    let site = with_tags().await?;
    let settings = format!(
        "[cache]\nmin_free = \"0B\"\n[[upstream]]\nname = \"hub\"\nkind = \"registry\"\nurls = [\"{}\"]\n",
        site.origin.url("/")
    );
    put(&site.path(""), "mirror.toml", settings.as_bytes())?;
    let before = site.origin.connections();
    let proxy = Settings::new(&site.path("there"))
        .arguments(&["--config", &site.at("mirror.toml"), "--offline"])
        .start()
        .await?;
    let client = proxy.client();
    for (query, tags, next) in [
        ("", r#"["1.0","1.10","2.0","Latest"]"#, None),
        ("?n=2", r#"["1.0","1.10"]"#, Some("n=2&last=1.10")),
        ("?n=2&last=1.10", r#"["2.0","Latest"]"#, None),
    ] {
        let (answer, body) = client.fetch(&format!("/v2/hub/app/tags/list{query}")).await?;
        let expected = format!(r#"{{"name":"app","tags":{tags}}}"#);
        ensure!(
            answer.status == 200 && body == expected.as_bytes(),
            "{query}: {} {}",
            answer.status,
            String::from_utf8_lossy(&body)
        );
        let next = next.map(|next| format!("</v2/hub/app/tags/list?{next}>; rel=\"next\""));
        ensure!(
            answer.header("link") == next.as_deref(),
            "{query}: {:?}",
            answer.header("link")
        );
    }
    for (path, status) in [
        ("/v2/hub/app/tags/list?n=x", 400),
        ("/v2/hub/other/tags/list", 404),
        ("/v2/_catalog", 404),
    ] {
        let (answer, _) = client.fetch(path).await?;
        ensure!(answer.status == status, "{path}: {}", answer.status);
    }
    let mut skopeo = command::new("skopeo");
    skopeo.args(["list-tags", "--tls-verify=false"]);
    skopeo.arg(format!("docker://{}/hub/app", proxy.data));
    let said = command::success("skopeo", command::run(skopeo, SOON, &[])?)?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    ensure!(
        said["Tags"] == serde_json::json!(["1.0", "1.10", "2.0", "Latest"]),
        "{said}"
    );
    ensure!(site.origin.connections() == before, "the origin was asked");
    Ok(())
}

/// A request that cannot say what is here is written, and does not pass for one that can.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_beside_a_damaged_active_json_does_not_end_well() -> Result<()> {
    let site = Site::new(1).await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    site.ok(&Site::export(&store, &key, &out), &[])?;
    let bundle = only(&site.path("out"))?.display().to_string();
    let (there, public) = (site.at("there"), site.at("key.pub"));
    site.ok(&Site::import(&bundle, &there, &public), &[])?;
    let file = site.at("request.json");
    let (url, notes) = (site.origin.url("/pool/9.deb"), site.path("there/misses.jsonl"));
    let request = [
        "request",
        "--cache-dir",
        &there,
        "-o",
        &file,
        "--add",
        &url,
        "--clear",
    ];
    let note = || put(&site.path("there"), "misses.jsonl", b"");
    note()?;
    site.ok(&request, &[])?;
    ensure!(!notes.exists(), "the notes stay");
    note()?;
    put(&site.path("there/snapshots"), "active.json", b"{")?;
    let said = site.run(&request, &[])?;
    let words = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.code() == Some(21), "{said:?}");
    ensure!(
        words.contains("active.json")
            && words.contains("hint: move it away")
            && words.contains("carry everything"),
        "{words}"
    );
    let text = fs::read_to_string(&file)?;
    ensure!(text.contains(&url) && !text.contains("series_id"), "{text}");
    ensure!(notes.exists(), "the notes were forgotten");
    Ok(())
}
