//! pip, npm and cargo with an index and files behind https, asked for by CONNECT that is opened: each client trusts the local authority by its own
//! means, and its URLs are those of the origins.
//!
//! Each installs twice, the second time as a client that remembers nothing and with the origins gone; and once without the authority, which
//! has to fail: what comes is vouched for by us.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    authority::Authority,
    command,
    names::Names,
    origin::Origin,
    proxy::{Proxy, Settings},
    published::{self, CRATE, PACKUMENT, SIMPLE_JSON, TARBALL, WHEEL, put},
    tls_front::TlsFront,
};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

/// A package manager on a machine that other tests use, too.
const PATIENCE: Duration = Duration::from_secs(60);
const INDEX: &str = "https://index.example";
const FILES: &str = "https://files.example";

/// An index and a host of files behind TLS, under names that the parent alone knows, and the cache that opens CONNECT to both.
struct Site {
    index: Origin,
    files: Origin,
    proxy: Proxy,
    folder: TempDir,
    _names: Names,
    _fronts: [TlsFront; 2],
}

impl Site {
    async fn start(kind: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (index, files) = (Origin::start().await?, Origin::start().await?);
        let authority = Authority::new(folder.path())?;
        let pair = authority.server_called("origins", &["index.example", "files.example"])?;
        let fronts = [
            TlsFront::start(&pair, index.address()).await?,
            TlsFront::start(&pair, files.address()).await?,
        ];
        let names = Names::start().await?;
        names.lead("index.example:443", fronts[0].address);
        names.lead("files.example:443", fronts[1].address);
        let settings = format!(
            "[cache]\nmin_free = \"0B\"\n[[upstream]]\nname = \"packages\"\nkind = \"{kind}\"\nurls = [\"{INDEX}/\"]\n\
             file_urls = [\"{FILES}/\"]\nintercept = true\nca_file = \"{}\"\nproxy = \"http://{}/\"\n",
            authority.certificate.display(),
            names.address
        );
        let file = put(folder.path(), "proxy.toml", settings.as_bytes())?;
        let proxy = Settings::new(&folder.path().join("cache"))
            .arguments(&["--config", file.to_str().context("a path of ASCII")?])
            .start()
            .await?;
        Ok(Self {
            index,
            files,
            proxy,
            folder,
            _names: names,
            _fronts: fronts,
        })
    }

    /// A folder of its own, empty.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The local authority, as clients get it.
    async fn trusted(&self) -> Result<PathBuf> {
        let (answer, certificate) = self.proxy.client().fetch("/-/ca.crt").await?;
        ensure!(answer.status == 200, "{answer:?}");
        put(self.folder.path(), "trusted.pem", &certificate)
    }

    /// What clients are told of the proxy.
    fn url(&self) -> String {
        format!("http://{}/", self.proxy.data)
    }

    /// All that was asked for is stored and each was asked once; then both origins go.
    async fn cut_off(&mut self, file: &str, content: &[u8]) -> Result<()> {
        ensure!(self.files.requests(file).len() == 1, "asked through us, and once");
        let stored = self.proxy.client().get(&format!("/https/files.example{file}"));
        self.proxy.wait_until_stored(&stored, content).await?;
        let stats = self.proxy.stats().await?;
        ensure!(
            stats.tunnel_bytes == 0,
            "{} bytes went past the store",
            stats.tunnel_bytes
        );
        self.index.stop().await;
        self.files.stop().await;
        Ok(())
    }
}

/// How a client is told whom to trust.
type Trust<'t> = (&'t str, &'t Path);

async fn succeed(client: Command) -> Result<String> {
    let line = command::line(&client);
    let ended = spawn_blocking(move || command::run(client, PATIENCE, &[])).await??;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    command::success(&line, ended).with_context(|| said)
}

/// Runs a client that was not told whom to trust, and wants it to say that it does not trust.
async fn distrust(client: Command) -> Result<()> {
    let refused = succeed(client)
        .await
        .expect_err("a client took our certificate that does not know us");
    let said = format!("{refused:#}").to_ascii_lowercase();
    ensure!(said.contains("certificate"), "{said}");
    Ok(())
}

/// `pip install` at home in `home`.
fn pip(site: &Site, home: &Path, digest: &str, trust: Option<Trust<'_>>) -> Result<Command> {
    let wanted = format!("hello-site==1.0 --hash=sha256:{digest}\n");
    let requirements = put(home, "requirements.txt", wanted.as_bytes())?;
    let mut pip = command::new("/usr/bin/python3");
    pip.env("HOME", home).env("PIP_CONFIG_FILE", "/dev/null");
    pip.env("PIP_PROXY", site.url())
        .env("PIP_INDEX_URL", format!("{INDEX}/simple/"));
    pip.envs(trust);
    pip.args([
        "-m",
        "pip",
        "install",
        "--no-cache-dir",
        "--disable-pip-version-check",
    ]);
    pip.args(["--retries", "0", "--no-deps", "--require-hashes", "--target"]);
    pip.arg(home.join("site")).arg("-r").arg(requirements);
    Ok(pip)
}

#[tokio::test(flavor = "multi_thread")]
async fn p07_pip_installs_by_connect_that_is_opened_and_again_without_the_origins() -> Result<()> {
    let mut site = Site::start("pypi").await?;
    let wheel = published::wheel(&site.folder("wheel")?)?;
    let digest = published::publish_wheel_as((&site.index, &site.files), FILES, &wheel, SIMPLE_JSON);
    let ca = site.trusted().await?;
    distrust(pip(&site, &site.folder("nobody")?, &digest, None)?).await?;
    for name in ["first", "second"] {
        let home = site.folder(name)?;
        succeed(pip(&site, &home, &digest, Some(("PIP_CERT", &ca)))?).await?;
        ensure!(fs::read_to_string(home.join("site/hello_site.py"))? == "SAID = 'hello'\n");
        if name == "first" {
            site.cut_off(&format!("/packages/{WHEEL}"), &wheel).await?;
        }
    }
    Ok(())
}

/// npm at home in `home`.
fn npm(site: &Site, home: &Path, arguments: &[&str], trust: Option<Trust<'_>>) -> Command {
    let mut npm = command::new("npm");
    npm.current_dir(home).env("HOME", home).args(arguments);
    // A `cafile` of this machine's would stand in the place of what the variable adds.
    npm.env("npm_config_globalconfig", "/dev/null");
    npm.env("npm_config_https_proxy", site.url())
        .env("npm_config_registry", format!("{INDEX}/"));
    npm.envs(trust);
    npm.arg(format!("--cache={}", home.join("remembered").display()));
    npm.args([
        "--no-audit",
        "--no-fund",
        "--no-update-notifier",
        "--fetch-retries=0",
    ]);
    npm
}

/// Told by either variable: one adds to what npm trusts, the other stands in the place of it.
#[tokio::test(flavor = "multi_thread")]
async fn p07_npm_installs_by_connect_that_is_opened_and_again_without_the_origins() -> Result<()> {
    const PROJECT: &[u8] = br#"{"name":"project","version":"1.0.0","dependencies":{"@site/hello":"1.0.0"}}"#;
    let mut site = Site::start("npm").await?;
    let tarball = published::publish_npm_as((&site.index, &site.files), FILES, &site.folder("package")?)?;
    let ca = site.trusted().await?;
    let nobody = site.folder("nobody")?;
    put(&nobody, "package.json", PROJECT)?;
    distrust(npm(&site, &nobody, &["install"], None)).await?;
    let mut lock = Vec::new();
    for (name, by) in [
        ("first", "npm_config_cafile"),
        ("second", "NODE_EXTRA_CA_CERTS"),
        ("third", "npm_config_cafile"),
    ] {
        let home = site.folder(name)?;
        put(&home, "package.json", PROJECT)?;
        if name == "first" {
            succeed(npm(
                &site,
                &home,
                &["install", "--package-lock-only"],
                Some((by, &ca)),
            ))
            .await?;
            lock = fs::read(home.join("package-lock.json"))?;
        }
        put(&home, "package-lock.json", &lock)?;
        succeed(npm(&site, &home, &["ci"], Some((by, &ca)))).await?;
        let installed = fs::read_to_string(home.join("node_modules/@site/hello/index.js"))?;
        ensure!(installed == "module.exports = 'hello'\n");
        if name == "first" {
            site.cut_off(TARBALL, &tarball).await?;
        }
    }
    ensure!(
        !site.index.requests(PACKUMENT).is_empty(),
        "the index was asked through us"
    );
    Ok(())
}

/// cargo in a project below `home` that wants the crate.
fn cargo(site: &Site, home: &Path, arguments: &[&str], trust: Option<Trust<'_>>) -> Result<Command> {
    let manifest = "[package]\nname = \"project\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n\
                    hello-site = { version = \"1\", registry = \"site\" }\n[workspace]\n";
    put(home, "Cargo.toml", manifest.as_bytes())?;
    put(home, "src/lib.rs", b"//! Nothing.\n")?;
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut cargo = command::new(&program);
    cargo.env("RUSTC", Path::new(&program).with_file_name("rustc"));
    cargo.current_dir(home).args(arguments);
    cargo
        .env("CARGO_HOME", home.join("remembered"))
        .env("CARGO_NET_RETRY", "0");
    cargo.env("CARGO_REGISTRIES_SITE_INDEX", format!("sparse+{INDEX}/"));
    cargo.env("CARGO_HTTP_PROXY", site.url());
    cargo.envs(trust);
    Ok(cargo)
}

#[tokio::test(flavor = "multi_thread")]
async fn p07_cargo_fetches_by_connect_that_is_opened_and_again_without_the_origins() -> Result<()> {
    let mut site = Site::start("cargo").await?;
    let called = (INDEX, FILES);
    let archive = published::publish_crate_as((&site.index, &site.files), called, &site.folder("crate")?)?;
    let ca = site.trusted().await?;
    distrust(cargo(&site, &site.folder("nobody")?, &["fetch"], None)?).await?;
    let trust = Some(("CARGO_HTTP_CAINFO", ca.as_path()));
    let first = site.folder("first")?;
    succeed(cargo(&site, &first, &["generate-lockfile"], trust)?).await?;
    succeed(cargo(&site, &first, &["fetch", "--locked"], trust)?).await?;
    site.cut_off(CRATE, &archive).await?;
    let second = site.folder("second")?;
    put(&second, "Cargo.lock", &fs::read(first.join("Cargo.lock"))?)?;
    succeed(cargo(&site, &second, &["fetch", "--locked"], trust)?).await?;
    Ok(())
}
