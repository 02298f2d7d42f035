//! What is refused at every door: status, problem details, and a store that is as it was.

use anyhow::{Context, Result, ensure};
use kato_shared::{Digest, durable};
use serde_json::Value;
use tokio::time::{Duration, timeout};

use crate::scripted::{Cache, Scripted, Small, cache_in};

const SOON: Duration = Duration::from_secs(20);
const TAG: &str = "/v2/lab/lab/app/manifests/v1";
/// `node:s3cret`.
const NODE: (&str, &str) = ("authorization", "Basic bm9kZTpzM2NyZXQ=");

/// What the store holds, as operators see it.
async fn listing(cache: &Cache) -> Result<String> {
    let (response, body) = cache.proxy.admin_client().fetch("/-/api/entries").await?;
    ensure!(response.status == 200, "{response:?}");
    let mut entries: Value = serde_json::from_slice(&body)?;
    // What a hit or a setting changes says nothing about what is stored.
    for entry in entries["entries"].as_array_mut().into_iter().flatten() {
        if let Some(entry) = entry.as_object_mut() {
            let passing = ["age", "last", "ttl", "believed"];
            entry.retain(|key, _| !passing.iter().any(|part| key.contains(part)));
        }
    }
    Ok(entries.to_string())
}

#[tokio::test]
async fn what_is_refused_has_a_reason_that_can_be_read_and_leaves_the_store_as_it_was() -> Result<()> {
    let registry = Scripted::start().await?;
    registry.push("lab/app", "v1", &Small::new("one"));
    registry.push("lab/app", "v2", &Small::new("two"));
    let folder = tempfile::tempdir()?;
    let users = folder.path().join("users");
    durable::write(
        &users,
        format!("node:{}\n", Digest::of(b"s3cret")).as_bytes(),
        0o600,
    )?;
    let settings = |access: &str, keys: &str| {
        format!(
            "[access]\nclients = [\"{access}\"]\n[registry]\nusers_file = \"{}\"\n{}\
             [[upstream]]\nname = \"files\"\nurls = [\"http://files.example/\"]\n",
            users.display(),
            registry.section("lab", keys)
        )
    };
    let open = settings("127.0.0.0/8", "[upstream.registry]\ntag_ttl = \"1h\"\n");
    let cache = cache_in(folder, &open).await?;
    assert_eq!(cache.ask("GET", TAG, &[NODE]).await?.status, 200);
    // What came under a tag gets the name of its digest a moment later.
    let stored = async {
        loop {
            let listing = listing(&cache).await?;
            if listing.contains("manifests/v1") && listing.contains("manifests/sha256") {
                return anyhow::Ok(listing);
            }
        }
    };
    let before = timeout(SOON, stored).await.context("it is not stored")??;
    let asked = registry.origin.connections();

    let other = "/v2/lab/lab/app/manifests/v2";
    let wrong = ("authorization", "Basic bm9kZTp3cm9uZw==");
    for (method, target, field, status, code) in [
        // bad credentials
        ("GET", other, wrong, 401, "UNAUTHORIZED"),
        ("GET", other, ("accept", "*/*"), 401, "UNAUTHORIZED"),
        // push
        ("PUT", "/v2/lab/lab/app/manifests/v3", NODE, 405, "UNSUPPORTED"),
        ("POST", "/v2/lab/lab/app/blobs/uploads/", NODE, 405, "UNSUPPORTED"),
        (
            "PATCH",
            "/v2/lab/lab/app/blobs/uploads/1",
            NODE,
            405,
            "UNSUPPORTED",
        ),
        ("DELETE", TAG, NODE, 405, "UNSUPPORTED"),
        // unknown upstream
        (
            "GET",
            "/v2/other.example/app/manifests/v1",
            NODE,
            404,
            "NAME_UNKNOWN",
        ),
        (
            "GET",
            "/v2/app/manifests/v1?ns=other.example",
            NODE,
            404,
            "NAME_UNKNOWN",
        ),
    ] {
        let said = cache.ask(method, target, &[field]).await?;
        assert_eq!(
            (said.status, said.code().as_deref()),
            (status, Some(code)),
            "{method} {target}"
        );
        let errors: Value = serde_json::from_slice(&said.body)?;
        let detail = &errors["errors"][0]["detail"];
        assert!(
            detail["detail"].is_string() && detail["type"].is_string(),
            "{errors}"
        );
    }
    // wrong host: other doors, problem details as RFC 9457 has them
    for (target, status, kind) in [
        ("http://other.example/a", 403, "host-refused"),
        ("/https/other.example/a", 403, "host-refused"),
        ("/other/a", 404, "upstream-unknown"),
        ("/lab/v2/lab/app/manifests/v2", 403, "registry-door"),
    ] {
        let said = cache.ask("GET", target, &[NODE]).await?;
        assert_eq!(said.status, status, "{target}");
        assert_eq!(said.header("content-type"), Some("application/problem+json"));
        let problem: Value = serde_json::from_slice(&said.body)?;
        assert_eq!(problem["type"], format!("urn:kato:problem:{kind}"), "{problem}");
        assert!(problem["detail"].is_string(), "{problem}");
    }
    // wrong client network: of the upstream, then of the cache
    for (settings, code) in [
        (settings("127.0.0.0/8", "clients = [\"10.9.8.0/24\"]\n"), "DENIED"),
        (settings("10.9.8.0/24", ""), "DENIED"),
    ] {
        durable::write(
            &cache.folder.path().join("proxy.toml"),
            settings.as_bytes(),
            0o600,
        )?;
        cache.proxy.reload()?;
        let refused = async {
            loop {
                let said = cache.ask("GET", TAG, &[NODE]).await?;
                if said.status == 403 {
                    return anyhow::Ok(said);
                }
            }
        };
        let said = timeout(SOON, refused).await.context("it is still given out")??;
        assert_eq!(said.code().as_deref(), Some(code));
        assert_eq!(cache.ask("GET", other, &[NODE]).await?.status, 403);
    }
    assert_eq!(listing(&cache).await?, before);
    assert_eq!(registry.origin.connections(), asked);
    Ok(())
}
