//! What a repository folder holds now, as its publisher sees it: verified by its own root, but not by the clock,
//! because expired metadata are exactly what a publisher comes to renew.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use kato_shared::release::{Graph, SCHEMA, layout};
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use tough::{
    TargetName,
    schema::{Role, Root, Signed, Snapshot, Target, Targets, Timestamp},
};

use super::{PublishError, metadata};

/// The current metadata of a repository.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    pub(super) root: Root,
    /// `None` before the first publication.
    pub(super) published: Option<Metadata>,
}

/// The metadata that `timestamp.json` leads to.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) timestamp: u64,
    pub(super) snapshot: u64,
    pub(super) targets: Targets,
    /// The bytes of the targets metadata file, as they are signed.
    pub(super) targets_bytes: Vec<u8>,
}

impl State {
    /// Reads the repository `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, PublishError> {
        let path = newest_root(folder);
        let root: Signed<Root> = parse(&path, &read(&path)?)?;
        root.signed
            .verify_role(&root)
            .map_err(PublishError::metadata(&path))?;
        let root = root.signed;
        let timestamp = folder.join("metadata/timestamp.json");
        let published = if timestamp.exists() {
            Some(Metadata::read(folder, &root)?)
        } else {
            None
        };
        Ok(Self {
            folder: folder.to_owned(),
            root,
            published,
        })
    }

    /// The version of the current targets metadata; 0 before the first publication.
    pub(super) fn targets_version(&self) -> u64 {
        self.published.as_ref().map_or(0, |now| now.targets.version.get())
    }

    /// What is published under the target name `name`.
    pub(super) fn target(&self, name: &str) -> Option<&Target> {
        let key = TargetName::new(name).ok()?;
        self.published.as_ref()?.targets.targets.get(&key)
    }

    /// Where the bytes of a target are.
    pub(super) fn path_of(&self, name: &str, target: &Target) -> Option<PathBuf> {
        let digest = metadata::digest(target)?;
        Some(self.folder.join(format!("targets/{}.{name}", digest.hex())))
    }

    /// The published document `name`; `None` when there is none.
    pub(super) fn document<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, PublishError> {
        let published = self
            .target(name)
            .and_then(|target| Some((target, self.path_of(name, target)?)));
        let Some((target, path)) = published else {
            return Ok(None);
        };
        let bytes = read(&path)?;
        let (expected, found) = (metadata::digest(target), kato_shared::Digest::of(&bytes));
        match expected {
            Some(expected) if expected != found => Err(PublishError::Altered {
                path,
                expected,
                found,
            }),
            _ => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(PublishError::metadata(&path)),
        }
    }

    /// The published graph; an empty one of `product` before the first publication.
    pub(super) fn graph(&self, product: &str) -> Result<Graph, PublishError> {
        Ok(self.document(layout::GRAPH)?.unwrap_or_else(|| Graph {
            schema: SCHEMA,
            product: product.to_owned(),
            releases: Vec::new(),
        }))
    }
}

impl Metadata {
    fn read(folder: &Path, root: &Root) -> Result<Self, PublishError> {
        let metadata = folder.join("metadata");
        let (timestamp, _): (Timestamp, _) = verified(&metadata.join("timestamp.json"), root)?;
        let version = timestamp
            .meta
            .get("snapshot.json")
            .map_or(0, |meta| meta.version.get());
        let (snapshot, _): (Snapshot, _) =
            verified(&metadata.join(format!("{version}.snapshot.json")), root)?;
        let version = snapshot
            .meta
            .get("targets.json")
            .map_or(0, |meta| meta.version.get());
        let (targets, targets_bytes) = verified(&metadata.join(format!("{version}.targets.json")), root)?;
        Ok(Self {
            timestamp: timestamp.version.get(),
            snapshot: snapshot.version.get(),
            targets,
            targets_bytes,
        })
    }
}

/// Holds the repository for one publication at a time, until the file is dropped.
pub(super) fn lock(folder: &Path) -> Result<File, PublishError> {
    let held = File::open(folder).map_err(PublishError::io("opening", folder))?;
    match flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(held),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(PublishError::Busy {
            folder: folder.to_owned(),
        }),
        Err(error) => Err(PublishError::io("locking", folder)(error.into())),
    }
}

/// A metadata file that is signed as `root` demands, with its bytes.
pub(super) fn verified<T: Role + DeserializeOwned>(
    path: &Path,
    root: &Root,
) -> Result<(T, Vec<u8>), PublishError> {
    let bytes = read(path)?;
    let signed: Signed<T> = parse(path, &bytes)?;
    root.verify_role(&signed).map_err(PublishError::metadata(path))?;
    Ok((signed.signed, bytes))
}

/// The root with the highest version; roots are numbered without gaps.
fn newest_root(folder: &Path) -> PathBuf {
    let path = |version: u64| folder.join(format!("metadata/{version}.root.json"));
    let mut newest = 1;
    while path(newest + 1).exists() {
        newest += 1;
    }
    path(newest)
}

fn read(path: &Path) -> Result<Vec<u8>, PublishError> {
    fs::read(path).map_err(PublishError::io("reading", path))
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, PublishError> {
    serde_json::from_slice(bytes).map_err(PublishError::metadata(path))
}
