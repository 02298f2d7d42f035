//! What a mirror lacks: said at once, noted, asked for, fetched, and there.

use anyhow::Result;
use integration_tests::{
    origin::{Origin, Resource},
    proxy::{Settings, run_to_end},
};
use kato_shared::api::Problem;

use crate::fill::prefetch;

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_becomes_a_request_file_that_prefetch_satisfies() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (site, connected) = (folder.path().join("site"), folder.path().join("connected"));
    let origin = Origin::start().await?;
    origin.serve("/wanted", Resource::cacheable(&b"content"[..]));
    let url = origin.url("/");
    let mut mirror = Settings::new(&site)
        .upstream("files", &url)
        .arguments(&["--offline"])
        .start()
        .await?;
    for path in [
        "/files/wanted",
        "/files/wanted",
        "/files/secret?token=abc",
        "/files/nowhere",
    ] {
        let (answer, body) = mirror.client().fetch(path).await?;
        assert_eq!(answer.status, 404, "{path}");
        let problem: Problem = serde_json::from_slice(&body)?;
        assert!(problem.kind.ends_with(":offline"), "{problem:?}");
        assert!(
            problem.detail.contains("nothing is stored under this URL"),
            "{problem:?}"
        );
        assert!(
            problem
                .hint
                .is_some_and(|hint| hint.contains("kato-proxy request"))
        );
    }
    mirror.terminate()?;
    assert!(mirror.ended().await?.success());
    assert_eq!(origin.connections(), 0, "nobody was asked");

    let file = requested(folder.path(), &url).await?;
    let upstream = format!("files={url}");
    let filled = run_to_end(&prefetch(&connected, &upstream, &["--request", &file])).await?;
    assert_eq!(filled.code, Some(0), "{}", filled.stderr);
    assert!(filled.stderr.contains("2 absent"), "{}", filled.stderr);
    let proxy = Settings::new(&connected)
        .upstream("files", &url)
        .arguments(&["--offline"])
        .start()
        .await?;
    let (answer, body) = proxy.client().fetch("/files/wanted").await?;
    assert_eq!((answer.status, body.as_slice()), (200, &b"content"[..]));
    Ok(())
}

/// The request file of the site, with one URL that nobody has asked for.
async fn requested(folder: &std::path::Path, url: &str) -> Result<String> {
    let site = folder.join("site");
    let file = folder.join("request.json").display().to_string();
    let cache = site.display().to_string();
    let unseen = format!("{}/unseen", url.trim_end_matches('/'));
    let request = [
        "request",
        "--cache-dir",
        &cache,
        "--output",
        &file,
        "--clear",
        "--add",
        &unseen,
    ];
    let written = run_to_end(&request).await?;
    assert_eq!(written.code, Some(0), "{}", written.stderr);
    let text = std::fs::read_to_string(&file)?;
    assert_eq!(text.matches("/wanted").count(), 1, "{text}");
    assert!(
        !text.contains("token"),
        "what looks secret does not cross: {text}"
    );
    assert!(!site.join("misses.jsonl").exists());
    Ok(file)
}

/// Whatever either side says about validation, stored validators answer conditions, and ranges are cut.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_answers_conditions_and_ranges_without_validation() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let origin = Origin::start().await?;
    let strict = Resource::new(&b"0123456789"[..])
        .header("cache-control", "no-cache, must-revalidate, max-age=0")
        .header("etag", "\"v1\"");
    origin.serve("/strict", strict);
    let upstream = format!("files={}", origin.url("/"));
    let filled = run_to_end(&prefetch(folder.path(), &upstream, &[&origin.url("/strict")])).await?;
    assert_eq!(filled.code, Some(0), "{}", filled.stderr);
    let connections = origin.connections();
    let proxy = Settings::new(folder.path())
        .upstream("files", &origin.url("/"))
        .arguments(&["--offline"])
        .start()
        .await?;
    let ask = || {
        proxy
            .client()
            .get("/files/strict")
            .header("cache-control", "no-cache, max-age=0")
    };
    assert_eq!(ask().fetch().await?.1, b"0123456789");
    let (unchanged, _) = ask().header("if-none-match", "\"v1\"").fetch().await?;
    assert_eq!(
        (unchanged.status, unchanged.header("etag")),
        (304, Some("\"v1\""))
    );
    let (part, body) = ask()
        .header("range", "bytes=2-4")
        .header("if-range", "\"v1\"")
        .fetch()
        .await?;
    assert_eq!((part.status, body.as_slice()), (206, &b"234"[..]));
    assert_eq!(origin.connections(), connections, "nobody was asked");
    Ok(())
}
