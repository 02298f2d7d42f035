//! `kato-proxy serve --offline`: what is held is served, everything else is refused at once, and no origin is ever asked.
//!
//! Each test fills a store from a live origin first, ends that proxy, and serves the same store again with `--offline` while the
//! origin still listens: a single connection to it would be counted.

use anyhow::Result;
use integration_tests::{
    origin::{Origin, Resource},
    proxy::{Proxy, Settings},
};
use kato_shared::api::Problem;
use tempfile::TempDir;

/// A store that was filled, served without the network, beside the origin that it was filled from.
struct Site {
    origin: Origin,
    proxy: Proxy,
    /// Connections to the origin before the proxy went offline.
    connections: u64,
    _cache: TempDir,
}

impl Site {
    /// Fetches each resource once through a proxy with the network, then serves its store without.
    async fn filled_with(resources: &[(&str, Resource)]) -> Result<Self> {
        let cache = tempfile::tempdir()?;
        let origin = Origin::start().await?;
        let settings = Settings::new(cache.path()).upstream("files", &origin.url("/"));
        let mut online = settings.start().await?;
        for (path, resource) in resources {
            let body = resource.body();
            origin.serve(path, resource.clone());
            let target = format!("/files{path}");
            online.client().fetch(&target).await?;
            online
                .wait_until_stored(&online.client().get(&target), &body)
                .await?;
        }
        online.terminate()?;
        assert!(online.ended().await?.success());
        let proxy = settings.arguments(&["--offline"]).start().await?;
        let connections = origin.connections();
        Ok(Self {
            origin,
            proxy,
            connections,
            _cache: cache,
        })
    }

    fn assert_nobody_was_asked(&self) {
        assert_eq!(
            self.origin.connections(),
            self.connections,
            "the origin was contacted"
        );
    }
}

#[tokio::test]
async fn what_is_held_is_served_whole_in_parts_and_by_both_doors() -> Result<()> {
    let site = Site::filled_with(&[("/a", Resource::cacheable(&b"0123456789"[..]))]).await?;
    let client = site.proxy.client();
    let (hit, body) = client.fetch("/files/a").await?;
    assert_eq!((hit.status, body.as_slice()), (200, &b"0123456789"[..]));
    assert!(hit.cache_status().contains("hit"), "{}", hit.cache_status());
    let (_, body) = client.fetch(&site.origin.url("/a")).await?;
    assert_eq!(body, b"0123456789");
    let (part, body) = client
        .get("/files/a")
        .header("range", "bytes=2-4")
        .fetch()
        .await?;
    assert_eq!((part.status, body.as_slice()), (206, &b"234"[..]));
    site.assert_nobody_was_asked();
    Ok(())
}

#[tokio::test]
async fn what_is_stale_is_served_and_says_so() -> Result<()> {
    let stale = Resource::new(&b"old"[..])
        .header("cache-control", "max-age=0")
        .header("etag", "\"v1\"");
    let site = Site::filled_with(&[("/stale", stale)]).await?;
    let (answer, body) = site.proxy.client().fetch("/files/stale").await?;
    assert_eq!((answer.status, body.as_slice()), (200, &b"old"[..]));
    assert!(
        answer.cache_status().contains("ttl=-") || answer.cache_status().contains("ttl=0"),
        "{}",
        answer.cache_status()
    );
    site.assert_nobody_was_asked();
    Ok(())
}

#[tokio::test]
async fn a_miss_is_refused_with_the_reason_and_nobody_is_asked() -> Result<()> {
    let site = Site::filled_with(&[]).await?;
    site.origin.serve("/b", Resource::cacheable(&b"there"[..]));
    let client = site.proxy.client();
    for target in ["/files/b".to_owned(), site.origin.url("/b")] {
        let (answer, body) = client.fetch(&target).await?;
        assert_eq!(answer.status, 404, "{target}");
        assert_eq!(answer.header("content-type"), Some(Problem::MEDIA_TYPE));
        let problem: Problem = serde_json::from_slice(&body)?;
        assert!(
            problem.detail.contains("/b") && problem.hint.is_some(),
            "{problem:?}"
        );
        assert!(
            answer.cache_status().contains("detail=offline"),
            "{}",
            answer.cache_status()
        );
    }
    let posted = client.request("POST", "/files/b").body("x").fetch().await?.0;
    assert_eq!(posted.status, 504);
    site.assert_nobody_was_asked();
    Ok(())
}
