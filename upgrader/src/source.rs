//! Where a run gets releases and files from: a trusted repository, through whatever route; a folder in unit tests.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kato_shared::{
    Digest,
    release::{Graph, PatchList, Release, Version, layout},
    trust::TrustedRepository,
};
use url::Url;

use crate::{
    exit::{Exit, Failure},
    fetch::{Fetcher, trust_failure},
};

/// A file that a release asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its TUF target name.
    pub target: String,
    /// The digest that the release document gives.
    pub sha256: Digest,
    /// The size that the release document gives, in bytes.
    pub size: u64,
}

/// A source of releases.
#[async_trait]
pub trait Source: Send + Sync {
    /// The ways between all releases.
    async fn graph(&self) -> Result<Graph, Failure>;

    /// A release document and its digest.
    async fn release(&self, version: &Version) -> Result<(Release, Digest), Failure>;

    /// The document of a release, as a file to stage.
    ///
    /// # Errors
    /// [`Failure`] when it is not published.
    fn document(&self, version: &Version) -> Result<Wanted, Failure>;

    /// All patches.
    async fn patches(&self) -> Result<PatchList, Failure>;

    /// The document of the patch `id` and its digest.
    async fn patch(&self, id: u32) -> Result<(Release, Digest), Failure>;

    /// Whether the host of `url` can be reached by the way that files come.
    async fn reach(&self, _url: &Url) -> Result<(), Failure> {
        Ok(())
    }

    /// Puts a file into `staging` under its digest, verified; `progress` is told bytes and size.
    async fn fetch(
        &self,
        wanted: &Wanted,
        staging: &Path,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<PathBuf, Failure>;
}

/// A signed repository.
#[derive(Debug)]
pub struct TrustedSource {
    repository: TrustedRepository,
    fetcher: Fetcher,
}

impl TrustedSource {
    /// A source of what `repository` holds.
    pub const fn new(repository: TrustedRepository, fetcher: Fetcher) -> Self {
        Self { repository, fetcher }
    }
}

#[async_trait]
impl Source for TrustedSource {
    async fn graph(&self) -> Result<Graph, Failure> {
        self.repository.graph().await.map_err(trust_failure)
    }

    async fn release(&self, version: &Version) -> Result<(Release, Digest), Failure> {
        let release = self.repository.release(version).await.map_err(trust_failure)?;
        let file = self
            .repository
            .target(&layout::release(version))
            .map_err(trust_failure)?;
        Ok((release, file.digest))
    }

    fn document(&self, version: &Version) -> Result<Wanted, Failure> {
        let file = self
            .repository
            .target(&layout::release(version))
            .map_err(trust_failure)?;
        Ok(Wanted {
            sha256: file.digest,
            size: file.size,
            target: file.name,
        })
    }

    async fn patches(&self) -> Result<PatchList, Failure> {
        self.repository.patches().await.map_err(trust_failure)
    }

    async fn patch(&self, id: u32) -> Result<(Release, Digest), Failure> {
        let document = self.repository.patch(id).await.map_err(trust_failure)?;
        let file = self
            .repository
            .target(&layout::patch(id))
            .map_err(trust_failure)?;
        Ok((document, file.digest))
    }

    async fn reach(&self, url: &Url) -> Result<(), Failure> {
        Ok(self.fetcher.reach(url).await?)
    }

    async fn fetch(
        &self,
        wanted: &Wanted,
        staging: &Path,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<PathBuf, Failure> {
        let file = self.repository.target(&wanted.target).map_err(trust_failure)?;
        if file.digest != wanted.sha256 || file.size != wanted.size {
            let problem = anyhow::anyhow!(
                "the release document and the targets metadata disagree on {}: {} with {} bytes, and {} with {} bytes",
                wanted.target,
                wanted.sha256,
                wanted.size,
                file.digest,
                file.size
            );
            return Err(Failure::new(Exit::Trust, problem)
                .hint("nothing was changed; ask the publisher to run `kato release verify`"));
        }
        Ok(self.fetcher.download(&file, staging, progress).await?)
    }
}
