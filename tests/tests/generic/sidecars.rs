//! Files of digests beside the files that they are about.

use std::time::Duration;

use anyhow::{Context, Result};
use integration_tests::origin::Resource;
use kato_shared::Digest;
use tokio::time::timeout;

use crate::Site;

/// Long beside anything that loopback does.
const SOON: Duration = Duration::from_secs(20);

const RULES: &str = "digests = [\"SHA256SUMS\", \"*.sha256\"]";

/// A file that nothing is said about but by a sidecar.
fn plain(content: &[u8]) -> Resource {
    Resource::new(content.to_vec())
        .header("etag", "\"1\"")
        .header("cache-control", "max-age=0")
}

/// Whether no client could take the answer to `path` for content: 502, or a body that breaks off where its head was sent already.
async fn is_refused(site: &Site, path: &str) -> Result<bool> {
    let mut answer = site.proxy.client().get(&format!("/files{path}")).send().await?;
    let status = answer.status;
    let body = answer.finish().await?;
    Ok(status == 502 || !body.looks_whole)
}

#[tokio::test]
async fn what_a_sidecar_names_is_verified_shared_and_never_validated() -> Result<()> {
    let site = Site::start(RULES).await?;
    let list = format!("{0}  a.tar\n{0} *copy.tar\n", Digest::of(b"release a").hex());
    site.host
        .serve("/v1/SHA256SUMS", Resource::cacheable(list.into_bytes()));
    for path in ["/v1/a.tar", "/v1/copy.tar"] {
        site.host.serve(path, plain(b"release a"));
    }
    // As people do it by hand.
    let base = format!("http://{}/files/v1", site.proxy.data);
    let (sums, file) = (format!("{base}/SHA256SUMS"), format!("{base}/a.tar"));
    site.run(&["curl", "--fail", "--silent", "--remote-name", &sums])
        .await?;
    site.run(&["curl", "--fail", "--silent", "--remote-name", &file])
        .await?;
    let checked = site
        .run(&["sha256sum", "--check", "--ignore-missing", "SHA256SUMS"])
        .await?;
    assert_eq!(checked, "a.tar: OK");
    for path in ["/v1/a.tar", "/v1/copy.tar", "/v1/a.tar"] {
        let (status, cache_status, body) = site.get(path).await?;
        assert_eq!((status, &body[..]), (200, &b"release a"[..]), "{path}");
        assert!(cache_status.contains("; hit"), "{path}: {cache_status}");
    }
    assert_eq!(site.host.requests("/v1/a.tar").len(), 1);
    assert_eq!(
        site.host.requests("/v1/copy.tar").len(),
        0,
        "the same content under another name"
    );
    Ok(())
}

#[tokio::test]
async fn other_content_than_a_sidecar_names_is_never_whole_and_never_stored() -> Result<()> {
    let site = Site::start(RULES).await?;
    let (good, bad) = (Digest::of(b"release a"), Digest::of(b"tampered!"));
    site.host
        .serve("/v1/a.tar.sha256", Resource::cacheable(good.hex().into_bytes()));
    site.host.serve("/v1/a.tar", plain(b"tampered!"));
    assert_eq!(site.get("/v1/a.tar.sha256").await?.0, 200);
    assert!(is_refused(&site, "/v1/a.tar").await?);
    for digest in [good, bad] {
        site.proxy.wait_for_log(&digest.hex()).await?;
    }
    // When the host is as it should be, so is the answer; a download that had asked before that may still be under way.
    site.host.serve("/v1/a.tar", plain(b"release a"));
    let healed = async {
        while !site
            .get("/v1/a.tar")
            .await
            .is_ok_and(|(_, _, body)| body == b"release a")
        {}
    };
    timeout(SOON, healed).await.context("it stays refused")?;
    Ok(())
}

#[tokio::test]
async fn a_list_that_the_settings_do_not_name_teaches_nothing() -> Result<()> {
    let site = Site::start("digests = [\"v2/SHA256SUMS\"]").await?;
    let list = format!("{}  a.tar\n", Digest::of(b"release a").hex());
    for folder in ["v1", "v2"] {
        site.host.serve(
            &format!("/{folder}/SHA256SUMS"),
            Resource::cacheable(list.clone().into_bytes()),
        );
        site.host
            .serve(&format!("/{folder}/a.tar"), plain(b"something else"));
        assert_eq!(site.get(&format!("/{folder}/SHA256SUMS")).await?.0, 200);
    }
    assert_eq!(site.get("/v1/a.tar").await?.0, 200);
    assert!(is_refused(&site, "/v2/a.tar").await?);
    Ok(())
}
