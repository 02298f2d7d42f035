//! Two registries behind TLS under names that a parent proxy alone knows, and caches before them.

use std::time::Duration;

use anyhow::Result;
use integration_tests::{
    authority::{Authority, Pair},
    command,
    image::Image,
    names::Names,
    origin::{Origin, Resource},
    registry::{Registry, Tokens},
    tls_front::TlsFront,
};
use tempfile::TempDir;

use super::{Which, pulls};
use crate::scripted::{Cache, cache_in};

const LIFETIME: Duration = Duration::from_secs(300);
/// Where the token service answers requests about the one repository.
pub(super) const TOKEN: &str = "/token?service=lab-registry&scope=repository%3Alab%2Fapp%3Apull";

/// What stands behind the caches of one row: two registries with the same two images, under names that the parent alone knows.
pub(super) struct Site {
    names: Names,
    pub(super) tokens: Origin,
    _tokens_front: TlsFront,
    signer: Tokens,
    pair: Pair,
    /// What `v1` is at first, and what it moves to.
    pub(super) images: [Image; 2],
    pub(super) folder: TempDir,
}

impl Site {
    pub(super) async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new(folder.path())?;
        let hosts = ["hub.example", "vault.example", "auth.vault.example"];
        let pair = authority.server_called("registries", &hosts)?;
        let signer = Tokens::new(folder.path(), "https://auth.vault.example/token")?;
        let tokens = Origin::start().await?;
        let answer =
            Resource::new(signer.answer("lab/app", LIFETIME)?).header("content-type", "application/json");
        tokens.serve(TOKEN, answer);
        let names = Names::start().await?;
        let front = TlsFront::start(&pair, tokens.address()).await?;
        names.lead("auth.vault.example:443", front.address);
        let images = pulls(|| {
            let images = [
                Image::build(folder.path(), "first")?,
                Image::build(folder.path(), "second")?,
            ];
            let storage = folder.path().join("hub");
            std::fs::create_dir_all(&storage)?;
            // Pushed while nobody asks for TLS or a token.
            let open = Registry::start(&storage, None)?;
            for image in images.iter().rev() {
                image.push(&format!("{}/lab/app:v1", open.address))?;
            }
            let copy = folder.path().join("vault");
            command::ok(&[
                "cp".as_ref(),
                "--recursive".as_ref(),
                storage.as_os_str(),
                copy.as_os_str(),
            ])?;
            Ok(images)
        })?;
        Ok(Self {
            names,
            tokens,
            _tokens_front: front,
            signer,
            pair,
            images,
            folder,
        })
    }

    /// One of the registries, with `v1` as it was at first.
    pub(super) fn registry(&self, which: Which) -> Result<Registry> {
        let tokens = (which == Which::Vault).then_some(&self.signer);
        let folder = self.folder.path().join(which.name());
        let registry = Registry::start_with_tls(&folder, &self.pair, tokens)?;
        registry.move_tag("lab/app", "v1", &self.images[0].digest())?;
        let authority = format!("{}.example:443", which.name());
        self.names.lead(&authority, registry.address);
        Ok(registry)
    }

    /// A cache before both, in which nothing is stored; a reference without a registry means `default`.
    pub(super) async fn cache(&self, default: Which) -> Result<Cache> {
        let upstream = |name: &str| {
            format!(
                "[[upstream]]\nname = \"{name}\"\nkind = \"registry\"\nurls = [\"https://{name}.example/\"]\n\
                 intercept = true\nca_file = \"{}\"\nproxy = \"http://{}/\"\n[upstream.registry]\ntag_ttl = \"0s\"\n",
                self.folder.path().join("ca.crt").display(),
                self.names.address
            )
        };
        let settings = format!(
            "[registry]\ndefault = \"{}\"\n{}{}",
            default.name(),
            upstream("hub"),
            upstream("vault")
        );
        cache_in(tempfile::tempdir()?, &settings).await
    }
}
