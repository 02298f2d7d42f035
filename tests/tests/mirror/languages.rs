//! Lock files, and the real clients afterwards.

use std::{fs, path::Path};

use anyhow::Result;
use integration_tests::{
    command,
    origin::{Origin, Resource},
    proxy::{Proxy, Settings, run_to_end},
};
use tempfile::TempDir;

use crate::site::{document, put, sha256, succeed};

const JSON: &str = "application/vnd.pypi.simple.v1+json";

/// A store that is filled from a lock file, and served without the origins.
struct Mirror {
    folder: TempDir,
    index: Origin,
    files: Origin,
    settings: String,
}

impl Mirror {
    async fn new(name: &str, kind: &str) -> Result<Self> {
        let (index, files) = (Origin::start().await?, Origin::start().await?);
        let folder = tempfile::tempdir()?;
        let text = format!(
            "[cache]\nmin_free = \"0B\"\n[[upstream]]\nname = \"{name}\"\nkind = \"{kind}\"\nurls = [\"{}\"]\nfile_urls = [\"{}\"]\n",
            index.url("/"),
            files.url("/")
        );
        let settings = put(folder.path(), "proxy.toml", text.as_bytes())?
            .display()
            .to_string();
        Ok(Self {
            folder,
            index,
            files,
            settings,
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills the store from the lock file `name`, ends the origins, and serves.
    async fn filled_from(&mut self, name: &str, text: &str) -> Result<Proxy> {
        let lock = put(self.path(), name, text.as_bytes())?.display().to_string();
        let cache = self.path().join("cache");
        let folder = cache.display().to_string();
        let arguments = [
            "prefetch",
            "--config",
            &self.settings,
            "--cache-dir",
            &folder,
            "--lock",
            &lock,
        ];
        let ended = run_to_end(&arguments).await?;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        self.index.stop().await;
        self.files.stop().await;
        Settings::new(&cache)
            .arguments(&["--config", &self.settings, "--offline"])
            .start()
            .await
    }
}

/// A wheel with one module and this version.
fn wheel(folder: &Path, version: &str) -> Result<(String, Vec<u8>)> {
    let name = format!("hello_site-{version}-py3-none-any.whl");
    let about = format!("hello_site-{version}.dist-info");
    put(
        folder,
        "hello_site.py",
        format!("SAID = '{version}'\n").as_bytes(),
    )?;
    let metadata = format!("Metadata-Version: 2.1\nName: hello-site\nVersion: {version}\n");
    put(folder, &format!("{about}/METADATA"), metadata.as_bytes())?;
    let kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    put(folder, &format!("{about}/WHEEL"), kind.as_bytes())?;
    let record = format!("hello_site.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n");
    put(folder, &format!("{about}/RECORD"), record.as_bytes())?;
    let mut zip = command::new("/usr/bin/python3");
    zip.current_dir(folder).args(["-m", "zipfile", "-c", &name]);
    zip.args(["hello_site.py", &about]);
    command::success("zip", command::run(zip, std::time::Duration::from_secs(20), &[])?)?;
    let bytes = fs::read(folder.join(&name))?;
    Ok((name, bytes))
}

/// Two versions are published, the older one is locked: pip takes it although it asks for the newest, since the page names no other.
#[tokio::test(flavor = "multi_thread")]
async fn pip_installs_what_is_locked_and_the_page_names_nothing_else() -> Result<()> {
    let mut mirror = Mirror::new("pypi", "pypi").await?;
    let mut files = Vec::new();
    for version in ["1.0", "2.0"] {
        let (name, bytes) = wheel(&mirror.path().join(format!("wheel-{version}")), version)?;
        mirror
            .files
            .serve(&format!("/{name}"), Resource::cacheable(bytes.clone()));
        let url = mirror.files.url(&format!("/{name}"));
        files.push((
            format!(
                r#"{{"filename":"{name}","url":"{url}","hashes":{{"sha256":"{}"}}}}"#,
                sha256(&bytes)
            ),
            sha256(&bytes),
        ));
    }
    let page = format!(
        r#"{{"meta":{{"api-version":"1.1"}},"name":"hello-site","versions":["1.0","2.0"],"files":[{},{}]}}"#,
        files[0].0, files[1].0
    );
    let page = document(page, JSON).header("vary", "Accept");
    mirror.index.serve("/simple/hello-site/", page);
    let lock = format!("hello.site==1.0 \\\n    --hash=sha256:{}\n", files[0].1);
    let proxy = mirror.filled_from("requirements.txt", &lock).await?;

    for (nth, wanted) in [
        format!("hello-site==1.0 --hash=sha256:{}\n", files[0].1),
        "hello-site\n".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        let target = mirror.path().join(format!("target-{nth}"));
        let requirements = put(&target, "requirements.txt", wanted.as_bytes())?;
        let mut pip = command::new("/usr/bin/python3");
        pip.env("HOME", &target).env("PIP_CONFIG_FILE", "/dev/null");
        pip.args([
            "-m",
            "pip",
            "install",
            "--isolated",
            "--no-cache-dir",
            "--retries",
            "0",
            "--no-deps",
        ]);
        pip.args(["--disable-pip-version-check", "--index-url"]);
        pip.arg(format!("http://{}/pypi/simple/", proxy.data));
        pip.arg("--target")
            .arg(target.join("site"))
            .arg("-r")
            .arg(requirements);
        succeed(pip).await?;
        assert_eq!(
            fs::read_to_string(target.join("site/hello_site.py"))?,
            "SAID = '1.0'\n"
        );
    }
    Ok(())
}

/// The file of a crate names two versions, the lock file the older one: cargo resolves anew, without a lock file, to what is held.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_crate_is_held_and_its_file_names_nothing_else() -> Result<()> {
    let mut mirror = Mirror::new("crates", "cargo").await?;
    let line = |version: &str| {
        let content = format!("crate {version}");
        let path = format!("/crates/kato-a/{version}/download");
        mirror
            .files
            .serve(&path, Resource::cacheable(content.clone().into_bytes()));
        let digest = sha256(content.as_bytes());
        (
            format!(
                r#"{{"name":"kato-a","vers":"{version}","deps":[],"cksum":"{digest}","features":{{}},"yanked":false}}"#
            ),
            digest,
        )
    };
    let (old, new) = (line("1.0.0"), line("2.0.0"));
    let config = format!(r#"{{"dl":"{}"}}"#, mirror.files.url("/crates"));
    mirror
        .index
        .serve("/config.json", document(config, "application/json"));
    mirror.index.serve(
        "/ka/to/kato-a",
        document(format!("{}\n{}\n", old.0, new.0), "text/plain"),
    );
    let lock = format!(
        "version = 4\n[[package]]\nname = \"kato-a\"\nversion = \"1.0.0\"\nsource = \"sparse+https://index.example/\"\nchecksum = \"{}\"\n",
        old.1
    );
    let proxy = mirror.filled_from("Cargo.lock", &lock).await?;
    let client = proxy.client();
    let (answer, body) = client.fetch("/crates/ka/to/kato-a").await?;
    assert_eq!(
        (answer.status, String::from_utf8(body)?),
        (200, format!("{}\n", old.0))
    );
    let (_, config) = client.fetch("/crates/config.json").await?;
    let config: serde_json::Value = serde_json::from_slice(&config)?;
    let dl = config["dl"].as_str().unwrap_or_default();
    let path = dl.trim_start_matches(&format!("http://{}", proxy.data));
    let (answer, body) = client.fetch(&format!("{path}/kato-a/1.0.0/download")).await?;
    assert_eq!((answer.status, body.as_slice()), (200, &b"crate 1.0.0"[..]));
    Ok(())
}
