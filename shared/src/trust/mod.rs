//! Trust in releases: The Update Framework (TUF) over `tough`, on every node.
//!
//! Flow: the pinned root (given to the node at its installation) → newer roots → timestamp → snapshot → targets
//! metadata → a target's size and digest → its bytes. The way there (web server, proxy, cache) is untrusted: it can
//! withhold, but it cannot make a node take anything else than what was signed.
//!
//! A node's memory against rollback is the *datastore* folder: `tough`'s cached metadata, which it writes without
//! fsync and ignores when torn, and [`high_water`], our own durable record of the highest versions accepted, which
//! alone decides. Losing one of `tough`'s files to a crash therefore neither stops the node nor weakens it.
//!
//! Deliberately absent: HTTP (the caller's [`tough::Transport`]), delegated targets roles, any switch that accepts
//! expired or unsigned metadata, and signing (the publisher's part).
//!
//! Reading list: the TUF specification 1.0.x, §5 (client workflow) and §6.2 (consistent snapshots).

mod error;
mod high_water;
mod target;
mod watched;

use std::path::Path;

use futures_util::StreamExt as _;
use semver::Version;
use tough::{ExpirationEnforcement, Limits, Repository, RepositoryLoader, TargetName, Transport};
use url::Url;

pub use error::{TrustError, TrustKind};
pub use target::TargetFile;

use self::{high_water::HighWater, watched::Watched};
use crate::{
    durable,
    release::{Graph, Kind, PatchList, ReadError, Release, SCHEMA, layout},
};

/// What a repository may make a node download before anything is verified (endless-data attack, TUF §1.5.2).
const LIMITS: Limits = Limits {
    // A root with dozens of keys has 20 KiB.
    max_root_size: 512 * 1024,
    // Only without a signed length, which our publisher always gives; some 30 000 targets.
    max_targets_size: 10 * 1024 * 1024,
    // One entry: half a KiB and its signatures.
    max_timestamp_size: 64 * 1024,
    // One entry per targets role.
    max_snapshot_size: 512 * 1024,
    // A root per month for twenty years; each costs a request at the first contact.
    max_root_updates: 256,
};

/// The largest `release.json` or `graph.json` in bytes: both are held in memory. A file list of 50 000 entries fits.
const MAX_DOCUMENT_SIZE: u64 = 16 * 1024 * 1024;

/// Where a repository is and from which root it is trusted.
#[derive(Debug, Clone, Copy)]
pub struct RepositorySource<'a> {
    /// The content of the pinned root metadata file.
    pub trusted_root: &'a [u8],
    /// The repository: `metadata/` and `targets/` are below it.
    pub base: &'a Url,
    /// The folder of this node's memory of the repository; created when absent. Locked while it is loaded.
    pub datastore: &'a Path,
}

/// A repository whose metadata was verified down to the list of targets.
#[derive(Debug)]
pub struct TrustedRepository {
    repository: Repository,
    targets: Url,
}

impl TrustedRepository {
    /// Fetches and verifies the metadata, and remembers its versions.
    ///
    /// # Errors
    /// [`TrustError`]; see [`TrustError::kind`] for which of them are refusals.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a datastore that the next call reads.
    pub async fn load<T: Transport + Send + Sync + 'static>(
        source: RepositorySource<'_>,
        transport: T,
    ) -> Result<Self, TrustError> {
        durable::create_folder(source.datastore)?;
        // On Core the orchestrator and the node's own run may come at the same time.
        let _held = high_water::lock(source.datastore).await?;
        high_water::quarantine_torn(source.datastore)?;
        let remembered = HighWater::read(source.datastore)?;
        let targets = below(source.base, "targets/");
        let transport = Watched::new(transport);
        let loaded = RepositoryLoader::new(
            &source.trusted_root,
            below(source.base, "metadata/"),
            targets.clone(),
        )
        .transport(transport.clone())
        .limits(LIMITS)
        .datastore(source.datastore)
        .expiration_enforcement(ExpirationEnforcement::Safe)
        .load()
        .await;
        // Before the result: a newer root that could not be fetched makes every later verdict worthless.
        if let Some(unreachable) = transport.root_failure() {
            return Err(TrustError::from_transport(unreachable));
        }
        let repository = loaded.map_err(TrustError::from_tough)?;
        let offered = HighWater::of(source.trusted_root, &repository);
        let accepted = offered.after(remembered.as_ref())?;
        if remembered.as_ref() != Some(&accepted) {
            accepted.write(source.datastore)?;
        }
        Ok(Self { repository, targets })
    }

    /// The ways between all releases.
    ///
    /// # Errors
    /// [`TrustError`] when it is not published, cannot be fetched, is not what was signed, or cannot be understood.
    pub async fn graph(&self) -> Result<Graph, TrustError> {
        let bytes = self.read(layout::GRAPH).await?;
        let graph: Graph = serde_json::from_slice(&bytes).map_err(|source| ReadError::Shape {
            subject: layout::GRAPH.into(),
            source,
        })?;
        if graph.schema == 0 || graph.schema > SCHEMA {
            return Err(ReadError::Schema {
                subject: layout::GRAPH.into(),
                schema: graph.schema,
                min_upgrader: None,
            }
            .into());
        }
        Ok(graph)
    }

    /// The document of the release `version`.
    ///
    /// # Errors
    /// [`TrustError::NoSuchRelease`] with what is published; else as [`TrustedRepository::graph`].
    pub async fn release(&self, version: &Version) -> Result<Release, TrustError> {
        let name = layout::release(version);
        if self.target(&name).is_err() {
            return Err(TrustError::NoSuchRelease {
                version: version.clone(),
                published: self.versions(),
            });
        }
        let bytes = self.read(&name).await?;
        let release = Release::from_json(&name, &bytes)?;
        if release.version != *version || release.kind != Kind::Release {
            return Err(ReadError::Contradiction {
                subject: name,
                problem: format!(
                    "the document is a {:?} of version {}",
                    release.kind, release.version
                )
                .to_lowercase(),
            }
            .into());
        }
        Ok(release)
    }

    /// All patches; an empty list where none was ever published.
    ///
    /// # Errors
    /// As [`TrustedRepository::graph`].
    pub async fn patches(&self) -> Result<PatchList, TrustError> {
        if self.target(layout::PATCHES).is_err() {
            return Ok(PatchList {
                schema: SCHEMA,
                ..PatchList::default()
            });
        }
        let bytes = self.read(layout::PATCHES).await?;
        let list: PatchList = serde_json::from_slice(&bytes).map_err(|source| ReadError::Shape {
            subject: layout::PATCHES.into(),
            source,
        })?;
        if list.schema == 0 || list.schema > SCHEMA {
            return Err(ReadError::Schema {
                subject: layout::PATCHES.into(),
                schema: list.schema,
                min_upgrader: None,
            }
            .into());
        }
        Ok(list)
    }

    /// The document of the patch `id`.
    ///
    /// # Errors
    /// As [`TrustedRepository::graph`].
    pub async fn patch(&self, id: u32) -> Result<Release, TrustError> {
        let name = layout::patch(id);
        let bytes = self.read(&name).await?;
        let document = Release::from_json(&name, &bytes)?;
        match &document.patch {
            Some(patch) if patch.id == id => Ok(document),
            Some(patch) => Err(TrustError::contradiction(
                &name,
                &format!("the document is of the patch {}", patch.id),
            )),
            None => Err(TrustError::contradiction(&name, "the document is no patch")),
        }
    }

    /// The numbers of the published patches, ascending.
    pub fn patch_ids(&self) -> Vec<u32> {
        let mut ids: Vec<_> = self
            .repository
            .all_targets()
            .filter_map(|(key, _)| layout::patch_of(key.raw()))
            .collect();
        ids.sort_unstable();
        ids
    }

    /// What was signed about the target `name`, and where it is.
    ///
    /// # Errors
    /// [`TrustError::NoSuchTarget`].
    pub fn target(&self, name: &str) -> Result<TargetFile, TrustError> {
        TargetName::new(name)
            .ok()
            .and_then(|key| Some((self.repository.targets().signed.targets.get(&key)?, key)))
            .and_then(|(target, key)| TargetFile::new(&key, target, &self.targets, self.is_consistent()))
            .ok_or_else(|| TrustError::NoSuchTarget {
                name: name.to_owned(),
            })
    }

    /// Every target, by name.
    pub fn targets(&self) -> Vec<TargetFile> {
        let mut files: Vec<_> = self
            .repository
            .all_targets()
            .filter_map(|(key, target)| TargetFile::new(key, target, &self.targets, self.is_consistent()))
            .collect();
        files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        files
    }

    /// The published versions, ascending.
    pub fn versions(&self) -> Vec<Version> {
        let mut versions: Vec<_> = self
            .repository
            .all_targets()
            .filter_map(|(key, _)| layout::version_of(key.raw()))
            .collect();
        versions.sort_unstable();
        versions
    }

    /// Fetches the whole content of a target and checks it, without keeping it.
    ///
    /// # Errors
    /// [`TrustError`] when it cannot be fetched or is not what was signed.
    pub async fn check(&self, file: &TargetFile) -> Result<(), TrustError> {
        self.stream(&file.name, |_piece| ()).await
    }

    /// The verified metadata, for a publisher that adds to it.
    pub const fn metadata(&self) -> &Repository {
        &self.repository
    }

    fn is_consistent(&self) -> bool {
        self.repository.root().signed.consistent_snapshot
    }

    /// The whole content of a small target, verified.
    async fn read(&self, name: &str) -> Result<Vec<u8>, TrustError> {
        let file = self.target(name)?;
        if file.size > MAX_DOCUMENT_SIZE {
            return Err(TrustError::TooLarge {
                url: file.url.into(),
                limit: MAX_DOCUMENT_SIZE,
            });
        }
        let mut bytes = Vec::new();
        self.stream(name, |piece| bytes.extend_from_slice(piece)).await?;
        Ok(bytes)
    }

    /// Gives the content of a target to `sink`. What it got is good only if the result is.
    async fn stream(&self, name: &str, mut sink: impl FnMut(&[u8])) -> Result<(), TrustError> {
        let missing = || TrustError::NoSuchTarget {
            name: name.to_owned(),
        };
        let key = TargetName::new(name).map_err(|_unsafe_name| missing())?;
        let stream = self.repository.read_target(&key).await;
        let mut stream = stream.map_err(TrustError::from_tough)?.ok_or_else(missing)?;
        // `tough` gives the verdict on the digest with the end of the stream; a short body fails it as well.
        while let Some(piece) = stream.next().await {
            sink(&piece.map_err(TrustError::from_tough)?);
        }
        Ok(())
    }
}

/// A folder of the repository; `base` may or may not end with a slash.
fn below(base: &Url, folder: &str) -> Url {
    let mut url = base.clone();
    let path = format!("{}/{folder}", base.path().trim_end_matches('/'));
    url.set_path(&path);
    url.set_query(None);
    url.set_fragment(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_are_below_the_base_with_and_without_its_slash() {
        for base in ["https://h.example/a", "https://h.example/a/"] {
            let url = below(&Url::parse(base).unwrap(), "targets/");
            assert_eq!(url.as_str(), "https://h.example/a/targets/");
        }
    }
}
