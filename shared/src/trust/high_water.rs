//! The highest versions of metadata that this node accepted: its memory against rollback (TUF §5.4.3, §5.5.5, §5.3.5).
//!
//! `tough` remembers by the cached metadata itself. That memory has holes: a file torn by a crash is ignored
//! silently, the root is always walked up again from the pinned one (so a newer one can be hidden), and after a
//! rotation of the timestamp keys the cached files are deleted at *every* load. This record has none of them; it is
//! written durably after each load that raised a version, and a record that cannot be read is an error, not a first
//! contact.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tough::{Repository, schema::RoleType};

use super::TrustError;
use crate::{Digest, durable};

const FILE: &str = "high-water.json";

/// `tough`'s own files in the datastore.
const CACHED: [&str; 5] = [
    "root.json",
    "timestamp.json",
    "snapshot.json",
    "targets.json",
    "latest_known_time.json",
];

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HighWater {
    schema: u32,
    /// The digest of the pinned root file. An operator who replaces that file starts a new line of roots.
    pinned_root: Digest,
    /// The key ids of the timestamp and snapshot roles. New keys, signed by the root, start new counters: that is how
    /// a repository recovers when a thief of the old keys published absurdly high versions (TUF §5.3.11).
    online_keys: Vec<String>,
    root: u64,
    timestamp: u64,
    snapshot: u64,
    targets: u64,
}

impl HighWater {
    /// The versions of metadata that was verified.
    pub(super) fn of(pinned_root: &[u8], repository: &Repository) -> Self {
        let root = &repository.root().signed;
        let mut online_keys: Vec<_> = [RoleType::Timestamp, RoleType::Snapshot]
            .iter()
            .filter_map(|role| Some((role, root.roles.get(role)?)))
            .flat_map(|(role, keys)| keys.keyids.iter().map(move |id| format!("{role}:{}", hex(id))))
            .collect();
        online_keys.sort_unstable();
        Self {
            schema: 1,
            pinned_root: Digest::of(pinned_root),
            online_keys,
            root: root.version.get(),
            timestamp: repository.timestamp().signed.version.get(),
            snapshot: repository.snapshot().signed.version.get(),
            targets: repository.targets().signed.version.get(),
        }
    }

    /// The record to keep after `self` was offered and `remembered` was accepted before. Pure.
    ///
    /// # Errors
    /// [`TrustError::Rollback`] with the first role whose version would go back.
    pub(super) fn after(self, remembered: Option<&Self>) -> Result<Self, TrustError> {
        let Some(old) = remembered else { return Ok(self) };
        let mut roles = Vec::new();
        if old.pinned_root == self.pinned_root {
            roles.push((RoleType::Root, old.root, self.root));
        }
        if old.online_keys == self.online_keys {
            roles.push((RoleType::Timestamp, old.timestamp, self.timestamp));
            roles.push((RoleType::Snapshot, old.snapshot, self.snapshot));
            roles.push((RoleType::Targets, old.targets, self.targets));
        }
        match roles.into_iter().find(|(_, seen, offered)| offered < seen) {
            Some((role, seen, offered)) => Err(TrustError::Rollback {
                role: role.to_string(),
                seen,
                offered,
            }),
            None => Ok(self),
        }
    }

    /// The record in `datastore`; `None` before the first contact.
    ///
    /// # Errors
    /// [`TrustError::Damaged`] when it is there and cannot be understood: guessing would open the door to a rollback;
    /// [`TrustError::State`] when it cannot be read.
    pub(super) fn read(datastore: &Path) -> Result<Option<Self>, TrustError> {
        let path = datastore.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| TrustError::Damaged { path, source }),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TrustError::State { path, source }),
        }
    }

    pub(super) fn write(&self, datastore: &Path) -> Result<(), TrustError> {
        Ok(durable::write_json(&datastore.join(FILE), self, 0o644)?)
    }
}

/// Waits until no other process loads from `datastore`, and keeps others waiting until the file is dropped.
///
/// # Errors
/// [`TrustError::State`] when the folder cannot be opened or locked.
pub(super) async fn lock(datastore: &Path) -> Result<File, TrustError> {
    let path = datastore.to_owned();
    let locked = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            let folder = File::open(path)?;
            flock(&folder, FlockOperation::LockExclusive)?;
            Ok(folder)
        }
    });
    let failed = |source| TrustError::State { path, source };
    match locked.await {
        Ok(result) => result.map_err(failed),
        Err(lost) => Err(failed(io::Error::other(lost))),
    }
}

/// Puts cached metadata aside that a crash tore, for whoever wants to look; returns what was put aside.
///
/// `tough` would ignore it without a word. What it said about versions is in the record.
///
/// # Errors
/// [`TrustError::State`] when a file cannot be read or moved.
pub(super) fn quarantine_torn(datastore: &Path) -> Result<Vec<PathBuf>, TrustError> {
    let mut torn = Vec::new();
    for name in CACHED {
        let path = datastore.join(name);
        match std::fs::read(&path) {
            Ok(bytes) if serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_err() => {
                durable::rename(&path, &datastore.join(format!("{name}.torn")))?;
                tracing::warn!(path = %path.display(), "put aside cached metadata that a crash tore; the record of versions stays in force");
                torn.push(path);
            }
            Ok(_whole) => {}
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(TrustError::State { path, source }),
        }
    }
    Ok(torn)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(root: u64, timestamp: u64) -> HighWater {
        HighWater {
            schema: 1,
            pinned_root: Digest::of(b"root 1"),
            online_keys: vec!["timestamp:aa".into()],
            root,
            timestamp,
            snapshot: timestamp,
            targets: timestamp,
        }
    }

    fn rolled_back(offered: HighWater, remembered: &HighWater) -> Option<String> {
        offered
            .after(Some(remembered))
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn the_first_contact_and_every_step_forward_are_accepted() {
        assert!(record(1, 1).after(None).is_ok());
        assert_eq!(rolled_back(record(1, 7), &record(1, 7)), None);
        assert_eq!(rolled_back(record(2, 8), &record(1, 7)), None);
    }

    #[test]
    fn an_older_version_of_any_role_is_refused() {
        let timestamp = rolled_back(record(1, 6), &record(1, 7)).unwrap();
        assert_eq!(timestamp, "the timestamp metadata went back from version 7 to 6");
        let root = rolled_back(record(1, 9), &record(2, 7)).unwrap();
        assert_eq!(root, "the root metadata went back from version 2 to 1");
        let targets = HighWater {
            targets: 3,
            ..record(1, 7)
        };
        assert!(rolled_back(targets, &record(1, 7)).unwrap().contains("targets"));
    }

    #[test]
    fn new_online_keys_start_new_counters_but_a_hidden_root_does_not() {
        let rotated = HighWater {
            online_keys: vec!["timestamp:bb".into()],
            ..record(2, 1)
        };
        assert_eq!(rolled_back(rotated.clone(), &record(1, u64::MAX)), None);
        // The mirror hides root 2 and replays what the old keys signed.
        assert!(
            rolled_back(record(1, u64::MAX), &rotated)
                .unwrap()
                .contains("root")
        );
    }

    #[test]
    fn a_record_that_cannot_be_read_is_an_error_and_not_a_first_contact() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(HighWater::read(folder.path()).unwrap(), None);
        record(1, 7).write(folder.path()).unwrap();
        assert_eq!(HighWater::read(folder.path()).unwrap(), Some(record(1, 7)));
        durable::write(&folder.path().join(FILE), b"{\"schema\":", 0o644).unwrap();
        let error = HighWater::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains(FILE), "{error}");
    }

    #[tokio::test]
    async fn a_second_process_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).await.unwrap();
        let second = lock(folder.path());
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        second.await.unwrap();
    }

    #[test]
    fn torn_metadata_is_put_aside_and_whole_metadata_stays() {
        let folder = tempfile::tempdir().unwrap();
        durable::write(&folder.path().join("timestamp.json"), b"{\"signed\":{", 0o644).unwrap();
        durable::write(&folder.path().join("snapshot.json"), b"", 0o644).unwrap();
        durable::write(&folder.path().join("targets.json"), b"{}", 0o644).unwrap();
        assert_eq!(quarantine_torn(folder.path()).unwrap().len(), 2);
        assert!(folder.path().join("timestamp.json.torn").exists());
        assert!(folder.path().join("targets.json").exists());
        assert!(quarantine_torn(folder.path()).unwrap().is_empty());
    }
}
