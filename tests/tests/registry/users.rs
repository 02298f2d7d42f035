//! Users of the door: who is let in, for what, and by which of the ways to show it.

use std::time::Duration;

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use integration_tests::{command, origin::Resource, proxy};
use kato_shared::{Digest, durable};
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::scripted::{Cache, Said, Scripted, Small, cache_in};

/// Tags are believed for the whole test.
const LONG: &str = "[upstream.registry]\ntag_ttl = \"1h\"\naliases = [\"hub.example\"]\n";
/// As `htpasswd -nbB -C 4 ada opensesame` writes it.
const ADA: &str = "ada:$2y$04$0RjH4FzSBaKxAcmgS7yN2Oouvj3iNIQq7Pl4haJTzLyE4b/V2cu42";
/// For a command that asks a cache beside it.
const SOON: Duration = Duration::from_secs(30);
const TAG: &str = "/v2/lab/lab/app/manifests/v1";

/// A registry with one image at `lab/app` and `lab/other`, and a cache whose users are `node` (a machine, secret `s3cret`) and `ada` (a
/// person, password `opensesame`), with more keys of the section.
async fn site(keys: &str) -> Result<(Scripted, Cache, Small)> {
    let registry = Scripted::start().await?;
    let image = Small::new("one");
    registry.push("lab/app", "v1", &image);
    registry.push("lab/other", "v1", &Small::new("other"));
    let folder = tempfile::tempdir()?;
    let users = folder.path().join("users");
    let lines = format!("node:{}\n{ADA}\n", Digest::of(b"s3cret"));
    durable::write(&users, lines.as_bytes(), 0o600)?;
    let settings = format!(
        "[registry]\nusers_file = \"{}\"\n{keys}\n{}",
        users.display(),
        registry.section("lab", LONG)
    );
    Ok((registry, cache_in(folder, &settings).await?, image))
}

/// Networks alone protect what is no registry, and what a longer base URL takes out of one.
#[tokio::test(flavor = "multi_thread")]
async fn what_users_do_not_protect_is_said_at_the_start_by_check_config_and_by_doctor() -> Result<()> {
    let registry = Scripted::start().await?;
    let image = Small::new("one");
    registry.push("lab/app", "v1", &image);
    let folder = tempfile::tempdir()?;
    let users = folder.path().join("users");
    durable::write(&users, format!("{ADA}\n").as_bytes(), 0o600)?;
    let settings = format!(
        "[registry]\nusers_file = \"{}\"\n{}[[upstream]]\nname = \"files\"\nurls = [\"http://files.example/\"]\n\
         [[upstream]]\nname = \"known\"\nurls = [\"http://known.example/\"]\nclients = [\"10.1.0.0/16\"]\n\
         [[upstream]]\nname = \"around\"\nurls = [\"{}\"]\n",
        users.display(),
        registry.section("lab", LONG),
        registry.origin.url("/v2/lab/"),
    );
    let cache = cache_in(folder, &settings).await?;
    // It is as it is said: no user is asked for.
    let said = cache.get("/around/app/manifests/v1").await?;
    assert_eq!((said.status, &said.body), (200, &image.manifest), "{said:?}");
    assert_eq!(cache.get(TAG).await?.status, 401);

    let open = "what comes from `files` is given to everybody whom [access] lets in";
    let around = "is given without a user by way of `around`";
    let file = cache.folder.path().join("proxy.toml");
    let checked = proxy::run_to_end(&["check-config", "--config", file.to_str().context("UTF-8")?]).await?;
    let report = doctor(&cache).await?;
    let checks = report["checks"].as_array().context("no checks")?;
    let of_users = checks.iter().filter(|check| check["subject"] == "users");
    assert!(
        of_users.clone().all(|check| check["state"] == "warning"),
        "{report:#}"
    );
    let found: String = of_users.map(ToString::to_string).collect();
    for said in [cache.proxy.log(), checked.stderr, found] {
        assert!(said.contains(open) && said.contains(around), "{said}");
        assert!(!said.contains("`known`"), "{said}");
    }
    Ok(())
}

/// What `doctor` says of `cache`.
async fn doctor(cache: &Cache) -> Result<Value> {
    let mut doctor = command::new(proxy::program()?);
    doctor.args([
        "doctor",
        "--json",
        "--server",
        &format!("http://{}/", cache.proxy.data),
    ]);
    let output = spawn_blocking(move || command::run(doctor, SOON, &[])).await??;
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_a_door_well_that_asks_for_users() -> Result<()> {
    let (_registry, cache, _image) = site("").await?;
    let report = doctor(&cache).await?;
    let checks = report["checks"].as_array().context("no checks")?;
    let of_it = checks.iter().find(|check| check["subject"] == "upstream lab");
    assert_eq!(of_it.context("no check of it")?["state"], "ok", "{report:#}");
    assert!(
        !checks.iter().any(|check| check["state"] == "failed"),
        "{report:#}"
    );
    Ok(())
}

fn basic(pair: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

async fn showing(cache: &Cache, target: &str, authorization: &str) -> Result<Said> {
    cache
        .ask("GET", target, &[("authorization", authorization)])
        .await
}

/// A token for `scope`, as a client gets it by the challenge of an answer.
async fn token(cache: &Cache, pair: &str, scope: &str) -> Result<String> {
    let scope = scope.replace(':', "%3A").replace('/', "%2F").replace(' ', "+");
    let target = format!("/-/token?service=kato&scope={scope}");
    let said = showing(cache, &target, &basic(pair)).await?;
    anyhow::ensure!(said.status == 200, "no token: {said:?}");
    let answer: Value = serde_json::from_slice(&said.body)?;
    anyhow::ensure!(answer["expires_in"] == 300 && answer["token"] == answer["access_token"]);
    Ok(format!("Bearer {}", answer["token"].as_str().context("no text")?))
}

#[tokio::test]
async fn users_of_the_door_show_who_they_are_and_upstreams_never_hear_it() -> Result<()> {
    let (registry, cache, image) = site("").await?;
    let tag = TAG;
    for target in ["/v2/", tag, "/v2/elsewhere.example/app/manifests/v1"] {
        let said = cache.get(target).await?;
        assert_eq!(
            (said.status, said.code().as_deref()),
            (401, Some("UNAUTHORIZED")),
            "{target}"
        );
        assert!(
            said.header("www-authenticate")
                .is_some_and(|challenge| challenge.starts_with("Basic "))
        );
    }
    // The way around the door is closed, too.
    assert_eq!(cache.get("/lab/v2/lab/app/manifests/v1").await?.status, 403);
    assert!(registry.methods("/v2/lab/app/manifests/v1").is_empty());
    for wrong in ["node:wrong", "ada:wrong", "eve:opensesame"] {
        assert_eq!(showing(&cache, tag, &basic(wrong)).await?.status, 401, "{wrong}");
    }
    // Without a setting that says so, nobody gives tokens.
    assert_eq!(
        showing(&cache, "/-/token", &basic("node:s3cret")).await?.status,
        404
    );
    assert_eq!(cache.proxy.stats().await?.stored_responses, 0);
    for right in [
        basic("node:s3cret").as_str(),
        "Bearer s3cret",
        &basic("ada:opensesame"),
    ] {
        let fields = [("authorization", right)];
        assert_eq!(cache.ask("GET", "/v2/", &fields).await?.status, 200);
        assert_eq!(cache.ask("GET", tag, &fields).await?.body, image.manifest);
    }
    let requests = registry.origin.requests("/v2/lab/app/manifests/v1");
    assert!(
        requests
            .iter()
            .all(|request| request.header("authorization").is_none()),
        "{requests:?}"
    );
    // And after it was stored: no hit without credentials.
    assert_eq!(cache.get(tag).await?.status, 401);
    Ok(())
}

#[tokio::test]
async fn a_stranger_is_told_where_tokens_come_from_and_of_what_scope() -> Result<()> {
    let (_registry, cache, _image) = site("token_lifetime = \"5m\"").await?;
    let host = cache.proxy.data;
    for (target, scope) in [
        ("/v2/", ""),
        (TAG, ",scope=\"repository:lab/lab/app:pull\""),
        (
            "/v2/lab/app/manifests/v1?ns=hub.example",
            ",scope=\"repository:hub.example/lab/app:pull\"",
        ),
        // Who is a stranger does not learn what is configured.
        (
            "/v2/evil.example/app/manifests/v1",
            ",scope=\"repository:evil.example/app:pull\"",
        ),
    ] {
        let said = cache.get(target).await?;
        let expected = format!("Bearer realm=\"http://{host}/-/token\",service=\"kato\"{scope}");
        assert_eq!(said.status, 401);
        assert_eq!(
            said.header("www-authenticate"),
            Some(expected.as_str()),
            "{target}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_client_changes_name_and_password_for_a_token_of_the_scope_that_it_needs() -> Result<()> {
    let (registry, cache, image) = site("token_lifetime = \"5m\"").await?;
    for (pair, scope, target) in [
        ("ada:opensesame", "repository:lab/lab/app:pull", TAG),
        ("node:s3cret", "repository:hub.example/lab/app:pull,push", TAG),
        (
            "ada:opensesame",
            "repository:lab/app:pull repository:hub.example/lab/app:pull",
            "/v2/lab/app/manifests/v1?ns=hub.example",
        ),
    ] {
        let token = token(&cache, pair, scope).await?;
        assert_eq!(showing(&cache, "/v2/", &token).await?.status, 200);
        assert_eq!(
            showing(&cache, target, &token).await?.body,
            image.manifest,
            "{scope}"
        );
        let blob = format!("/v2/lab/lab/app/blobs/{}", image.blob());
        assert_eq!(showing(&cache, &blob, &token).await?.body, image.layer);
        let other = showing(&cache, "/v2/lab/lab/other/manifests/v1", &token).await?;
        assert_eq!(
            (other.status, other.code().as_deref()),
            (401, Some("UNAUTHORIZED"))
        );
        let challenge = other.header("www-authenticate").unwrap_or_default();
        assert!(
            challenge.ends_with("scope=\"repository:lab/lab/other:pull\",error=\"insufficient_scope\""),
            "{challenge}"
        );
    }
    assert!(registry.methods("/v2/lab/other/manifests/v1").is_empty());
    Ok(())
}

#[tokio::test]
async fn nobody_else_gets_a_token_and_no_secret_is_logged() -> Result<()> {
    let (_registry, cache, _image) = site("token_lifetime = \"5m\"").await?;
    // Name and password themselves still do, and for nothing else is there a token.
    assert_eq!(showing(&cache, TAG, &basic("ada:opensesame")).await?.status, 200);
    for wrong in ["ada:wrong", "eve:x", "node:wrong"] {
        let said = showing(&cache, "/-/token", &basic(wrong)).await?;
        assert_eq!((said.status, said.code().as_deref()), (401, Some("UNAUTHORIZED")));
        assert!(
            said.header("www-authenticate")
                .is_some_and(|one| one.starts_with("Basic "))
        );
    }
    let token = token(&cache, "ada:opensesame", "registry:catalog:*").await?;
    assert_eq!(
        showing(&cache, "/-/token", &token).await?.status,
        401,
        "a token begets none"
    );
    assert_eq!(cache.ask("PUT", "/-/token", &[]).await?.status, 405);
    let log = cache.proxy.log();
    assert!(
        !log.contains("opensesame") && !log.contains(token.trim_start_matches("Bearer ")),
        "{log}"
    );
    Ok(())
}

#[tokio::test]
async fn rfc6749_s4_3_a_form_with_name_and_password_gets_a_token_and_any_other_a_named_error() -> Result<()> {
    let (_registry, cache, image) = site("token_lifetime = \"5m\"").await?;
    let post = async |form: &str| {
        let request = cache.proxy.client().request("POST", "/-/token");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let (response, body) = request.body(form).fetch().await?;
        let said: Value = serde_json::from_slice(&body)?;
        anyhow::Ok((response.status, said))
    };
    let scope = "service=kato&client_id=lab&scope=repository%3Alab%2Flab%2Fapp%3Apull";
    let (status, given) = post(&format!(
        "grant_type=password&username=ada&password=opensesame&access_type=offline&{scope}"
    ))
    .await?;
    assert_eq!(status, 200, "{given}");
    assert!(given.get("refresh_token").is_none());
    let token = format!("Bearer {}", given["access_token"].as_str().context("no text")?);
    assert_eq!(showing(&cache, TAG, &token).await?.body, image.manifest);
    let other = showing(&cache, "/v2/lab/lab/other/manifests/v1", &token).await?;
    assert_eq!(other.status, 401, "of another scope");
    for (form, error) in [
        ("grant_type=password&username=ada&password=wrong", "invalid_grant"),
        ("grant_type=password&username=eve&password=x", "invalid_grant"),
        (
            "grant_type=refresh_token&refresh_token=x",
            "unsupported_grant_type",
        ),
        ("grant_type=password&username=ada", "invalid_request"),
        (&"a=b&".repeat(10_000), "invalid_request"),
    ] {
        let (status, said) = post(&format!("{form}&{scope}")).await?;
        assert_eq!((status, said["error"].as_str()), (400, Some(error)), "{said}");
    }
    assert!(!cache.proxy.log().contains("opensesame"));
    Ok(())
}

#[tokio::test]
async fn a_token_ends_with_the_line_of_its_user() -> Result<()> {
    let (_registry, cache, image) = site("token_lifetime = \"5m\"").await?;
    let token = token(&cache, "ada:opensesame", "repository:lab/lab/app:pull").await?;
    assert_eq!(showing(&cache, TAG, &token).await?.body, image.manifest);
    let only_node = format!("node:{}\n", Digest::of(b"s3cret"));
    durable::write(&cache.folder.path().join("users"), only_node.as_bytes(), 0o600)?;
    let ended = async {
        while showing(&cache, TAG, &token).await?.status != 401 {}
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(20), ended)
        .await
        .context("it is still good")??;
    assert_eq!(showing(&cache, TAG, &basic("ada:opensesame")).await?.status, 401);
    assert_eq!(showing(&cache, TAG, &basic("node:s3cret")).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn rights_hold_by_either_way_and_a_digest_is_no_right() -> Result<()> {
    let rights = "token_lifetime = \"5m\"\nrights = { node = [\"lab/lab/app\"] }";
    let (registry, cache, image) = site(rights).await?;
    let other = Small::new("other");
    registry.origin.serve("/v2/_catalog", Resource::new("{}"));
    let ada = basic("ada:opensesame");
    let secret = format!("/v2/lab/lab/other/blobs/{}", other.blob());
    assert_eq!(showing(&cache, &secret, &ada).await?.body, other.layer);
    assert_eq!(showing(&cache, "/v2/lab/_catalog", &ada).await?.status, 200);
    let scopes = "repository:lab/lab/app:pull repository:lab/lab/other:pull registry:catalog:*";
    let by_token = token(&cache, "node:s3cret", scopes).await?;
    for node in [basic("node:s3cret"), "Bearer s3cret".to_owned(), by_token] {
        assert_eq!(showing(&cache, TAG, &node).await?.body, image.manifest);
        for denied in [&secret, "/v2/lab/lab/other/manifests/v1", "/v2/lab/_catalog"] {
            let said = showing(&cache, denied, &node).await?;
            assert_eq!(
                (said.status, said.code().as_deref()),
                (403, Some("DENIED")),
                "{denied}"
            );
        }
        // Held, and the right digest; but not known to be in the repository that this user may pull from.
        let sideways = format!("/v2/lab/lab/app/blobs/{}", other.blob());
        assert_eq!(showing(&cache, &sideways, &node).await?.status, 404);
    }
    Ok(())
}
