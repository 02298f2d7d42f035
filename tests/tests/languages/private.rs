//! Sources that want an account: the cache has one, and what clients show of themselves stays here.
//!
//! Each client is set up as for the source itself, with credentials that the source does not know, and installs twice; the second time with the
//! origins off.

use std::fs;

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use integration_tests::{
    command,
    origin::Recorded,
    published::{CRATE, PACKUMENT, TARBALL, WHEEL},
};
use kato_shared::durable;
use tempfile::TempDir;

use crate::{
    node, python, rust,
    site::{Site, document, put, run, succeed},
};

const ACCOUNT: &str = "cache:s3cret";

/// What the account shows (RFC 7617).
fn shown() -> String {
    format!("Basic {}", BASE64_STANDARD.encode(ACCOUNT))
}

/// A source whose index and files are at one server, as those of most private ones are, and a cache with an account there; the folder has its file.
async fn site(name: &str, kind: &str) -> Result<(Site, TempDir)> {
    let folder = tempfile::tempdir()?;
    let credentials = folder.path().join("credentials");
    durable::write(&credentials, ACCOUNT.as_bytes(), 0o600)?;
    let site = Site::with_settings(|index, _files| {
        Ok(format!(
            "[[upstream]]\nname = \"{name}\"\nkind = \"{kind}\"\nurls = [\"{index}\"]\ncredentials_file = \"{}\"\n",
            credentials.display()
        ))
    })
    .await?;
    Ok((site, folder))
}

/// Nothing but the account came to the source, for `paths`, each of which was asked for.
fn only_the_account(site: &Site, paths: &[&str]) -> Result<()> {
    for path in paths {
        let requests = site.index.requests(path);
        let is_account = |request: &Recorded| request.header("authorization") == Some(&shown());
        ensure!(
            !requests.is_empty() && requests.iter().all(is_account),
            "{path}: {requests:#?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn p18_pip_with_credentials_in_its_index_url_is_served_by_the_account_of_the_cache() -> Result<()> {
    let (mut site, _account) = site("pypi", "pypi").await?;
    let wheel = python::wheel(&site)?;
    let digest = integration_tests::published::publish_wheel(&site.index, &site.index, &wheel, python::JSON);
    site.index.close_to_all_but(&shown());
    let index = site.url().replacen("http://", "http://mine:own@", 1) + "/pypi/simple/";
    let file = format!("/packages/{WHEEL}");
    for name in ["first", "second"] {
        let home = site.folder(name)?;
        let wanted = format!("hello-site==1.0 --hash=sha256:{digest}\n");
        let requirements = put(&home, "requirements.txt", wanted.as_bytes())?;
        let mut pip = command::new("/usr/bin/python3");
        pip.env("HOME", &home).env("PIP_CONFIG_FILE", "/dev/null");
        pip.args([
            "-m",
            "pip",
            "install",
            "--isolated",
            "--no-cache-dir",
            "--no-deps",
            "--retries",
            "0",
        ]);
        pip.args([
            "--disable-pip-version-check",
            "--require-hashes",
            "--index-url",
            &index,
            "--target",
        ]);
        pip.arg(home.join("site")).arg("-r").arg(requirements);
        succeed(pip).await?;
        ensure!(fs::read_to_string(home.join("site/hello_site.py"))? == "SAID = 'hello'\n");
        if name == "first" {
            only_the_account(&site, &["/simple/hello-site/", &file])?;
            let stored = site.proxy.client().get(&format!("/pypi{file}"));
            site.proxy.wait_until_stored(&stored, &wheel).await?;
            site.cut_off().await;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn p18_npm_with_an_auth_line_is_served_by_the_account_of_the_cache() -> Result<()> {
    let (mut site, _account) = site("npm", "npm").await?;
    let folder = site.folder("package-of-npm")?;
    let tarball = integration_tests::published::publish_npm(&site.index, &site.index, &folder)?;
    site.index.close_to_all_but(&shown());
    let here = site.proxy.data;
    let own = BASE64_STANDARD.encode("mine:own");
    for name in ["first", "second"] {
        let home = site.folder(name)?;
        put(&home, "package.json", node::PROJECT)?;
        let settings = format!("registry=http://{here}/npm/\n//{here}/npm/:_auth={own}\n");
        put(&home, ".npmrc", settings.as_bytes())?;
        let mut npm = command::new("npm");
        npm.current_dir(&home)
            .env("HOME", &home)
            .env("npm_config_globalconfig", "/dev/null");
        npm.arg(format!("--cache={}", home.join("remembered").display()));
        npm.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--fetch-retries=0",
        ]);
        succeed(npm).await?;
        ensure!(home.join("node_modules/@site/hello/index.js").exists());
        if name == "first" {
            only_the_account(&site, &[PACKUMENT, TARBALL])?;
            let stored = site.proxy.client().get(&format!("/npm{TARBALL}"));
            site.proxy.wait_until_stored(&stored, &tarball).await?;
            site.cut_off().await;
        }
    }
    Ok(())
}

/// `auth-required` is for those who ask the source: of those who ask us, whoever may use the upstream needs no token.
#[tokio::test(flavor = "multi_thread")]
async fn p18_cargo_needs_no_token_for_a_registry_that_wants_one_of_the_cache() -> Result<()> {
    let (mut site, _account) = site("crates", "cargo").await?;
    let folder = site.folder("crate")?;
    let archive = integration_tests::published::publish_crate(&site.index, &site.index, &folder)?;
    let config = format!(r#"{{"dl":"{}","auth-required":true}}"#, site.index.url("/crates"));
    site.index
        .serve("/config.json", document(config, "application/json"));
    site.index.close_to_all_but(&shown());
    let (_, told) = site.proxy.client().fetch("/crates/config.json").await?;
    ensure!(!String::from_utf8(told)?.contains("auth-required"));
    let mut lock: Option<Vec<u8>> = None;
    for name in ["first", "second", "with-a-token"] {
        let project = rust::project(&site, name)?;
        if let Some(lock) = &lock {
            put(&project, "Cargo.lock", lock)?;
        }
        let mut cargo = rust::cargo(&site, &project, &["fetch"]);
        if name == "with-a-token" {
            cargo.env("CARGO_REGISTRIES_SITE_TOKEN", "mine");
        }
        succeed(cargo).await?;
        if name == "first" {
            only_the_account(&site, &["/config.json", "/he/ll/hello-site", CRATE])?;
            let stored = site.proxy.client().get(&format!("/crates{CRATE}"));
            site.proxy.wait_until_stored(&stored, &archive).await?;
            lock = Some(fs::read(project.join("Cargo.lock"))?);
            site.cut_off().await;
        }
    }
    Ok(())
}

/// Nobody has said that what one client may read is for all: it is asked each time (RFC 9111 §3.5), and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn what_clients_ask_for_with_credentials_of_their_own_is_not_stored_and_that_is_said() -> Result<()> {
    let site = Site::start("npm", "npm").await?;
    node::publish(&site)?;
    site.index.close_to_all_but(&shown());
    site.files.close_to_all_but(&shown());
    for times in 1..=2 {
        let url = format!("{}/npm{PACKUMENT}", site.url());
        let mut curl = command::new("curl");
        curl.args(["--fail", "--silent", "--show-error", "--user", ACCOUNT, &url]);
        succeed(curl).await?;
        assert_eq!(site.index.requests(PACKUMENT).len(), times);
    }
    site.proxy
        .wait_for_log("is asked of the upstream each time and not stored")
        .await?;
    ensure!(
        site.proxy.log().contains("credentials_file"),
        "{}",
        site.proxy.log()
    );
    ensure!(site.proxy.stats().await?.stored_responses == 0);
    let mut nobody = command::new("curl");
    nobody.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]);
    nobody.arg(format!("{}/npm{PACKUMENT}", site.url()));
    let said = String::from_utf8(run(nobody).await?.stdout).context("not UTF-8")?;
    ensure!(said == "401", "{said}");
    Ok(())
}

/// Once a minute for each upstream, and without what stands in the file.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_turns_the_cache_away_is_said_with_the_account_that_it_came_with() -> Result<()> {
    let (with_account, account) = site("npm", "npm").await?;
    let without = Site::start("npm", "npm").await?;
    let file = account.path().join("credentials").display().to_string();
    for (site, expected) in [
        (&with_account, file.as_str()),
        (&without, "comes without an account; hint: set `credentials_file`"),
    ] {
        node::publish(site)?;
        site.index.close_to_all_but("Basic somebody else");
        for _ in 1..=2 {
            let answer = site
                .proxy
                .client()
                .get(&format!("/npm{PACKUMENT}"))
                .send()
                .await?;
            ensure!(answer.status == 401, "{}", answer.status);
        }
        site.proxy
            .wait_for_log("the upstream turns this cache away")
            .await?;
        let log = site.proxy.log();
        let said: Vec<_> = log
            .lines()
            .filter(|line| line.contains("turns this cache away"))
            .collect();
        ensure!(
            said.len() == 1 && said[0].contains(expected) && said[0].contains("status=401"),
            "{log}"
        );
        ensure!(!log.contains("s3cret") && !log.contains(&shown()), "{log}");
    }
    // What a client shows of itself is between it and the upstream.
    let other = Site::start("npm", "npm").await?;
    node::publish(&other)?;
    other.index.close_to_all_but(&shown());
    let mut curl = command::new("curl");
    curl.args([
        "--silent",
        "--user",
        "mine:own",
        &format!("{}/npm{PACKUMENT}", other.url()),
    ]);
    succeed(curl).await?;
    ensure!(!other.proxy.log().contains("turns this cache away"));
    Ok(())
}
