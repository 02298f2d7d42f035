//! What refers to an image: signatures, lists of materials. By the API of the specification and by the tag that stands in for it, through
//! each door, filtered by `artifactType`, and with the registry off; each asked for by curl, as the libraries do that programs for it are made of.

use anyhow::{Context, Result, ensure};
use integration_tests::{
    authority::Authority,
    command,
    image::Image,
    origin::Resource,
    registry::{Answered, Registry},
    tls_front::TlsFront,
};
use kato_shared::{Digest, durable};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::{
    programs::is_there,
    scripted::{ALWAYS, Cache, LONG, MANIFEST, Scripted, Small, cache, cache_in},
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SIGNATURE: &str = "application/vnd.example.signature";
const MATERIALS: &str = "application/vnd.example.materials";
/// "Empty JSON" of the image specification.
const EMPTY: &[u8] = b"{}";

/// An artifact that refers to an image: its manifest, and the one blob that it is about.
#[derive(Debug, Clone)]
struct Artifact {
    kind: &'static str,
    manifest: Vec<u8>,
    blob: Vec<u8>,
}

impl Artifact {
    fn about(subject: &[u8], kind: &'static str) -> Self {
        let blob = format!("{kind} of {}\n", Digest::of(subject)).into_bytes();
        let descriptor = |kind: &str, content: &[u8]| json!({ "mediaType": kind, "digest": Digest::of(content).to_string(), "size": content.len() });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
            "config": descriptor("application/vnd.oci.empty.v1+json", EMPTY),
            "layers": [descriptor(kind, &blob)],
            "subject": descriptor(MANIFEST, subject),
        });
        Self {
            kind,
            manifest: manifest.to_string().into_bytes(),
            blob,
        }
    }

    /// As the list of referrers has it.
    fn listed(&self) -> Value {
        let digest = Digest::of(&self.manifest).to_string();
        json!({ "mediaType": MANIFEST, "digest": digest, "size": self.manifest.len(), "artifactType": self.kind })
    }
}

fn list(artifacts: &[Artifact]) -> Vec<u8> {
    let listed: Vec<_> = artifacts.iter().map(Artifact::listed).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": listed });
    index.to_string().into_bytes()
}

/// The tag that stands in for the API ("referrers tag schema").
fn tag_of(subject: &[u8]) -> String {
    Digest::of(subject).to_string().replace(':', "-")
}

/// How a client comes to the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Prefix,
    Namespace,
    Default,
    MirrorPath,
    HostPath,
    ForwardProxy,
    /// CONNECT, opened with a leaf of the local authority.
    Opened,
}

const DOORS: [Door; 7] = [
    Door::Prefix,
    Door::Namespace,
    Door::Default,
    Door::MirrorPath,
    Door::HostPath,
    Door::ForwardProxy,
    Door::Opened,
];

/// A registry that knows the API, in clear and behind TLS, and a cache before it.
struct Site {
    registry: Scripted,
    front: TlsFront,
    cache: Cache,
    image: Small,
    artifacts: [Artifact; 2],
}

/// An answer, whole.
#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Said {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Site {
    async fn start(keys: &str) -> Result<Self> {
        let registry = Scripted::start().await?;
        let image = Small::new("an image");
        registry.push("lab/app", "v1", &image);
        let artifacts = [SIGNATURE, MATERIALS].map(|kind| Artifact::about(&image.manifest, kind));
        for artifact in &artifacts {
            for (folder, kind, content) in [
                ("manifests", MANIFEST, &artifact.manifest[..]),
                ("blobs", "application/octet-stream", &artifact.blob),
                ("blobs", "application/octet-stream", EMPTY),
            ] {
                let digest = Digest::of(content);
                let resource = Resource::new(content.to_vec()).header("content-type", kind);
                registry
                    .origin
                    .serve(&format!("/v2/lab/app/{folder}/{digest}"), resource);
            }
        }
        let subject = image.digest();
        let index = |artifacts: &[Artifact]| Resource::new(list(artifacts)).header("content-type", INDEX);
        registry
            .origin
            .serve(&format!("/v2/lab/app/referrers/{subject}"), index(&artifacts));
        for artifact in &artifacts {
            let only = index(std::slice::from_ref(artifact)).header("oci-filters-applied", "artifactType");
            let query = format!("?artifactType={}", artifact.kind);
            registry
                .origin
                .serve(&format!("/v2/lab/app/referrers/{subject}{query}"), only);
        }
        let tag = format!("/v2/lab/app/manifests/{}", tag_of(&image.manifest));
        registry.origin.serve(&tag, index(&artifacts));
        let folder = tempfile::tempdir()?;
        let authority = Authority::new(folder.path())?;
        let front = TlsFront::start(&authority.server("registry")?, registry.origin.address()).await?;
        let settings = format!(
            "[registry]\ndefault = \"hub\"\n{}[[upstream]]\nname = \"sealed\"\nkind = \"registry\"\nurls = [\"https://{}/\"]\n\
             intercept = true\nca_file = \"{}\"\n{keys}",
            registry.section("hub", keys),
            front.address,
            authority.certificate.display()
        );
        let cache = cache_in(folder, &settings).await?;
        Ok(Self {
            registry,
            front,
            cache,
            image,
            artifacts,
        })
    }

    /// `rest` of the repository, asked for by `door`.
    async fn ask(&self, door: Door, rest: &str) -> Result<Said> {
        let (here, there) = (self.cache.proxy.data, self.registry.origin.address());
        let sign = if rest.contains('?') { '&' } else { '?' };
        let url = match door {
            Door::Prefix => format!("http://{here}/v2/hub/lab/app/{rest}"),
            Door::Namespace => format!("http://{here}/v2/lab/app/{rest}{sign}ns=hub"),
            Door::Default => format!("http://{here}/v2/lab/app/{rest}"),
            Door::MirrorPath => format!("http://{here}/hub/v2/lab/app/{rest}"),
            Door::HostPath => format!("http://{here}/http/{there}/v2/lab/app/{rest}"),
            Door::ForwardProxy => format!("http://{there}/v2/lab/app/{rest}"),
            Door::Opened => format!("https://{}/v2/lab/app/{rest}", self.front.address),
        };
        let mut curl = command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--http1.1",
            "--include",
            "--suppress-connect-headers",
        ]);
        curl.args(["--header", &format!("Accept: {INDEX}, {MANIFEST}, */*")]);
        if matches!(door, Door::ForwardProxy | Door::Opened) {
            curl.args(["--proxy", &format!("http://{here}/")]);
        }
        if door == Door::Opened {
            let certificate = self.cache.get("/-/ca.crt").await?.body;
            let trusted = self.cache.folder.path().join("trusted.pem");
            durable::write(&trusted, &certificate, 0o644)?;
            curl.arg("--cacert").arg(trusted);
        }
        curl.arg(&url);
        let line = command::line(&curl);
        let ended =
            spawn_blocking(move || command::run(curl, std::time::Duration::from_secs(30), &[])).await??;
        ensure!(
            ended.status.success(),
            "`{line}`: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
        let end = ended.stdout.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.with_context(|| format!("`{line}`: no head"))?;
        let head = String::from_utf8(ended.stdout[..end].to_vec())?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok(Said {
            status: status.with_context(|| head.clone())?,
            head,
            body: ended.stdout[end + 4..].to_vec(),
        })
    }

    /// The list of what refers to the image, found by `rest`; it must be that of `artifacts`, each of which has its digest, and its blob.
    async fn walk(&self, door: Door, rest: &str, artifacts: &[Artifact]) -> Result<Said> {
        let said = self.ask(door, rest).await?;
        ensure!(said.status == 200, "{rest}: {said:?}");
        ensure!(said.header("content-type") == Some(INDEX), "{rest}: {said:?}");
        ensure!(said.body == list(artifacts), "{rest}: {said:?}");
        let index: Value = serde_json::from_slice(&said.body)?;
        for descriptor in index["manifests"].as_array().context("no list")? {
            let digest = descriptor["digest"].as_str().context("no digest")?;
            let manifest = self.ask(door, &format!("manifests/{digest}")).await?;
            ensure!(
                manifest.status == 200 && Digest::of(&manifest.body).to_string() == digest,
                "{manifest:?}"
            );
            let manifest: Value = serde_json::from_slice(&manifest.body)?;
            ensure!(manifest["subject"]["digest"] == self.image.digest(), "{manifest}");
            let blob = manifest["layers"][0]["digest"].as_str().context("no layer")?;
            let content = self.ask(door, &format!("blobs/{blob}")).await?;
            ensure!(
                content.status == 200 && Digest::of(&content.body).to_string() == blob,
                "{content:?}"
            );
        }
        Ok(said)
    }

    /// Every way to what refers to the image; the lists that were found.
    async fn all(&self, door: Door) -> Result<Vec<Said>> {
        let api = format!("referrers/{}", self.image.digest());
        let mut lists = vec![self.walk(door, &api, &self.artifacts).await?];
        for artifact in &self.artifacts {
            let filtered = format!("{api}?artifactType={}", artifact.kind);
            let only = self.walk(door, &filtered, std::slice::from_ref(artifact)).await?;
            ensure!(
                only.header("oci-filters-applied") == Some("artifactType"),
                "{only:?}"
            );
            lists.push(only);
        }
        let tag = format!("manifests/{}", tag_of(&self.image.manifest));
        lists.push(self.walk(door, &tag, &self.artifacts).await?);
        Ok(lists)
    }

    /// How often the registry was asked anything.
    fn asked(&self) -> usize {
        let subject = self.image.digest();
        let referrers = format!("/v2/lab/app/referrers/{subject}");
        let mut paths = vec![
            referrers.clone(),
            format!("/v2/lab/app/manifests/{}", tag_of(&self.image.manifest)),
        ];
        for artifact in &self.artifacts {
            paths.push(format!("{referrers}?artifactType={}", artifact.kind));
            paths.push(format!(
                "/v2/lab/app/manifests/{}",
                Digest::of(&artifact.manifest)
            ));
            paths.push(format!("/v2/lab/app/blobs/{}", Digest::of(&artifact.blob)));
        }
        paths.iter().map(|path| self.registry.methods(path).len()).sum()
    }
}

/// What was asked about once is believed, and is there without the registry.
#[tokio::test(flavor = "multi_thread")]
async fn referrers_come_by_each_door_by_api_and_by_tag_and_again_without_the_registry() -> Result<()> {
    for door in DOORS {
        let mut site = Site::start(LONG).await?;
        site.all(door).await.with_context(|| format!("{door:?}"))?;
        // A list in full and by each type, the tag, and each manifest and blob once.
        ensure!(site.asked() == 8, "{door:?}: {} questions", site.asked());
        site.all(door).await.with_context(|| format!("{door:?}, again"))?;
        ensure!(site.asked() == 8, "{door:?}: asked again");
        site.registry.origin.stop().await;
        site.all(door).await.with_context(|| format!("{door:?}, off"))?;
    }
    Ok(())
}

/// Lists are names: where they are not believed any more, what is held says that it is old.
#[tokio::test(flavor = "multi_thread")]
async fn p08_referrers_that_are_not_believed_any_more_are_served_without_the_registry_and_say_so()
-> Result<()> {
    for door in DOORS {
        let mut site = Site::start(ALWAYS).await?;
        site.all(door).await.with_context(|| format!("{door:?}"))?;
        site.registry.origin.stop().await;
        for said in site.all(door).await.with_context(|| format!("{door:?}, off"))? {
            ensure!(said.header("warning").is_some(), "{door:?}: {said:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_that_has_not_its_digest_is_refused_and_a_page_in_the_place_of_the_list_takes_nothing_away()
-> Result<()> {
    for door in DOORS {
        let site = Site::start(ALWAYS).await?;
        let digest = Digest::of(&site.artifacts[0].manifest);
        let path = format!("/v2/lab/app/manifests/{digest}");
        let mut other = site.artifacts[0].manifest.clone();
        let at = other.len() - 2;
        other[at] = b' ';
        let wrong = Resource::new(other).header("content-type", MANIFEST);
        site.registry.origin.serve(&path, wrong);
        let said = site.ask(door, &format!("manifests/{digest}")).await?;
        ensure!(said.status == 502, "{door:?}: {said:?}");
        ensure!(
            String::from_utf8_lossy(&said.body).contains(&digest.to_string()),
            "{door:?}: {said:?}"
        );

        let api = format!("referrers/{}", site.image.digest());
        let held = site.ask(door, &api).await?;
        ensure!(held.status == 200, "{door:?}: {held:?}");
        let login = Resource::new("<html>who are you?").header("content-type", "text/html");
        site.registry.origin.serve(&format!("/v2/lab/app/{api}"), login);
        let held = site.ask(door, &api).await?;
        ensure!(
            held.status == 200 && held.body == list(&site.artifacts),
            "{door:?}: {held:?}"
        );
    }
    Ok(())
}

/// A registry of before the API: its 404 is an answer, by which clients go on with the tag, and which holds without the registry.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_registry_without_the_api_has_referrers_by_their_tag_and_again_when_it_is_off() -> Result<()> {
    if !is_there("docker-registry") || !is_there("skopeo") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (registry, subject, artifact) = tokio::task::block_in_place(|| pushed(&folder))?;
    let url = format!("http://{}/", registry.address);
    let settings = format!("[[upstream]]\nname = \"lab\"\nkind = \"registry\"\nurls = [\"{url}\"]\n{ALWAYS}");
    let cache = cache(&settings).await?;
    let tag = format!(
        "/v2/lab/lab/app/manifests/{}",
        subject.to_string().replace(':', "-")
    );
    let manifest = Digest::of(&artifact.manifest);
    let mut registry = Some(registry);
    for is_off in [false, true] {
        let api = cache.get(&format!("/v2/lab/lab/app/referrers/{subject}")).await?;
        assert_eq!(api.status, 404, "{is_off}: {api:?}");
        let listed = cache.get(&tag).await?;
        assert_eq!(
            (listed.status, &listed.body),
            (200, &list(std::slice::from_ref(&artifact))),
            "{is_off}"
        );
        assert_eq!(listed.header("warning").is_some(), is_off, "{listed:?}");
        let got = cache
            .get(&format!("/v2/lab/lab/app/manifests/{manifest}"))
            .await?;
        assert_eq!((got.status, &got.body), (200, &artifact.manifest), "{is_off}");
        let blob = format!("/v2/lab/lab/app/blobs/{}", Digest::of(&artifact.blob));
        let got = cache.get(&blob).await?;
        assert_eq!((got.status, &got.body), (200, &artifact.blob), "{is_off}");
        if let Some(registry) = registry.take() {
            let blobs = registry.requests().into_iter().filter(Answered::is_blob);
            let asked =
                blobs.filter(|request| blob.ends_with(request.uri.rsplit('/').next().unwrap_or_default()));
            assert_eq!(asked.count(), 1);
        }
    }
    Ok(())
}

/// A registry with an image, and an artifact about it that was pushed by hand, as tools for registries without the API do; the image's digest.
fn pushed(folder: &TempDir) -> Result<(Registry, Digest, Artifact)> {
    let storage = folder.path().join("registry");
    std::fs::create_dir_all(&storage)?;
    let registry = Registry::start(&storage, None)?;
    let image = Image::build(folder.path(), "image")?;
    image.push(&format!("{}/lab/app:v1", registry.address))?;
    let subject = image.content(&image.digest())?;
    let artifact = Artifact::about(&subject, SIGNATURE);
    let base = format!("http://{}/v2/lab/app", registry.address);
    for blob in [EMPTY, &artifact.blob] {
        let begun = curl(
            folder,
            &["--request", "POST", &format!("{base}/blobs/uploads/")],
            b"",
        )?;
        let place = begun
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .context("no place")?;
        let sign = if place.contains('?') { '&' } else { '?' };
        let to = format!("{}{sign}digest={}", place.trim(), Digest::of(blob));
        curl(
            folder,
            &[
                "--request",
                "PUT",
                "--header",
                "Content-Type: application/octet-stream",
                &to,
            ],
            blob,
        )?;
    }
    let index = list(std::slice::from_ref(&artifact));
    for (name, kind, content) in [
        (
            Digest::of(&artifact.manifest).to_string(),
            MANIFEST,
            &artifact.manifest,
        ),
        (tag_of(&subject), INDEX, &index),
    ] {
        let kind = format!("Content-Type: {kind}");
        curl(
            folder,
            &[
                "--request",
                "PUT",
                "--header",
                &kind,
                &format!("{base}/manifests/{name}"),
            ],
            content,
        )?;
    }
    Ok((registry, Digest::of(&subject), artifact))
}

/// curl with `content`, which must be taken; the head of the answer.
fn curl(folder: &TempDir, arguments: &[&str], content: &[u8]) -> Result<String> {
    let file = folder.path().join("sent");
    durable::write(&file, content, 0o644)?;
    let data = format!("@{}", file.display());
    let fixed = [
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--include",
        "--data-binary",
        &data,
    ];
    command::ok(&[&fixed[..], arguments].concat())
}
