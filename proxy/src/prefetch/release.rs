//! A release: the metadata of a TUF repository, verified as a node verifies them, and the targets of all roles.
//!
//! The metadata come through the cache while they are read, and so are in it afterwards, the answer included that there is no newer
//! root. Nothing is trusted for it: whoever installs the release verifies all of it again.

use std::{collections::BTreeSet, path::PathBuf};

use async_trait::async_trait;
use kato_shared::{
    release::{Graph, HopError, Install, Release},
    trust::{RepositorySource, TrustError, TrustedRepository},
};
use semver::Version;
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

use super::{AskError, Cache, Gathered, ImageRef, Item};
use crate::ecosystem::Integrity;

/// The largest document of a repository; the same bound as on a node.
const MOST_DOCUMENT: usize = 64 << 20;

/// A release to fetch.
#[derive(Debug, Clone)]
pub struct ReleaseInput {
    /// The repository, with `metadata/` and `targets/` below it.
    pub url: Url,
    /// The file of the pinned root metadata.
    pub root: PathBuf,
    /// The wanted version; the newest of the channel when there is none.
    pub version: Option<Version>,
    /// What the machines have: the releases in between are fetched as well.
    pub from: Option<Version>,
    /// The channel.
    pub channel: String,
}

/// Why a release cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReleaseError {
    /// The pinned root cannot be read.
    #[error("the root metadata {path} cannot be read")]
    Root {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no place for what the client of the repository writes down.
    #[error("no temporary folder")]
    Folder(#[source] std::io::Error),
    /// What it says is not trusted, or cannot be had.
    #[error("the repository is not trusted, or not reached")]
    Trust(#[from] TrustError),
    /// There is no way.
    #[error("no way to the wanted release")]
    Hops(#[from] HopError),
    /// Nothing is published.
    #[error("no release is published in the channel `{0}`")]
    Empty(String),
}

/// Adds the targets of a release; returns its images.
pub(super) async fn gather(
    cache: &Cache,
    input: &ReleaseInput,
    gathered: &mut Gathered,
) -> Result<Vec<ImageRef>, ReleaseError> {
    let root = std::fs::read(&input.root).map_err(|source| ReleaseError::Root {
        path: input.root.display().to_string(),
        source,
    })?;
    let memory = tempfile::tempdir().map_err(ReleaseError::Folder)?;
    let source = RepositorySource {
        trusted_root: &root,
        base: &input.url,
        datastore: memory.path(),
    };
    let repository = TrustedRepository::load(source, Through(cache.clone())).await?;
    let graph = repository.graph().await?;
    let mut documents = Vec::new();
    for version in versions(&graph, input)? {
        documents.push(repository.release(&version).await?);
    }
    let _read_for_the_cache = repository.patches().await?;
    for patch in repository.patch_ids() {
        documents.push(repository.patch(patch).await?);
    }
    gathered.documents += documents.len() as u64;
    for name in targets(&documents) {
        let target = repository.target(&name)?;
        gathered.add(Item {
            integrity: Some(Integrity::Sha256(target.digest)),
            size: Some(target.size),
            ..Item::of_url(&target.url)
        });
    }
    Ok(images(&documents))
}

/// The releases on the way; the last is the wanted one.
fn versions(graph: &Graph, input: &ReleaseInput) -> Result<Vec<Version>, ReleaseError> {
    let wanted = match &input.version {
        Some(version) => version.clone(),
        None => graph
            .newest_in(&input.channel)
            .ok_or_else(|| ReleaseError::Empty(input.channel.clone()))?,
    };
    let mut versions = match &input.from {
        Some(from) => graph.hops(from, &wanted)?,
        None => Vec::new(),
    };
    if versions.last() != Some(&wanted) {
        versions.push(wanted);
    }
    Ok(versions)
}

/// The targets of all modules for all roles, and of the upgrader for every kind of machine.
fn targets(documents: &[Release]) -> BTreeSet<String> {
    let of_one = |release: &Release| {
        let artifacts = release.artifacts.values().map(|artifact| artifact.target.clone());
        let upgrader = release.upgrader.values().map(|upgrader| upgrader.target.clone());
        artifacts.chain(upgrader).collect::<Vec<_>>()
    };
    documents.iter().flat_map(of_one).collect()
}

fn images(documents: &[Release]) -> Vec<ImageRef> {
    let mut found: Vec<ImageRef> = Vec::new();
    for module in documents.iter().flat_map(|release| &release.modules) {
        let Install::Image { images } = &module.install else {
            continue;
        };
        for image in images {
            let reference = ImageRef {
                name: image.name.clone(),
                tag: None,
                digest: Some(image.digest),
            };
            if !found.contains(&reference) {
                found.push(reference);
            }
        }
    }
    found
}

/// The way of `tough` to the repository: through the cache.
#[derive(Debug, Clone)]
struct Through(Cache);

#[async_trait]
impl Transport for Through {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        match self.0.document(&Item::of_url(&url), MOST_DOCUMENT).await {
            Ok(document) => Ok(Box::pin(futures_util::stream::iter([Ok(document.bytes)]))),
            Err(error) => Err(lift(url, error)),
        }
    }
}

/// "Not found" ends the walk up the roots, and must be the upstream's own word.
fn lift(url: Url, error: AskError) -> TransportError {
    let kind = if error.is_absent() {
        TransportErrorKind::FileNotFound
    } else {
        TransportErrorKind::Other
    };
    TransportError::new_with_cause(kind, url, error)
}
