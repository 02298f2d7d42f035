//! A registry of the test's own making, as a scripted origin serves it, and a proxy with the settings of the test.

use anyhow::{Context, Result};
use integration_tests::{
    origin::{Origin, Recorded, Resource},
    proxy::{Proxy, Settings},
};
use kato_shared::{Digest, durable};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The media type of the manifests here.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a client that reads everything sends.
pub(crate) const ALL: &str =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";

/// A registry by script.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) origin: Origin,
}

/// An image with one layer.
#[derive(Debug, Clone)]
pub(crate) struct Small {
    pub(crate) manifest: Vec<u8>,
    pub(crate) layer: Vec<u8>,
}

impl Small {
    /// One whose layer is `text` and some.
    pub(crate) fn new(text: &str) -> Self {
        let layer = text.repeat(1000).into_bytes();
        let descriptor =
            |content: &[u8]| json!({ "digest": Digest::of(content).to_string(), "size": content.len() });
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "layers": [descriptor(&layer)] });
        Self {
            manifest: manifest.to_string().into_bytes(),
            layer,
        }
    }

    /// The digest of the manifest.
    pub(crate) fn digest(&self) -> String {
        Digest::of(&self.manifest).to_string()
    }

    /// The digest of the layer.
    pub(crate) fn blob(&self) -> String {
        Digest::of(&self.layer).to_string()
    }
}

impl Scripted {
    pub(crate) async fn start() -> Result<Self> {
        let origin = Origin::start().await?;
        Ok(Self { origin })
    }

    /// Serves `image` in `repository` by its digests, and as `tag`.
    pub(crate) fn push(&self, repository: &str, tag: &str, image: &Small) {
        let digest = image.digest();
        let manifest = Resource::new(image.manifest.clone())
            .header("content-type", MANIFEST)
            .header("etag", &format!("\"{digest}\""))
            .header("docker-content-digest", &digest);
        for reference in [tag, digest.as_str()] {
            let path = format!("/v2/{repository}/manifests/{reference}");
            self.origin.serve(&path, manifest.clone());
        }
        let layer = Resource::new(image.layer.clone()).header("content-type", "application/octet-stream");
        self.origin
            .serve(&format!("/v2/{repository}/blobs/{}", image.blob()), layer);
    }

    /// Answers requests for a tag with `status` and these fields.
    pub(crate) fn answer(&self, repository: &str, tag: &str, status: u16, fields: &[(&str, &str)]) {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#;
        let gone = Resource::new(body)
            .status(status)
            .header("content-type", "application/json");
        let gone = fields
            .iter()
            .fold(gone, |gone, (name, value)| gone.header(name, value));
        self.origin
            .serve(&format!("/v2/{repository}/manifests/{tag}"), gone);
    }

    /// The methods of the requests for `path` so far.
    pub(crate) fn methods(&self, path: &str) -> Vec<String> {
        let requests = self.origin.requests(path);
        requests
            .into_iter()
            .map(|Recorded { method, .. }| method)
            .collect()
    }

    /// An `[[upstream]]` section for it, with more keys.
    pub(crate) fn section(&self, name: &str, keys: &str) -> String {
        let url = self.origin.url("/");
        format!("[[upstream]]\nname = \"{name}\"\nkind = \"registry\"\nurls = [\"{url}\"]\n{keys}\n")
    }
}

/// A proxy with a file of settings, and the folder of both.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) proxy: Proxy,
    pub(crate) folder: TempDir,
}

/// Starts a proxy with `settings` as its file.
pub(crate) async fn cache(settings: &str) -> Result<Cache> {
    let folder = tempfile::tempdir()?;
    cache_in(folder, settings).await
}

/// Starts a proxy with `settings` as its file, in a folder that has what the settings name.
pub(crate) async fn cache_in(folder: TempDir, settings: &str) -> Result<Cache> {
    let config = folder.path().join("proxy.toml");
    durable::write(&config, settings.as_bytes(), 0o600)?;
    let config = config.to_str().context("the temporary folder is not UTF-8")?;
    let proxy = Settings::new(&folder.path().join("cache"))
        .arguments(&["--config", config])
        .start()
        .await?;
    Ok(Cache { proxy, folder })
}

impl Cache {
    /// Asks for `target` as a container client.
    pub(crate) async fn get(&self, target: &str) -> Result<Said> {
        self.ask("GET", target, &[("accept", ALL)]).await
    }

    /// Asks with these fields.
    pub(crate) async fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Result<Said> {
        let request = self.proxy.client().request(method, target);
        let request = fields
            .iter()
            .fold(request, |request, (name, value)| request.header(name, value));
        let (response, body) = request.fetch().await?;
        let headers = response.headers.clone();
        Ok(Said {
            status: response.status,
            headers,
            body,
        })
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Said {
    /// The first value of a field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The code of the first error, in the form of the distribution specification.
    pub(crate) fn code(&self) -> Option<String> {
        self.first_error("code")
    }

    /// Its message.
    pub(crate) fn message(&self) -> Option<String> {
        self.first_error("message")
    }

    fn first_error(&self, key: &str) -> Option<String> {
        let said: Value = serde_json::from_slice(&self.body).ok()?;
        Some(said["errors"][0][key].as_str()?.to_owned())
    }
}

/// Tags are asked about each time.
pub(crate) const ALWAYS: &str = "[upstream.registry]\ntag_ttl = \"0s\"\n";
/// Tags are believed for the whole test.
pub(crate) const LONG: &str = "[upstream.registry]\ntag_ttl = \"1h\"\n";

/// A registry with one image, and a cache with `keys` for it.
pub(crate) async fn site(keys: &str) -> Result<(Scripted, Cache, Small)> {
    let registry = Scripted::start().await?;
    let image = Small::new("one");
    registry.push("lab/app", "v1", &image);
    let cache = cache(&registry.section("lab", keys)).await?;
    Ok((registry, cache, image))
}
