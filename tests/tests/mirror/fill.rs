//! `prefetch` of URLs, with a running proxy and without.

use std::{fmt::Write as _, path::Path};

use anyhow::Result;
use integration_tests::{
    origin::{Origin, Resource},
    proxy::{Proxy, Settings, run_to_end},
};
use kato_shared::Digest;

use crate::site::put;

/// `kato-proxy prefetch` over the store in `cache`.
pub(crate) fn prefetch<'a>(cache: &'a Path, upstream: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let cache = cache.to_str().unwrap_or_default();
    let mut arguments = vec!["prefetch", "--cache-dir", cache, "--upstream", upstream];
    arguments.extend(more);
    arguments
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_urls_is_fetched_once_and_served_without_the_origin() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cache = folder.path().join("cache");
    let mut origin = Origin::start().await?;
    let bodies: Vec<Vec<u8>> = (0..12_u8).map(|nth| vec![nth; 10_000]).collect();
    let mut list = String::from("# what the site needs\n");
    for (nth, body) in bodies.iter().enumerate() {
        let path = format!("/f{nth}");
        origin.serve(
            &path,
            Resource::new(body.clone()).header("cache-control", "max-age=0"),
        );
        writeln!(list, "{} sha256:{}", origin.url(&path), Digest::of(body).hex())?;
    }
    let list = put(folder.path(), "list", list.as_bytes())?;
    let (list, upstream) = (list.display().to_string(), format!("files={}", origin.url("/")));
    let ended = run_to_end(&prefetch(&cache, &upstream, &["--list", &list])).await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("fetched 12 files"), "{}", ended.stderr);

    origin.stop().await;
    let proxy = Settings::new(&cache)
        .upstream("files", &origin.url("/"))
        .arguments(&["--offline"])
        .start()
        .await?;
    for (nth, body) in bodies.iter().enumerate() {
        let request = proxy
            .client()
            .get(&format!("/files/f{nth}"))
            .header("cache-control", "no-cache");
        let (answer, got) = request.fetch().await?;
        assert_eq!((answer.status, &got), (200, body));
    }
    Ok(())
}

/// A running proxy is filled; what it holds is not asked for again, and what the origin refuses is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_proxy_is_filled_and_failures_are_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let origin = Origin::start().await?;
    origin.serve("/a", Resource::cacheable(&b"content"[..]));
    origin.serve("/b", Resource::cacheable(&b"other"[..]));
    let proxy: Proxy = Settings::new(&folder.path().join("cache"))
        .upstream("files", &origin.url("/"))
        .start()
        .await?;
    let list = format!("{} sha256:{}\n", origin.url("/a"), Digest::of(b"content").hex());
    let list = put(folder.path(), "list", list.as_bytes())?.display().to_string();
    let (through, upstream) = (proxy.data.to_string(), format!("files={}", origin.url("/")));
    let elsewhere = folder.path().join("unused");
    let fill = |more: &[&str]| {
        let mut arguments = vec!["--list", &list, "--through", &through];
        arguments.extend(more);
        let words = prefetch(&elsewhere, &upstream, &arguments);
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(run_to_end(&fill(&[])).await?.code, Some(0));
    let other = origin.url("/b");
    let planned = run_to_end(&fill(&["--plan", &other])).await?;
    let said = (
        planned.stdout.contains("/b\n"),
        planned.stderr.contains("1 file is missing"),
    );
    assert_eq!(said, (true, true), "{} {}", planned.stdout, planned.stderr);
    assert_eq!(run_to_end(&fill(&[&other])).await?.code, Some(0));
    let planned = run_to_end(&fill(&["--plan", &other])).await?;
    let asked_again =
        "0 files are missing, exactly 0 B (0 bytes); 1 is held, 7 B, and 1 more, which may have changed";
    assert!(planned.stderr.contains(asked_again), "{}", planned.stderr);
    let again = run_to_end(&fill(&[])).await?;
    assert!(again.stderr.contains("1 was held"), "{}", again.stderr);
    assert_eq!(origin.requests("/a").len(), 1);

    let gone = run_to_end(&fill(&[&origin.url("/gone")])).await?;
    assert_eq!(gone.code, Some(20), "{}", gone.stderr);
    assert!(
        gone.stderr.contains("/gone") && gone.stderr.contains("404"),
        "{}",
        gone.stderr
    );

    let lie = format!("{} sha256:{}\n", origin.url("/b"), Digest::of(b"promised").hex());
    let lie = put(folder.path(), "lie", lie.as_bytes())?.display().to_string();
    let mismatch = run_to_end(&fill(&["--list", &lie])).await?;
    assert_eq!(mismatch.code, Some(21), "{}", mismatch.stderr);
    assert!(!elsewhere.exists(), "with --through no store is opened");
    Ok(())
}

#[tokio::test]
async fn wrong_usage_is_refused_with_a_hint() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (arguments, expected) in [
        (&[][..], "nothing is asked for"),
        (&["--lock", "/nowhere/Cargo.lock"][..], "cannot read"),
        (&["--apt-package", "hello"][..], "--apt-source"),
        (&["--request", "/nowhere"][..], "/nowhere"),
    ] {
        let ended = run_to_end(&prefetch(folder.path(), "a=http://127.0.0.1:1/", arguments)).await?;
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    Ok(())
}
