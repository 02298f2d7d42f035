//! A repository behind the real `kato-proxy`: the way that nodes take.

use anyhow::Result;
use integration_tests::{
    presets::preset,
    proxy::{Proxy, Settings},
    releases::Repository,
    static_server::{Fault, StaticServer},
};
use kato_shared::durable;
use tempfile::TempDir;

use super::{TRUST, TRY_AGAIN, document, kato_in, refused, text};

/// An upgrade host with two releases.
struct Site {
    folder: TempDir,
    host: StaticServer,
    root: String,
}

impl Site {
    async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let repository = Repository::with_two_releases(folder.path()).await?;
        Ok(Self {
            host: StaticServer::start(&repository.dir()).await?,
            root: text(&repository.root()).to_owned(),
            folder,
        })
    }

    /// A cache of the host, over the same store each time.
    async fn cache(&self, more: &[&str]) -> Result<Proxy> {
        let store = self.folder.path().join("cache");
        let settings = Settings::new(&store).upstream("releases", self.host.url().as_str());
        settings.arguments(more).start().await
    }
}

/// `kato release verify` through `cache`.
fn verify(root: &str, url: &str, cache: &Proxy) -> Vec<String> {
    let cache = format!("http://{}/", cache.data);
    let words = [
        "release",
        "verify",
        "--root",
        root,
        "--url",
        url,
        "--cache-url",
        &cache,
    ];
    words.into_iter().map(str::to_owned).collect()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_target_crosses_the_wan_once_however_many_nodes_ask() -> Result<()> {
    let site = Site::new().await?;
    let cache = site.cache(&[]).await?;
    let url = site.host.url();
    for _node in 0..3 {
        document(&words(&verify(&site.root, url.as_str(), &cache)))?;
    }
    let targets: Vec<_> = site
        .host
        .requests()
        .into_iter()
        .filter(|(path, _)| path.starts_with("/targets/"))
        .collect();
    assert_eq!(targets.len(), 11, "{targets:?}");
    assert!(targets.iter().all(|(_, count)| *count == 1), "{targets:?}");
    Ok(())
}

/// The preset as it is delivered, with the host filled in; then the host is off.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_served_by_the_preset_and_again_without_the_host() -> Result<()> {
    let site = Site::new().await?;
    let url = site.host.url();
    let settings = preset("kato-release", &[("https://upgrade.example/", url.as_str())])?;
    let file = site.folder.path().join("proxy.toml");
    durable::write(&file, settings.as_bytes(), 0o644)?;
    let store = site.folder.path().join("cache");
    let cache = Settings::new(&store)
        .arguments(&["--config", text(&file)])
        .start()
        .await?;
    let arguments = verify(&site.root, url.as_str(), &cache);
    document(&words(&arguments))?;
    drop(site.host);
    document(&words(&arguments))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r55_a_cache_without_the_file_and_a_cache_without_upstream_are_told_apart() -> Result<()> {
    let site = Site::new().await?;
    let url = site.host.url();
    let offline = site.cache(&["--offline"]).await?;
    let arguments = verify(&site.root, url.as_str(), &offline);
    let stderr = refused(&words(&arguments), TRY_AGAIN)?;
    assert!(stderr.contains("the cache does not hold"), "{stderr}");
    assert!(stderr.contains("kato node upgrade --prepare"), "{stderr}");
    drop(offline);

    let cache = site.cache(&[]).await?;
    let arguments = verify(&site.root, url.as_str(), &cache);
    drop(site.host);
    let stderr = refused(&words(&arguments), TRY_AGAIN)?;
    assert!(stderr.contains("from its upstream"), "{stderr}");
    drop(cache);

    let stderr = refused(&words(&arguments), TRY_AGAIN)?;
    assert!(stderr.contains("the cache 127.0.0.1:"), "{stderr}");
    assert!(stderr.contains("does not answer"), "{stderr}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_the_cache_does_not_serve_is_named_and_is_not_taken_for_absent() -> Result<()> {
    let site = Site::new().await?;
    let cache = site.cache(&[]).await?;
    let arguments = verify(&site.root, "http://elsewhere.example/", &cache);
    let stderr = refused(&words(&arguments), TRY_AGAIN)?;
    assert!(stderr.contains("elsewhere.example"), "{stderr}");
    assert!(stderr.contains("status 403"), "{stderr}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_tampered_with_before_the_cache_is_refused_behind_it() -> Result<()> {
    let site = Site::new().await?;
    let cache = site.cache(&[]).await?;
    site.host.fail("app-2.0.0.tar.zst", Fault::Alter);
    let arguments = verify(&site.root, site.host.url().as_str(), &cache);
    let stderr = refused(&words(&arguments), TRUST)?;
    assert!(stderr.contains("digest mismatch: expected sha256:"), "{stderr}");
    assert!(stderr.contains("kato-proxy purge"), "{stderr}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_system_is_used_without_a_cache_and_never_with_one() -> Result<()> {
    let site = Site::new().await?;
    let (host, dead) = (site.host.url(), "http://127.0.0.1:1/");
    let ends = |variables: &[(&str, &str)], arguments: &[&str]| -> Result<Option<i32>> {
        Ok(kato_in(variables, arguments)?.status.code())
    };
    // A name that only the proxy can know; it gets the absolute form and answers from its own files.
    let elsewhere = [
        "release",
        "verify",
        "--root",
        &site.root,
        "--url",
        "http://releases.example/",
    ];
    assert_eq!(ends(&[("http_proxy", host.as_str())], &elsewhere)?, Some(0));
    assert!(site.host.total() > 10);
    // A proxy that is dead is in the way, unless the host is excepted from it.
    let direct = ["release", "verify", "--root", &site.root, "--url", host.as_str()];
    assert_eq!(ends(&[("http_proxy", dead)], &direct)?, Some(TRY_AGAIN));
    let excepted = [("http_proxy", dead), ("no_proxy", "127.0.0.1")];
    assert_eq!(ends(&excepted, &direct)?, Some(0));
    // The cache is on the cluster's own network: no proxy on the way to it.
    let cache = site.cache(&[]).await?;
    let through = verify(&site.root, host.as_str(), &cache);
    assert_eq!(ends(&[("http_proxy", dead)], &words(&through))?, Some(0));
    Ok(())
}
