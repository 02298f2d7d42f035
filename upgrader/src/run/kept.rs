//! What was downloaded for the release that was rolled back last. It stays, so that a node that nothing can be downloaded to any more can
//! be made to try again (`--offline --force`) when the cause is gone.
//!
//! It goes when an upgrade succeeds, when another release is rolled back, and when another one has no room beside it. The quarantine
//! names the documents; they lie in the staging folder by their digests, and what cannot be read there as it was signed is not kept.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use kato_shared::{
    Digest, durable,
    release::{Release, Version},
};

use crate::{
    attempt::{Attempt, Target},
    document::DocumentError,
    exit::Failure,
    paths::NodePaths,
    quarantine::Quarantine,
    space,
};

/// The release that was rolled back last and those that were to come after it, as far as their documents are here.
///
/// # Errors
/// [`DocumentError`] when the quarantine cannot be read.
pub(crate) fn targets(paths: &NodePaths) -> Result<Vec<Target>, DocumentError> {
    let quarantine = Quarantine::load(paths)?;
    let digests = quarantine
        .releases
        .last()
        .into_iter()
        .flat_map(|last| std::iter::once(last.release_digest).chain(last.then.iter().copied()));
    Ok(digests.map_while(|digest| read(paths, digest)).collect())
}

/// The way that can be tried again from `installed` without the network: to `wanted`, or as far as it led.
///
/// # Errors
/// [`DocumentError`] when the quarantine cannot be read.
pub(super) fn way(
    paths: &NodePaths,
    installed: Option<&Version>,
    wanted: Option<&Version>,
) -> Result<Option<Vec<Target>>, DocumentError> {
    let quarantine = Quarantine::load(paths)?;
    let last = quarantine.releases.last();
    if last.is_none_or(|last| last.from.as_ref() != installed) {
        return Ok(None);
    }
    let mut targets = targets(paths)?;
    if let Some(wanted) = wanted {
        let end = targets
            .iter()
            .position(|target| target.release.version == *wanted);
        targets.truncate(end.map_or(0, |at| at + 1));
    }
    Ok(Some(targets).filter(|targets| !targets.is_empty()))
}

fn read(paths: &NodePaths, digest: Digest) -> Option<Target> {
    let path = paths.staging().join(digest.hex());
    let bytes = fs::read(&path).ok()?;
    let release = (Digest::of(&bytes) == digest)
        .then(|| Release::from_json(&path.display().to_string(), &bytes).ok())
        .flatten()?;
    Some(Target { release, digest })
}

/// The names of everything that these releases may have in the staging folder.
pub(super) fn files<'a>(targets: impl IntoIterator<Item = (&'a Release, Digest)>) -> BTreeSet<Digest> {
    targets
        .into_iter()
        .flat_map(|(release, document)| {
            let archives = release.artifacts.values().map(|artifact| artifact.sha256);
            let programs = release.upgrader.values().map(|program| program.sha256);
            archives.chain(programs).chain([document])
        })
        .collect()
}

/// The same of an upgrade, with those that come after it and the one that was put aside for a patch.
pub(super) fn files_of(attempt: &Attempt) -> BTreeSet<Digest> {
    let put_aside = attempt.put_aside.as_deref();
    files(std::iter::once(attempt).chain(put_aside).flat_map(|one| {
        let then = one.then.iter().map(|target| (&target.release, target.digest));
        std::iter::once((&one.release, one.release_digest)).chain(then)
    }))
}

/// What is kept and could be given up.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// Their digests.
    pub(super) digests: BTreeSet<Digest>,
    /// The files.
    files: Vec<PathBuf>,
    /// What they take on the file system of the staging folder, in bytes.
    pub(super) bytes: u64,
}

/// What is kept and is of no use for `attempts`, the upgrades in progress. What has a second name elsewhere takes no room of its own.
///
/// # Errors
/// [`DocumentError`] when the quarantine cannot be read.
pub(super) fn spare<'a>(
    paths: &NodePaths,
    attempts: impl IntoIterator<Item = &'a Attempt>,
) -> Result<Spare, DocumentError> {
    let targets = targets(paths)?;
    let mut digests = files(targets.iter().map(|target| (&target.release, target.digest)));
    let needed: BTreeSet<Digest> = attempts.into_iter().flat_map(files_of).collect();
    let mut found = Spare::default();
    digests.retain(|digest| {
        let path = paths.staging().join(digest.hex());
        let is_spare = !needed.contains(digest)
            && fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_file() && facts.nlink() == 1);
        if is_spare {
            found.bytes = found.bytes.saturating_add(space::taken_by(&path));
            found.files.push(path);
        }
        is_spare
    });
    found.digests = digests;
    Ok(found)
}

impl Spare {
    /// Removes it.
    ///
    /// # Errors
    /// [`Failure`] with the first file that cannot be removed.
    pub(super) fn give_up(self) -> Result<(), Failure> {
        for file in self.files {
            durable::remove(&file)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kato_shared::release::Version;

    use super::*;
    use crate::{quarantine::Quarantined, run::event::ErrorReport};

    const ARCHIVE: &[u8] = b"an archive";

    fn node(folder: &std::path::Path) -> NodePaths {
        let paths = NodePaths::new(folder, "/state".as_ref());
        for made in [paths.staging(), paths.quarantine().parent().unwrap().to_owned()] {
            durable::create_folder(&made).unwrap();
        }
        paths
    }

    /// A document in the staging folder, with an archive if it is to have one.
    fn stage(paths: &NodePaths, version: &str, archive: Option<&[u8]>) -> Digest {
        let artifacts = archive.map_or_else(
            || serde_json::json!({}),
            |bytes| {
                let digest = Digest::of(bytes);
                durable::write(&paths.staging().join(digest.hex()), bytes, 0o644).unwrap();
                serde_json::json!({"app": {"target": "app", "size": bytes.len(), "sha256": digest.hex()}})
            },
        );
        let document = serde_json::json!({
            "schema": 1, "product": "demo", "version": version, "published": "2026-01-01T00:00:00Z", "artifacts": artifacts,
            "modules": []
        });
        let bytes = serde_json::to_vec(&document).unwrap();
        let digest = Digest::of(&bytes);
        durable::write(&paths.staging().join(digest.hex()), &bytes, 0o644).unwrap();
        digest
    }

    fn rolled_back(paths: &NodePaths, version: &str, digest: Digest, then: Vec<Digest>) {
        let entry = Quarantined {
            version: version.parse().unwrap(),
            release_digest: digest,
            attempt: version.to_owned(),
            from: Some(Version::new(1, 0, 0)),
            then,
            since: jiff::Timestamp::UNIX_EPOCH,
            error: ErrorReport {
                step: "verify".into(),
                message: "no".into(),
                hint: None,
            },
        };
        Quarantine::load(paths).unwrap().add(paths, entry).unwrap();
    }

    fn versions(targets: Option<Vec<Target>>) -> Vec<String> {
        let targets = targets.into_iter().flatten();
        targets.map(|target| target.release.version.to_string()).collect()
    }

    #[test]
    fn the_way_that_was_rolled_back_last_can_be_tried_again_from_where_it_began() {
        let folder = tempfile::tempdir().unwrap();
        let paths = node(folder.path());
        let (one, two) = (Version::new(1, 0, 0), Version::new(2, 0, 0));
        let of =
            |from: &Version, wanted: Option<&Version>| versions(way(&paths, Some(from), wanted).unwrap());
        assert!(of(&one, None).is_empty());
        let second = stage(&paths, "2.0.0", Some(ARCHIVE));
        let third = stage(&paths, "3.0.0", None);
        let gone = Digest::of(b"not here");
        rolled_back(&paths, "2.0.0", second, vec![third, gone, third]);
        assert_eq!(of(&one, None), ["2.0.0", "3.0.0"]);
        assert_eq!(of(&one, Some(&two)), ["2.0.0"]);
        assert!(of(&one, Some(&Version::new(4, 0, 0))).is_empty());
        assert!(of(&two, None).is_empty(), "it led from another release");
        // A document that was altered is none.
        durable::write(&paths.staging().join(third.hex()), b"{}", 0o644).unwrap();
        assert_eq!(of(&one, None), ["2.0.0"]);
        let other = stage(&paths, "2.1.0", None);
        rolled_back(&paths, "2.1.0", other, Vec::new());
        assert_eq!(of(&one, None), ["2.1.0"], "the last one alone");
    }

    #[test]
    fn what_the_upgrade_in_progress_needs_or_what_has_a_second_name_is_not_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let paths = node(folder.path());
        let second = stage(&paths, "2.0.0", Some(ARCHIVE));
        rolled_back(&paths, "2.0.0", second, Vec::new());
        let archive = paths.staging().join(Digest::of(ARCHIVE).hex());
        let both: BTreeSet<_> = [second, Digest::of(ARCHIVE)].into();
        let found = spare(&paths, None).unwrap();
        assert_eq!((found.digests, found.files.len()), (both, 2));
        assert!(found.bytes >= 2 * 512);

        let target = read(&paths, second).unwrap();
        let again = Attempt::new(None, target.release, second, jiff::Timestamp::UNIX_EPOCH);
        assert!(spare(&paths, Some(&again)).unwrap().digests.is_empty());

        fs::hard_link(&archive, folder.path().join("pristine")).unwrap();
        let found = spare(&paths, None).unwrap();
        assert_eq!(found.digests, [second].into());
        found.give_up().unwrap();
        assert!(archive.exists() && !paths.staging().join(second.hex()).exists());
        // Without its document nobody knows what was kept.
        assert!(spare(&paths, None).unwrap().digests.is_empty());
    }
}
