//! One table: every client by every door that it can use, from two registries behind TLS, one of which wants tokens.
//!
//! | | prefix | `?ns=` | default | table of mirrors | CONNECT, opened |
//! |---|---|---|---|---|---|
//! | skopeo | yes | no | yes | yes | yes |
//! | podman | yes | no | yes | yes | yes |
//! | containerd | yes | yes | yes | no | yes |
//! | docker | yes | no | yes | no | yes |
//!
//! What a client cannot do is in [`cannot`], with the reason; a client that does not run here is said to be missing, and what it would ask is
//! sent by `recorded` in its place. Each cell is a cache of its own in which nothing is stored, and the same story:
//! the image by its tag, every architecture, costs each blob once and the tokens one question; a second client costs no blob, by tag or by digest; a blob
//! that is wrong in the registry is refused and not stored; a tag that has moved is seen; with the registry off all comes from the
//! store, and the tag says that it is stale.

mod puller;
mod site;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    image::Image,
    registry::{Answered, Registry},
    wait,
};
use kato_shared::durable;

use self::{
    puller::{Puller, architectures},
    site::{Site, TOKEN},
};
use crate::{
    programs::{is_there, untested},
    scripted::Cache,
};

/// What a program does with a few hundred kilobytes, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Who pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Skopeo,
    Podman,
    Containerd,
    Docker,
}

/// How a client comes to the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// The registry stands before the repository in the reference: `CACHE/REGISTRY/REPOSITORY`.
    Prefix,
    /// The registry stands in the query, as the client's `hosts.toml` has it.
    Namespace,
    /// No registry is named: `registry.default`. For docker, its `registry-mirrors`.
    Default,
    /// The reference is the registry's own, and the client's table of registries leads here.
    Mirrors,
    /// The reference is the registry's own, and `HTTPS_PROXY` leads here: CONNECT, opened with a leaf of the local authority.
    Opened,
}

/// Why `client` cannot come by `door`; `None` where it can.
fn cannot(client: Client, door: Door) -> Option<&'static str> {
    match (client, door) {
        (Client::Skopeo | Client::Podman, Door::Namespace) => {
            Some("its table of registries rewrites references to the prefix; it sends no `ns`")
        }
        (Client::Docker, Door::Namespace) => {
            Some("before version 29 it reads no hosts.toml and sends no `ns`")
        }
        (Client::Docker, Door::Mirrors) => Some("registry-mirrors is for the default registry alone"),
        (Client::Containerd, Door::Mirrors) => Some("its table is hosts.toml, which is the door `?ns=`"),
        _ => None,
    }
}

/// Which registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// `hub.example`, open to everybody.
    Hub,
    /// `vault.example`, which wants a token for everything.
    Vault,
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Vault => "vault",
        }
    }
}

/// A pull blocks its thread; the cache's origins live on others.
fn pulls<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    tokio::task::block_in_place(work)
}

/// How often blobs were asked for at the cache.
fn blobs_asked(cache: &Cache) -> usize {
    let log = cache.proxy.log();
    log.lines().filter(|line| line.contains("/blobs/sha256:")).count()
}

/// The content of blobs that the registry has sent, by path.
fn blobs_sent(registry: &Registry) -> Vec<String> {
    let sent = registry.requests().into_iter().filter(Answered::is_blob);
    sent.map(|request| request.uri).collect()
}

/// One row: `client` by `door`, from both registries.
async fn row(client: Client, door: Door) -> Result<()> {
    assert_eq!(cannot(client, door), None);
    let program = match client {
        Client::Skopeo => "skopeo",
        Client::Podman => "podman",
        Client::Containerd => "containerd",
        Client::Docker => "dockerd",
    };
    if !is_there(program) {
        return Ok(());
    }
    let site = Site::start().await?;
    for which in [Which::Hub, Which::Vault] {
        cell(&site, client, door, which)
            .await
            .with_context(|| format!("{client:?} by {door:?} from {which:?}"))?;
    }
    Ok(())
}

/// The story of one cell.
async fn cell(site: &Site, client: Client, door: Door, which: Which) -> Result<()> {
    let registry = pulls(|| site.registry(which))?;
    let cache = site.cache(which).await?;
    let folder = site.folder.path().join(format!("client of {}", which.name()));
    let Some(puller) = Puller::start(client, door, which, &cache, &folder).await? else {
        return Ok(());
    };
    let [first, second] = &site.images;

    pulls(|| puller.pull(":v1", first))?;
    let mut sent = blobs_sent(&registry);
    sent.sort();
    ensure!(sent.len() == first.blobs().len(), "each blob once: {sent:#?}");
    sent.dedup();
    ensure!(sent.len() == first.blobs().len(), "one of them twice: {sent:#?}");
    let by_digest = format!("@{}", first.digest());
    for reference in [":v1", by_digest.as_str()] {
        let asked = blobs_asked(&cache);
        pulls(|| puller.pull(reference, first))?;
        // All of it came anew: what cost nothing because nothing was asked would show nothing.
        let all = asked + first.blobs().len();
        pulls(|| {
            wait::until("the requests in the log", SOON, || {
                (blobs_asked(&cache) >= all).then_some(())
            })
        })?;
    }
    ensure!(
        blobs_sent(&registry).len() == sent.len(),
        "{:#?}",
        blobs_sent(&registry)
    );

    wrong_is_refused(&puller, (&registry, &cache), which, second)?;
    pulls(|| puller.pull(":v1", second))?;
    if which == Which::Vault {
        let asked = site.tokens.requests(TOKEN).len();
        ensure!(asked == 1, "{asked} tokens");
    }

    drop(registry);
    pulls(|| {
        puller.pull(":v1", second)?;
        puller.pull(&by_digest, first)
    })?;
    let stale = pulls(|| puller.ask(&cache, which, "manifests/v1", &[]))?;
    ensure!(stale.to_ascii_lowercase().contains("\nwarning: 111"), "{stale}");
    Ok(())
}

/// The tag moves to `second`, of which the registry has one layer wrong: that is refused and not stored. Then it is put right.
fn wrong_is_refused(
    puller: &Puller,
    (registry, cache): (&Registry, &Cache),
    which: Which,
    second: &Image,
) -> Result<()> {
    let named: BTreeMap<_, _> = second.named()?.into_iter().collect();
    let layer = named[&format!("layer.{}.3", architectures()[1])];
    let file = registry.blob_file(&layer.hex());
    let right = std::fs::read(&file)?;
    let mut wrong = right.clone();
    wrong[1000] ^= 1;
    durable::write(&file, &wrong, 0o644)?;
    registry.move_tag("lab/app", "v1", &second.digest())?;
    let refused = pulls(|| Ok(puller.pull(":v1", second)))?;
    ensure!(refused.is_err(), "a corrupted blob was taken");
    let rest = format!("blobs/{layer}");
    let stored = ["--header", "Cache-Control: only-if-cached"];
    let stored = pulls(|| puller.ask(cache, which, &rest, &stored))?;
    ensure!(stored.contains(" 504 "), "what is wrong was stored: {stored}");
    durable::write(&file, &right, 0o644)?;
    pulls(|| {
        wait::until("what was put right", SOON, || {
            let said = puller.ask(cache, which, &rest, &[]).ok()?;
            said.contains(" 200 ").then_some(())
        })
    })
}

#[test]
fn every_client_has_doors_and_what_it_cannot_do_is_said() {
    let doors = [
        Door::Prefix,
        Door::Namespace,
        Door::Default,
        Door::Mirrors,
        Door::Opened,
    ];
    for client in [Client::Skopeo, Client::Podman, Client::Containerd, Client::Docker] {
        for door in doors {
            if let Some(why) = cannot(client, door) {
                untested(&format!("{client:?} by {door:?}: {why}"));
            }
        }
        assert!(
            doors
                .iter()
                .filter(|door| cannot(client, **door).is_none())
                .count()
                >= 3
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_by_the_prefix() -> Result<()> {
    row(Client::Skopeo, Door::Prefix).await
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_by_the_default() -> Result<()> {
    row(Client::Skopeo, Door::Default).await
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_by_its_table_of_mirrors() -> Result<()> {
    row(Client::Skopeo, Door::Mirrors).await
}

#[tokio::test(flavor = "multi_thread")]
async fn p07_skopeo_by_connect_that_is_opened() -> Result<()> {
    row(Client::Skopeo, Door::Opened).await
}

/// Needs root: these programs unpack what they pull.
mod as_root {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn podman_by_the_prefix() -> Result<()> {
        row(Client::Podman, Door::Prefix).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn podman_by_the_default() -> Result<()> {
        row(Client::Podman, Door::Default).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn podman_by_its_table_of_mirrors() -> Result<()> {
        row(Client::Podman, Door::Mirrors).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn p07_podman_by_connect_that_is_opened() -> Result<()> {
        row(Client::Podman, Door::Opened).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn containerd_by_the_prefix() -> Result<()> {
        row(Client::Containerd, Door::Prefix).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn p12_containerd_by_its_namespace() -> Result<()> {
        row(Client::Containerd, Door::Namespace).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn containerd_by_the_default() -> Result<()> {
        row(Client::Containerd, Door::Default).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn p07_containerd_by_connect_that_is_opened() -> Result<()> {
        row(Client::Containerd, Door::Opened).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn docker_by_the_prefix() -> Result<()> {
        row(Client::Docker, Door::Prefix).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn docker_by_its_registry_mirrors() -> Result<()> {
        row(Client::Docker, Door::Default).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn p07_docker_by_connect_that_is_opened() -> Result<()> {
        row(Client::Docker, Door::Opened).await
    }
}
