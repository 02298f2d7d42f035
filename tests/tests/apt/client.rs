//! apt on a node, set up from nothing: its own lists, its own cache, one source, and nothing from the machine's settings.

use std::time::Duration;

use anyhow::{Context, Result};
use integration_tests::{
    archive::ON_A_NODE,
    binaries, command,
    lab::{Background, Lab, Node},
};

use crate::origin::Origin;

/// Where the cache listens on the Core node. The network is the lab's own, so every port is free.
const CACHE: &str = "http://10.99.0.11:3180";
const KEY: &str = "/etc/lab/repository.gpg";
const SOURCES: &str = "/etc/lab/sources.list";

/// An installation unpacks and configures on an overlay.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a node reaches the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Straight to the origin.
    Direct,
    /// The source names the origin, `Acquire::http::Proxy` the cache.
    ForwardProxy,
    /// The source names the cache's path for the upstream.
    MirrorPath,
    /// The source names the cache's path for the host, as apt-cacher-ng has it.
    HostPath,
}

/// Starts `kato-proxy` on the node `core` with the repository as its one upstream, and waits until it listens.
///
/// # Errors
/// When it does not say that it listens; what it said instead is in the message.
pub(crate) fn cache(lab: &Lab, url: &str) -> Result<Background> {
    let program = binaries::built("kato-proxy")?;
    let program = program.to_str().context("the target folder is not UTF-8")?;
    let settings = format!("[[upstream]]\nname = \"pkg\"\nurls = [\"{url}\"]\nkind = \"packages\"\n");
    lab.node("core")?
        .put("/etc/kato/proxy.toml", settings.as_bytes(), 0o644)?;
    let proxy = lab.node("core")?.spawn(&[
        program,
        "serve",
        "--listen",
        "0.0.0.0:3180",
        "--admin",
        "127.0.0.1:3181",
        "--cache-dir",
        "/var/cache/kato-proxy",
        "--config",
        "/etc/kato/proxy.toml",
    ])?;
    loop {
        let line = proxy.line(Duration::from_secs(20))?;
        let listener: serde_json::Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        if listener["listener"] == "data" {
            return Ok(proxy);
        }
    }
}

/// apt on one node.
#[derive(Debug)]
pub(crate) struct Client<'lab> {
    node: Node<'lab>,
    route: Route,
}

impl<'lab> Client<'lab> {
    pub(crate) fn new(node: Node<'lab>, route: Route) -> Self {
        Self { node, route }
    }

    /// `apt-get update` and `apt-get install` of `packages`, with signatures checked; then asks dpkg and runs what was installed.
    ///
    /// # Errors
    /// When one of them fails; apt's own words are in the message.
    pub(crate) fn install(&self, origin: &Origin<'_>, packages: &[&str]) -> Result<()> {
        self.prepare(&origin.url, &origin.public_key()?)?;
        // A machine that happens to have them would leave nothing to install.
        let mut purge = vec!["dpkg", "--purge", "--force-all", "librecode0"];
        purge.extend(packages);
        self.node.exec(&purge)?;
        self.update()?;
        self.install_only(packages)?;
        assert_eq!(self.node.ok(&["hello"])?, "Hello, world!");
        let status = self.node.ok(&[
            "dpkg-query",
            "--show",
            "--showformat",
            "${db:Status-Status}",
            "librecode0",
        ])?;
        assert_eq!(
            status, "installed",
            "the dependency came from the same repository"
        );
        Ok(())
    }

    /// Writes the source and the key, and forgets what apt has.
    ///
    /// # Errors
    /// When the node is down.
    pub(crate) fn prepare(&self, origin: &str, key: &[u8]) -> Result<()> {
        self.node.put(KEY, key, 0o644)?;
        let url = match self.route {
            Route::Direct | Route::ForwardProxy => origin.to_owned(),
            Route::MirrorPath => format!("{CACHE}/pkg/"),
            Route::HostPath => format!("{CACHE}/{}", origin.trim_start_matches("http://")),
        };
        let source = format!("deb [signed-by={KEY} arch=amd64] {url} stable main\n");
        self.node.put(SOURCES, source.as_bytes(), 0o644)?;
        self.node
            .ok(&["rm", "-rf", "/var/lib/lab-apt", "/var/cache/lab-apt"])?;
        for folder in [
            "/var/lib/lab-apt/lists/partial",
            "/var/cache/lab-apt/archives/partial",
        ] {
            self.node.ok(&["mkdir", "-p", folder])?;
        }
        Ok(())
    }

    /// `apt-get update`.
    ///
    /// # Errors
    /// When it fails or warns; apt's own words are in the message.
    pub(crate) fn update(&self) -> Result<()> {
        self.apt(&["update"])
    }

    /// `apt-get install`.
    ///
    /// # Errors
    /// When it fails; apt's own words are in the message.
    pub(crate) fn install_only(&self, packages: &[&str]) -> Result<()> {
        let mut install = vec!["install", "-y", "--no-install-recommends"];
        install.extend(packages);
        self.apt(&install)
    }

    /// The node.
    pub(crate) fn node(&self) -> &Node<'lab> {
        &self.node
    }

    fn apt(&self, argv: &[&str]) -> Result<()> {
        let proxy = if self.route == Route::ForwardProxy {
            CACHE
        } else {
            "DIRECT"
        };
        let mut words = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"];
        let proxy = format!("Acquire::http::Proxy={proxy}");
        let options = std::iter::once(proxy.as_str()).chain(ON_A_NODE);
        words.extend(options.flat_map(|option| ["-o", option]));
        words.extend(argv);
        let output = self.node.exec_within(PATIENCE, &words, &[])?;
        command::success(
            &format!("{}: apt-get {}", self.node.name(), argv.join(" ")),
            output,
        )
        .map(drop)
    }
}
