//! The admin listener against web pages and neighbours, and its verbs as an operator uses them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Result;
use integration_tests::proxy::{Ended, run_to_end};
use serde_json::Value;

use crate::{Setup, exchange, raw::Answer};

const TOKEN: &str = "correct-horse-battery-staple";

#[expect(
    clippy::disallowed_methods,
    reason = "a file of the test's own, which need not be durable"
)]
fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

impl Setup {
    async fn admin(&self, method: &str, path: &str, fields: &str) -> Result<Answer> {
        let bytes = format!("{method} {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        let mut answers = exchange(self.proxy.admin, bytes.as_bytes()).await?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// Runs a verb of the command line against this proxy.
    async fn verb(&self, arguments: &[&str]) -> Result<Ended> {
        let admin = self.proxy.admin.to_string();
        let mut line = arguments.to_vec();
        line.extend(["--admin", &admin]);
        run_to_end(&line).await
    }
}

#[tokio::test]
async fn a_web_page_reads_nothing_and_changes_nothing() -> Result<()> {
    let setup = Setup::start().await?;
    setup.get("/files/a").await?;
    let host = format!("Host: {}\r\n", setup.proxy.admin);
    let rows = [
        // A name that a page has bound to our address.
        (
            "GET",
            "/-/api/entries",
            "Host: rebound.example:3181\r\n".to_owned(),
            403,
        ),
        ("GET", "/-/metrics", "Host: rebound.example\r\n".to_owned(), 403),
        ("GET", "/-/api/entries", host.clone(), 200),
        // What a form or a script of another origin can send.
        ("POST", "/-/api/purge?prefix=http", host.clone(), 403),
        (
            "POST",
            "/-/api/purge?prefix=http",
            format!("{host}Origin: null\r\nKato-Admin: 1\r\n"),
            403,
        ),
        (
            "POST",
            "/-/api/verify",
            format!("{host}Content-Type: text/plain\r\n"),
            403,
        ),
        (
            "OPTIONS",
            "/-/api/purge",
            format!("{host}Origin: http://page.example\r\nAccess-Control-Request-Headers: kato-admin\r\n"),
            404,
        ),
        // By another method than the one that is meant.
        (
            "GET",
            "/-/api/purge?prefix=http",
            format!("{host}Kato-Admin: 1\r\n"),
            404,
        ),
        (
            "PUT",
            "/-/api/purge?prefix=http",
            format!("{host}Kato-Admin: 1\r\n"),
            404,
        ),
        ("GET", "/-/api/../../etc/passwd", host.clone(), 404),
        ("GET", "/-/api/%65ntries", host.clone(), 404),
    ];
    for (method, path, fields, status) in rows {
        let answer = setup.admin(method, path, &fields).await?;
        assert_eq!(
            answer.status,
            status,
            "{method} {path} {fields}: {}",
            answer.text()
        );
        assert_eq!(answer.field("access-control-allow-origin"), None);
        assert_eq!(answer.field("access-control-allow-headers"), None);
    }
    assert_eq!(setup.stored().await?, ["/a"]);
    Ok(())
}

#[tokio::test]
async fn with_a_token_the_api_answers_those_who_have_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (file, token) = (folder.path().join("proxy.toml"), folder.path().join("token"));
    put(&token, &format!("{TOKEN}\n"))?;
    put(&file, &format!("[admin]\ntoken_file = \"{}\"\n", token.display()))?;
    let config = file.display().to_string();
    let setup = Setup::with(|settings| settings.arguments(&["--config", &config])).await?;
    setup.get("/files/a").await?;
    let right = format!("Host: h\r\nAuthorization: Bearer {TOKEN}\r\n");
    for (path, fields, status) in [
        ("/-/healthz", "Host: h\r\n", 200),
        ("/-/metrics", "Host: h\r\n", 401),
        ("/-/api/stats", "Host: h\r\n", 401),
        (
            "/-/api/stats",
            "Host: h\r\nAuthorization: Bearer correct-horse-battery-stapl\r\n",
            401,
        ),
        ("/-/api/stats", "Host: h\r\nKato-Admin: 1\r\n", 401),
        ("/-/api/stats", &right, 200),
        ("/-/metrics", &right, 200),
    ] {
        let answer = setup.admin("GET", path, fields).await?;
        assert_eq!(answer.status, status, "{path} {fields}");
        assert_eq!(answer.field("www-authenticate").is_some(), status == 401);
    }
    // The command line without and with it.
    let without = setup.verb(&["ls"]).await?;
    assert_eq!(without.code, Some(2), "{}", without.stderr);
    assert!(
        without
            .stderr
            .contains("hint: name the file with --admin-token-file"),
        "{}",
        without.stderr
    );
    let given = token.display().to_string();
    assert_eq!(
        setup.verb(&["ls", "--admin-token-file", &given]).await?.code,
        Some(0)
    );
    // It can be replaced while the proxy runs, and closes the API when it cannot be trusted.
    put(&token, "another-token-of-some-length")?;
    assert_eq!(setup.admin("GET", "/-/api/stats", &right).await?.status, 401);
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644))?;
    let open = "Host: h\r\nAuthorization: Bearer another-token-of-some-length\r\n";
    assert_eq!(setup.admin("GET", "/-/api/stats", open).await?.status, 403);
    for secret in [TOKEN, "another-token"] {
        assert!(!setup.proxy.log().contains(secret));
    }
    Ok(())
}

#[tokio::test]
async fn p23_show_says_why_and_invalidate_is_not_purge() -> Result<()> {
    let setup = Setup::start().await?;
    setup.origin.answer(
        "/a",
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"1\"\r\nVary: Accept\r\nContent-Length: 4\r\n\r\ngood",
    );
    setup.get("/files/a").await?;
    setup.get("/files/b").await?;
    let show = |field: &'static str| {
        let url = format!("/-/api/show?url=/files/a&field={field}");
        let setup = &setup;
        async move {
            let answer = setup.admin("GET", &url, "Host: 127.0.0.1\r\n").await?;
            anyhow::Ok(serde_json::from_slice::<Value>(&answer.body)?)
        }
    };
    let fresh = show("").await;
    assert!(fresh.is_ok(), "an empty field is refused as a problem document");
    let fresh = show("X-A:%201").await?;
    assert_eq!(fresh["now"], "answered from the store: fresh");
    assert_eq!(fresh["upstream"], "files");
    let one = &fresh["responses"][0];
    assert_eq!(
        (&one["state"], &one["rule"]),
        (&"fresh".into(), &"max-age of the response".into())
    );
    assert_eq!((&one["lifetime_secs"], &one["length"]), (&60.into(), &4.into()));
    assert_eq!(one["has_validator"], true);
    let other = show("Accept:%20text/html").await?;
    assert_eq!(
        other["now"],
        "the upstream is asked: nothing is stored for these request fields"
    );
    assert_eq!(other["responses"][0]["selected"], false);

    let only = setup.verb(&["invalidate", "/files/a", "--dry-run"]).await?;
    assert_eq!(only.code, Some(0), "{}", only.stderr);
    assert_eq!(show("X-A:%201").await?["responses"][0]["state"], "fresh");
    assert_eq!(setup.verb(&["invalidate", "/files/a"]).await?.code, Some(0));
    let stale = show("X-A:%201").await?;
    assert_eq!(stale["responses"][0]["state"], "invalidated");
    assert_eq!(
        stale["now"],
        "the upstream is asked: invalidated by an unsafe request or an operator"
    );
    setup.get("/files/a").await?;
    let validated = setup
        .origin
        .heads()
        .pop()
        .unwrap_or_default()
        .to_ascii_lowercase();
    assert!(validated.contains("if-none-match: \"1\""), "{validated}");
    Ok(())
}

#[tokio::test]
async fn p23_purge_chooses_by_url_prefix_upstream_and_digest() -> Result<()> {
    let setup = Setup::start().await?;
    for path in ["/files/a/1", "/files/a/2", "/files/b", "/files/c"] {
        setup.get(path).await?;
    }
    let entries = setup
        .admin("GET", "/-/api/entries?sort=size&limit=1", "Host: 127.0.0.1\r\n")
        .await?;
    let entries: Value = serde_json::from_slice(&entries.body)?;
    assert_eq!(entries["entries"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        entries["entries"][0]["url"],
        format!("http://{}/a/1", setup.origin.address)
    );
    let digest = entries["entries"][0]["digest"]
        .as_str()
        .unwrap_or_default()
        .to_owned();

    assert_eq!(
        setup
            .verb(&["purge", "--digest", &digest, "--dry-run"])
            .await?
            .code,
        Some(0)
    );
    assert_eq!(setup.stored().await?.len(), 4);
    assert_eq!(setup.verb(&["purge", "--digest", &digest]).await?.code, Some(0));
    assert_eq!(setup.stored().await?, ["/a/2", "/b", "/c"]);
    assert_eq!(setup.verb(&["purge", "/files/b"]).await?.code, Some(0));
    let prefix = format!("http://{}/a/", setup.origin.address);
    assert_eq!(setup.verb(&["purge", "--prefix", &prefix]).await?.code, Some(0));
    assert_eq!(setup.stored().await?, ["/c"]);
    assert_eq!(setup.verb(&["purge", "--upstream", "files"]).await?.code, Some(0));
    assert!(setup.stored().await?.is_empty());

    // What cannot be meant is refused with what to do next.
    for arguments in [
        &["purge", "/files/b"][..],
        &["purge", "--upstream", "unknown"],
        &["purge", "--digest", "sha256:12"],
        &["purge"],
        &["show", "/files/b"],
        &["show", "not a url"],
        &["ls", "--sort", "colour"],
    ] {
        let ended = setup.verb(arguments).await?;
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        let is_usage = ended.stderr.contains("Usage:");
        assert!(
            ended.stderr.contains("hint:") || is_usage,
            "{arguments:?}: {}",
            ended.stderr
        );
    }
    Ok(())
}
