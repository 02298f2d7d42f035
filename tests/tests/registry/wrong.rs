//! Registries that answer with something else than was asked for, and what answers in their place.

use anyhow::Result;
use integration_tests::origin::Resource;
use kato_shared::Digest;

use crate::scripted::{ALWAYS, Cache, LONG, MANIFEST, Small, site};

#[tokio::test]
async fn a_corrupted_blob_or_tag_is_refused_and_never_stored() -> Result<()> {
    let (registry, cache, image) = site(LONG).await?;
    let blob = format!("/v2/lab/app/blobs/{}", image.blob());
    let wrong = vec![b'x'; image.layer.len()];
    registry.origin.serve(&blob, Resource::new(wrong.clone()));
    let target = format!("/v2/lab/lab/app/blobs/{}", image.blob());
    is_refused(&cache, &target, [&image.blob(), &Digest::of(&wrong).to_string()]).await?;
    assert_eq!(registry.methods(&blob).len(), 2, "and once more, to be sure");
    // Whoever tries again at once is told the same, and the registry is left alone.
    is_refused(&cache, &target, [&image.blob(), &image.blob()]).await?;
    assert_eq!(registry.methods(&blob).len(), 2);
    registry.push("lab/other", "v1", &image);
    assert_eq!(
        cache
            .get(&format!("/v2/lab/lab/other/blobs/{}", image.blob()))
            .await?
            .body,
        image.layer,
        "nothing wrong was kept"
    );

    let tag = Resource::new("another manifest")
        .header("content-type", MANIFEST)
        .header("docker-content-digest", &image.digest());
    registry.origin.serve("/v2/lab/app/manifests/v2", tag);
    let both = [&image.digest(), &Digest::of(b"another manifest").to_string()];
    is_refused(&cache, "/v2/lab/lab/app/manifests/v2", both).await
}

/// A large one is on its way before anybody knows: it is cut off, and whoever tries again learns why.
#[tokio::test]
async fn a_large_blob_that_is_wrong_is_cut_off_once_and_then_refused() -> Result<()> {
    let (registry, cache, _image) = site(LONG).await?;
    let (right, wrong) = (vec![b'r'; 3 << 20], vec![b'w'; 3 << 20]);
    let digest = Digest::of(&right).to_string();
    let blob = format!("/v2/lab/app/blobs/{digest}");
    registry.origin.serve(&blob, Resource::new(wrong.clone()));
    let target = format!("/v2/lab/lab/app/blobs/{digest}");
    let cut = cache.get(&target).await;
    assert!(cut.is_err_and(|error| error.to_string().contains("broke off after")));
    for _ in 0..3 {
        is_refused(&cache, &target, [&digest, &Digest::of(&wrong).to_string()]).await?;
    }
    assert_eq!(registry.methods(&blob).len(), 2);
    Ok(())
}

/// Wants 502 at the first request, with these digests in what clients show to people.
async fn is_refused(cache: &Cache, target: &str, digests: [&String; 2]) -> Result<()> {
    let said = cache.get(target).await?;
    assert_eq!(
        (said.status, said.code().as_deref()),
        (502, Some("DIGEST_INVALID")),
        "{target}: {said:?}"
    );
    let message = said.message().unwrap_or_default();
    assert!(
        digests.iter().all(|digest| message.contains(*digest)),
        "{message}"
    );
    assert!(
        !said.header("cache-status").unwrap_or_default().contains("stored"),
        "{said:?}"
    );
    Ok(())
}

/// Networks with a login page, and what ends TLS on the way, answer 200 with pages of their own.
#[tokio::test]
async fn what_is_no_manifest_and_no_list_takes_no_tags_place() -> Result<()> {
    let (registry, cache, image) = site(ALWAYS).await?;
    let list = Resource::new(r#"{"name":"lab/app","tags":["v1"]}"#);
    registry.origin.serve("/v2/lab/app/tags/list", list.clone());
    let (tag, tags) = ("/v2/lab/lab/app/manifests/v1", "/v2/lab/lab/app/tags/list");
    assert_eq!(cache.get(tag).await?.body, image.manifest);
    assert_eq!(cache.get(tags).await?.status, 200);
    let large = format!("{{\"schemaVersion\":2,\"a\":\"{}\"}}", "a".repeat(5 << 20));
    for (kind, page) in [
        ("text/html", "<html>log in here</html>"),
        (MANIFEST, "garbage"),
        (MANIFEST, "[]"),
        ("application/json", r#"{"login":"/"}"#),
        (MANIFEST, large.as_str()),
    ] {
        let page = Resource::new(page.to_owned()).header("content-type", kind);
        for reference in ["v1", "v9"] {
            let path = format!("/v2/lab/app/manifests/{reference}");
            registry.origin.serve(&path, page.clone());
        }
        for _ in 0..2 {
            let held = cache.get(tag).await?;
            assert_eq!((held.status, &held.body), (200, &image.manifest), "{kind}");
            assert!(held.header("warning").is_some(), "{kind}: {held:?}");
            let other = cache.get("/v2/lab/lab/app/manifests/v9").await?;
            assert_eq!(
                (other.status, other.code().as_deref()),
                (502, Some("UNAVAILABLE")),
                "{kind}"
            );
        }
    }
    let page = Resource::new("<html>log in here</html>").header("content-type", "text/html");
    for path in ["/v2/lab/app/tags/list", "/v2/lab/other/tags/list"] {
        registry.origin.serve(path, page.clone());
    }
    assert_eq!(
        cache.get(tags).await?.body,
        br#"{"name":"lab/app","tags":["v1"]}"#
    );
    assert_eq!(cache.get("/v2/lab/lab/other/tags/list").await?.status, 502);
    // Not by HEAD either, which clients ask with.
    registry.origin.serve("/v2/lab/app/manifests/v8", page);
    assert_eq!(
        cache
            .ask("HEAD", "/v2/lab/lab/app/manifests/v8", &[])
            .await?
            .status,
        502
    );

    registry.push("lab/app", "v1", &Small::new("two"));
    let now = cache.get(tag).await?;
    assert_eq!(
        (&now.body, now.header("warning")),
        (&Small::new("two").manifest, None)
    );
    Ok(())
}
