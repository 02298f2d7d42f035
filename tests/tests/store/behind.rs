//! Small bodies, which become durable a moment after they became hits: nobody can tell, except by a power cut.

use anyhow::Result;
use integration_tests::{
    origin::{Framing, Resource},
    proxy::Proxy,
};

use crate::{KIB, Site, assert_same, content};

async fn durable(proxy: &Proxy) -> Result<()> {
    proxy.wait_for_stats(|stats| stats.queued_responses == 0).await
}

#[tokio::test]
async fn many_small_bodies_are_hits_at_once_and_survive_a_kill_and_a_stop() -> Result<()> {
    let site = Site::new().await?;
    let mut proxy = site.start("").await?;
    let bodies: Vec<_> = (0..300).map(|n| content(KIB + n, n as u64)).collect();
    for (n, body) in bodies.iter().enumerate() {
        site.origin
            .serve(&format!("/{n}"), Resource::cacheable(body.clone()));
    }
    for (n, body) in bodies.iter().enumerate() {
        for outcome in ["fwd=uri-miss", "hit"] {
            let (response, got) = proxy.client().fetch(&format!("/files/{n}")).await?;
            assert_same(&got, body, outcome);
            assert!(
                response.cache_status().contains(outcome),
                "{}",
                response.cache_status()
            );
        }
    }
    durable(&proxy).await?;
    proxy.kill().await?;
    let mut proxy = site.start("").await?;
    // One more, and stopped in good order while it may still be queued.
    site.origin.serve("/last", Resource::cacheable("the last one"));
    proxy.client().fetch("/files/last").await?;
    proxy.terminate()?;
    assert!(proxy.ended().await?.success());
    let proxy = site.start("").await?;
    for (n, body) in bodies.iter().enumerate() {
        let (response, got) = proxy.client().fetch(&format!("/files/{n}")).await?;
        assert_same(&got, body, "after the kill");
        assert!(
            response.cache_status().contains("hit"),
            "{}",
            response.cache_status()
        );
    }
    assert_eq!(proxy.client().fetch("/files/last").await?.1, b"the last one");
    assert_eq!(site.origin.requests("/last").len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_is_queued_obeys_purge_invalidation_and_vary_like_what_is_stored() -> Result<()> {
    let site = Site::new().await?;
    let proxy = site.start("").await?;
    let client = proxy.client();
    site.origin.serve("/a", Resource::cacheable("old"));
    client.fetch("/files/a").await?;
    site.origin
        .serve("/a", Resource::cacheable("new").header("etag", "\"v2\""));
    // Purged at once: the next asks the origin.
    let purge = format!("/-/api/purge?prefix={}", site.origin.url("/a"));
    let (answer, report) = proxy
        .admin_client()
        .request("POST", &purge)
        .header("kato-admin", "1")
        .fetch()
        .await?;
    assert_eq!(answer.status, 200);
    let report = String::from_utf8_lossy(&report).into_owned();
    assert!(report.contains(":1"), "{report}");
    assert_eq!(client.fetch("/files/a").await?.1, b"new");
    // Changed at the origin by an unsafe request: the next validates.
    client.request("POST", "/files/a").body("change").fetch().await?;
    site.origin
        .serve("/a", Resource::new("newest").header("etag", "\"v3\""));
    let (response, got) = client.fetch("/files/a").await?;
    assert_eq!(got, b"newest");
    assert!(
        response.cache_status().contains("fwd=stale"),
        "{}",
        response.cache_status()
    );
    // Variants come one by one, and stand beside each other.
    let varying = |language: &str| {
        Resource::new(format!("in {language}"))
            .header("cache-control", "max-age=3600")
            .header("etag", &format!("\"{language}\""))
            .header("vary", "accept-language")
    };
    for language in ["de", "en"] {
        site.origin.serve("/v", varying(language));
        let asked = client.get("/files/v").header("accept-language", language);
        assert_eq!(asked.fetch().await?.1, format!("in {language}").as_bytes());
    }
    for language in ["de", "en"] {
        let asked = client.get("/files/v").header("accept-language", language);
        let (response, got) = asked.fetch().await?;
        assert_eq!(got, format!("in {language}").as_bytes());
        assert!(
            response.cache_status().contains("hit"),
            "{}",
            response.cache_status()
        );
    }
    Ok(())
}

#[tokio::test]
async fn more_than_the_queue_takes_is_stored_all_the_same() -> Result<()> {
    let site = Site::new().await?;
    let proxy = site.start("").await?;
    let bodies: Vec<_> = (0..120).map(|n| content(250 * KIB, n)).collect();
    for (n, body) in bodies.iter().enumerate() {
        let framing = if n % 2 == 0 {
            Framing::Length
        } else {
            Framing::Chunked
        };
        let resource = Resource::cacheable(body.clone()).framing(framing);
        site.origin.serve(&format!("/{n}"), resource);
    }
    let fetches = (0..bodies.len()).map(|n| {
        let client = proxy.client();
        async move { client.fetch(&format!("/files/{n}")).await }
    });
    for (fetched, body) in futures_util::future::join_all(fetches)
        .await
        .into_iter()
        .zip(&bodies)
    {
        assert_same(&fetched?.1, body, "in a burst");
    }
    proxy
        .wait_for_stats(|stats| stats.stored_responses == 120 && stats.queued_responses == 0)
        .await?;
    Ok(())
}
