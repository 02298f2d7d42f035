//! One odd answer of a registry, and the registry off afterwards: what is held is served.

use anyhow::Result;
use integration_tests::{origin::Resource, presets::preset};

use crate::scripted::{ALWAYS, LONG, MANIFEST, Scripted, Small, cache, site};

/// Status codes, and what the client is given at once: the held one, or what came.
const CASES: [(u16, u16); 13] = [
    (203, 200),
    (204, 200),
    (300, 200),
    (301, 200),
    (308, 200),
    (405, 200),
    (414, 200),
    (501, 200),
    (511, 200),
    (404, 200),
    (400, 400),
    (406, 406),
    (451, 451),
];

#[tokio::test]
async fn p10_no_status_code_takes_a_tag_or_a_list_away() -> Result<()> {
    let (mut registry, cache, image) = site(ALWAYS).await?;
    let list = r#"{"name":"lab/app","tags":["v1"]}"#;
    let lists = |status: u16| format!("lab/list{status}/tags/list");
    for (status, expected) in CASES {
        let tag = format!("s{status}");
        registry.push("lab/app", &tag, &image);
        registry
            .origin
            .serve(&format!("/v2/{}", lists(status)), Resource::new(list));
        let targets = [format!("lab/app/manifests/{tag}"), lists(status)];
        for target in &targets {
            assert_eq!(
                cache.get(&format!("/v2/lab/{target}")).await?.status,
                200,
                "{target}"
            );
            let body = if status == 204 { "" } else { r#"{"x":1}"# };
            let odd = Resource::new(body)
                .status(status)
                .header("content-type", "text/html");
            registry.origin.serve(&format!("/v2/{target}"), odd);
            for method in ["GET", "GET", "HEAD"] {
                let said = cache
                    .ask(method, &format!("/v2/lab/{target}"), &[("accept", MANIFEST)])
                    .await?;
                if method == "GET" || target.contains("manifests") {
                    assert_eq!(said.status, expected, "{method} {target} {said:?}");
                }
                if method == "GET" && expected == 200 {
                    assert!(said.header("warning").is_some(), "{target} {said:?}");
                }
            }
        }
    }
    registry.origin.stop().await;
    for (status, _) in CASES {
        let held = cache.get(&format!("/v2/lab/lab/app/manifests/s{status}")).await?;
        assert_eq!(
            (held.status, &held.body),
            (200, &image.manifest),
            "{status} {held:?}"
        );
        let held = cache.get(&format!("/v2/lab/{}", lists(status))).await?;
        assert_eq!(
            (held.status, &*held.body),
            (200, list.as_bytes()),
            "{status} {held:?}"
        );
    }
    Ok(())
}

/// What is announced is checked, or stated where nothing is.
#[tokio::test]
async fn p10_a_digest_that_is_none_or_another_takes_no_tags_place() -> Result<()> {
    let (registry, cache, image) = site(ALWAYS).await?;
    let tag = "/v2/lab/lab/app/manifests/v1";
    assert_eq!(cache.get(tag).await?.status, 200);
    let other = format!("sha256:{}", "a".repeat(64));
    for announced in ["garbage", &other] {
        let odd = Resource::new(r#"{"schemaVersion":2}"#)
            .header("content-type", MANIFEST)
            .header("docker-content-digest", announced);
        registry.origin.serve("/v2/lab/app/manifests/v1", odd.clone());
        registry.origin.serve("/v2/lab/app/manifests/new", odd);
        let held = cache.get(tag).await?;
        assert_eq!(
            (held.status, &held.body),
            (200, &image.manifest),
            "{announced} {held:?}"
        );
        assert!(held.header("warning").is_some(), "{announced} {held:?}");
        let new = cache.get("/v2/lab/lab/app/manifests/new").await?;
        assert_eq!(new.status, 502, "{announced} {new:?}");
    }
    let silent = Resource::new(image.manifest.clone()).header("content-type", MANIFEST);
    registry.origin.serve("/v2/lab/app/manifests/silent", silent);
    for _ in 0..2 {
        let said = cache.get("/v2/lab/lab/app/manifests/silent").await?;
        assert_eq!(
            said.header("docker-content-digest"),
            Some(image.digest().as_str())
        );
    }
    Ok(())
}

/// The word of the registry is passed on, and the tag is not kept by it: the manifest that it announces is not there.
#[tokio::test]
async fn p10_a_head_that_announces_a_wrong_digest_leaves_no_tag_behind() -> Result<()> {
    let (mut registry, cache, image) = site(LONG).await?;
    let other = format!("sha256:{}", "a".repeat(64));
    let wrong = Resource::new(image.manifest.clone())
        .header("content-type", MANIFEST)
        .header("docker-content-digest", &other);
    registry.origin.serve("/v2/lab/app/manifests/new", wrong.clone());
    // Under the announced digest as well, which the content has not.
    let announced = format!("/v2/lab/app/manifests/{other}");
    registry.origin.serve(&announced, wrong);
    let tag = "/v2/lab/lab/app/manifests/new";
    let said = cache.ask("HEAD", tag, &[("accept", MANIFEST)]).await?;
    assert_eq!(
        (said.status, said.header("docker-content-digest")),
        (200, Some(other.as_str())),
        "{said:?}"
    );
    registry.origin.wait_for_requests(&announced, 1).await?;
    let got = cache.get(tag).await?;
    assert_eq!(
        (got.status, got.code().as_deref()),
        (502, Some("DIGEST_INVALID")),
        "{got:?}"
    );
    registry.origin.stop().await;
    for method in ["HEAD", "GET"] {
        let said = cache.ask(method, tag, &[("accept", MANIFEST)]).await?;
        assert_eq!(said.status, 502, "{method} {said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn p10_after_an_error_of_a_moment_the_tag_that_moved_is_stored() -> Result<()> {
    let (mut registry, cache, old) = site(ALWAYS).await?;
    let tag = "/v2/lab/lab/app/manifests/v1";
    for status in [400, 401, 403, 406, 418, 451] {
        registry.push("lab/app", "v1", &old);
        assert_eq!(cache.get(tag).await?.body, old.manifest, "{status}");
        registry.answer("lab/app", "v1", status, &[]);
        assert!(cache.get(tag).await?.status >= 400, "{status}");
        let new = Small::new(&format!("new {status}"));
        registry.push("lab/app", "v1", &new);
        assert_eq!(cache.get(tag).await?.body, new.manifest, "{status}");
        registry.answer("lab/app", "v1", 503, &[]);
        let held = cache.get(tag).await?;
        assert_eq!(
            (held.status, &held.body),
            (200, &new.manifest),
            "{status} {held:?}"
        );
    }
    registry.origin.stop().await;
    assert_eq!(cache.get(tag).await?.status, 200);
    Ok(())
}

/// Answers that clients of a registry take for something else: 204 for an empty manifest, 407 for a proxy of theirs.
#[tokio::test]
async fn an_odd_answer_under_a_new_tag_is_no_answer() -> Result<()> {
    let (registry, cache, _) = site(ALWAYS).await?;
    for status in [204, 301, 407, 511] {
        registry.answer("lab/app", "odd", status, &[]);
        let said = cache.get("/v2/lab/lab/app/manifests/odd").await?;
        assert_eq!(
            (said.status, said.code().as_deref()),
            (502, Some("UNAVAILABLE")),
            "{status} {said:?}"
        );
    }
    Ok(())
}

/// What a client prints to a terminal comes in the form of the specification, and steers no terminal.
#[tokio::test]
async fn an_error_of_a_registry_is_told_in_the_form_of_the_specification() -> Result<()> {
    let (registry, cache, _) = site(ALWAYS).await?;
    for (path, status, kind, text, code) in [
        (
            "lab/app/manifests/new",
            500,
            "text/plain",
            "\u{1b}[31mboom\u{7}<script>",
            "UNAVAILABLE",
        ),
        (
            "lab/app/manifests/gone",
            404,
            "text/plain",
            "404 page not found",
            "NAME_UNKNOWN",
        ),
        ("lab/app/tags/list", 403, "text/html", "<html>no", "DENIED"),
        (
            "lab/app/manifests/none",
            404,
            "application/json",
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"\u001b[2Jno"}]}"#,
            "MANIFEST_UNKNOWN",
        ),
    ] {
        let odd = Resource::new(text.to_owned())
            .status(status)
            .header("content-type", kind);
        registry.origin.serve(&format!("/v2/{path}"), odd);
        // The second one may come from the store.
        for _ in 0..2 {
            let said = cache.get(&format!("/v2/lab/{path}")).await?;
            assert_eq!(
                (said.status, said.code().as_deref()),
                (status, Some(code)),
                "{path} {said:?}"
            );
            let message = said.message().unwrap_or_default();
            assert!(
                !message.is_empty() && !message.contains(char::is_control),
                "{message:?}"
            );
            assert_eq!(said.header("content-type"), Some("application/json"));
        }
    }
    Ok(())
}

/// The client has asked for nothing wrong.
#[tokio::test]
async fn a_redirect_of_a_registry_to_a_guarded_address_is_the_registrys_fault() -> Result<()> {
    let (registry, cache, _) = site(ALWAYS).await?;
    let digest = format!("sha256:{}", "a".repeat(64));
    let path = format!("/v2/lab/app/blobs/{digest}");
    let away = Resource::new("")
        .status(307)
        .header("location", "http://169.254.169.254/latest/");
    registry.origin.serve(&path, away);
    let said = cache.get(&format!("/v2/lab/lab/app/blobs/{digest}")).await?;
    assert_eq!(
        (said.status, said.code().as_deref()),
        (502, Some("UNAVAILABLE")),
        "{said:?}"
    );
    assert!(
        said.message().unwrap_or_default().contains("leads to an address"),
        "{said:?}"
    );
    Ok(())
}

/// As an operator begins.
#[tokio::test]
async fn the_presets_for_registries_serve_an_image_and_again_without_the_registry() -> Result<()> {
    for (name, placeholder, prefix) in [
        ("registry", "https://registry.example/", "/v2/registry/lab/app"),
        ("registry-default", "https://registry.hub.example/", "/v2/lab/app"),
    ] {
        let mut registry = Scripted::start().await?;
        let image = Small::new(name);
        registry.push("lab/app", "v1", &image);
        let cache = cache(&preset(name, &[(placeholder, &registry.origin.url("/"))])?).await?;
        let paths = [
            (format!("{prefix}/manifests/v1"), &image.manifest),
            (format!("{prefix}/manifests/{}", image.digest()), &image.manifest),
            (format!("{prefix}/blobs/{}", image.blob()), &image.layer),
        ];
        for is_off in [false, true] {
            if is_off {
                registry.origin.stop().await;
            }
            for (path, content) in &paths {
                let said = cache.get(path).await?;
                assert_eq!((said.status, &said.body), (200, *content), "{path} {is_off}");
            }
        }
    }
    Ok(())
}
