//! What container clients ask for in one pull, as it was recorded (`tests/data/registry-exchanges.txt`): every request is answered as a
//! registry would, the second client costs the registry no blob, and with the registry off all of it comes from the store.
//!
//! Programs that are here are recorded anew each time, and must ask what stands in the file; for those that are not, what they are
//! expected to ask stands in, which is said.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use integration_tests::{image::Image, origin::Resource};
use kato_shared::Digest;
use tempfile::TempDir;

use crate::{
    asking::until_held,
    programs::untested,
    recording::Asked,
    scripted::{Cache, Scripted, cache},
};

const EXCHANGES: &str = include_str!("../../data/registry-exchanges.txt");
/// How the title of a section begins whose client does not run here.
const EXPECTED: &str = "expected of ";

/// An image at a registry by script, and a cache before it that is called by what the clients call the registry.
struct Site {
    registry: Scripted,
    image: Image,
    cache: Cache,
    folder: TempDir,
}

impl Site {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let image = tokio::task::block_in_place(|| Image::build(folder.path(), "first"))?;
        let registry = Scripted::start().await?;
        for (name, digest) in image.named()? {
            let content = image.content(&digest)?;
            let is_blob = name.starts_with("layer") || name.starts_with("config");
            let media_type = match name.as_str() {
                "index" => "application/vnd.oci.image.index.v1+json",
                _ if is_blob => "application/octet-stream",
                _ => "application/vnd.oci.image.manifest.v1+json",
            };
            let kind = if is_blob { "blobs" } else { "manifests" };
            let resource = Resource::new(content)
                .header("content-type", media_type)
                .header("docker-content-digest", &digest.to_string());
            if name == "index" {
                registry
                    .origin
                    .serve("/v2/lab/app/manifests/v1", resource.clone());
            }
            registry
                .origin
                .serve(&format!("/v2/lab/app/{kind}/{digest}"), resource);
        }
        let keys = "[upstream.registry]\ntag_ttl = \"0s\"\naliases = [\"hub.example\"]\n";
        let cache = cache(&format!(
            "[registry]\ndefault = \"hub\"\n{}",
            registry.section("hub", keys)
        ))
        .await?;
        Ok(Self {
            registry,
            image,
            cache,
            folder,
        })
    }

    /// The digests of the image by what stands for them in the file.
    fn names(&self) -> Result<BTreeMap<String, Digest>> {
        let named = self.image.named()?.into_iter();
        Ok(named
            .map(|(name, digest)| (format!("{{{name}}}"), digest))
            .collect())
    }

    async fn replay(&self, (client, requests): (&str, &[Asked])) -> Result<()> {
        let names = self.names()?;
        for asked in requests {
            let mut target = asked.target.clone();
            let mut digest = None;
            for (name, of) in &names {
                if target.contains(name) {
                    target = target.replace(name, &of.to_string());
                    digest = Some(*of);
                }
            }
            let digest = digest.or_else(|| target.contains("/manifests/v1").then(|| self.image.digest()));
            let fields: Vec<_> = asked
                .fields
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let said = self.cache.ask(&asked.method, &target, &fields).await?;
            assert_eq!(said.status, 200, "{client}: {asked}: {said:?}");
            let content = match &digest {
                Some(digest) => self.image.content(digest)?,
                None => b"{}".to_vec(),
            };
            let expected = if asked.method == "HEAD" { &[][..] } else { &content };
            assert_eq!(said.body, expected, "{client}: {asked}");
            // A client that resolves by HEAD takes digest and size from there.
            if target.contains("/manifests/") {
                let name = digest.context("a manifest")?.to_string();
                assert_eq!(
                    said.header("docker-content-digest"),
                    Some(name.as_str()),
                    "{client}"
                );
                let length = said.header("content-length").context("no length")?;
                assert_eq!(length, content.len().to_string(), "{client}: {asked}");
            }
        }
        Ok(())
    }
}

/// The titles and the requests of all sections.
fn sections() -> Vec<(&'static str, Vec<Asked>)> {
    let parts = EXCHANGES.split("\n[").skip(1);
    parts
        .filter_map(|part| part.split_once("]\n"))
        .map(|(title, section)| (title, Asked::all(section)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_exchanges_are_answered_as_by_a_registry_and_again_with_the_registry_off() -> Result<()> {
    let all = sections();
    assert!(all.len() >= 6, "{}", all.len());
    for (title, requests) in &all {
        if let Some(client) = title.strip_prefix(EXPECTED) {
            untested(&format!(
                "{client}: what it is expected to ask is sent in its place"
            ));
        }
        assert!(requests.len() >= 4, "{title}");
        let mut site = Site::start().await?;
        site.replay((title, requests)).await?;
        site.replay((title, requests)).await?;
        for digest in site.image.blobs() {
            let asked = site.registry.methods(&format!("/v2/lab/app/blobs/{digest}"));
            assert!(
                asked.iter().filter(|method| *method == "GET").count() <= 1,
                "{title}: {asked:?}"
            );
        }
        if requests.iter().any(|asked| asked.target.contains("manifests/v1")) {
            until_held(&site.cache, "/v2/hub/lab/app/manifests/v1").await?;
        }
        site.registry.origin.stop().await;
        site.replay((title, requests)).await?;
    }
    Ok(())
}

/// Needs root: most of these programs unpack what they pull.
mod as_root {
    use std::{env::consts::ARCH, fmt::Write as _, path::Path};

    use integration_tests::command;
    use kato_shared::durable;

    use super::*;
    use crate::{
        programs::{Containerd, Docker, buildah, is_there, podman, skopeo},
        recording::Recorder,
    };

    /// The programs, and the doors by which they come.
    const PROGRAMS: [(&str, &str); 5] = [
        ("skopeo", "prefix, all architectures"),
        ("podman", "registries.conf"),
        ("buildah", "registries.conf"),
        ("containerd", "certs.d/hub.example/hosts.toml, all architectures"),
        ("dockerd", "registry-mirrors"),
    ];

    /// What `program` calls its version.
    fn version(program: &str) -> Result<String> {
        let said = command::ok(&[program, "--version"])?;
        let is_number =
            |word: &&str| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit());
        let number = said.split_whitespace().find(is_number).context(said.clone())?;
        Ok(number.trim_end_matches(',').to_owned())
    }

    /// Pulls with `program` by way of `door`, told what `told` says; `false` where it does not start here.
    fn pull(program: &str, (door, told): (&str, &str), folder: &Path) -> Result<bool> {
        std::fs::create_dir_all(folder)?;
        let reference = "hub.example/lab/app:v1";
        match program {
            "skopeo" => skopeo(&format!("{door}/{reference}"), folder)?,
            "podman" => podman(told, folder, reference, &[])?,
            "buildah" => buildah(told, folder, reference)?,
            "containerd" => match Containerd::start(told, folder)? {
                Some(containerd) => containerd.pull(reference)?,
                None => return Ok(false),
            },
            _ => match Docker::start(told, folder)? {
                Some(docker) => docker.pull("lab/app:v1")?,
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// The requests of one pull by `program`, with names for digests; `None` where it does not start here.
    async fn record(program: &str) -> Result<Option<Vec<Asked>>> {
        let site = Site::start().await?;
        let recorder = Recorder::start(site.cache.proxy.data).await?;
        let client = match program {
            "skopeo" | "buildah" => "podman",
            "dockerd" => "docker",
            other => other,
        };
        let door = recorder.address.to_string();
        let page = format!("/-/setup/{client}");
        let (_, told) = integration_tests::client::Client::new(recorder.address)
            .fetch(&page)
            .await?;
        let told = String::from_utf8(told)?;
        let folder = site.folder.path().join("client");
        if !tokio::task::block_in_place(|| pull(program, (&door, &told), &folder))? {
            return Ok(None);
        }
        let names = site.names()?;
        let mut asked = recorder.asked();
        asked.retain(|asked| asked.target != page);
        for one in &mut asked {
            for (name, digest) in &names {
                one.target = one.target.replace(&digest.to_string(), name);
            }
        }
        Ok(Some(asked))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn programs_ask_what_was_recorded_of_them() -> Result<()> {
        let (head, rest) = EXCHANGES.split_once("\n[").context("no section")?;
        let mut text = format!("{head}\n");
        let stored: BTreeMap<_, _> = sections().into_iter().collect();
        for (program, door) in PROGRAMS {
            if !is_there(program) {
                continue;
            }
            let title = format!("{program} {} ({ARCH}): {door}", version(program)?);
            let Some(asked) = record(program).await? else {
                continue;
            };
            let section: String = asked.iter().map(Asked::to_string).collect();
            write!(text, "[{title}]\n{section}\n")?;
            // Downloads run side by side, and Docker shuffles its media types: the order is another each time.
            let in_order = |mut asked: Vec<Asked>| {
                for one in &mut asked {
                    one.fields.sort();
                }
                asked.sort();
                asked
            };
            match stored.get(title.as_str()) {
                Some(known) => assert_eq!(in_order(asked), in_order(known.clone()), "{title}"),
                None => untested(&format!("{title}: nothing was recorded of this version")),
            }
        }
        // What is written in place of a recording stays.
        let expected = rest.find(EXPECTED).context("no expected section")?;
        write!(text, "[{}", &rest[expected..])?;
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("registry-exchanges.txt");
        Ok(durable::write(&file, text.as_bytes(), 0o644)?)
    }
}
