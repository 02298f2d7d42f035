//! A small image, made on a node as an OCI layout: layers by real `tar` and `gzip`, a configuration, a manifest.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Result, ensure};
use integration_tests::lab::Node;
use kato_shared::Digest;
use serde_json::{Value, json};

use crate::client::REPOSITORY;

/// The layout's folder on the node that has built it.
const LAYOUT: &str = "/srv/layout";
/// The name inside the layout.
const NAME: &str = "built";

/// Long beside compressing a few hundred kilobytes.
const PATIENCE: Duration = Duration::from_secs(20);

/// An image and all its content.
#[derive(Debug)]
pub(crate) struct Image<'lab> {
    node: Node<'lab>,
    pub(crate) manifest: Vec<u8>,
    /// The layers, then the configuration.
    pub(crate) blobs: Vec<Vec<u8>>,
}

impl<'lab> Image<'lab> {
    /// Builds an image with one layer for each of `layers`; equal texts make equal layers.
    ///
    /// # Errors
    /// When a tool fails on the node or its disk is full.
    pub(crate) fn build(node: Node<'lab>, layers: &[&str]) -> Result<Self> {
        let (mut blobs, mut descriptors, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        for text in layers {
            let tar = archive(node, text)?;
            plain.push(name(&tar));
            let layer = said(node, &["gzip", "--no-name"], &tar)?;
            descriptors.push(descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer));
            blobs.push(layer);
        }
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": plain },
        });
        let config = serde_json::to_vec(&config)?;
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": media_type, "layers": descriptors,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        }))?;
        blobs.push(config);
        let mut top = descriptor(media_type, &manifest);
        top["annotations"] = json!({ "org.opencontainers.image.ref.name": NAME });
        let index = json!({ "schemaVersion": 2, "manifests": [top] });
        let marker = json!({ "imageLayoutVersion": "1.0.0" });
        let image = Self {
            node,
            manifest,
            blobs,
        };
        for (file, content) in [("index.json", index), ("oci-layout", marker)] {
            node.put(&format!("{LAYOUT}/{file}"), &serde_json::to_vec(&content)?, 0o644)?;
        }
        for blob in image.blobs.iter().chain([&image.manifest]) {
            let path = format!("{LAYOUT}/blobs/sha256/{}", Digest::of(blob).hex());
            node.put(&path, blob, 0o644)?;
        }
        Ok(image)
    }

    /// Pushes it as `v1`, past the cache.
    ///
    /// # Errors
    /// When skopeo fails; its own words are in the message.
    pub(crate) fn push(&self) -> Result<()> {
        let (from, to) = (format!("oci:{LAYOUT}:{NAME}"), format!("{REPOSITORY}:v1"));
        let argv = [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--preserve-digests",
            "--dest-tls-verify=false",
            &from,
            &to,
        ];
        self.node.ok(&argv).map(drop)
    }

    /// The digest of the manifest, as it stands in a reference.
    pub(crate) fn digest(&self) -> String {
        name(&self.manifest)
    }
}

/// A tar archive of one file that compresses badly, so that layers are larger than what is kept in memory alone.
fn archive(node: Node<'_>, text: &str) -> Result<Vec<u8>> {
    let (mut content, mut digest) = (String::new(), Digest::of(text.as_bytes()));
    for _ in 0..8192 {
        digest = Digest::of(digest.hex().as_bytes());
        writeln!(content, "{}", digest.hex())?;
    }
    node.put("/srv/layer/content", content.as_bytes(), 0o644)?;
    let tar = [
        "tar",
        "--create",
        "--mtime=@0",
        "--directory",
        "/srv/layer",
        "content",
    ];
    said(node, &tar, &[])
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": name(content), "size": content.len() })
}

fn name(content: &[u8]) -> String {
    format!("sha256:{}", Digest::of(content).hex())
}

fn said(node: Node<'_>, argv: &[&str], stdin: &[u8]) -> Result<Vec<u8>> {
    let output = node
        .exec_within(PATIENCE, argv, stdin)
        .context("cannot build a layer")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`{}` ended with {}: {stderr}",
        argv.join(" "),
        output.status
    );
    Ok(output.stdout)
}
