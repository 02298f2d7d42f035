//! An index, a host for its files, and the cache before both.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
pub(crate) use integration_tests::published::{document, put, sha256};
use integration_tests::{
    command,
    origin::Origin,
    presets::preset,
    proxy::{Proxy, Settings},
};
use tempfile::TempDir;
use tokio::{task::spawn_blocking, time::Instant};

/// A package manager on a machine that other tests use, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that one test needs; it goes when it is dropped.
pub(crate) struct Site {
    pub(crate) index: Origin,
    pub(crate) files: Origin,
    pub(crate) proxy: Proxy,
    folder: TempDir,
}

impl Site {
    /// A cache for one upstream `name` of `kind`, whose files are at another host than its index.
    pub(crate) async fn start(name: &str, kind: &str) -> Result<Self> {
        Self::with(name, kind, "").await
    }

    /// As [`Self::start`], with more lines for the upstream.
    pub(crate) async fn with(name: &str, kind: &str, more: &str) -> Result<Self> {
        Self::with_settings(|index, files| {
            Ok(format!(
                "[[upstream]]\nname = \"{name}\"\nkind = \"{kind}\"\nurls = [\"{index}\"]\nfile_urls = [\"{files}\"]\n{more}\n"
            ))
        })
        .await
    }

    /// A cache with the preset `name` as it is delivered, and the URLs of the index and of the files in the place of these.
    pub(crate) async fn of_preset(name: &str, of_index: &str, of_files: Option<&str>) -> Result<Self> {
        Self::with_settings(|index, files| {
            let both = format!("{index}\"]\nfile_urls = [\"{files}");
            of_files.map_or_else(
                || preset(name, &[(of_index, &both)]),
                |of_files| preset(name, &[(of_index, index), (of_files, files)]),
            )
        })
        .await
    }

    /// A cache with what `upstreams` makes of the URLs of the index and of the files.
    pub(crate) async fn with_settings(upstreams: impl Fn(&str, &str) -> Result<String>) -> Result<Self> {
        let (index, files) = (Origin::start().await?, Origin::start().await?);
        let folder = tempfile::tempdir()?;
        let upstreams = upstreams(&index.url("/"), &files.url("/"))?;
        let settings = format!("[cache]\nmin_free = \"0B\"\n{upstreams}");
        let file = put(folder.path(), "proxy.toml", settings.as_bytes())?;
        let config = ["--config", file.to_str().context("a path of ASCII")?];
        let proxy = Settings::new(&folder.path().join("cache"))
            .arguments(&config)
            .start()
            .await?;
        Ok(Self {
            index,
            files,
            proxy,
            folder,
        })
    }

    /// A folder of its own, empty.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Ends both origins: connections to them are refused from now on.
    pub(crate) async fn cut_off(&mut self) {
        self.index.stop().await;
        self.files.stop().await;
    }

    /// `http://…` of the cache, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.proxy.data)
    }
}

/// Runs a client to its end beside the origins.
pub(crate) async fn run(command: Command) -> Result<Output> {
    spawn_blocking(move || command::run(command, PATIENCE, &[])).await?
}

/// [`run`], and it must succeed.
pub(crate) async fn succeed(command: Command) -> Result<String> {
    let line = command::line(&command);
    let output = run(command).await?;
    ensure!(
        output.status.success(),
        "`{line}` ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// [`succeed`], again and again: what was wrong at its origin is refused for some seconds without asking.
pub(crate) async fn until_it_succeeds(command: impl Fn() -> Command) -> Result<String> {
    let since = Instant::now();
    loop {
        match succeed(command()).await {
            Err(_refused) if since.elapsed() < PATIENCE => {}
            ended => return ended,
        }
    }
}
