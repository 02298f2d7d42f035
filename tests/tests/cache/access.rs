//! Deny by default (P19): only what an upstream names is reachable.

use std::{fs, path::Path};

use anyhow::Result;
use integration_tests::origin::{Origin, Resource};

use crate::{Setup, settings};

#[tokio::test]
async fn p19_hosts_that_no_upstream_names_are_refused_in_every_form() -> Result<()> {
    let setup = Setup::start().await?;
    // Loopback is reachable for us; only the list of upstreams stands between.
    let other = Origin::start().await?;
    other.serve("/a", Resource::cacheable("not for you"));
    let port = other.address().port();
    for target in [
        other.url("/a"),
        format!("/http/127.0.0.1:{port}/a"),
        format!("http://localhost:{port}/a"),
        format!("http://[::1]:{port}/a"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://unknown.example/a".to_owned(),
    ] {
        let (response, body) = setup.client().fetch(&target).await?;
        assert_eq!(response.status, 403, "{target}");
        assert_ne!(body, b"not for you");
    }
    assert_eq!(other.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn p19_connect_to_a_host_that_no_upstream_names_is_refused() -> Result<()> {
    let setup = Setup::start().await?;
    let other = Origin::start().await?;
    for target in [other.address().to_string(), "unknown.example:443".to_owned()] {
        let response = setup.client().request("CONNECT", &target).send().await?;
        assert_eq!(response.status, 403, "{target}");
    }
    assert_eq!(other.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn p19_a_redirect_does_not_lead_out_of_the_list() -> Result<()> {
    let setup = Setup::start().await?;
    let other = Origin::start().await?;
    other.serve("/a", Resource::cacheable("not for you"));
    setup.origin.serve(
        "/a",
        Resource::new("").status(302).header("location", &other.url("/a")),
    );
    let (_, body) = setup.client().fetch("/files/a").await?;
    assert_ne!(body, b"not for you");
    assert_eq!(other.connections(), 0);
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a file of the test's own, which need not be durable"
)]
fn put(path: &Path, text: &str) -> Result<()> {
    Ok(fs::write(path, text)?)
}

#[tokio::test]
async fn p19_clients_outside_the_listed_networks_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("proxy.toml");
    put(&file, "[access]\nclients = [\"10.0.0.0/8\"]\n")?;
    let origin = Origin::start().await?;
    origin.serve("/a", Resource::cacheable("not for you"));
    let cache = folder.path().join("cache");
    let proxy = settings(&cache, &origin)
        .arguments(&["--config", &file.display().to_string()])
        .start()
        .await?;
    let (response, body) = proxy.client().fetch("/files/a").await?;
    assert_eq!(response.status, 403);
    assert!(
        response.cache_status().starts_with("kato"),
        "{:?}",
        response.headers
    );
    assert_ne!(body, b"not for you");
    assert_eq!(origin.connections(), 0);
    Ok(())
}
