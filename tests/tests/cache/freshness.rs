//! When the origin is asked again, with what, and what happens when it fails.

use anyhow::Result;
use integration_tests::origin::{Fault, Gate, Resource};
use tokio::task::JoinSet;

use crate::{Setup, assert_same, content};

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

#[tokio::test]
async fn rfc9111_s4_2_what_is_fresh_is_served_without_the_origin() -> Result<()> {
    for freshness in [
        ("cache-control", "max-age=3600"),
        ("cache-control", "s-maxage=3600"),
        ("expires", "Fri, 01 Jan 2100 00:00:00 GMT"),
    ] {
        let setup = Setup::start().await?;
        let body = content(50_000, 21);
        setup
            .stored(Resource::new(body.clone()).header(freshness.0, freshness.1))
            .await?;
        let (response, got) = setup.client().fetch("/files/a").await?;
        assert_same(&got, &body, "the second client");
        assert_eq!(setup.asked("/a"), 1, "{freshness:?}");
        assert!(
            response.cache_status().starts_with("kato; hit"),
            "{}",
            response.cache_status()
        );
        assert!(
            response.cache_status().contains("ttl="),
            "{}",
            response.cache_status()
        );
        assert!(
            response
                .header("age")
                .is_some_and(|age| age.parse::<u64>().is_ok()),
            "{:?}",
            response.headers
        );
    }
    Ok(())
}

#[tokio::test]
async fn rfc9111_s4_3_a_stale_response_is_validated_by_each_validator_and_its_content_not_sent_again()
-> Result<()> {
    let by_tag = ("etag", "\"v1\"", "if-none-match");
    let by_date = ("last-modified", MODIFIED, "if-modified-since");
    for (field, validator, condition) in [by_tag, by_date] {
        let setup = Setup::start().await?;
        let body = content(50_000, 22);
        let resource = Resource::new(body.clone())
            .header("cache-control", "max-age=0")
            .header(field, validator);
        setup.stored(resource).await?;
        let (response, got) = setup.client().fetch("/files/a").await?;
        assert_eq!(response.status, 200);
        assert_same(&got, &body, field);
        let requests = setup.origin.requests("/a");
        assert_eq!(requests.len(), 2, "{field}");
        assert_eq!(requests[1].header(condition), Some(validator));
        let status = response.cache_status();
        assert!(
            status.contains("fwd=stale") && status.contains("fwd-status=304"),
            "{status}"
        );
        assert_eq!(setup.origin.body_bytes(), body.len() as u64, "{field}");
    }
    Ok(())
}

#[tokio::test]
async fn rfc9111_s4_3_3_a_changed_representation_replaces_the_stored_one() -> Result<()> {
    let setup = Setup::start().await?;
    let stale = |body: &str, tag: &str| {
        Resource::new(body.to_owned())
            .header("cache-control", "max-age=0")
            .header("etag", tag)
    };
    setup.stored(stale("old", "\"v1\"")).await?;
    setup.origin.serve("/a", stale("new", "\"v2\""));
    for _ in 0..2 {
        let (_, got) = setup.client().fetch("/files/a").await?;
        assert_eq!(got, b"new");
        setup
            .proxy
            .wait_until_stored(&setup.client().get("/files/a"), b"new")
            .await?;
    }
    let requests = setup.origin.requests("/a");
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[2].header("if-none-match"), Some("\"v2\""));
    Ok(())
}

#[tokio::test]
async fn p02_many_clients_of_a_stale_response_are_one_validation() -> Result<()> {
    let setup = Setup::start().await?;
    let body = content(50_000, 23);
    setup
        .stored(
            Resource::new(body.clone())
                .header("cache-control", "max-age=0")
                .header("etag", "\"v1\""),
        )
        .await?;
    let gate = Gate::closed();
    // Fresh from now on: a client that comes after the validation needs none.
    setup.origin.serve(
        "/a",
        Resource::cacheable(body.clone()).fault(Fault::HoldHead(gate.clone())),
    );
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let client = setup.client();
        clients.spawn(async move { client.fetch("/files/a").await });
    }
    setup.origin.wait_for_requests("/a", 2).await?;
    gate.open();
    for client in clients.join_all().await {
        assert_same(&client?.1, &body, "a client of eight");
    }
    assert_eq!(setup.asked("/a"), 2);
    Ok(())
}

#[tokio::test]
async fn rfc9111_s3_what_may_not_be_stored_is_asked_for_each_time() -> Result<()> {
    for directive in ["no-store", "private", "private, max-age=60"] {
        let setup = Setup::start().await?;
        setup
            .origin
            .serve("/a", Resource::new("secret").header("cache-control", directive));
        for expected in 1..=2 {
            let (response, got) = setup.client().fetch("/files/a").await?;
            assert_eq!(got, b"secret");
            assert_eq!(setup.asked("/a"), expected, "{directive}");
            assert!(
                !response.cache_status().contains("stored"),
                "{}",
                response.cache_status()
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn rfc9111_s5_2_1_a_client_can_ask_for_validation_or_for_the_cache_alone() -> Result<()> {
    let setup = Setup::start().await?;
    setup.stored(Resource::cacheable("content")).await?;
    let (response, _) = setup
        .client()
        .get("/files/a")
        .header("cache-control", "no-cache")
        .fetch()
        .await?;
    assert_eq!(setup.asked("/a"), 2);
    assert!(
        response.cache_status().contains("fwd=request"),
        "{}",
        response.cache_status()
    );
    let only = |path| setup.client().get(path).header("cache-control", "only-if-cached");
    assert_eq!(only("/files/a").fetch().await?.0.status, 200);
    assert_eq!(only("/files/never-asked").fetch().await?.0.status, 504);
    assert_eq!(setup.asked("/never-asked"), 0);
    Ok(())
}

#[tokio::test]
async fn rfc9111_s4_1_variants_are_told_apart_by_the_fields_that_vary_names() -> Result<()> {
    let setup = Setup::start().await?;
    let variant = |body: &str, tag: &str| {
        Resource::new(body.to_owned())
            .header("cache-control", "max-age=3600")
            .header("vary", "X-Flavour")
            .header("etag", tag)
    };
    let flavour = |value: &str| setup.client().get("/files/a").header("x-flavour", value);
    setup.origin.serve("/a", variant("plain", "\"p\""));
    assert_eq!(flavour("plain").fetch().await?.1, b"plain");
    setup.proxy.wait_until_stored(&flavour("plain"), b"plain").await?;
    setup.origin.serve("/a", variant("lemon", "\"l\""));
    let (response, got) = flavour("lemon").fetch().await?;
    assert_eq!(got, b"lemon");
    assert!(
        response.cache_status().contains("fwd=vary-miss"),
        "{}",
        response.cache_status()
    );
    setup.proxy.wait_until_stored(&flavour("lemon"), b"lemon").await?;
    for (value, body) in [("plain", b"plain"), ("lemon", b"lemon")] {
        let (response, got) = flavour(value).fetch().await?;
        assert_eq!(got, body);
        assert!(
            response.cache_status().contains("hit"),
            "{}",
            response.cache_status()
        );
    }
    assert_eq!(setup.asked("/a"), 2);
    Ok(())
}

#[tokio::test]
async fn row_f_p08_a_stale_response_stands_in_for_an_origin_that_is_down_or_broken() -> Result<()> {
    let mut setup = Setup::start().await?;
    let body = content(50_000, 24);
    let resource = Resource::new(body.clone())
        .header("cache-control", "max-age=0")
        .header("etag", "\"v1\"");
    setup.stored(resource.clone()).await?;
    setup.origin.serve("/a", resource.always(Fault::Status(503)));
    let (response, got) = setup.client().fetch("/files/a").await?;
    assert_eq!(response.status, 200);
    assert_same(&got, &body, "broken origin");
    setup.origin.stop().await;
    let (response, got) = setup.client().fetch("/files/a").await?;
    assert_eq!(response.status, 200);
    assert_same(&got, &body, "origin down");
    let status = response.cache_status();
    let ttl = status
        .split("ttl=")
        .nth(1)
        .and_then(|rest| rest.split(';').next());
    let ttl = ttl.and_then(|ttl| ttl.parse::<i64>().ok());
    assert!(ttl.is_some_and(|ttl| ttl <= 0), "{status}");
    Ok(())
}

#[tokio::test]
async fn rfc9111_s5_2_2_2_must_revalidate_forbids_standing_in() -> Result<()> {
    let mut setup = Setup::start().await?;
    let directives = "max-age=0, must-revalidate";
    setup.origin.serve(
        "/a",
        Resource::new("strict")
            .header("cache-control", directives)
            .header("etag", "\"v1\""),
    );
    setup.client().fetch("/files/a").await?;
    setup
        .proxy
        .wait_for_stats(|stats| stats.stored_responses == 1)
        .await?;
    setup.origin.stop().await;
    let (response, _) = setup.client().fetch("/files/a").await?;
    assert!(
        response.status == 502 || response.status == 504,
        "{}",
        response.status
    );
    Ok(())
}

#[tokio::test]
async fn p10_a_404_from_the_origin_is_passed_on_and_does_not_poison_the_name() -> Result<()> {
    let setup = Setup::start().await?;
    let (response, _) = setup.client().fetch("/files/later").await?;
    assert_eq!(response.status, 404);
    setup
        .proxy
        .wait_for_stats(|stats| stats.stored_responses == 1)
        .await?;
    setup.origin.serve("/later", Resource::cacheable("now there"));
    let (response, got) = setup.client().fetch("/files/later").await?;
    assert_eq!((response.status, got.as_slice()), (200, b"now there".as_slice()));
    Ok(())
}
