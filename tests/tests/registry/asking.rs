//! What a registry is asked, and how often: questions about tags, blobs that a chained cache does not know yet, tokens.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use integration_tests::{
    origin::{Fault, Gate, Resource},
    proxy::run_to_end,
};
use kato_shared::{Digest, durable};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::scripted::{ALWAYS, Cache, LONG, MANIFEST, Scripted, Small, cache_in, site};

const SOON: Duration = Duration::from_secs(20);

/// Waits until the tag is held: it becomes so behind the client's back.
pub(crate) async fn until_held(cache: &Cache, target: &str) -> Result<()> {
    let held = async {
        loop {
            let fields = [("cache-control", "only-if-cached, max-stale")];
            if cache.ask("HEAD", target, &fields).await?.status == 200 {
                return Ok(());
            }
        }
    };
    timeout(SOON, held).await.context("the tag is not kept")?
}

/// Why a tag is fresh or stale, and until when, is for operators to see.
#[tokio::test(flavor = "multi_thread")]
async fn p11_show_and_ls_say_how_long_a_tag_is_believed() -> Result<()> {
    let (registry, cache, image) = site("[upstream.registry]\ntag_ttl = \"10m\"\n").await?;
    let tag = "/v2/lab/lab/app/manifests/v1";
    assert_eq!(cache.get(tag).await?.status, 200);
    cache
        .proxy
        .wait_until_stored(&cache.proxy.client().get(tag), &image.manifest)
        .await?;
    let admin = cache.proxy.admin.to_string();
    let url = registry.origin.url("/v2/lab/app/manifests/v1");
    let shown = run_to_end(&["show", "--admin", &admin, &url]).await?;
    assert!(
        shown
            .stdout
            .contains("tag_ttl = 10m in the settings of its upstream")
            && shown.stdout.contains("; believed until "),
        "{shown:?}"
    );
    let listed = run_to_end(&["ls", "--admin", &admin]).await?;
    let lines = listed.stdout.lines();
    let (tags, others): (Vec<_>, Vec<_>) = lines.partition(|line| line.contains(&url));
    assert!(
        tags.len() == 1 && tags[0].contains("  believed until "),
        "{listed:?}"
    );
    assert!(
        !others.is_empty() && others.iter().all(|line| !line.contains("believed")),
        "{listed:?}"
    );
    let json = run_to_end(&["ls", "--json", "--admin", &admin]).await?;
    let page: serde_json::Value = serde_json::from_str(&json.stdout)?;
    let entry = page["entries"]
        .as_array()
        .and_then(|all| all.iter().find(|entry| entry["url"] == url));
    let entry = entry.context("no such entry")?;
    let validated: jiff::Timestamp = entry["validated"].as_str().context("no time")?.parse()?;
    let until: jiff::Timestamp = entry["believed_until"].as_str().context("no end")?.parse()?;
    // A tenth more or less, and the age that the answer had by then.
    let seconds = until.duration_since(validated).as_secs();
    assert!((530..=661).contains(&seconds), "{seconds}");
    Ok(())
}

#[tokio::test]
async fn p20_a_head_on_a_miss_is_a_head_upstream_and_the_tag_is_kept() -> Result<()> {
    let (mut registry, cache, image) = site(ALWAYS).await?;
    let tag = "/v2/lab/lab/app/manifests/v1";
    let said = cache.ask("HEAD", tag, &[]).await?;
    assert_eq!(said.status, 200);
    assert_eq!(
        said.header("docker-content-digest"),
        Some(image.digest().as_str())
    );
    assert_eq!(registry.methods("/v2/lab/app/manifests/v1"), ["HEAD"]);
    until_held(&cache, tag).await?;
    let by_digest = format!("/v2/lab/app/manifests/{}", image.digest());
    assert_eq!(
        cache
            .get(&format!("/v2/lab{by_digest}").replace("/v2/lab/v2/", "/v2/lab/"))
            .await?
            .body,
        image.manifest
    );
    assert_eq!(
        registry.methods(&by_digest),
        ["GET"],
        "fetched once, whoever asked"
    );
    registry.origin.stop().await;
    let said = cache.ask("HEAD", tag, &[]).await?;
    assert_eq!(said.status, 200);
    assert_eq!(
        said.header("content-length"),
        Some(image.manifest.len().to_string().as_str())
    );
    assert!(
        said.header("warning")
            .is_some_and(|warning| warning.starts_with("111 ")),
        "{said:?}"
    );
    Ok(())
}

#[tokio::test]
async fn p11_p20_heads_of_many_clients_about_a_tag_are_one_question() -> Result<()> {
    let (registry, cache, image) = site(ALWAYS).await?;
    let gate = Gate::closed();
    let held = Resource::new(image.manifest.clone())
        .header("content-type", MANIFEST)
        .header("docker-content-digest", &image.digest())
        .fault(Fault::HoldHead(gate.clone()));
    registry.origin.serve("/v2/lab/app/manifests/v1", held);
    let cache = Arc::new(cache);
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let cache = Arc::clone(&cache);
        clients.spawn(async move { cache.ask("HEAD", "/v2/lab/lab/app/manifests/v1", &[]).await });
    }
    registry
        .origin
        .wait_for_requests("/v2/lab/app/manifests/v1", 1)
        .await?;
    // Time for the others to come, too: each of these goes the whole way through the proxy.
    for _ in 0..100 {
        assert_eq!(cache.get("/v2/").await?.status, 200);
    }
    gate.open();
    while let Some(said) = clients.join_next().await {
        let said = said??;
        assert_eq!(said.status, 200, "{said:?}");
        assert_eq!(
            said.header("docker-content-digest"),
            Some(image.digest().as_str())
        );
        assert_eq!(
            said.header("content-length"),
            Some(image.manifest.len().to_string().as_str())
        );
    }
    // Whoever came after the answer has asked anew.
    let asked = registry.methods("/v2/lab/app/manifests/v1").len();
    assert!(asked <= 2, "{asked} questions of 8 clients");
    Ok(())
}

#[tokio::test]
async fn p20_a_blob_that_a_chained_cache_does_not_know_is_asked_for_again_after_its_manifest() -> Result<()> {
    let (registry, cache, image) = site(LONG).await?;
    let tag = "/v2/lab/lab/app/manifests/v1";
    for _ in 0..2 {
        assert_eq!(cache.get(tag).await?.status, 200);
    }
    let blob = format!("/v2/lab/app/blobs/{}", image.blob());
    // Known only after the manifest has been pulled through that cache once more.
    let late = Resource::new(image.layer.clone()).fault(Fault::Status(404));
    registry.origin.serve(&blob, late);
    let target = format!("/v2/lab/lab/app/blobs/{}", image.blob());
    assert_eq!(cache.get(&target).await?.body, image.layer);
    assert_eq!(registry.methods(&blob), ["GET", "GET"]);
    assert_eq!(registry.methods("/v2/lab/app/manifests/v1"), ["GET", "GET"]);
    // A blob that does not exist costs no further manifests.
    for nth in 0..3 {
        let missing = format!("/v2/lab/lab/app/blobs/{}", Digest::of(&[nth]));
        assert_eq!(cache.get(&missing).await?.status, 404);
    }
    assert_eq!(registry.methods("/v2/lab/app/manifests/v1").len(), 2);
    Ok(())
}

#[tokio::test]
async fn p18_a_token_of_another_scope_is_changed_for_one_that_fits() -> Result<()> {
    let (registry, cache, image) = site(LONG).await?;
    let realm = registry.origin.url("/token");
    let challenge =
        |scope: &str| format!("Bearer realm=\"{realm}\",service=\"lab\",scope=\"repository:{scope}:pull\"");
    let blob = format!("/v2/lab/app/blobs/{}", image.blob());
    // The manifest is open; the blob wants a token, and says of what scope; the first one is not enough.
    for (nth, scope) in ["lab/app", "lab/base"].iter().enumerate() {
        let token = format!(
            "/token?service=lab&scope=repository%3A{}%3Apull",
            scope.replace('/', "%2F")
        );
        let body = format!("{{\"token\":\"t{nth}\"}}");
        registry.origin.serve(
            &token,
            Resource::new(body).header("content-type", "application/json"),
        );
    }
    let wants = |scope: &str| {
        Resource::new("{}")
            .status(401)
            .header("www-authenticate", &challenge(scope))
    };
    assert_eq!(cache.get("/v2/lab/lab/app/manifests/v1").await?.status, 200);
    registry.origin.serve(&blob, wants("lab/app"));
    let target = format!("/v2/lab/lab/app/blobs/{}", image.blob());
    let refused = cache.get(&target).await?;
    assert_eq!((refused.status, refused.code().as_deref()), (403, Some("DENIED")));
    let sent = |registry: &Scripted| -> Vec<Option<String>> {
        let requests = registry.origin.requests(&blob);
        let shown = requests
            .iter()
            .map(|one| one.header("authorization").map(str::to_owned));
        shown.collect()
    };
    assert_eq!(sent(&registry), [None, Some("Bearer t0".to_owned())]);
    // Now it says that another repository's scope is meant: the token that is held is not sent in vain for ever.
    registry.origin.serve(&blob, wants("lab/base"));
    assert_eq!(cache.get(&target).await?.status, 403);
    assert_eq!(
        sent(&registry)[2..],
        [Some("Bearer t0".to_owned()), Some("Bearer t1".to_owned())]
    );
    registry.origin.serve(&blob, Resource::new(image.layer.clone()));
    assert_eq!(cache.get(&target).await?.body, image.layer);
    assert_eq!(sent(&registry).last(), Some(&Some("Bearer t1".to_owned())));
    assert_eq!(cache.proxy.log().matches("Bearer t").count(), 0);
    Ok(())
}

#[tokio::test]
async fn p18_a_realm_that_cannot_be_used_is_no_challenge_and_nobody_is_asked() -> Result<()> {
    let (registry, cache, _image) = site(LONG).await?;
    for realm in [
        "",
        "not a url",
        "ftp://token.example/",
        "https://me:pw@token.example/",
        "file:///etc/passwd",
    ] {
        let closed = Resource::new("{}").status(401).header(
            "www-authenticate",
            &format!("Bearer realm=\"{realm}\",service=\"lab\""),
        );
        registry.origin.serve("/v2/lab/app/manifests/v3", closed);
        let asked = registry.methods("/v2/lab/app/manifests/v3").len();
        let said = cache.get("/v2/lab/lab/app/manifests/v3").await?;
        assert_eq!(
            (said.status, said.code().as_deref()),
            (403, Some("DENIED")),
            "{realm}"
        );
        assert_eq!(
            registry.methods("/v2/lab/app/manifests/v3").len(),
            asked + 1,
            "{realm}"
        );
    }
    assert_eq!(cache.proxy.stats().await?.stored_responses, 0);
    Ok(())
}

#[tokio::test]
async fn c04_what_a_registry_demanded_in_error_is_forgotten_when_it_is_put_right() -> Result<()> {
    let (registry, cache, image) = site(LONG).await?;
    let path = "/v2/lab/app/manifests/v4";
    let target = "/v2/lab/lab/app/manifests/v4";
    let demands = |realm: &str| {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"lab\",scope=\"repository:lab/app:pull\"");
        Resource::new("{}")
            .status(401)
            .header("www-authenticate", &challenge)
    };
    for realm in [
        "http://169.254.169.254/latest/token",
        "https://token.other.example/",
    ] {
        registry.origin.serve(path, demands(realm));
        let said = cache.get(target).await?;
        assert_eq!(said.status, 502, "{realm}");
        let text = String::from_utf8(said.body)?;
        assert!(text.contains("token_hosts in [upstream.registry]"), "{text}");
    }
    // The token service was there, and a token was had; now it is gone, and nobody wants a token any more.
    let token = "/token?service=lab&scope=repository%3Alab%2Fapp%3Apull";
    let over = Resource::new(r#"{"token":"t","expires_in":0}"#).header("content-type", "application/json");
    registry.origin.serve(token, over);
    registry
        .origin
        .serve(path, demands(&registry.origin.url("/token")));
    assert_eq!(cache.get(target).await?.status, 403);
    registry.origin.serve(token, Resource::new("gone").status(404));
    registry.push("lab/app", "v4", &image);
    let said = cache.get(target).await?;
    assert_eq!((said.status, &said.body), (200, &image.manifest));
    assert_eq!(
        registry.methods(token).len(),
        2,
        "asked for once more, and then not"
    );
    Ok(())
}

#[tokio::test]
async fn c06_a_password_that_is_not_taken_is_shown_once_however_many_ask() -> Result<()> {
    let registry = Scripted::start().await?;
    let image = Small::new("one");
    let folder = tempfile::tempdir()?;
    let credentials = folder.path().join("credentials");
    durable::write(&credentials, b"ci:wrong\n", 0o600)?;
    let keys = format!("{ALWAYS}credentials_file = \"{}\"\n", credentials.display());
    let cache = Arc::new(cache_in(folder, &registry.section("lab", &keys)).await?);
    let begun = Instant::now();
    let closed = Resource::new("{}")
        .status(401)
        .header("www-authenticate", "Basic realm=\"lab\"");
    let paths: Vec<_> = (0..4).map(|nth| format!("lab/app{nth}/manifests/v1")).collect();
    for path in &paths {
        registry.origin.serve(&format!("/v2/{path}"), closed.clone());
    }
    let mut clients = JoinSet::new();
    for path in paths.iter().chain(&paths) {
        let (cache, target) = (Arc::clone(&cache), format!("/v2/lab/{path}"));
        clients.spawn(async move { cache.get(&target).await });
    }
    while let Some(said) = clients.join_next().await {
        assert_eq!(said??.status, 403);
    }
    for _ in 0..5 {
        assert_eq!(cache.get(&format!("/v2/lab/{}", paths[0])).await?.status, 403);
    }
    let shown = || {
        let requests = paths
            .iter()
            .flat_map(|path| registry.origin.requests(&format!("/v2/{path}")));
        requests
            .filter(|one| one.header("authorization").is_some())
            .count()
    };
    let windows = usize::try_from(begun.elapsed().as_secs() / 10)?;
    assert!((1..=1 + windows).contains(&shown()), "{}", shown());
    // What wants no password is had meanwhile.
    registry.push("lab/app1", "v1", &image);
    assert_eq!(cache.get("/v2/lab/lab/app1/manifests/v1").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn p11_a_registry_with_nothing_left_is_not_asked_where_a_stored_tag_stands_in() -> Result<()> {
    let (registry, cache, image) = site(ALWAYS).await?;
    let path = "/v2/lab/app/manifests/v1";
    let tag = Resource::new(image.manifest.clone())
        .header("content-type", MANIFEST)
        .header("docker-content-digest", &image.digest())
        .header("ratelimit-limit", "100;w=21600");
    registry
        .origin
        .serve(path, tag.clone().header("ratelimit-remaining", "0;w=21600"));
    let door = "/v2/lab/lab/app/manifests/v1";
    assert_eq!(cache.get(door).await?.body, image.manifest);
    until_held(&cache, door).await?;
    let asked = registry.methods(path).len();
    let said = cache.get(door).await?;
    assert_eq!((said.status, &said.body), (200, &image.manifest));
    assert!(
        said.header("warning").is_some_and(|code| code.starts_with("11")),
        "{said:?}"
    );
    assert_eq!(
        registry.methods(path).len(),
        asked,
        "the registry has nothing left"
    );
    let (_, page) = cache.proxy.admin_client().fetch("/-/metrics").await?;
    let page = String::from_utf8(page)?;
    for line in [
        "kato_proxy_upstream_rate_limit{upstream=\"lab\"} 100",
        "kato_proxy_upstream_rate_limit_remaining{upstream=\"lab\"} 0",
    ] {
        assert!(page.lines().any(|one| one == line), "{line}");
    }
    assert!(cache.proxy.log().contains("answers no more questions"));
    // What is not held is asked for all the same, and its answer says that there is more by now.
    registry.origin.serve(
        "/v2/lab/app/manifests/v2",
        tag.header("ratelimit-remaining", "7;w=21600"),
    );
    assert_eq!(cache.get("/v2/lab/lab/app/manifests/v2").await?.status, 200);
    cache.get(door).await?;
    assert!(registry.methods(path).len() > asked);
    Ok(())
}
