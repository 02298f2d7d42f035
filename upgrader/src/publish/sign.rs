//! Adds a build to the list of targets and signs the list. Needs the targets key and the repository's metadata, but
//! writes only into the build folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::{
    Digest, durable,
    release::{GraphEntry, Kind, Release, Version, layout},
};
use serde::Serialize;
use tough::{TargetName, schema::Targets};

use crate::module::unpack::{self, Archive};

use super::{Lifetimes, PublishError, files, keys, metadata, patches, state::State};

/// The signed list in a build folder.
pub(super) const SIGNED: &str = "targets.json";

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signed {
    /// The release; of a patch, the newest one that it is for.
    pub version: Version,
    /// The patch, when it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// The version of the targets metadata.
    pub targets_version: u64,
    /// The names of the targets that are new.
    pub added: Vec<String>,
}

/// Signs the build in `build` as the next state of `repository`, with the targets keys in `keys`.
///
/// # Errors
/// [`PublishError::Taken`] when a published name would get other content; [`PublishError::Unusable`] or
/// [`PublishError::Incomplete`] when a node could not install what would be published.
pub async fn sign(
    build: &Path,
    repository: &Path,
    keys: &Path,
    lifetimes: Lifetimes,
    now: Timestamp,
) -> Result<Signed, PublishError> {
    let signers = keys::sources(keys, "targets")?;
    let state = State::read(repository)?;
    let (release, digest) = release_in(build)?;
    match release.kind {
        Kind::Release => write_graph(build, &state, &release)?,
        Kind::Patch => patches::write_list(build, &state, &release, digest)?,
    }
    let targets_version = state.targets_version() + 1;
    let expires = metadata::expiry(now, lifetimes.targets);
    let mut targets = match &state.published {
        Some(published) => Targets {
            version: metadata::number(targets_version),
            expires,
            ..published.targets.clone()
        },
        None => Targets::new(
            metadata::SPEC_VERSION.into(),
            metadata::number(targets_version),
            expires,
        ),
    };
    let mut added = Vec::new();
    for (name, path) in target_files(build)? {
        if add(&mut targets, &state, &name, &path)? {
            added.push(name);
        }
    }
    complete(&release, &targets)?;
    archives_agree(build, &release)?;
    let bytes = metadata::sign(targets, "targets", &state.root, &signers).await?;
    durable::write(&build.join(SIGNED), &bytes, 0o644)?;
    Ok(Signed {
        version: release.version,
        patch: release.patch.map(|patch| patch.name),
        targets_version,
        added,
    })
}

/// The files below `targets/` of a build folder, by target name.
pub(super) fn target_files(build: &Path) -> Result<Vec<(String, PathBuf)>, PublishError> {
    let folder = build.join("targets");
    let files = files::tree(&folder)?.into_iter().filter(|path| path.is_file());
    Ok(files
        .filter_map(|path| Some((path.strip_prefix(&folder).ok()?.to_str()?.to_owned(), path)))
        .collect())
}

/// The one release or patch document in a build folder, as a node reads it, with its digest.
fn release_in(build: &Path) -> Result<(Release, Digest), PublishError> {
    let mut documents: Vec<_> = target_files(build)?
        .into_iter()
        .filter(|(name, _)| layout::version_of(name).is_some() || layout::patch_of(name).is_some())
        .collect();
    match (documents.pop(), documents.len()) {
        (Some((name, path)), 0) => {
            let bytes = fs::read(&path).map_err(PublishError::io("reading", &path))?;
            Ok((Release::from_json(&name, &bytes)?, Digest::of(&bytes)))
        }
        (last, more) => Err(PublishError::Releases {
            folder: build.to_owned(),
            count: more + usize::from(last.is_some()),
        }),
    }
}

/// The graph of the repository with this release in it.
fn write_graph(build: &Path, state: &State, release: &Release) -> Result<(), PublishError> {
    let mut graph = state.graph(&release.product)?;
    if graph.product != release.product {
        return Err(PublishError::Product {
            published: graph.product,
            offered: release.product.clone(),
        });
    }
    graph.releases.retain(|entry| entry.version != release.version);
    graph.releases.push(GraphEntry::from(release));
    graph.releases.sort_unstable_by(|a, b| a.version.cmp(&b.version));
    Ok(durable::write_json(
        &build.join("targets").join(layout::GRAPH),
        &graph,
        0o644,
    )?)
}

/// Adds a file to the list; `false` when it is listed already.
fn add(targets: &mut Targets, state: &State, name: &str, path: &Path) -> Result<bool, PublishError> {
    let (digest, size) = files::digest(path)?;
    let published = state.target(name).and_then(metadata::digest);
    match published {
        Some(published) if published == digest => return Ok(false),
        Some(published) if ![layout::GRAPH, layout::PATCHES].contains(&name) => {
            return Err(PublishError::Taken {
                name: name.to_owned(),
                published,
                offered: digest,
            });
        }
        _ => {}
    }
    let key = TargetName::new(name).map_err(PublishError::metadata(path))?;
    targets.targets.insert(key, metadata::target(digest, size));
    Ok(true)
}

/// Refuses a release whose files are not all listed with the digests that it names.
fn complete(release: &Release, targets: &Targets) -> Result<(), PublishError> {
    for (name, digest, size) in needs(release) {
        let listed = TargetName::new(name)
            .ok()
            .and_then(|key| targets.targets.get(&key))
            .map(|target| (metadata::digest(target), target.length));
        if listed != Some((Some(digest), size)) {
            return Err(PublishError::Incomplete {
                version: release.version.clone(),
                problem: format!("the target `{name}` ({digest}, {size} bytes) is missing or differs"),
            });
        }
    }
    Ok(())
}

/// Refuses archives in the build folder that a node would refuse; what was published before was looked at then.
fn archives_agree(build: &Path, release: &Release) -> Result<(), PublishError> {
    let revert = release.patch.iter().flat_map(|patch| &patch.revert);
    for module in release.modules.iter().chain(revert) {
        let Some(artifact) = release.artifacts.get(&module.artifact) else {
            continue;
        };
        let archive = Archive {
            path: build.join("targets").join(&artifact.target),
            sha256: artifact.sha256,
            size: artifact.size,
        };
        if archive.path.exists() {
            unpack::agrees(&archive, module)?;
        }
    }
    Ok(())
}

/// Target name, digest and size of every file that a release names.
pub(super) fn needs(release: &Release) -> impl Iterator<Item = (&str, Digest, u64)> {
    let artifacts = release
        .artifacts
        .values()
        .map(|artifact| (artifact.target.as_str(), artifact.sha256, artifact.size));
    let upgraders = release
        .upgrader
        .values()
        .map(|upgrader| (upgrader.target.as_str(), upgrader.sha256, upgrader.size));
    artifacts.chain(upgraders)
}
