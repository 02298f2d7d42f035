//! `Cache-Status` on every answer, and the fields that a proxy owes.

use anyhow::Result;
use integration_tests::origin::Resource;

use crate::Setup;

#[tokio::test]
async fn p24_rfc9211_every_answer_says_how_it_came_about() -> Result<()> {
    let mut setup = Setup::start().await?;
    setup.origin.serve("/a", Resource::cacheable("content"));
    let client = setup.client();
    let (response, _) = client.fetch("/files/a").await?;
    assert!(
        response.cache_status().starts_with("kato; fwd=uri-miss"),
        "{}",
        response.cache_status()
    );
    assert!(
        response.cache_status().contains("; stored"),
        "{}",
        response.cache_status()
    );
    setup
        .proxy
        .wait_until_stored(&client.get("/files/a"), b"content")
        .await?;
    for request in [
        client.get("/files/a"),
        client.get("/files/a").header("range", "bytes=0-1"),
        client.get("/files/a").header("range", "bytes=900-"),
        client.get("/files/a").header("if-none-match", "\"v1\""),
        client.request("HEAD", "/files/a"),
    ] {
        let (response, _) = request.fetch().await?;
        assert!(
            response.cache_status().starts_with("kato; hit"),
            "{request:?}: {}",
            response.cache_status()
        );
    }
    let (response, _) = client.request("POST", "/files/a").body("x").fetch().await?;
    assert!(
        response.cache_status().contains("fwd=method"),
        "{}",
        response.cache_status()
    );
    setup.origin.stop().await;
    for (status, target) in [
        (404, "/no-such-upstream/a"),
        (403, "http://unknown.example/a"),
        (502, "/files/not-stored"),
    ] {
        let (response, _) = client.fetch(target).await?;
        assert_eq!(response.status, status, "{target}");
        assert!(
            response.cache_status().starts_with("kato"),
            "{target}: {:?}",
            response.headers
        );
    }
    Ok(())
}

#[tokio::test]
async fn rfc9211_s2_what_caches_nearer_to_the_origin_said_comes_first() -> Result<()> {
    let setup = Setup::start().await?;
    setup.origin.serve(
        "/a",
        Resource::cacheable("content").header("cache-status", "Edge; hit; ttl=5"),
    );
    let (response, _) = setup.client().fetch("/files/a").await?;
    let all: Vec<_> = response
        .headers
        .iter()
        .filter(|(name, _)| name == "cache-status")
        .flat_map(|(_, value)| value.split(", "))
        .map(|member| member.split(';').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(all, ["Edge", "kato"]);
    Ok(())
}

#[tokio::test]
async fn the_forward_form_and_the_mirror_path_share_one_stored_response() -> Result<()> {
    let setup = Setup::start().await?;
    setup.origin.serve("/dir/a?x=1", Resource::cacheable("content"));
    let forward = setup.origin.url("/dir/a?x=1");
    let by_host = format!("/http/{}/dir/a?x=1", setup.origin.address());
    for target in ["/files/dir/a?x=1", &forward, &by_host] {
        let (response, got) = setup.client().fetch(target).await?;
        assert_eq!(
            (response.status, got.as_slice()),
            (200, b"content".as_slice()),
            "{target}"
        );
    }
    assert_eq!(setup.asked("/dir/a?x=1"), 1);
    Ok(())
}

#[tokio::test]
async fn rfc9110_s7_6_hop_by_hop_fields_stay_at_their_hop_and_via_is_added_both_ways() -> Result<()> {
    let setup = Setup::start().await?;
    let resource = Resource::cacheable("content")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("proxy-authenticate", "Basic")
        .header("link", "</a>")
        .header("link", "</b>");
    setup.origin.serve("/a", resource);
    let request = setup
        .client()
        .get("/files/a")
        .header("connection", "x-mine")
        .header("x-mine", "1")
        .header("accept", "a/b");
    for whose in ["miss", "hit"] {
        let (response, _) = request.fetch().await?;
        assert_eq!(response.header("x-hop"), None, "{whose}");
        assert_eq!(response.header("proxy-authenticate"), None, "{whose}");
        let links: Vec<_> = response
            .headers
            .iter()
            .filter(|(name, _)| name == "link")
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(links, ["</a>", "</b>"], "{whose}");
        assert!(
            response.header("via").is_some(),
            "{whose}: {:?}",
            response.headers
        );
        let date = response.header("date").unwrap_or_default();
        assert!(date.ends_with(" GMT") && date.len() == 29, "{whose}: {date}");
    }
    let sent = setup.origin.requests("/a").remove(0);
    assert_eq!(
        (sent.header("x-mine"), sent.header("accept")),
        (None, Some("a/b"))
    );
    assert!(sent.header("via").is_some(), "{:?}", sent.headers);
    assert_eq!(
        sent.header("host"),
        Some(setup.origin.address().to_string().as_str())
    );
    Ok(())
}

#[tokio::test]
async fn rfc9111_s4_4_a_successful_unsafe_request_ends_the_reuse_of_its_target() -> Result<()> {
    let setup = Setup::start().await?;
    setup.stored(Resource::cacheable("old")).await?;
    let changed = Resource::new("new")
        .header("cache-control", "max-age=3600")
        .header("etag", "\"v2\"");
    setup.origin.serve("/a", changed);
    setup
        .client()
        .request("POST", "/files/a")
        .body("x")
        .fetch()
        .await?;
    let (_, got) = setup.client().fetch("/files/a").await?;
    assert_eq!(got, b"new");
    Ok(())
}

#[tokio::test]
async fn p24_the_admin_listener_says_that_it_is_healthy_and_counts() -> Result<()> {
    let setup = Setup::start().await?;
    setup.stored(Resource::cacheable("content")).await?;
    setup.client().fetch("/files/a").await?;
    for path in ["/-/healthz", "/-/metrics", "/-/api/stats"] {
        let (response, body) = setup.proxy.admin_client().fetch(path).await?;
        assert_eq!(response.status, 200, "{path}");
        assert!(!body.is_empty(), "{path}");
    }
    let stats = setup.proxy.stats().await?;
    assert_eq!(
        (stats.schema, stats.requests.miss, stats.upstream_requests),
        (1, 1, 1),
        "{stats:?}"
    );
    assert_eq!(
        (stats.stored_responses, stats.stored_bytes, stats.wan_bytes),
        (1, 7, 7),
        "{stats:?}"
    );
    assert!(stats.requests.hit >= 1 && stats.lan_bytes >= 14, "{stats:?}");
    Ok(())
}

#[tokio::test]
async fn rfc9111_s5_2_2_7_fields_for_one_user_reach_that_user_and_nobody_else() -> Result<()> {
    let setup = Setup::start().await?;
    let resource = Resource::new("content")
        .header(
            "cache-control",
            "max-age=3600, private=\"x-user\", no-cache=\"set-cookie\"",
        )
        .header("x-user", "me")
        .header("set-cookie", "a=1");
    setup.origin.serve("/a", resource);
    for (whose, user, cookie) in [("the first", Some("me"), Some("a=1")), ("the second", None, None)] {
        let (response, _) = setup.client().fetch("/files/a").await?;
        assert_eq!(
            (response.header("x-user"), response.header("set-cookie")),
            (user, cookie),
            "{whose}"
        );
    }
    assert_eq!(setup.asked("/a"), 1);
    Ok(())
}
