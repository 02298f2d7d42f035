//! Puts a signed build into the repository, and renews what expires.
//!
//! Order, and what it closes: (1) targets, so that no metadata names a file that is not there; (2) targets and
//! snapshot metadata, under new names that nothing refers to yet; (3) `timestamp.json`, replaced by one rename: the
//! publication happens here. Killed before (3), the same command does everything again and changes nothing twice.

use std::path::Path;

use jiff::Timestamp;
use kato_shared::durable;
use serde::Serialize;
use tough::schema::Targets;

use super::{
    Lifetimes, PublishError, files, keys, metadata,
    sign::SIGNED,
    state::{self, State},
};

/// The versions that are published now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Of the targets metadata.
    pub targets: u64,
    /// Of the snapshot metadata.
    pub snapshot: u64,
    /// Of the timestamp metadata.
    pub timestamp: u64,
    /// When the timestamp must be renewed at the latest.
    pub expires: Timestamp,
    /// The names of the targets that are new.
    pub added: Vec<String>,
}

/// Publishes the signed build in `build` into `repository`, with the snapshot and timestamp keys in `keys`.
///
/// # Errors
/// [`PublishError::Outdated`] when something was published after the build was signed; [`PublishError::Altered`] when
/// a file is not what was signed. The repository then serves what it served before.
pub async fn publish(
    build: &Path,
    repository: &Path,
    keys: &Path,
    lifetimes: Lifetimes,
    now: Timestamp,
) -> Result<Published, PublishError> {
    let _held = state::lock(repository)?;
    let state = State::read(repository)?;
    let path = build.join(SIGNED);
    if !path.exists() {
        return Err(PublishError::Unsigned {
            folder: build.to_owned(),
        });
    }
    let (targets, bytes): (Targets, _) = state::verified(&path, &state.root)?;
    let (signed, current) = (targets.version.get(), state.targets_version());
    if signed != current + 1 {
        return Err(PublishError::Outdated { signed, current });
    }
    keeps_everything(&state, &targets)?;
    let added = place_targets(&state, &targets, build)?;
    let next = Next {
        repository,
        keys,
        lifetimes,
        now,
    };
    next.write(&state, signed, &bytes, added).await
}

/// Signs snapshot and timestamp anew, with later expiry; the targets stay.
///
/// # Errors
/// [`PublishError::Empty`] before the first publication.
pub async fn refresh(
    repository: &Path,
    keys: &Path,
    lifetimes: Lifetimes,
    now: Timestamp,
) -> Result<Published, PublishError> {
    let _held = state::lock(repository)?;
    let state = State::read(repository)?;
    let Some(published) = &state.published else {
        return Err(PublishError::Empty {
            folder: repository.to_owned(),
        });
    };
    let next = Next {
        repository,
        keys,
        lifetimes,
        now,
    };
    next.write(
        &state,
        state.targets_version(),
        &published.targets_bytes,
        Vec::new(),
    )
    .await
}

/// Refuses a list that forgets something; a release is never withdrawn silently.
fn keeps_everything(state: &State, targets: &Targets) -> Result<(), PublishError> {
    let published = state.published.iter().flat_map(|now| now.targets.targets.keys());
    match published
        .into_iter()
        .find(|name| !targets.targets.contains_key(*name))
    {
        Some(name) => Err(PublishError::Removed {
            name: name.raw().to_owned(),
        }),
        None => Ok(()),
    }
}

/// Copies what is new, under its name with the digest in front; returns the names.
fn place_targets(state: &State, targets: &Targets, build: &Path) -> Result<Vec<String>, PublishError> {
    let mut added = Vec::new();
    for (name, target) in &targets.targets {
        let name = name.resolved();
        let (Some(digest), Some(to)) = (metadata::digest(target), state.path_of(name, target)) else {
            continue;
        };
        if state.target(name).and_then(metadata::digest) != Some(digest) {
            files::place(&build.join("targets").join(name), &to, digest)?;
            added.push(name.to_owned());
        }
    }
    added.sort_unstable();
    Ok(added)
}

/// Where and how the next state is written.
struct Next<'a> {
    repository: &'a Path,
    keys: &'a Path,
    lifetimes: Lifetimes,
    now: Timestamp,
}

impl Next<'_> {
    async fn write(
        &self,
        state: &State,
        targets: u64,
        targets_bytes: &[u8],
        added: Vec<String>,
    ) -> Result<Published, PublishError> {
        let folder = self.repository.join("metadata");
        let (old_snapshot, old_timestamp) = state
            .published
            .as_ref()
            .map_or((0, 0), |published| (published.snapshot, published.timestamp));
        let (snapshot, timestamp) = (old_snapshot + 1, old_timestamp + 1);
        let expires = metadata::expiry(self.now, self.lifetimes.timestamp);

        let until = metadata::expiry(self.now, self.lifetimes.snapshot);
        let role = metadata::snapshot(snapshot, until, targets, targets_bytes);
        let signers = keys::sources(self.keys, "snapshot")?;
        let snapshot_bytes = metadata::sign(role, "snapshot", &state.root, &signers).await?;
        let role = metadata::timestamp(timestamp, expires, snapshot, &snapshot_bytes);
        let signers = keys::sources(self.keys, "timestamp")?;
        let timestamp_bytes = metadata::sign(role, "timestamp", &state.root, &signers).await?;

        durable::write(
            &folder.join(format!("{targets}.targets.json")),
            targets_bytes,
            0o644,
        )?;
        durable::write(
            &folder.join(format!("{snapshot}.snapshot.json")),
            &snapshot_bytes,
            0o644,
        )?;
        durable::write(&folder.join("timestamp.json"), &timestamp_bytes, 0o644)?;
        Ok(Published {
            targets,
            snapshot,
            timestamp,
            expires,
            added,
        })
    }
}
