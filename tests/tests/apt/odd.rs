//! What answers in an archive's place takes no suite away: login pages, and status codes that say nothing about it.

use anyhow::{Context, Result};
use integration_tests::{
    origin::{Origin, Resource},
    proxy::{Proxy, Settings},
};
use kato_shared::{Digest, durable};

const PAGE: &str = "<html>login to hotel wifi";

/// The page, with the status code `status`.
fn page(status: u16) -> Resource {
    Resource::new(PAGE)
        .status(status)
        .header("content-type", "text/html")
}

/// A `Release` that lists one index.
fn release(suite: &str) -> String {
    let digest = Digest::of(suite.as_bytes()).hex();
    format!("Origin: Lab\nSuite: {suite}\nSHA256:\n {digest} 12 main/binary-amd64/Packages\n")
}

#[tokio::test]
async fn p10_what_is_no_release_takes_no_suites_place_and_with_the_archive_off_it_is_served() -> Result<()> {
    let (mut origin, folder) = (Origin::start().await?, tempfile::tempdir()?);
    let settings = format!(
        "[cache]\nmin_free = \"0B\"\n[[upstream]]\nname = \"deb\"\nkind = \"packages\"\nurls = [\"{}\"]\n",
        origin.url("/debian/")
    );
    let file = folder.path().join("proxy.toml");
    durable::write(&file, settings.as_bytes(), 0o644)?;
    let proxy = Settings::new(&folder.path().join("cache"))
        .arguments(&["--config", file.to_str().context("ASCII")?])
        .start()
        .await?;
    let listless = Resource::new("Origin: Lab\nSHA256:\n");
    // What the client is given at once: the held one, or what came.
    let cases = [
        ("page", page(200), 200),
        ("empty", Resource::new(""), 200),
        ("listless", listless, 200),
        ("s203", page(203), 200),
        ("s204", Resource::new("").status(204), 200),
        ("s301", page(301), 200),
        ("s405", page(405), 200),
        ("s501", page(501), 200),
        ("s511", page(511), 200),
        ("s403", page(403), 403),
        ("s404", page(404), 404),
    ];
    let names = ["InRelease", "Release"];
    for (suite, odd, status) in &cases {
        for name in names {
            let path = format!("/debian/dists/{suite}/{name}");
            origin.serve(&path, Resource::new(release(suite)));
            is_held(&proxy, suite, name).await?;
            origin.serve(&path, odd.clone());
            for _ in 0..2 {
                let target = format!("/deb/dists/{suite}/{name}");
                let (said, body) = proxy.client().fetch(&target).await?;
                assert_eq!(said.status, *status, "{target}: {}", said.cache_status());
                assert_eq!(body == release(suite).as_bytes(), *status == 200, "{target}");
            }
        }
    }
    // Nothing is held of this one, and the page is not kept.
    origin.serve("/debian/dists/new/InRelease", page(200));
    assert_eq!(
        proxy.client().fetch("/deb/dists/new/InRelease").await?.1,
        PAGE.as_bytes()
    );
    origin.stop().await;
    for (suite, _, _) in &cases {
        for name in names {
            is_held(&proxy, suite, name).await?;
        }
    }
    assert_eq!(
        proxy.client().fetch("/deb/dists/new/InRelease").await?.0.status,
        502
    );
    Ok(())
}

async fn is_held(proxy: &Proxy, suite: &str, name: &str) -> Result<()> {
    let target = format!("/deb/dists/{suite}/{name}");
    let (said, body) = proxy.client().fetch(&target).await?;
    let body = String::from_utf8_lossy(&body);
    assert_eq!(
        (said.status, &*body),
        (200, &*release(suite)),
        "{target}: {}",
        said.cache_status()
    );
    Ok(())
}
