//! What is closed to somebody stays closed at every door, in every spelling; and nobody acts in the operator's name.
//!
//! Clients here come from 127.0.0.1, and what is closed is for 127.0.0.2.

use anyhow::{Context, Result};
use integration_tests::proxy::{Proxy, Settings};
use kato_shared::{Digest, durable};
use tempfile::TempDir;

use crate::{
    RawOrigin,
    raw::{Answer, exchange},
};

/// A proxy with a file of settings in which `HOST` is the origin's address and `DIR` its folder.
struct Doors {
    origin: RawOrigin,
    proxy: Proxy,
    _folder: TempDir,
}

impl Doors {
    async fn start(settings: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let origin = RawOrigin::start().await?;
        let dir = folder
            .path()
            .to_str()
            .context("the temporary folder is not UTF-8")?;
        let text = settings
            .replace("HOST", &origin.address.to_string())
            .replace("DIR", dir);
        let config = folder.path().join("proxy.toml");
        durable::write(&config, text.as_bytes(), 0o600)?;
        durable::write(&folder.path().join("credentials"), b"ci:hunter2\n", 0o600)?;
        let users = format!("node:{}\n", Digest::of(b"s3cret"));
        durable::write(&folder.path().join("users"), users.as_bytes(), 0o600)?;
        let config = config.to_str().context("the temporary folder is not UTF-8")?;
        let proxy = Settings::new(&folder.path().join("cache"))
            .arguments(&["--config", config])
            .start()
            .await?;
        Ok(Self {
            origin,
            proxy,
            _folder: folder,
        })
    }

    /// The answer to one request; `HOST` in its target is the origin's address.
    async fn ask(&self, method: &str, target: &str) -> Result<Answer> {
        let target = target.replace("HOST", &self.origin.address.to_string());
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: c\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let mut answers = exchange(self.proxy.data, request.as_bytes()).await?;
        answers.retain(|answer| !(100..200).contains(&answer.status));
        answers
            .pop()
            .with_context(|| format!("no answer to {method} {target}"))
    }
}

const CLOSED: &str = "[[upstream]]\nname = \"pub\"\nurls = [\"http://HOST/pub/\"]\n\
                      [[upstream]]\nname = \"secret\"\nurls = [\"http://HOST/secret/\"]\nclients = [\"127.0.0.2/32\"]\n";

#[tokio::test]
async fn c02_what_is_closed_to_a_client_is_so_in_every_spelling_at_every_door() -> Result<()> {
    let doors = Doors::start(CLOSED).await?;
    let mut wrong = Vec::new();
    for (target, status) in [
        ("/secret/x", 403),
        ("/pub/%2e%2e%2fsecret/x", 400),
        ("/pub/..%2fsecret/x", 400),
        ("/pub/..%5csecret/x", 400),
        ("/pub/..;/secret/x", 400),
        ("/pub/a/..%2f..%2fsecret/x", 400),
        ("http://HOST/pub/a/..%2f..%2fsecret/x", 400),
        ("/http/HOST//secret/x", 403),
        ("/http/HOST/%73ecret/x", 403),
        ("/http/HOST/secret%2fx", 403),
        ("/http/HOST/SECRET/x", 403),
        ("/http/HOST/secret;a/x", 403),
        ("/~pub/http/HOST/secret/x", 403),
        ("/HOST/secret/x", 403),
        ("http://HOST/%73ecret/x", 403),
        ("http://HOST//secret/x", 403),
        ("http://HOST/", 403),
        ("/pub/open", 200),
        ("/pub/%252e%252e%252fsecret/x", 200),
        ("http://HOST/pub/../pub/open", 200),
    ] {
        let said = doors.ask("GET", target).await?.status;
        if said != status {
            wrong.push(format!("{target}: {said}, expected {status}"));
        }
    }
    let tunnel = doors.ask("CONNECT", "HOST").await?;
    assert_eq!(tunnel.status, 403, "{}", tunnel.text());
    let asked = doors.origin.asked();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        asked.iter().all(|line| line.starts_with("GET /pub/")),
        "{asked:?}"
    );
    Ok(())
}

const WRITES: &str = "[[upstream]]\nname = \"priv\"\nkind = \"registry\"\nurls = [\"http://HOST/reg/\"]\n\
                      [upstream.registry]\ncredentials_file = \"DIR/credentials\"\n\
                      [[upstream]]\nname = \"deb\"\nkind = \"packages\"\nurls = [\"http://ci:hunter2@HOST/debian/\"]\n\
                      [[upstream]]\nname = \"tuf\"\nkind = \"release\"\nurls = [\"http://ci:hunter2@HOST/tuf/\"]\n\
                      [[upstream]]\nname = \"plain\"\nurls = [\"http://ci:hunter2@HOST/plain/\"]\n";

/// What nobody may change, by each door.
const READ_ONLY: [&str; 11] = [
    "/priv/v2/app/blobs/uploads/",
    "/priv/%762/app/blobs/uploads/",
    "/priv/v2/app/manifests/v1",
    "http://HOST/reg/v2/app/blobs/uploads/",
    "/http/HOST/%72eg/v2/app/manifests/v1",
    "/v2/priv/app/manifests/v1",
    "/deb/pool/a.deb",
    "/http/HOST/debian/a",
    "/http/HOST/service/rest/x",
    "http://HOST/service/rest/x",
    "/tuf/1.root.json",
];

#[tokio::test]
async fn c01_nobody_writes_through_the_cache_in_the_operators_name() -> Result<()> {
    let doors = Doors::start(WRITES).await?;
    for method in ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"] {
        for target in READ_ONLY {
            let said = doors.ask(method, target).await?;
            assert_eq!(said.status, 405, "{method} {target}: {}", said.text());
            assert!(said.field("allow").is_some(), "{method} {target}");
            let is_registry = target.contains("v2/") || target.contains("%762/");
            assert!(
                !is_registry || said.text().contains("UNSUPPORTED"),
                "{method} {target}: {}",
                said.text()
            );
        }
    }
    assert!(doors.origin.heads().is_empty(), "{:?}", doors.origin.heads());
    // What kind generic takes goes on, as the client's own.
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(doors.ask(method, "/plain/x").await?.status, 200, "{method}");
    }
    assert!(
        !doors
            .origin
            .heads()
            .concat()
            .to_ascii_lowercase()
            .contains("authorization")
    );
    for (nth, (method, target, shows)) in [
        ("GET", "/plain/a", true),
        ("HEAD", "/plain/b", true),
        ("GET", "/http/HOST/plain/c", true),
        ("GET", "/deb/d", true),
        ("GET", "/http/HOST/elsewhere", false),
        ("GET", "http://HOST//plain/e", false),
        ("GET", "http://HOST/", false),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(doors.ask(method, target).await?.status, 200, "{method} {target}");
        let heads = doors.origin.heads();
        assert_eq!(heads.len(), 5 + nth, "{method} {target} was asked for once");
        let last = heads.last().context("nothing was asked")?.to_ascii_lowercase();
        assert_eq!(
            last.contains("authorization: basic"),
            shows,
            "{method} {target}: {last}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn c01_the_credentials_of_a_url_follow_no_redirect_out_of_it() -> Result<()> {
    let doors = Doors::start(WRITES).await?;
    let to = |path: &str| {
        format!("HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    };
    doors.origin.answer("/plain/in", &to("/plain/there"));
    doors.origin.answer("/plain/out", &to("/admin"));
    doors.origin.answer("/plain/odd", &to("/plain/..%2fadmin"));
    for (target, shows) in [("/plain/in", true), ("/plain/out", false), ("/plain/odd", false)] {
        assert_eq!(doors.ask("GET", target).await?.status, 200, "{target}");
        let last = doors
            .origin
            .heads()
            .pop()
            .context("nothing was asked")?
            .to_ascii_lowercase();
        assert_eq!(last.contains("authorization: basic"), shows, "{target}: {last}");
    }
    Ok(())
}

const USERS: &str = "[registry]\nusers_file = \"DIR/users\"\n\
                     [[upstream]]\nname = \"regfiles\"\nurls = [\"http://HOST/files/\"]\n\
                     [[upstream]]\nname = \"lab\"\nkind = \"registry\"\nurls = [\"http://HOST/\"]\n";

#[tokio::test]
async fn c03_with_users_a_registry_is_reached_by_the_door_alone() -> Result<()> {
    let doors = Doors::start(USERS).await?;
    for (method, target, status) in [
        ("CONNECT", "HOST", 403),
        ("GET", "/lab/v2/app/manifests/v1", 403),
        ("GET", "/http/HOST/v2/app/manifests/v1", 403),
        ("GET", "http://HOST/v2/app/manifests/v1", 403),
        ("GET", "http://HOST//v2/app/manifests/v1", 403),
        ("GET", "/http/HOST/%762/app/manifests/v1", 403),
        ("GET", "/~regfiles/http/HOST/v2/app/manifests/v1", 403),
        ("GET", "/regfiles/..%2fv2/app/manifests/v1", 400),
        ("GET", "/regfiles/..%5cv2/app/manifests/v1", 400),
        ("GET", "/regfiles/..;/v2/app/manifests/v1", 400),
        ("GET", "/regfiles/../v2/app/manifests/v1", 400),
        ("GET", "/v2/lab/app/manifests/v1", 401),
    ] {
        let said = doors.ask(method, target).await?;
        assert_eq!(said.status, status, "{method} {target}: {}", said.text());
        if status == 403 {
            assert!(
                said.text().contains("registry-door"),
                "{method} {target}: {}",
                said.text()
            );
        }
    }
    assert!(doors.origin.heads().is_empty(), "{:?}", doors.origin.heads());
    assert_eq!(doors.ask("GET", "/regfiles/a").await?.status, 200);
    assert_eq!(doors.origin.asked(), ["GET /files/a"]);
    Ok(())
}
