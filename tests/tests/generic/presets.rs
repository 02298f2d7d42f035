//! Presets for hosts of files, as they are delivered: copied, the host filled in, and asked by curl, twice.

use anyhow::{Context, Result};
use integration_tests::{
    command,
    origin::{Origin, Resource},
    presets::preset,
    proxy::{Proxy, Settings},
};
use kato_shared::{Digest, durable};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

/// A proxy with the preset `name` for `origin`, and the folder of both.
async fn start(name: &str, placeholder: &str, origin: &Origin) -> Result<(Proxy, TempDir)> {
    let folder = tempfile::tempdir()?;
    let settings = preset(name, &[(placeholder, &origin.url("/"))])?;
    let file = folder.path().join("proxy.toml");
    durable::write(&file, settings.as_bytes(), 0o644)?;
    let proxy = Settings::new(&folder.path().join("cache"))
        .arguments(&["--config", file.to_str().context("a path of ASCII")?])
        .start()
        .await?;
    Ok((proxy, folder))
}

/// Has curl fetch `path` through `proxy`.
async fn curl(proxy: &Proxy, path: &str) -> Result<String> {
    let url = format!("http://{}{path}", proxy.data);
    let argv = ["curl", "--fail", "--silent", "--show-error", &url].map(str::to_owned);
    spawn_blocking(move || command::ok(&argv)).await?
}

#[tokio::test]
async fn the_presets_for_files_and_for_releases_serve_what_was_asked_once() -> Result<()> {
    let target = format!("/targets/{}.a.tar", Digest::of(b"a target").hex());
    let metadata = r#"{"signed":{"_type":"root"},"signatures":[]}"#;
    for (name, placeholder, upstream, files) in [
        (
            "generic",
            "https://downloads.example/",
            "downloads",
            vec![("/tool-1.2.3.tar.gz", "a tool"), ("/latest.txt", "1.2.3")],
        ),
        (
            "kato-release",
            "https://upgrade.example/",
            "releases",
            vec![
                ("/metadata/1.root.json", metadata),
                ("/metadata/timestamp.json", metadata),
                (target.as_str(), "a target"),
            ],
        ),
    ] {
        let mut origin = Origin::start().await?;
        let (proxy, _folder) = start(name, placeholder, &origin).await?;
        for (path, content) in &files {
            let file = Resource::new((*content).to_owned()).header("etag", "\"1\"");
            origin.serve(path, file);
            let mirror = format!("/{upstream}{path}");
            assert_eq!(curl(&proxy, &mirror).await?, *content, "{mirror}");
            let stored = proxy.client().get(&mirror);
            proxy.wait_until_stored(&stored, content.as_bytes()).await?;
        }
        origin.stop().await;
        for (path, content) in &files {
            let mirror = format!("/{upstream}{path}");
            assert_eq!(curl(&proxy, &mirror).await?, *content, "again: {mirror}");
        }
    }
    Ok(())
}
