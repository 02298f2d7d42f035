//! The presets for registries, as an operator begins with them: copied, the names filled in, before real registries, and pulled from by skopeo.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use integration_tests::{authority::Authority, image::Image, presets::preset, registry::Registry};
use kato_shared::durable;
use tempfile::TempDir;

use crate::{
    behind_tls::{ADA, ADA_SHOWS},
    programs::{is_there, skopeo, skopeo_with},
    scripted::{Cache, cache},
};

/// A real registry with one image, and what it wants.
struct Site {
    registry: Registry,
    image: Image,
    folder: TempDir,
}

impl Site {
    /// One that is open for all, with `repository`.
    fn open(repository: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let registry = Registry::start(&below(&folder, "registry")?, None)?;
        Self::with(folder, registry, repository, &[])
    }

    /// One behind TLS that wants a password; the folder has `ca.crt`, and `credentials` for the cache.
    fn private(repository: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new(folder.path())?;
        let users = folder.path().join("users");
        durable::write(&users, ADA.as_bytes(), 0o600)?;
        durable::write(&folder.path().join("credentials"), ADA_SHOWS.as_bytes(), 0o600)?;
        let storage = below(&folder, "registry")?;
        let registry = Registry::start_for_users(&storage, Some(&authority.server("registry")?), &users)?;
        Self::with(folder, registry, repository, &["--dest-creds", ADA_SHOWS])
    }

    fn with(folder: TempDir, registry: Registry, repository: &str, credentials: &[&str]) -> Result<Self> {
        let image = Image::build(folder.path(), "image")?;
        image.push_as(&format!("{}/{repository}:v1", registry.address), credentials)?;
        Ok(Self {
            registry,
            image,
            folder,
        })
    }

    /// How often the content of a blob was sent.
    fn blobs_sent(&self) -> usize {
        self.registry
            .requests()
            .iter()
            .filter(|request| request.is_blob())
            .count()
    }

    /// Two clients pull what `references` name at the cache, and a third one when the registry is off.
    fn pulls(self, cache: &Cache, references: &[&str]) -> Result<()> {
        let digest = self.image.digest();
        let asked: Vec<_> = references
            .iter()
            .flat_map(|name| {
                [
                    format!("{}/{name}:v1", cache.proxy.data),
                    format!("{}/{name}@{digest}", cache.proxy.data),
                ]
            })
            .collect();
        let pull = |when: &str| -> Result<()> {
            for (nth, reference) in asked.iter().enumerate() {
                let to = below(&self.folder, &format!("{when} {nth}"))?;
                skopeo(reference, &to).with_context(|| format!("{when}: {reference}"))?;
                let manifest = std::fs::read(to.join("manifest.json"))?;
                ensure!(
                    kato_shared::Digest::of(&manifest) == digest,
                    "{when}: {reference} is another image"
                );
            }
            Ok(())
        };
        pull("registry on")?;
        ensure!(
            self.blobs_sent() == self.image.blobs().len(),
            "each blob once: {:#?}",
            self.registry.requests()
        );
        drop(self.registry);
        pull("registry off")
    }
}

/// A folder below `folder`.
fn below(folder: &TempDir, name: &str) -> Result<PathBuf> {
    let path = folder.path().join(name);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

/// Everything here blocks its thread, and no origin lives on it.
fn blocking<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    tokio::task::block_in_place(work)
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a path that is not UTF-8")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pulls_by_the_preset_of_a_registry_and_again_without_it() -> Result<()> {
    if !is_there("skopeo") || !is_there("docker-registry") {
        return Ok(());
    }
    let site = blocking(|| Site::open("lab/app"))?;
    let url = format!("http://{}/", site.registry.address);
    let cache = cache(&preset("registry", &[("https://registry.example/", &url)])?).await?;
    blocking(|| site.pulls(&cache, &["registry/lab/app"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pulls_by_the_preset_of_the_default_registry_and_again_without_it() -> Result<()> {
    if !is_there("skopeo") || !is_there("docker-registry") {
        return Ok(());
    }
    let site = blocking(|| Site::open("library/app"))?;
    let url = format!("http://{}/", site.registry.address);
    let cache = cache(&preset(
        "registry-default",
        &[("https://registry.hub.example/", &url)],
    )?)
    .await?;
    blocking(|| {
        site.pulls(
            &cache,
            &["app", "library/app", "hub.example/library/app", "hub.example/app"],
        )
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pulls_by_the_preset_of_a_private_registry_where_it_may_and_again_without_it() -> Result<()> {
    if !is_there("skopeo") || !is_there("docker-registry") {
        return Ok(());
    }
    let site = blocking(|| Site::private("lab/app"))?;
    let (ca, credentials) = (
        text(&site.folder.path().join("ca.crt"))?,
        text(&site.folder.path().join("credentials"))?,
    );
    let ca = format!("ca_file = \"{ca}\"");
    let url = format!("https://{}/", site.registry.address);
    let filled = [
        ("https://registry.internal.example/", url.as_str()),
        ("# ca_file = \"/etc/kato/internal-ca.pem\"", &ca),
        ("/etc/kato/internal.credentials", &credentials),
    ];
    let image = format!("{}/lab/app:v1", site.registry.address);
    let nobody = ["--src-tls-verify=false", "--src-no-creds"];
    let refused = blocking(|| Ok(skopeo_with(&nobody, &image, &below(&site.folder, "nobody")?)))?;
    ensure!(
        refused.is_err(),
        "the registry is open for all, so that this shows nothing"
    );

    // The network of the preset is not that of this client.
    let closed = cache(&preset("registry-private", &filled)?).await?;
    let asked = site.registry.requests().len();
    let reference = format!("{}/internal/lab/app:v1", closed.proxy.data);
    let refused = blocking(|| Ok(skopeo(&reference, &below(&site.folder, "closed")?)))?;
    let refused = format!(
        "{:#}",
        refused.expect_err("a client of another network was served")
    );
    ensure!(
        refused.contains("may not have what comes from `internal`"),
        "{refused}"
    );
    ensure!(site.registry.requests().len() == asked, "the registry was asked");
    ensure!(closed.proxy.stats().await?.stored_responses == 0);

    let filled = [&filled[..], &[("10.1.0.0/16", "127.0.0.0/8")]].concat();
    let cache = cache(&preset("registry-private", &filled)?).await?;
    blocking(|| site.pulls(&cache, &["internal/lab/app"]))?;
    ensure!(
        !cache
            .proxy
            .log()
            .contains(ADA_SHOWS.split(':').next_back().context("no password")?)
    );
    Ok(())
}
