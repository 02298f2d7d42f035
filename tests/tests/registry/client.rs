//! skopeo on a node, and the cache that it is pointed at.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration_tests::{
    binaries, command,
    lab::{Background, HOST, Lab, Node},
};
use kato_shared::Digest;

use crate::{image::Image, origin::PORT};

/// The repository as skopeo names it. The registry has an address of the lab: Go sends nothing for loopback to a proxy.
pub(crate) const REPOSITORY: &str = "docker://10.99.0.1:5000/lab/app";

/// Where the cache listens on the Core node. The network is the lab's own, so every port is free.
const CACHE: &str = "http://10.99.0.11:3180";
const CONFIG: &str = "/etc/lab/proxy.toml";
const PULLED: &str = "/srv/pulled";

/// A pull of less than a megabyte, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(25);

/// How a node reaches the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Straight to the registry.
    Direct,
    /// By `http_proxy`.
    ForwardProxy,
}

/// Starts `kato-proxy` on the node `core` with the registry as its one upstream, and waits until it listens.
///
/// # Errors
/// When it does not say that it listens; what it said instead is in the message.
pub(crate) fn cache(lab: &Lab) -> Result<Background> {
    let program = binaries::built("kato-proxy")?;
    let program = program.to_str().context("the target folder is not UTF-8")?;
    let config = format!(
        "[listen]\ndata = \"0.0.0.0:3180\"\nadmin = \"127.0.0.1:3181\"\n\
         [[upstream]]\nname = \"images\"\nkind = \"registry\"\nurls = [\"http://{HOST}:{PORT}/\"]\n\
         [upstream.registry]\ntag_ttl = \"0s\"\n"
    );
    let core = lab.node("core")?;
    core.put(CONFIG, config.as_bytes(), 0o644)?;
    let proxy = core.spawn(&[program, "serve", "--config", CONFIG])?;
    loop {
        let line = proxy.line(Duration::from_secs(20))?;
        let listener: serde_json::Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        if listener["listener"] == "data" {
            return Ok(proxy);
        }
    }
}

/// An image that has come to a node.
#[derive(Debug)]
pub(crate) struct Pulled<'lab> {
    node: Node<'lab>,
}

/// Pulls `reference` (`:tag` or `@digest`) into a folder of the node.
///
/// # Errors
/// When skopeo fails; its own words are in the message.
pub(crate) fn pull<'lab>(node: Node<'lab>, route: Route, reference: &str) -> Result<Pulled<'lab>> {
    node.ok(&["rm", "-rf", PULLED])?;
    let (from, to) = (format!("{REPOSITORY}{reference}"), format!("dir:{PULLED}"));
    let proxy = format!("http_proxy={CACHE}");
    let mut argv = vec!["env"];
    if route == Route::ForwardProxy {
        argv.push(&proxy);
    }
    argv.extend([
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        &from,
        &to,
    ]);
    let output = node.exec_within(PATIENCE, &argv, &[])?;
    command::success(&format!("{}: {}", node.name(), argv.join(" ")), output)?;
    Ok(Pulled { node })
}

impl Pulled<'_> {
    /// Wants every byte of `image`.
    ///
    /// # Errors
    /// When something is missing or different.
    pub(crate) fn assert_is(&self, image: &Image<'_>) -> Result<()> {
        let manifest = ("manifest.json".to_owned(), &image.manifest);
        let blobs = image.blobs.iter().map(|blob| (Digest::of(blob).hex(), blob));
        for (file, content) in blobs.chain([manifest]) {
            let pulled = self.node.read(&format!("{PULLED}/{file}"))?;
            ensure!(
                pulled == *content,
                "{}: {file} is different: {} bytes came, expected {}",
                self.node.name(),
                pulled.len(),
                content.len()
            );
        }
        Ok(())
    }
}
