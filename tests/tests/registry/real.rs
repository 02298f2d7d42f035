//! Real registries, real clients: an image with six layers for two architectures, by tag and by digest, through each door.
//!
//! One registry is open, the other wants a token for everything. What a pull has cost is read in their logs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    image::Image,
    origin::{Origin, Resource},
    registry::{Answered, Registry, Tokens},
    wait,
};
use kato_shared::durable;
use tempfile::TempDir;

use crate::{
    programs::{Containerd, Docker, buildah, is_there, podman, skopeo},
    scripted::{Cache, cache_in},
};

const LIFETIME: Duration = Duration::from_secs(300);
/// Where the token service answers requests about the one repository.
const TOKEN: &str = "/token?service=lab-registry&scope=repository%3Alab%2Fapp%3Apull";
const TOKEN_OF_ME: &str = "/token?account=me&service=lab-registry&scope=repository%3Alab%2Fapp%3Apull";

/// Two registries that hold the same image, and a cache before them.
struct Site {
    open: Registry,
    closed: Registry,
    tokens: Origin,
    image: Image,
    cache: Cache,
    folder: TempDir,
}

impl Site {
    /// `tag_ttl` for both, and more keys for the closed one.
    async fn start(tag_ttl: &str, keys: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let image = Image::build(folder.path(), "first")?;
        let below = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).map(|()| path)
        };
        let (one, two) = (below("open")?, below("closed")?);
        let open = Registry::start(&one, None)?;
        image.push(&format!("{}/lab/app:v1", open.address))?;
        // Pushed while nobody asks for a token.
        let unguarded = Registry::start(&two, None)?;
        image.push(&format!("{}/lab/app:v1", unguarded.address))?;
        drop(unguarded);
        let tokens = Origin::start().await?;
        let signer = Tokens::new(&two, &tokens.url("/token"))?;
        let answer =
            Resource::new(signer.answer("lab/app", LIFETIME)?).header("content-type", "application/json");
        for path in [TOKEN, TOKEN_OF_ME] {
            tokens.serve(path, answer.clone());
        }
        let closed = Registry::start(&two, Some(&signer))?;
        let section = |name: &str, registry: &Registry, keys: &str| {
            format!(
                "[[upstream]]\nname = \"{name}\"\nkind = \"registry\"\nurls = [\"http://{}/\"]\n[upstream.registry]\ntag_ttl = \"{tag_ttl}\"\n{keys}\n",
                registry.address
            )
        };
        let listed = format!("token_hosts = [\"{}\"]\n{keys}", tokens.address());
        let settings = format!(
            "[registry]\ndefault = \"open\"\n{}{}",
            section("open", &open, "aliases = [\"hub.example\"]"),
            section("closed", &closed, &listed)
        );
        let cache = cache_in(tempfile::tempdir()?, &settings).await?;
        Ok(Self {
            open,
            closed,
            tokens,
            image,
            cache,
            folder,
        })
    }

    /// What `client` is told by the cache itself, as an operator would copy it.
    async fn told(&self, client: &str) -> Result<String> {
        let said = self.cache.get(&format!("/-/setup/{client}")).await?;
        ensure!(said.status == 200, "{said:?}");
        Ok(String::from_utf8(said.body)?)
    }

    fn data(&self) -> SocketAddr {
        self.cache.proxy.data
    }

    /// A new folder for a client.
    fn client(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

fn blobs(requests: &[Answered]) -> usize {
    requests.iter().filter(|request| request.is_blob()).count()
}

/// A pull blocks its thread; the cache's origin lives on others.
fn pulls<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    tokio::task::block_in_place(work)
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pulls_through_each_door_and_the_second_client_costs_no_blob() -> Result<()> {
    let site = Site::start("0s", "").await?;
    let data = site.data();
    let digest = site.image.digest();
    pulls(|| skopeo(&format!("{data}/open/lab/app:v1"), &site.client("s1")?))?;
    let all = site.image.blobs().len();
    assert_eq!(blobs(&site.open.requests()), all, "{:#?}", site.open.requests());
    let mark = site.open.requests().len();
    for (nth, reference) in [
        format!("{data}/open/lab/app:v1"),
        format!("{data}/open/lab/app@{digest}"),
        format!("{data}/hub.example/lab/app:v1"),
        format!("{data}/lab/app:v1"),
    ]
    .iter()
    .enumerate()
    {
        pulls(|| skopeo(reference, &site.client(&format!("d{nth}"))?))?;
    }
    let later = &site.open.requests()[mark..];
    assert_eq!(blobs(later), 0, "{later:#?}");
    assert!(later.iter().all(|request| request.method == "HEAD"), "{later:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn p18_one_token_serves_all_blobs_and_registries_share_what_is_equal() -> Result<()> {
    let site = Site::start("0s", "").await?;
    let data = site.data();
    pulls(|| skopeo(&format!("{data}/closed/lab/app:v1"), &site.client("s1")?))?;
    let first = site.closed.requests();
    assert_eq!(blobs(&first), site.image.blobs().len(), "{first:#?}");
    assert_eq!(site.tokens.requests(TOKEN).len(), 1, "{first:#?}");
    pulls(|| skopeo(&format!("{data}/open/lab/app:v1"), &site.client("s2")?))?;
    assert_eq!(
        blobs(&site.open.requests()),
        0,
        "equal content of another registry"
    );
    for (nth, reference) in [":v1".to_owned(), format!("@{}", site.image.digest())]
        .iter()
        .enumerate()
    {
        pulls(|| {
            skopeo(
                &format!("{data}/closed/lab/app{reference}"),
                &site.client(&format!("t{nth}"))?,
            )
        })?;
    }
    assert_eq!(blobs(&site.closed.requests()), site.image.blobs().len());
    assert_eq!(site.tokens.requests(TOKEN).len(), 1);
    assert!(!site.cache.proxy.log().contains("Bearer ey"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn p18_credentials_go_to_the_token_service_and_wrong_ones_are_said_to_be_denied() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let line = folder.path().join("credentials");
    durable::write(&line, b"me:s3cret\n", 0o600)?;
    // As `docker login` writes it, for the name by which clients know the registry.
    let docker = folder.path().join("config.json");
    let text = br#"{"auths": {"https://closed.example/v2/": {"auth": "bWU6czNjcmV0"}, "other.example": {}}, "credsStore": ""}"#;
    durable::write(&docker, text, 0o600)?;
    let keys = format!("credentials_file = \"{}\"", line.display());
    let of_docker = format!(
        "docker_config = \"{}\"\naliases = [\"closed.example\"]",
        docker.display()
    );
    for keys in [&keys, &of_docker] {
        let site = Site::start("0s", keys).await?;
        let data = site.data();
        pulls(|| skopeo(&format!("{data}/closed/lab/app:v1"), &site.client("s1")?))?;
        let asked = site.tokens.requests(TOKEN_OF_ME);
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].header("authorization"), Some("Basic bWU6czNjcmV0"));
        assert!(!site.cache.proxy.log().contains("s3cret"));
    }

    let other = Site::start("0s", &keys).await?;
    other.tokens.serve(TOKEN_OF_ME, Resource::new("{}").status(401));
    let refused = other.cache.get("/v2/closed/lab/app/manifests/v1").await?;
    assert_eq!(
        (refused.status, refused.code().as_deref()),
        (403, Some("DENIED")),
        "{refused:?}"
    );
    assert_eq!(refused.header("www-authenticate"), None);
    // Whose credentials they are, and where they lie, is for the log.
    let (told, file) = (String::from_utf8_lossy(&refused.body), line.display().to_string());
    assert!(told.contains("does not take the credentials"), "{told}");
    assert!(!told.contains(&file) && !told.contains("/tmp"), "{told}");
    other.cache.proxy.wait_for_log(&file).await?;
    assert_eq!(other.cache.proxy.stats().await?.stored_responses, 0);
    // The account is not tried again and again.
    other.cache.get("/v2/closed/lab/app/manifests/v2").await?;
    assert_eq!(other.tokens.requests(TOKEN_OF_ME).len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn p18_a_token_service_that_is_not_the_registrys_own_is_not_asked() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let elsewhere = Origin::start().await?;
    let realm = format!("http://elsewhere.example:{}/token", elsewhere.address().port());
    let signer = Tokens::new(folder.path(), &realm)?;
    let registry = Registry::start(folder.path(), Some(&signer))?;
    let settings = format!(
        "[[upstream]]\nname = \"lab\"\nkind = \"registry\"\nurls = [\"http://{}/\"]\n",
        registry.address
    );
    let cache = cache_in(tempfile::tempdir()?, &settings).await?;
    let said = cache.get("/v2/lab/lab/app/manifests/v1").await?;
    assert_eq!(said.status, 502);
    let text = String::from_utf8_lossy(&said.body);
    assert!(
        text.contains("elsewhere.example") && text.contains("token_hosts"),
        "{text}"
    );
    assert_eq!(elsewhere.connections(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moved_is_seen_and_with_the_registry_off_all_is_served_stale() -> Result<()> {
    let site = Site::start("0s", "").await?;
    let data = site.data();
    pulls(|| skopeo(&format!("{data}/open/lab/app:v1"), &site.client("s1")?))?;
    let new = pulls(|| {
        let new = Image::build(site.folder.path(), "second")?;
        new.push(&format!("{}/lab/app:v1", site.open.address))?;
        skopeo(&format!("{data}/open/lab/app:v1"), &site.client("s2")?)?;
        Ok(new)
    })?;
    let said = site.cache.get("/v2/open/lab/app/manifests/v1").await?;
    assert_eq!(
        said.header("docker-content-digest"),
        Some(new.digest().to_string().as_str())
    );
    let Site {
        open,
        cache,
        folder,
        image,
        ..
    } = site;
    drop(open);
    let said = cache.get("/v2/open/lab/app/manifests/v1").await?;
    assert!(
        said.header("warning")
            .is_some_and(|warning| warning.starts_with("111")),
        "{said:?}"
    );
    pulls(|| {
        let to = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).map(|()| path)
        };
        skopeo(&format!("{data}/open/lab/app:v1"), &to("s3")?)?;
        skopeo(&format!("{data}/open/lab/app@{}", image.digest()), &to("s4")?)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_was_corrupted_in_the_registry_is_refused_and_not_stored() -> Result<()> {
    let site = Site::start("0s", "").await?;
    let data = site.data();
    let blob = site.image.blobs()[0];
    let file = site.open.blob_file(&blob.hex());
    let right = std::fs::read(&file)?;
    let mut wrong = right.clone();
    wrong[1000] ^= 1;
    durable::write(&file, &wrong, 0o644)?;
    let refused = pulls(|| Ok(skopeo(&format!("{data}/open/lab/app:v1"), &site.client("s1")?)))?;
    assert!(refused.is_err(), "a corrupted blob was taken");
    durable::write(&file, &right, 0o644)?;
    // What was wrong twice is refused for some seconds without asking.
    pulls(|| {
        let pull = || skopeo(&format!("{data}/open/lab/app:v1"), &site.client("s2").ok()?).ok();
        wait::until("a pull of what was put right", Duration::from_secs(20), pull)
    })
}

/// Needs root: these programs unpack what they pull.
mod as_root {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn podman_pulls_by_its_mirror_table_and_again_with_the_registry_off() -> Result<()> {
        if !is_there("podman") {
            return Ok(());
        }
        let site = Site::start("0s", "").await?;
        let text = site.told("podman").await?;
        pulls(|| podman(&text, &site.client("p1")?, "hub.example/lab/app:v1", &[]))?;
        assert!(blobs(&site.open.requests()) > 0);
        let mark = site.open.requests().len();
        let by_digest = format!("hub.example/lab/app@{}", site.image.digest());
        pulls(|| podman(&text, &site.client("p2")?, &by_digest, &[]))?;
        if is_there("buildah") {
            pulls(|| buildah(&text, &site.client("b1")?, "hub.example/lab/app:v1"))?;
        }
        // The other registry, by the name that the cache has for it.
        let closed = format!("{}/lab/app:v1", site.closed.address);
        pulls(|| podman(&text, &site.client("p4")?, &closed, &[]))?;
        assert_eq!(blobs(&site.open.requests()[mark..]), 0);
        assert_eq!(blobs(&site.closed.requests()), 0, "equal content");
        let again = site.client("p3")?;
        let Site {
            open, cache: _cache, ..
        } = site;
        drop(open);
        pulls(|| podman(&text, &again, "hub.example/lab/app:v1", &[]))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn containerd_pulls_by_its_namespace_and_the_tag_is_kept_for_when_the_registry_is_off() -> Result<()>
    {
        if !is_there("containerd") {
            return Ok(());
        }
        let site = Site::start("0s", "").await?;
        let text = site.told("containerd").await?;
        let Some(first) = pulls(|| Containerd::start(&text, &site.client("c1")?))? else {
            return Ok(());
        };
        pulls(|| first.pull("hub.example/lab/app:v1"))?;
        assert!(blobs(&site.open.requests()) > 0);
        let second = pulls(|| Containerd::start(&text, &site.client("c2")?))?.context("one did start")?;
        let Site { open, image, .. } = &site;
        let mark = open.requests().len();
        pulls(|| second.pull("hub.example/lab/app:v1"))?;
        assert_eq!(blobs(&open.requests()[mark..]), 0);
        let closed = format!("{}/lab/app:v1", site.closed.address);
        pulls(|| second.pull(&closed))?;
        assert_eq!(blobs(&site.closed.requests()), 0, "equal content");
        assert_eq!(site.tokens.requests(TOKEN).len(), 1);
        let third = pulls(|| Containerd::start(&text, &site.client("c3")?))?.context("one did start")?;
        let by_digest = format!("hub.example/lab/app@{}", image.digest());
        let Site {
            open, cache: _cache, ..
        } = site;
        drop(open);
        pulls(|| third.pull("hub.example/lab/app:v1"))?;
        pulls(|| third.pull(&by_digest))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn docker_pulls_by_its_mirror_and_by_prefix_and_again_with_the_registry_off() -> Result<()> {
        if !is_there("dockerd") || !is_there("docker") {
            return Ok(());
        }
        let site = Site::start("0s", "").await?;
        let data = site.data();
        let text = site.told("docker").await?;
        let Some(docker) = pulls(|| Docker::start(&text, &site.client("k1")?))? else {
            return Ok(());
        };
        pulls(|| docker.pull("lab/app:v1"))?;
        let pulled = blobs(&site.open.requests());
        assert!(pulled > 0, "the mirror was not asked");
        pulls(|| docker.forget("lab/app:v1"))?;
        pulls(|| docker.pull(&format!("{data}/hub.example/lab/app:v1")))?;
        assert_eq!(blobs(&site.open.requests()), pulled);
        pulls(|| docker.forget(&format!("{data}/hub.example/lab/app:v1")))?;
        let by_digest = format!("{data}/closed/lab/app@{}", site.image.digest());
        pulls(|| docker.pull(&by_digest))?;
        assert_eq!(blobs(&site.closed.requests()), 0, "equal content");
        // Another machine, with nothing of its own, and then one more without the registry.
        let second = pulls(|| Docker::start(&text, &site.client("k2")?))?.context("one did start")?;
        pulls(|| second.pull("lab/app:v1"))?;
        assert_eq!(blobs(&site.open.requests()), pulled);
        pulls(|| second.forget("lab/app:v1"))?;
        let Site {
            open, cache: _cache, ..
        } = site;
        drop(open);
        pulls(|| second.pull("lab/app:v1"))
    }
}
