//! An image for two architectures with six layers each, as an OCI layout made of real tar archives.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use kato_shared::{Digest, durable};
use serde_json::{Value, json};

use crate::{
    command,
    origin::{Origin, Resource},
};

/// The layers of each architecture; the first is the same for both.
const LAYERS: usize = 6;
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
/// The name inside the layout.
const NAME: &str = "built";

/// A built image.
#[derive(Debug)]
pub struct Image {
    folder: PathBuf,
    index: Vec<u8>,
    blobs: Vec<Digest>,
}

impl Image {
    /// Builds one in `folder`; equal texts make equal images.
    ///
    /// # Errors
    /// When `tar` fails or the disk is full.
    pub fn build(folder: &Path, text: &str) -> Result<Self> {
        let mut image = Self {
            folder: folder.join(text),
            index: Vec::new(),
            blobs: Vec::new(),
        };
        for below in ["layer", "blobs/sha256"] {
            std::fs::create_dir_all(image.folder.join(below))?;
        }
        let mut manifests = Vec::new();
        for architecture in ARCHITECTURES {
            manifests.push(image.manifest(architecture, text)?);
        }
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
        image.index = serde_json::to_vec(&index)?;
        let mut top = image.put(media_type, &image.index.clone())?;
        top["annotations"] = json!({ "org.opencontainers.image.ref.name": NAME });
        let top = json!({ "schemaVersion": 2, "manifests": [top] });
        let marker = json!({ "imageLayoutVersion": "1.0.0" });
        for (file, content) in [("index.json", top), ("oci-layout", marker)] {
            durable::write(&image.folder.join(file), &serde_json::to_vec(&content)?, 0o644)?;
        }
        Ok(image)
    }

    /// The digest of the index.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.index)
    }

    /// The digests of all layers and configurations, without repetitions.
    pub fn blobs(&self) -> &[Digest] {
        &self.blobs
    }

    /// The digests of all its content by names: `index`, and for each architecture `manifest.ARCH`, `config.ARCH` and `layer.ARCH.N`. The
    /// layer that all share has the name of the first.
    ///
    /// # Errors
    /// When the layout is not as it was built.
    pub fn named(&self) -> Result<Vec<(String, Digest)>> {
        let mut named = vec![("index".to_owned(), self.digest())];
        let digest = |descriptor: &Value| -> Result<Digest> {
            Ok(descriptor["digest"].as_str().context("no digest")?.parse()?)
        };
        let index: Value = serde_json::from_slice(&self.index)?;
        for (of, architecture) in index["manifests"]
            .as_array()
            .context("no list")?
            .iter()
            .zip(ARCHITECTURES)
        {
            let name = digest(of)?;
            named.push((format!("manifest.{architecture}"), name));
            let manifest: Value = serde_json::from_slice(&self.content(&name)?)?;
            named.push((format!("config.{architecture}"), digest(&manifest["config"])?));
            for (nth, layer) in manifest["layers"]
                .as_array()
                .context("no layers")?
                .iter()
                .enumerate()
            {
                let layer = digest(layer)?;
                if named.iter().all(|(_, known)| *known != layer) {
                    named.push((format!("layer.{architecture}.{nth}"), layer));
                }
            }
        }
        Ok(named)
    }

    /// The bytes with this digest.
    ///
    /// # Errors
    /// When they are none of its own.
    pub fn content(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.folder.join("blobs/sha256").join(digest.hex());
        std::fs::read(&path).with_context(|| path.display().to_string())
    }

    /// Serves it as a registry does: by `tag` and by its digest, with all that it names.
    ///
    /// # Errors
    /// As [`Image::named`].
    pub fn serve(&self, origin: &Origin, repository: &str, tag: &str) -> Result<()> {
        origin.serve(
            "/v2/",
            Resource::cacheable("{}").header("content-type", "application/json"),
        );
        for (name, digest) in self.named()? {
            let content = self.content(&digest)?;
            let (folder, kind) = match name.split('.').next() {
                Some("index") => ("manifests", "application/vnd.oci.image.index.v1+json"),
                Some("manifest") => ("manifests", "application/vnd.oci.image.manifest.v1+json"),
                _ => ("blobs", "application/octet-stream"),
            };
            let resource = Resource::cacheable(content)
                .header("content-type", kind)
                .header("docker-content-digest", &digest.to_string());
            if name == "index" {
                origin.serve(&format!("/v2/{repository}/manifests/{tag}"), resource.clone());
            }
            origin.serve(&format!("/v2/{repository}/{folder}/{digest}"), resource);
        }
        Ok(())
    }

    /// The layout as skopeo names it.
    pub fn layout(&self) -> String {
        format!("oci:{}:{NAME}", self.folder.display())
    }

    /// Pushes it, every architecture, to a registry without TLS.
    ///
    /// # Errors
    /// When skopeo fails; its own words are in the message.
    pub fn push(&self, reference: &str) -> Result<()> {
        self.push_as(reference, &[])
    }

    /// Pushes it with more arguments of `skopeo copy`: credentials.
    ///
    /// # Errors
    /// As [`Image::push`].
    pub fn push_as(&self, reference: &str, more: &[&str]) -> Result<()> {
        let to = format!("docker://{reference}");
        let argv = [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
        ];
        let from = self.layout();
        command::ok(&[&argv[..], more, &["--dest-tls-verify=false", &from, &to]].concat()).map(drop)
    }

    fn manifest(&mut self, architecture: &str, text: &str) -> Result<Value> {
        let (mut layers, mut plain) = (Vec::new(), Vec::new());
        for nth in 0..LAYERS {
            let whose = if nth == 0 { "all" } else { architecture };
            let tar = self.tar(&format!("{whose} {nth} {text}"))?;
            plain.push(Digest::of(&tar).to_string());
            layers.push(self.blob("application/vnd.oci.image.layer.v1.tar", &tar)?);
        }
        let config = serde_json::to_vec(&json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": plain },
        }))?;
        let config = self.blob("application/vnd.oci.image.config.v1+json", &config)?;
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
        let mut descriptor = self.put(media_type, &serde_json::to_vec(&manifest)?)?;
        descriptor["platform"] = json!({ "architecture": architecture, "os": "linux" });
        Ok(descriptor)
    }

    /// An archive with one file of 65 kB.
    fn tar(&self, text: &str) -> Result<Vec<u8>> {
        let (mut content, mut digest) = (String::new(), Digest::of(text.as_bytes()));
        for _ in 0..1024 {
            digest = Digest::of(digest.hex().as_bytes());
            writeln!(content, "{}", digest.hex())?;
        }
        let below = self.folder.join("layer");
        let name = text.replace(' ', "-");
        durable::write(&below.join(&name), content.as_bytes(), 0o644)?;
        let archive = self.folder.join("layer.tar");
        let (below, to) = (below.display().to_string(), archive.display().to_string());
        command::ok(&[
            "tar",
            "--create",
            "--mtime=@0",
            "--file",
            &to,
            "--directory",
            &below,
            &name,
        ])?;
        std::fs::read(&archive).context("no archive")
    }

    fn blob(&mut self, media_type: &str, content: &[u8]) -> Result<Value> {
        let digest = Digest::of(content);
        if !self.blobs.contains(&digest) {
            self.blobs.push(digest);
        }
        self.put(media_type, content)
    }

    /// Puts content into the layout; its descriptor.
    fn put(&self, media_type: &str, content: &[u8]) -> Result<Value> {
        let digest = Digest::of(content);
        let path = self.folder.join("blobs/sha256").join(digest.hex());
        durable::write(&path, content, 0o644)?;
        Ok(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": content.len() }))
    }
}
