//! The door `/v2/` against registries by script: what is asked of them, and what clients hear.

use std::time::Duration;

use anyhow::{Context, Result};
use integration_tests::origin::Resource;
use kato_shared::{Digest, durable};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::scripted::{ALWAYS, LONG, MANIFEST, Scripted, Small, cache, site};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn p12_every_door_leads_to_the_same_stored_image() -> Result<()> {
    let registry = Scripted::start().await?;
    let image = Small::new("one");
    registry.push("library/app", "v1", &image);
    let host = registry.origin.address();
    let keys = "[upstream.registry]\naliases = [\"hub.example\"]\nlibrary = \"library\"\n";
    let cache = cache(&format!(
        "[registry]\ndefault = \"lab\"\n{}",
        registry.section("lab", keys)
    ))
    .await?;
    for (manifest, blob) in [
        (
            "/v2/app/manifests/v1?ns=hub.example".to_owned(),
            "?ns=hub.example",
        ),
        ("/v2/hub.example/app/manifests/v1".to_owned(), ""),
        (format!("/v2/{host}/library/app/manifests/v1"), ""),
        ("/v2/app/manifests/v1".to_owned(), ""),
    ] {
        let said = cache.get(&manifest).await?;
        assert_eq!((said.status, &said.body), (200, &image.manifest), "{manifest}");
        assert_eq!(said.header("content-type"), Some(MANIFEST));
        assert_eq!(
            said.header("docker-content-digest"),
            Some(image.digest().as_str())
        );
        assert_eq!(
            said.header("docker-distribution-api-version"),
            Some("registry/2.0")
        );
        let base = manifest.split("/manifests/").next().unwrap_or_default();
        let layer = cache.get(&format!("{base}/blobs/{}{blob}", image.blob())).await?;
        assert_eq!((layer.status, &layer.body), (200, &image.layer));
    }
    assert_eq!(registry.methods("/v2/library/app/manifests/v1"), ["GET"]);
    assert_eq!(
        registry.methods(&format!("/v2/library/app/blobs/{}", image.blob())),
        ["GET"]
    );
    Ok(())
}

#[tokio::test]
async fn p11_a_tag_is_believed_for_its_time_and_then_asked_about_by_head() -> Result<()> {
    let (registry, cache, image) = site(LONG).await?;
    for _ in 0..3 {
        assert_eq!(
            cache.get("/v2/lab/lab/app/manifests/v1").await?.body,
            image.manifest
        );
    }
    assert_eq!(registry.methods("/v2/lab/app/manifests/v1"), ["GET"]);

    let (registry, cache, old) = site(ALWAYS).await?;
    for _ in 0..3 {
        assert_eq!(
            cache.get("/v2/lab/lab/app/manifests/v1").await?.body,
            old.manifest
        );
    }
    assert_eq!(
        registry.methods("/v2/lab/app/manifests/v1"),
        ["GET", "HEAD", "HEAD"]
    );
    let new = Small::new("two");
    registry.push("lab/app", "v1", &new);
    let moved = cache.get("/v2/lab/lab/app/manifests/v1").await?;
    assert_eq!(moved.body, new.manifest);
    // Back to what is held by its digest: one question, and no download.
    registry.push("lab/app", "v1", &old);
    cache
        .get(&format!("/v2/lab/lab/app/manifests/{}", old.digest()))
        .await?;
    assert_eq!(
        cache.get("/v2/lab/lab/app/manifests/v1").await?.body,
        old.manifest
    );
    let methods = registry.methods("/v2/lab/app/manifests/v1");
    assert_eq!(methods, ["GET", "HEAD", "HEAD", "HEAD", "GET", "HEAD"]);
    Ok(())
}

#[tokio::test]
async fn p10_what_is_gone_upstream_or_refused_for_a_while_is_served_with_a_warning() -> Result<()> {
    for (status, fields) in [
        (404, &[][..]),
        (410, &[]),
        (429, &[("retry-after", "60")]),
        (503, &[]),
    ] {
        let (registry, cache, image) = site(ALWAYS).await?;
        let tag = "/v2/lab/lab/app/manifests/v1";
        assert_eq!(cache.get(tag).await?.status, 200);
        registry.answer("lab/app", "v1", status, fields);
        for _ in 0..2 {
            let said = cache.get(tag).await?;
            assert_eq!((said.status, &said.body), (200, &image.manifest), "{status}");
            assert!(said.header("warning").is_some(), "{status}: {said:?}");
        }
        let strict = "[upstream.registry]\ntag_ttl = \"0s\"\nserve_gone = false\n";
        let strict = self::cache(&registry.section("lab", strict)).await?;
        registry.push("lab/app", "v1", &image);
        assert_eq!(strict.get(tag).await?.status, 200);
        registry.answer("lab/app", "v1", 404, &[]);
        assert_eq!(strict.get(tag).await?.status, 404);
    }
    Ok(())
}

#[tokio::test]
async fn p08_with_the_registry_off_tag_digest_and_blobs_come_from_the_store() -> Result<()> {
    let (mut registry, cache, image) = site(ALWAYS).await?;
    let paths = [
        "/v2/lab/lab/app/manifests/v1".to_owned(),
        format!("/v2/lab/lab/app/manifests/{}", image.digest()),
        format!("/v2/lab/lab/app/blobs/{}", image.blob()),
    ];
    for path in &paths {
        assert_eq!(cache.get(path).await?.status, 200);
    }
    registry.origin.stop().await;
    for path in &paths {
        let said = cache.get(path).await?;
        assert_eq!(said.status, 200, "{path}");
        assert_eq!(said.header("warning").is_some(), path.ends_with("v1"), "{path}");
    }
    let unknown = cache.get("/v2/lab/lab/app/manifests/v2").await?;
    assert_eq!(
        (unknown.status, unknown.code().as_deref()),
        (502, Some("UNAVAILABLE"))
    );
    Ok(())
}

#[tokio::test]
async fn p21_accept_filters_and_is_no_part_of_the_key() -> Result<()> {
    let (registry, cache, image) = site(LONG).await?;
    let tag = "/v2/lab/lab/app/manifests/v1";
    for (accept, status) in [
        (MANIFEST, 200),
        ("*/*", 200),
        ("application/vnd.docker.distribution.manifest.v2+json", 404),
        ("application/*", 200),
    ] {
        let said = cache.ask("GET", tag, &[("accept", accept)]).await?;
        assert_eq!(said.status, status, "{accept}");
        if status == 404 {
            assert_eq!(said.code().as_deref(), Some("MANIFEST_UNKNOWN"));
        } else {
            assert_eq!(said.body, image.manifest);
        }
    }
    let requests = registry.origin.requests("/v2/lab/app/manifests/v1");
    assert_eq!(requests.len(), 1);
    let accept = requests[0].header("accept").unwrap_or_default();
    assert!(
        accept.contains("image.index") && accept.contains("manifest.list"),
        "{accept}"
    );
    Ok(())
}

#[tokio::test]
async fn what_a_registrys_front_end_says_to_browsers_keeps_nothing_from_the_store() -> Result<()> {
    let (registry, cache, image) = site(LONG).await?;
    let tag = Resource::new(image.manifest.clone())
        .header("content-type", MANIFEST)
        .header("set-cookie", "sid=s3cret; Path=/")
        .header("cache-control", "no-cache, no-store, must-revalidate")
        .header("docker-content-digest", &image.digest());
    registry.origin.serve("/v2/lab/app/manifests/v2", tag);
    for _ in 0..2 {
        let said = cache.get("/v2/lab/lab/app/manifests/v2").await?;
        assert_eq!((said.status, &said.body), (200, &image.manifest));
        assert_eq!(said.header("set-cookie"), None);
    }
    assert_eq!(registry.methods("/v2/lab/app/manifests/v2"), ["GET"]);
    Ok(())
}

#[tokio::test]
async fn equal_blobs_of_two_registries_cross_once() -> Result<()> {
    let (one, two) = (Scripted::start().await?, Scripted::start().await?);
    let image = Small::new("shared");
    one.push("a/app", "v1", &image);
    two.push("b/app", "v1", &image);
    let cache = cache(&(one.section("one", "") + &two.section("two", ""))).await?;
    let blob = image.blob();
    for target in [
        format!("/v2/one/a/app/blobs/{blob}"),
        format!("/v2/two/b/app/blobs/{blob}"),
    ] {
        assert_eq!(cache.get(&target).await?.body, image.layer);
    }
    assert!(two.methods(&format!("/v2/b/app/blobs/{blob}")).is_empty());
    Ok(())
}

#[tokio::test]
async fn private_content_is_for_those_whom_its_upstream_allows_whatever_name_it_is_asked_by() -> Result<()> {
    let (private, public) = (Scripted::start().await?, Scripted::start().await?);
    let image = Small::new("secret");
    private.push("a/app", "v1", &image);
    let mine = "clients = [\"127.0.0.1\"]\n";
    let theirs = "clients = [\"10.9.8.0/24\"]\n";
    let settings = private.section("private", mine) + &public.section("public", "");
    let cache = cache(&settings).await?;
    let blob = image.blob();
    assert_eq!(
        cache
            .get(&format!("/v2/private/a/app/blobs/{blob}"))
            .await?
            .status,
        200
    );
    // Asked for under a name that everybody may use, it is not taken from where not everybody may.
    let elsewhere = cache.get(&format!("/v2/public/b/app/blobs/{blob}")).await?;
    assert_eq!(elsewhere.status, 404);
    assert_eq!(public.methods(&format!("/v2/b/app/blobs/{blob}")), ["GET"]);

    let closed = private.section("private", theirs) + &public.section("public", "");
    durable::write(&cache.folder.path().join("proxy.toml"), closed.as_bytes(), 0o600)?;
    cache.proxy.reload()?;
    cache.proxy.wait_for_log("settings").await?;
    let asked = private.methods(&format!("/v2/a/app/blobs/{blob}")).len();
    for door in ["/v2/private/a/app", "/private/v2/a/app"] {
        let refused = async {
            while cache.get(&format!("{door}/blobs/{blob}")).await?.status != 403 {}
            anyhow::Ok(())
        };
        timeout(SOON, refused).await.context("it is still given out")??;
    }
    let said = cache.get(&format!("/v2/private/a/app/blobs/{blob}")).await?;
    assert_eq!((said.status, said.code().as_deref()), (403, Some("DENIED")));
    assert_eq!(private.methods(&format!("/v2/a/app/blobs/{blob}")).len(), asked);
    Ok(())
}

#[tokio::test]
async fn content_that_was_named_elsewhere_before_its_upstream_was_closed_is_given_there_no_more() -> Result<()>
{
    let (private, public) = (Scripted::start().await?, Scripted::start().await?);
    let image = Small::new("secret");
    private.push("a/app", "v1", &image);
    let cache = cache(&(private.section("private", "") + &public.section("public", ""))).await?;
    let manifest = format!("/v2/public/b/app/manifests/{}", image.digest());
    let blob = format!("/v2/public/b/app/blobs/{}", image.blob());
    assert_eq!(cache.get("/v2/private/a/app/manifests/v1").await?.status, 200);
    let own_blob = format!("/v2/private/a/app/blobs/{}", image.blob());
    assert_eq!(cache.get(&own_blob).await?.status, 200);
    // While everybody may use both, a digest is all that counts.
    for elsewhere in [&manifest, &blob] {
        assert_eq!(cache.get(elsewhere).await?.status, 200);
    }
    assert!(public.methods(&blob.replace("/v2/public/", "/v2/")).is_empty());
    let closed = private.section("private", "clients = [\"10.9.8.0/24\"]\n") + &public.section("public", "");
    durable::write(&cache.folder.path().join("proxy.toml"), closed.as_bytes(), 0o600)?;
    cache.proxy.reload()?;
    cache.proxy.wait_for_log("settings").await?;
    for elsewhere in [&manifest, &blob] {
        let refused = async {
            while cache.get(elsewhere).await?.status != 404 {}
            anyhow::Ok(())
        };
        timeout(SOON, refused).await.context("it is still given out")??;
    }
    // What the open registry itself has is given, and stays.
    public.push("b/app", "v1", &image);
    for _ in 0..2 {
        let given = async {
            loop {
                let said = cache.get(&blob).await?;
                if said.status == 200 {
                    return anyhow::Ok(said.body);
                }
            }
        };
        assert_eq!(
            timeout(SOON, given).await.context("it is not given")??,
            image.layer
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_leads_nowhere_is_said_in_the_words_of_the_specification_and_asked_of_nobody() -> Result<()> {
    let (registry, cache, _image) = site(LONG).await?;
    let base = cache.get("/v2/").await?;
    assert_eq!((base.status, base.body.as_slice()), (200, &b"{}"[..]));
    assert_eq!(
        base.header("docker-distribution-api-version"),
        Some("registry/2.0")
    );
    // Which registry, and what to do: clients show the message and nothing else.
    let evil = cache.get("/v2/app/manifests/v1?ns=evil.example").await?;
    let message = evil.message().unwrap_or_default();
    assert!(
        message.contains("no registry is called `evil.example`")
            && message.contains("hint: add [[upstream]]"),
        "{message}"
    );
    for (method, target, status, code) in [
        ("GET", "/v2/app/manifests/v1?ns=evil.example", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/evil.example/app/manifests/v1", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/app/manifests/v1", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/lab/LAB/app/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2/lab/lab/app/blobs/v1", 400, "DIGEST_INVALID"),
        ("GET", "/v2/lab/lab/app/manifests/-v1", 400, "MANIFEST_INVALID"),
        ("GET", "/v2/lab/lab/app/nothing/v1", 404, "UNSUPPORTED"),
        ("POST", "/v2/lab/lab/app/blobs/uploads/", 405, "UNSUPPORTED"),
        ("PUT", "/v2/lab/lab/app/manifests/v1", 405, "UNSUPPORTED"),
        ("PATCH", "/v2/lab/lab/app/blobs/uploads/1", 405, "UNSUPPORTED"),
        ("DELETE", "/v2/lab/lab/app/manifests/v1", 405, "UNSUPPORTED"),
    ] {
        let said = cache.ask(method, target, &[]).await?;
        assert_eq!(
            (said.status, said.code().as_deref()),
            (status, Some(code)),
            "{method} {target}"
        );
        assert_eq!(said.header("content-type"), Some("application/json"));
        assert_eq!(
            said.header("allow"),
            (status == 405).then_some("GET, HEAD"),
            "{method} {target}"
        );
    }
    assert_eq!(registry.origin.connections(), 0);
    assert_eq!(cache.proxy.stats().await?.stored_responses, 0);
    Ok(())
}

#[tokio::test]
async fn lists_come_in_pages_whose_links_lead_back_here() -> Result<()> {
    let (registry, cache, _image) = site(LONG).await?;
    let page = Resource::new(r#"{"name":"lab/app","tags":["v1"]}"#)
        .header("content-type", "application/json")
        .header(
            "link",
            "</v2/lab/app/tags/list?n=1>; rel=\"first\", <?last=v1&n=1>; rel=\"next\"",
        );
    registry.origin.serve("/v2/lab/app/tags/list?n=1", page);
    registry.origin.serve(
        "/v2/lab/app/tags/list?last=v1&n=1",
        Resource::new(r#"{"name":"lab/app","tags":["v2"]}"#),
    );
    for _ in 0..2 {
        let first = cache.get("/v2/lab/app/tags/list?n=1&ns=lab").await?;
        let link = first.header("link").context("no link")?.to_owned();
        assert_eq!(link, "</v2/lab/app/tags/list?last=v1&n=1&ns=lab>; rel=\"next\"");
        let next = link.trim_start_matches('<').split('>').next().unwrap_or_default();
        assert!(cache.get(next).await?.body.ends_with(br#"["v2"]}"#));
    }
    assert_eq!(registry.methods("/v2/lab/app/tags/list?n=1"), ["GET"]);
    // By a mirror path it leads back to that.
    let host = registry.origin.address();
    for base in ["/lab".to_owned(), format!("/http/{host}")] {
        let first = cache.get(&format!("{base}/v2/lab/app/tags/list?n=1")).await?;
        let link = first.header("link").context("no link")?.to_owned();
        assert_eq!(
            link,
            format!("<{base}/v2/lab/app/tags/list?last=v1&n=1>; rel=\"next\"")
        );
        let next = link.trim_start_matches('<').split('>').next().unwrap_or_default();
        assert!(cache.get(next).await?.body.ends_with(br#"["v2"]}"#));
    }
    // Who has the registry's own URL gets its links as they are.
    let by_proxy = cache
        .get(&registry.origin.url("/v2/lab/app/tags/list?n=1"))
        .await?;
    assert!(
        by_proxy
            .header("link")
            .context("no link")?
            .starts_with("</v2/lab/app/tags/list?n=1>"),
        "{by_proxy:?}"
    );
    let digest = Digest::of(b"x");
    let index = Resource::new("{}").header("content-type", "application/vnd.oci.image.index.v1+json");
    registry
        .origin
        .serve(&format!("/v2/lab/app/referrers/{digest}"), index);
    assert_eq!(
        cache
            .get(&format!("/v2/lab/lab/app/referrers/{digest}"))
            .await?
            .body,
        b"{}"
    );
    // A registry without that endpoint: clients go on with the tag of the digest.
    let fallback = format!("/v2/lab/lab/app/referrers/{}", Digest::of(b"y"));
    assert_eq!(cache.get(&fallback).await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn a_client_that_tries_tls_first_hears_at_once_that_there_is_none() -> Result<()> {
    let (_registry, cache, _image) = site(LONG).await?;
    let mut stream = TcpStream::connect(cache.proxy.data).await?;
    // The head of a record with a handshake message; its rest may take its time.
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc").await?;
    let mut said = Vec::new();
    // Far below the time that a request head may take (30 s), and below the patience of those clients (10 s).
    let ended = timeout(Duration::from_secs(5), stream.read_to_end(&mut said)).await;
    assert!(ended.is_ok(), "the connection stays open");
    assert!(said.is_empty(), "{said:?}");
    Ok(())
}

#[tokio::test]
async fn p17_a_redirect_to_a_store_is_followed_here_and_not_kept() -> Result<()> {
    let (registry, cache, image) = site(LONG).await?;
    let blob = format!("/v2/lab/app/blobs/{}", image.blob());
    let signed = format!("{}?X-Signature=s3cret", registry.origin.url("/store"));
    registry
        .origin
        .serve(&blob, Resource::new("").status(307).header("location", &signed));
    registry
        .origin
        .serve("/store?X-Signature=s3cret", Resource::new(image.layer.clone()));
    let target = format!("/v2/lab/lab/app/blobs/{}", image.blob());
    for _ in 0..2 {
        let said = cache.get(&target).await?;
        assert_eq!((said.status, &said.body), (200, &image.layer));
    }
    assert_eq!(registry.methods("/store?X-Signature=s3cret"), ["GET"]);
    let part = cache.ask("GET", &target, &[("range", "bytes=3-5")]).await?;
    assert_eq!((part.status, part.body.as_slice()), (206, &image.layer[3..6]));
    assert!(!cache.proxy.log().contains("s3cret"));
    Ok(())
}
