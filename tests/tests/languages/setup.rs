//! `/-/setup/CLIENT`: what a client is told, told to the real client.

use std::path::Path;

use anyhow::{Context, Result};
use integration_tests::{command, proxy};

use crate::site::{Site, put, succeed};

/// The text of the file that `text` names as `name`.
fn file<'t>(text: &'t str, name: &str) -> Result<&'t str> {
    let part = text
        .split("# file: ")
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('\n'));
    part.with_context(|| format!("no part for {name} in:\n{text}"))
}

async fn told(site: &Site, client: &str) -> Result<String> {
    let (response, body) = site.proxy.client().fetch(&format!("/-/setup/{client}")).await?;
    let said = String::from_utf8(body)?;
    anyhow::ensure!(response.status == 200, "{}: {said}", response.status);
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    Ok(said)
}

/// `program` with `arguments`, at home in `folder`.
fn at_home(folder: &Path, program: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = command::new(program);
    command.current_dir(folder).env("HOME", folder).args(arguments);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn pip_reads_what_it_is_told() -> Result<()> {
    let site = Site::start("pypi", "pypi").await?;
    let home = site.folder("home")?;
    let config = put(
        &home,
        "pip.conf",
        file(&told(&site, "pip").await?, "/etc/pip.conf")?.as_bytes(),
    )?;
    let mut pip = at_home(&home, "/usr/bin/python3", &["-m", "pip", "config", "list"]);
    pip.env("PIP_CONFIG_FILE", config);
    let said = succeed(pip).await?;
    assert!(
        said.contains(&format!("global.index-url='{}/pypi/simple/'", site.url())),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_reads_what_it_is_told() -> Result<()> {
    let site = Site::start("npm", "npm").await?;
    let home = site.folder("home")?;
    put(
        &home,
        ".npmrc",
        file(&told(&site, "npm").await?, "/etc/npmrc")?.as_bytes(),
    )?;
    let said = succeed(at_home(&home, "npm", &["config", "get", "registry", "audit"])).await?;
    assert_eq!(said, format!("registry={}/npm/\naudit=false\n", site.url()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_and_a_shell_read_what_they_are_told() -> Result<()> {
    let site = Site::start("files", "generic").await?;
    let resource = integration_tests::origin::Resource::cacheable("hello");
    site.index.serve("/a", resource);
    let home = site.folder("home")?;
    put(
        &home,
        ".curlrc",
        file(&told(&site, "curl").await?, "~/.curlrc")?.as_bytes(),
    )?;
    let url = site.index.url("/a");
    assert_eq!(succeed(at_home(&home, "curl", &["-sSf", &url])).await?, "hello");
    let profile = file(&told(&site, "env").await?, "/etc/profile.d/kato-proxy.sh")?.to_owned();
    let line = format!("{profile}\necho \"$http_proxy|$https_proxy|$no_proxy\"");
    let proxy = format!("{}/", site.url());
    let said = succeed(at_home(&home, "sh", &["-c", &line])).await?;
    assert_eq!(
        said,
        format!("{proxy}|{proxy}|localhost,127.0.0.1,::1,127.0.0.1\n")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn apt_reads_what_it_is_told() -> Result<()> {
    let site = Site::start("debian", "packages").await?;
    let home = site.folder("home")?;
    let text = told(&site, "apt").await?;
    let config = put(
        &home,
        "apt.conf",
        file(&text, "/etc/apt/apt.conf.d/01kato-proxy")?.as_bytes(),
    )?;
    let config = config.to_str().context("ASCII")?;
    let dump = succeed(at_home(&home, "apt-config", &["-c", config, "dump"])).await?;
    let rule = format!("Acquire::http::Proxy::127.0.0.1 \"{}/\";", site.url());
    assert!(dump.contains(&rule), "no {rule} in {dump}");
    let sources = file(&text, "/etc/apt/sources.list.d/kato.sources")?.replace("SUITE", "stable");
    put(&home, "parts/kato.sources", sources.as_bytes())?;
    let parts = format!("Dir::Etc::SourceParts={}", home.join("parts").display());
    let lists = format!("Dir::State::Lists={}", site.folder("lists")?.display());
    let only = ["-o", "Dir::Etc::SourceList=/dev/null", "-o", &parts, "-o", &lists];
    let mut apt = at_home(&home, "apt-get", &only);
    apt.args(["update", "--print-uris"]);
    let said = succeed(apt).await?;
    assert!(
        said.contains(&format!("{}/debian/dists/stable/InRelease", site.url())),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn p19_who_has_nothing_to_be_told_hears_what_there_is() -> Result<()> {
    let site = Site::start("npm", "npm").await?;
    let client = site.proxy.client();
    for path in ["/-/setup/pip", "/-/setup/yum"] {
        let (response, body) = client.fetch(path).await?;
        let said = String::from_utf8(body)?;
        assert_eq!(response.status, 404);
        assert!(said.contains("/-/setup/ lists"), "{said}");
    }
    let (_, body) = client.fetch("/-/setup/").await?;
    assert!(String::from_utf8(body)?.contains("/-/setup/npm\n"));
    let upstream = format!("npm={}", site.index.url("/"));
    let ended = proxy::run_to_end(&["client-config", "pip", "--upstream", &upstream]).await?;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("hint:"), "{}", ended.stderr);
    Ok(())
}
