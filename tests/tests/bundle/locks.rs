//! Lock files, proven and carried: what the export calls complete is what real pip, npm and curl get on the other side, without the origins.
//!
//! The origins say `Vary: Accept` of everything, and npm's index has two forms of a packument.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    command,
    origin::{Origin, Resource},
    proxy::{Proxy, Settings, run_to_end},
    published::{
        self, ABBREVIATED, PACKUMENT, SIMPLE_JSON, TARBALL, WHEEL, document, integrity, put, sha256,
    },
    wait,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{SOON, only};

/// Where lock files were made that name another registry than the site's.
const MADE_AT: &str = "https://registry.example";

/// The two sides of a gap, and the origins of the one.
struct Sides {
    folder: TempDir,
    pypi: Origin,
    npm: Origin,
    files: Origin,
}

impl Sides {
    async fn new() -> Result<Self> {
        let sides = Self {
            folder: tempfile::tempdir()?,
            pypi: Origin::start().await?,
            npm: Origin::start().await?,
            files: Origin::start().await?,
        };
        sides.publish_wheel()?;
        sides.publish_tarball()?;
        sides.declare()?;
        let (key, public) = (sides.at("key"), sides.at("pub"));
        ok(&["bundle", "keygen", "--secret", &key, "--public", &public]).await?;
        Ok(sides)
    }

    /// A wheel, and the file of requirements that names it in another one.
    fn publish_wheel(&self) -> Result<()> {
        let wheel = published::wheel(&self.path("wheel"))?;
        published::publish_wheel(&self.pypi, &self.pypi, &wheel, SIMPLE_JSON);
        // As PEP 700 has it.
        let page = format!(
            r#"{{"meta":{{"api-version":"1.1"}},"name":"hello-site","versions":["1.0"],"files":[{{"filename":"{WHEEL}","url":"{}","hashes":{{"sha256":"{}"}},"size":{}}}]}}"#,
            self.pypi.url(&format!("/packages/{WHEEL}")),
            sha256(&wheel),
            wheel.len()
        );
        let page = document(page, SIMPLE_JSON).header("vary", "Accept");
        self.pypi.serve("/simple/hello-site/", page);
        let file = Resource::cacheable(wheel.clone()).header("vary", "Accept");
        self.pypi.serve(&format!("/packages/{WHEEL}"), file);
        put(self.folder.path(), "locks/requirements.txt", b"-r sub/base.txt\n")?;
        let base = format!("hello-site==1.0 \\\n  --hash=sha256:{}\n", sha256(&wheel));
        put(self.folder.path(), "locks/sub/base.txt", base.as_bytes())?;
        Ok(())
    }

    /// A tarball with a packument in two forms, and a lock file.
    fn publish_tarball(&self) -> Result<()> {
        let tarball = published::publish_npm(&self.npm, &self.npm, &self.path("package"))?;
        let file = Resource::cacheable(tarball.clone()).header("vary", "Accept");
        self.npm.serve(TARBALL, file);
        for (form, more) in [("application/json", r#""readme":"whole","#), (ABBREVIATED, "")] {
            let packument = format!(
                r#"{{"name":"@site/hello",{more}"dist-tags":{{"latest":"1.0.0"}},"versions":{{"1.0.0":{{"name":"@site/hello","version":"1.0.0","dist":{{"integrity":"{}","tarball":"{}"}}}}}}}}"#,
                integrity(&tarball),
                self.npm.url(TARBALL)
            );
            let packument = document(packument, form).header("vary", "accept");
            self.npm.serve_as(PACKUMENT, form, packument);
        }
        let lock = format!(
            r#"{{"name":"project","version":"1.0.0","lockfileVersion":3,"requires":true,"packages":{{"":{{"name":"project","version":"1.0.0","dependencies":{{"@site/hello":"1.0.0"}}}},"node_modules/@site/hello":{{"version":"1.0.0","resolved":"{MADE_AT}{TARBALL}","integrity":"{}"}}}}}}"#,
            integrity(&tarball)
        );
        put(self.folder.path(), "locks/package-lock.json", lock.as_bytes())?;
        Ok(())
    }

    /// A plain file; what the site needs, and the settings.
    fn declare(&self) -> Result<()> {
        let tool = Resource::cacheable(&b"a tool"[..]).header("content-type", "application/octet-stream");
        self.files.serve("/tool", tool.header("vary", "Accept"));
        let declared = format!(
            "lock = [\"requirements.txt\", \"package-lock.json\"]\n[[file]]\nurl = \"{}\"\n",
            self.files.url("/tool")
        );
        put(self.folder.path(), "locks/site.toml", declared.as_bytes())?;
        let upstream = |name: &str, kind: &str, origin: &Origin| {
            format!(
                "[[upstream]]\nname = \"{name}\"\nkind = \"{kind}\"\nurls = [\"{}\"]\n",
                origin.url("/")
            )
        };
        let settings = format!(
            "[cache]\nmin_free = \"0B\"\n{}{}{}",
            upstream("pypi", "pypi", &self.pypi),
            upstream("npm", "npm", &self.npm),
            upstream("files", "generic", &self.files)
        );
        put(self.folder.path(), "proxy.toml", settings.as_bytes())?;
        Ok(())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    async fn prefetch(&self, more: &[&str]) -> Result<String> {
        let (store, config) = (self.at("here"), self.at("proxy.toml"));
        let words = ["prefetch", "--config", &config, "--cache-dir", &store];
        ok(&[&words[..], more].concat()).await
    }

    async fn export(&self, more: &[&str]) -> Result<(Option<i32>, String)> {
        let (store, config, key) = (self.at("here"), self.at("proxy.toml"), self.at("key"));
        let (out, declared) = (self.at("out"), self.at("locks/site.toml"));
        let words = [
            "bundle",
            "export",
            "--config",
            &config,
            "--cache-dir",
            &store,
            "--series",
            "test",
            "--key",
            &key,
            "--out",
            &out,
            "--declare",
            &declared,
        ];
        run(&[&words[..], more].concat()).await
    }

    /// Carries what was exported, ends the origins, and serves.
    async fn carried(&mut self) -> Result<Proxy> {
        let bundle = only(&self.path("out"))?.display().to_string();
        let (there, trust, config) = (self.at("there"), self.at("pub"), self.at("proxy.toml"));
        let words = [
            "bundle",
            "import",
            &bundle,
            "--cache-dir",
            &there,
            "--trust",
            &trust,
        ];
        ok(&words).await?;
        for origin in [&mut self.pypi, &mut self.npm, &mut self.files] {
            origin.stop().await;
        }
        Settings::new(&self.path("there"))
            .arguments(&["--config", &config, "--offline"])
            .start()
            .await
    }
}

/// Runs the program; its exit code and what it says.
async fn run(words: &[&str]) -> Result<(Option<i32>, String)> {
    let ended = run_to_end(words).await?;
    Ok((ended.code, ended.stderr))
}

async fn ok(words: &[&str]) -> Result<String> {
    let (code, said) = run(words).await?;
    ensure!(code == Some(0), "{}: {code:?}\n{said}", words.join(" "));
    Ok(said)
}

fn succeed(command: Command) -> Result<String> {
    let line = command::line(&command);
    command::success(&line, command::run(command, SOON, &[])?)
}

fn pip(proxy: &Proxy, folder: &Path, requirements: &Path) -> Command {
    let mut pip = command::new("/usr/bin/python3");
    pip.env("HOME", folder).env("PIP_CONFIG_FILE", "/dev/null");
    pip.args([
        "-m",
        "pip",
        "install",
        "--isolated",
        "--no-cache-dir",
        "--retries",
        "0",
    ]);
    pip.args(["--disable-pip-version-check", "--require-hashes", "--index-url"]);
    pip.arg(format!("http://{}/pypi/simple/", proxy.data));
    pip.arg("--target")
        .arg(folder.join("site"))
        .arg("-r")
        .arg(requirements);
    pip
}

/// npm as the server says that it is to be set up.
fn npm(folder: &Path, verb: &[&str]) -> Command {
    let mut npm = command::new("npm");
    npm.current_dir(folder).env("HOME", folder).args(verb);
    npm.args(["--fetch-retries=0", "--cache"])
        .arg(folder.join("remembered"));
    npm
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lock_files_name_is_proven_carried_and_installed_by_real_clients() -> Result<()> {
    let mut sides = Sides::new().await?;
    let tool = sides.files.url("/tool");
    sides
        .prefetch(&["--lock", &sides.at("locks/package-lock.json"), &tool])
        .await?;
    // What the file names that the lock file of pip names is not there yet, and said.
    let (code, said) = sides.export(&[]).await?;
    ensure!(code == Some(20), "{code:?}: {said}");
    ensure!(
        said.contains(&format!("missing {}", sides.pypi.url("/simple/hello-site/"))),
        "{said}"
    );
    ensure!(!said.contains("/tool") && !said.contains("/@site"), "{said}");

    let requirements = sides.at("locks/requirements.txt");
    let planned = sides.prefetch(&["--plan", "--lock", &requirements]).await?;
    // The page says the size of the only file.
    ensure!(planned.contains("1 file is missing, exactly"), "{planned}");
    sides.prefetch(&["--lock", &requirements]).await?;
    let (code, said) = sides.export(&["--waive", "clients are run below"]).await?;
    ensure!(
        code == Some(0) && said.contains(", 0 are missing"),
        "{code:?}: {said}"
    );
    let bundle = only(&sides.path("out"))?.display().to_string();
    let mut info = command::new(integration_tests::proxy::program()?);
    info.args(["bundle", "info", &bundle, "--json"]);
    let header: Value = serde_json::from_str(&succeed(info)?).context("JSON")?;
    ensure!(header["closure"]["ok"] == true, "{header}");

    let proxy = sides.carried().await?;
    let folder = sides.path("pip");
    fs::create_dir_all(&folder)?;
    succeed(pip(&proxy, &folder, &sides.path("locks/requirements.txt")))?;
    ensure!(
        folder.join("site/hello_site.py").exists(),
        "pip installed nothing"
    );

    by_npm(&sides, &proxy).await?;
    by_curl(&proxy)?;
    // Who takes HTML alone is told that there is none; nobody else has missed anything.
    let path = sides.path("there/misses.jsonl");
    let written = || fs::read_to_string(&path).ok().filter(|text| !text.is_empty());
    let misses = wait::until("a note", SOON, written)?;
    ensure!(
        misses.lines().count() == 1 && misses.contains("other-variant"),
        "{misses}"
    );
    Ok(())
}

/// With the lock file, without one, and with one that is looked over again.
async fn by_npm(sides: &Sides, proxy: &Proxy) -> Result<()> {
    let (_, setup) = proxy.client().fetch("/-/setup/npm").await?;
    for (nth, verb) in [&["ci"][..], &["install"], &["install", "--prefer-online"]]
        .iter()
        .enumerate()
    {
        let folder = sides.path(&format!("npm-{nth}"));
        put(&folder, ".npmrc", &setup)?;
        let project = br#"{"name":"project","version":"1.0.0","dependencies":{"@site/hello":"1.0.0"}}"#;
        put(&folder, "package.json", project)?;
        // The second has no lock file: it reads the packument, as npm does it today.
        if nth != 1 {
            put(
                &folder,
                "package-lock.json",
                &fs::read(sides.path("locks/package-lock.json"))?,
            )?;
        }
        succeed(npm(&folder, verb))?;
        ensure!(
            folder.join("node_modules/@site/hello/index.js").exists(),
            "npm {verb:?} installed nothing"
        );
    }
    Ok(())
}

/// Who may have a file of which the origin says that it chooses by `Accept`, and which was asked for with `*/*`.
fn by_curl(proxy: &Proxy) -> Result<()> {
    for (accept, expected) in [
        (None, "200"),
        (Some("Accept:"), "200"),
        (Some("Accept: application/octet-stream"), "200"),
        (Some("Accept: text/html,application/xhtml+xml,*/*;q=0.8"), "200"),
        (Some("Accept: text/html"), "404"),
    ] {
        let mut curl = command::new("curl");
        curl.args(["-s", "-w", "\n%{http_code}"])
            .arg(format!("http://{}/files/tool", proxy.data));
        if let Some(accept) = accept {
            curl.args(["-H", accept]);
        }
        let said = succeed(curl)?;
        let code = said.lines().next_back().unwrap_or_default();
        ensure!(code == expected, "{accept:?}: {said}");
        ensure!(
            code != "200" || said.starts_with("a tool\n"),
            "{accept:?}: {said}"
        );
    }
    Ok(())
}
