//! The suite as programs of Node: installed, asked for its list of tests, its origin and its client.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use integration_tests::{binaries, command, wait};
use kato_shared::durable;
use tempfile::TempDir;

use crate::score::Test;

/// The version whose outcomes are expected; the registry never changes what a version is.
const PACKAGE: &str = "http-cache-tests@0.4.5";
/// A registry may be slow, and the first installation brings some forty packages.
const INSTALLATION: Duration = Duration::from_secs(100);
/// The whole suite takes half a minute, most of it pauses.
const RUN: Duration = Duration::from_secs(150);
const SOON: Duration = Duration::from_secs(20);

/// How the suite's client reaches the proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// By a path below an upstream's name.
    Mirror,
    /// By the origin's own URLs, sent to the proxy in absolute form.
    Forward,
}

/// The installed suite.
#[derive(Debug)]
pub(crate) struct Suite {
    folder: PathBuf,
    /// What it knows about its tests.
    pub(crate) tests: Vec<Test>,
}

impl Suite {
    /// Installs the suite beside the built programs, once for all runs.
    ///
    /// # Errors
    /// When Node or npm is missing, with the command that installs them; when no registry answers.
    pub(crate) fn install() -> Result<Self> {
        for program in ["node", "npm"] {
            command::ok(&[program, "--version"]).with_context(|| {
                format!(
                    "`{program}` is missing\nhint: as root: apt-get install -y --no-install-recommends nodejs npm"
                )
            })?;
        }
        let home = binaries::folder()?.join(PACKAGE);
        if !home.is_dir() {
            download(&home)?;
        }
        let folder = home.join("node_modules/http-cache-tests");
        let mut list = command::new("node");
        list.arg("--no-warnings")
            .arg(script("list.mjs"))
            .current_dir(&folder);
        let listed = command::success("list.mjs", command::run(list, SOON, &[])?)?;
        let tests = serde_json::from_str(&listed).context("the list of tests")?;
        Ok(Self { folder, tests })
    }

    /// Starts the suite's origin on a port that the system chooses.
    ///
    /// # Errors
    /// When it does not say soon where it listens.
    pub(crate) fn origin(&self) -> Result<Origin> {
        let folder = tempfile::tempdir()?;
        let output = folder.path().join("stdout");
        let mut command = command::new("node");
        command
            .arg("server/server.mjs")
            .current_dir(&self.folder)
            .env("npm_config_protocol", "http")
            .env("npm_config_port", "0")
            .env("npm_config_pidfile", folder.path().join("pid"))
            .stdout(Stdio::from(
                tempfile::NamedTempFile::new_in(&folder)?.persist(&output)?,
            ))
            .stderr(Stdio::null());
        let child = command.spawn().context("cannot start the suite's origin")?;
        // Owned from here on: whatever fails below, it is ended.
        let mut origin = Origin {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            child,
            _folder: folder,
        };
        let port = wait::until("the suite's origin listens", SOON, || port(&output))?;
        origin.address.set_port(port);
        Ok(origin)
    }

    /// The suite's client, ready to run: returns its results as JSON.
    pub(crate) fn client(
        &self,
        way: Way,
        origin: &Origin,
        proxy: SocketAddr,
    ) -> impl FnOnce() -> Result<String> + Send + 'static {
        let mut command = command::new("node");
        command.arg("--no-warnings").current_dir(&self.folder);
        let base = match way {
            Way::Mirror => format!("http://{proxy}/suite"),
            Way::Forward => {
                command.arg("--require").arg(script("through_proxy.cjs"));
                command.env("FORWARD_PROXY", proxy.to_string());
                format!("http://{}", origin.address)
            }
        };
        command
            .arg("cli.mjs")
            .env("npm_config_base", base)
            // Empty means all; without it the client runs nothing.
            .env("npm_package_config_id", "");
        move || command::success("cli.mjs", command::run(command, RUN, &[])?)
    }
}

/// A running origin. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Drop for Origin {
    fn drop(&mut self) {
        // It may have ended by itself; waiting for it is what matters.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// `Listening on http://[::]:43210/`
fn port(output: &Path) -> Option<u16> {
    let said = fs::read_to_string(output).ok()?;
    let line = said.lines().find(|line| line.starts_with("Listening on "))?;
    line.trim_end_matches('/').rsplit(':').next()?.parse().ok()
}

/// Installs into a new folder and renames it, so that a broken installation is never found later.
fn download(home: &Path) -> Result<()> {
    let parent = home.parent().context("a folder of programs has a parent")?;
    let folder = tempfile::Builder::new().prefix("npm-").tempdir_in(parent)?;
    let mut npm = command::new("npm");
    // How this machine reaches a registry is its own matter.
    npm.envs(env::vars_os());
    npm.args([
        "install",
        "--omit=dev",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ])
    .args(["--no-update-notifier", "--loglevel=error", "--prefix"])
    .arg(folder.path())
    .arg(PACKAGE);
    let line = command::line(&npm);
    command::success(&line, command::run(npm, INSTALLATION, &[])?)?;
    let installed = folder.keep();
    if durable::rename(&installed, home).is_err() && !home.is_dir() {
        bail!("cannot rename `{}` to `{}`", installed.display(), home.display());
    }
    Ok(())
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/conformance/node")
        .join(name)
}
