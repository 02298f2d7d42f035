//! The four roles' metadata: made, signed, and how long they live.

use std::{collections::HashMap, num::NonZeroU64, time::Duration};

use aws_lc_rs::rand::SystemRandom;
use jiff::Timestamp;
use kato_shared::Digest;
use tough::{
    editor::signed::SignedRole,
    key_source::KeySource,
    schema::{self, Hashes, KeyHolder, Metafile, Role, Root},
};

use super::PublishError;

/// The version of the TUF specification that the metadata follow.
pub(super) const SPEC_VERSION: &str = "1.0.0";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long metadata are valid from the moment they are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// The root; renewed by hand with the offline keys.
    pub root: Duration,
    /// The list of targets; renewed with each release.
    pub targets: Duration,
    /// The snapshot.
    pub snapshot: Duration,
    /// The timestamp: how long a node may be shown an old state at most (freeze attack).
    pub timestamp: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            root: DAY.saturating_mul(3650),
            targets: DAY.saturating_mul(365),
            snapshot: DAY.saturating_mul(30),
            timestamp: DAY.saturating_mul(7),
        }
    }
}

/// `now + lifetime` in whole seconds, as the specification writes times.
pub(super) fn expiry(now: Timestamp, lifetime: Duration) -> Timestamp {
    let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(now.as_second().saturating_add(seconds)).unwrap_or(Timestamp::MAX)
}

/// Signs `role` with those of `keys` that `root` lists for it, and gives the bytes of its file.
pub(super) async fn sign<T: Role + serde::Serialize>(
    role: T,
    name: &'static str,
    root: &Root,
    keys: &[Box<dyn KeySource>],
) -> Result<Vec<u8>, PublishError> {
    let holder = KeyHolder::Root(root.clone());
    let signed = SignedRole::new(role, &holder, keys, &SystemRandom::new())
        .await
        .map_err(|source| PublishError::Signing {
            role: name,
            source: source.into(),
        })?;
    Ok(signed.buffer().clone())
}

/// A snapshot that names the targets metadata `bytes` of `version`.
pub(super) fn snapshot(version: u64, expires: Timestamp, targets: u64, bytes: &[u8]) -> schema::Snapshot {
    let mut snapshot = schema::Snapshot::new(SPEC_VERSION.into(), number(version), expires);
    snapshot.meta.insert("targets.json".into(), meta(targets, bytes));
    snapshot
}

/// A timestamp that names the snapshot metadata `bytes` of `version`.
pub(super) fn timestamp(version: u64, expires: Timestamp, snapshot: u64, bytes: &[u8]) -> schema::Timestamp {
    let mut timestamp = schema::Timestamp::new(SPEC_VERSION.into(), number(version), expires);
    timestamp
        .meta
        .insert("snapshot.json".into(), meta(snapshot, bytes));
    timestamp
}

/// What is signed about a target.
pub(super) fn target(digest: Digest, length: u64) -> schema::Target {
    schema::Target {
        length,
        hashes: hashes(digest),
        custom: HashMap::new(),
        _extra: HashMap::new(),
    }
}

/// The digest of a target; `None` when its SHA-256 has another length than 32 bytes.
pub(super) fn digest(target: &schema::Target) -> Option<Digest> {
    let bytes: &[u8] = &target.hashes.sha256;
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}

/// Metadata versions begin at 1; 0 is read as 1.
pub(super) fn number(version: u64) -> NonZeroU64 {
    NonZeroU64::new(version).unwrap_or(NonZeroU64::MIN)
}

fn meta(version: u64, bytes: &[u8]) -> Metafile {
    Metafile {
        length: Some(bytes.len() as u64),
        hashes: Some(hashes(Digest::of(bytes))),
        version: number(version),
        _extra: HashMap::new(),
    }
}

fn hashes(digest: Digest) -> Hashes {
    Hashes {
        sha256: digest.as_bytes().to_vec().into(),
        _extra: HashMap::new(),
    }
}
