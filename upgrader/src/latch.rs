//! Latch files: one for each module that is installed, so that a run after a failure skips it.
//!
//! A latch belongs to a target version and an artifact. One of another upgrade is stale and says nothing; one that a
//! person made with `touch` is taken by its name, with a warning. Deleting a latch has the module installed again, also
//! in the middle of a run: latches are read again for every module.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::{
    Digest,
    durable::{self, DurableError},
    release::Version,
};
use serde::{Deserialize, Serialize};

use crate::failpoint;

/// The content of a latch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latch {
    /// The module.
    pub module: String,
    /// The module's own version.
    pub version: Option<String>,
    /// The digest of the artifact that was installed.
    pub sha256: Digest,
    /// The release that it was installed for.
    pub target: Version,
    /// The run that installed it.
    pub run: String,
    /// When.
    pub time: Timestamp,
}

/// What a latch says about a module in an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is none: install.
    Missing,
    /// It is of another target or another artifact, damaged, or no file: install.
    Stale,
    /// It was written when this module of this release was installed: skip.
    Installed,
    /// It holds no latch, somebody made it by hand: skip, with a warning.
    ByHand,
}

/// A latch folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LatchError {
    /// It cannot be read.
    #[error("reading the latch `{path}` failed")]
    Read {
        /// The latch or its folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written or removed.
    #[error(transparent)]
    Write(#[from] DurableError),
}

/// What a latch with `content` says about the module whose artifact is `sha256` in an upgrade to `target`.
pub fn judge(content: Option<&[u8]>, target: &Version, sha256: &Digest) -> Verdict {
    let Some(content) = content else {
        return Verdict::Missing;
    };
    match serde_json::from_slice::<Latch>(content) {
        Ok(latch) if latch.target == *target && latch.sha256 == *sha256 => Verdict::Installed,
        Ok(_other_upgrade) => Verdict::Stale,
        // One of ours that the disk has damaged proves nothing, and to install once more does no harm.
        Err(_damaged) if content.starts_with(b"{\"") || content.contains(&0) => Verdict::Stale,
        Err(_not_a_latch) => Verdict::ByHand,
    }
}

/// The latch folder of a node.
#[derive(Debug, Clone)]
pub struct Latches(PathBuf);

impl Latches {
    /// The latches in `folder`, which need not exist yet.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// What the latch of `module` says; see [`judge`].
    ///
    /// # Errors
    /// [`LatchError::Read`].
    pub fn verdict(&self, module: &str, target: &Version, sha256: &Digest) -> Result<Verdict, LatchError> {
        let path = self.0.join(module);
        match fs::read(&path) {
            Ok(content) => Ok(judge(Some(&content), target, sha256)),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(Verdict::Missing),
            // Preflight says so; see `foreign`.
            Err(_is_a_directory) if is_folder(&path) => Ok(Verdict::Stale),
            Err(source) => Err(LatchError::Read { path, source }),
        }
    }

    /// Writes the latch of a module that is installed.
    ///
    /// # Errors
    /// [`LatchError::Write`].
    pub fn write(&self, latch: &Latch) -> Result<(), LatchError> {
        durable::create_folder(&self.0)?;
        durable::write_json(&self.0.join(&latch.module), latch, 0o644)?;
        failpoint::hit("latch.written");
        Ok(())
    }

    /// The releases that latches of ours are of.
    ///
    /// # Errors
    /// [`LatchError::Read`].
    pub fn targets(&self) -> Result<Vec<Version>, LatchError> {
        if !self.0.is_dir() {
            return Ok(Vec::new());
        }
        let latch = |path: &PathBuf| serde_json::from_slice::<Latch>(&fs::read(path).ok()?).ok();
        let entries = self.entries()?;
        Ok(entries
            .iter()
            .filter_map(latch)
            .map(|latch| latch.target)
            .collect())
    }

    /// What is not a latch though it is where latches are: folders, or something else in the place of the folder of latches.
    /// `kato` makes none of them, and removes none.
    ///
    /// # Errors
    /// [`LatchError::Read`].
    pub fn foreign(&self) -> Result<Vec<PathBuf>, LatchError> {
        if self.0.symlink_metadata().is_ok() && !self.0.is_dir() {
            return Ok(vec![self.0.clone()]);
        }
        let mut entries = self.entries()?;
        entries.retain(|path| is_folder(path));
        entries.sort();
        Ok(entries)
    }

    /// Removes all latches; gives what is [`Self::foreign`] and stays.
    ///
    /// # Errors
    /// [`LatchError`] with the first that cannot be removed.
    pub fn clear(&self) -> Result<Vec<PathBuf>, LatchError> {
        let foreign = self.foreign()?;
        if foreign.contains(&self.0) {
            return Ok(foreign);
        }
        for path in self.entries()? {
            if !foreign.contains(&path) {
                durable::remove(&path)?;
                failpoint::hit("record.latch");
            }
        }
        Ok(foreign)
    }

    fn entries(&self) -> Result<Vec<PathBuf>, LatchError> {
        let read = |source| LatchError::Read {
            path: self.0.clone(),
            source,
        };
        match fs::read_dir(&self.0) {
            Ok(entries) => entries.map(|entry| Ok(entry.map_err(read)?.path())).collect(),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(read(source)),
        }
    }
}

/// Whether it is a folder itself, and no link to one.
fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latch(target: &str, content: &[u8]) -> Latch {
        Latch {
            module: "web".into(),
            version: None,
            sha256: Digest::of(content),
            target: target.parse().unwrap(),
            run: "r1".into(),
            time: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn r49_only_a_latch_of_this_target_and_artifact_skips_the_module() {
        let folder = tempfile::tempdir().unwrap();
        let latches = Latches::in_folder(folder.path().join("module-latches"));
        let two: Version = "2.0.0".parse().unwrap();
        let verdict = |target: &str, content: &[u8]| {
            latches
                .verdict("web", &target.parse().unwrap(), &Digest::of(content))
                .unwrap()
        };
        assert_eq!(verdict("2.0.0", b"a"), Verdict::Missing);
        latches.write(&latch("2.0.0", b"a")).unwrap();
        assert_eq!(verdict("2.0.0", b"a"), Verdict::Installed);
        assert_eq!(verdict("2.0.1", b"a"), Verdict::Stale);
        assert_eq!(verdict("2.0.0", b"b"), Verdict::Stale);
        assert_eq!(judge(Some(b""), &two, &Digest::of(b"a")), Verdict::ByHand);
        assert_eq!(judge(Some(b"{}"), &two, &Digest::of(b"a")), Verdict::ByHand);
        assert_eq!(
            judge(Some(b"done by me\n"), &two, &Digest::of(b"a")),
            Verdict::ByHand
        );
        for damaged in [&b"{\"module\":\"we"[..], b"\0\0\0\0"] {
            assert_eq!(judge(Some(damaged), &two, &Digest::of(b"a")), Verdict::Stale);
        }
    }

    #[test]
    fn r48_a_latch_names_module_version_artifact_target_run_and_time() {
        let value = serde_json::to_value(latch("2.0.0", b"a")).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["module", "run", "sha256", "target", "time", "version"]);
    }

    #[test]
    fn r58_clearing_removes_every_latch_also_those_made_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let latches = Latches::in_folder(folder.path().to_owned());
        latches.write(&latch("2.0.0", b"a")).unwrap();
        durable::write(&folder.path().join("by-hand"), b"", 0o644).unwrap();
        assert_eq!(latches.clear().unwrap(), [] as [PathBuf; 0]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn r58_a_folder_among_the_latches_is_named_and_keeps_no_latch_from_being_removed() {
        let folder = tempfile::tempdir().unwrap();
        let latches = Latches::in_folder(folder.path().join("module-latches"));
        latches.write(&latch("2.0.0", b"a")).unwrap();
        let stranger = folder.path().join("module-latches/notes");
        fs::create_dir_all(stranger.join("of a person")).unwrap();
        assert_eq!(latches.foreign().unwrap(), std::slice::from_ref(&stranger));
        assert_eq!(latches.clear().unwrap(), std::slice::from_ref(&stranger));
        let left: Vec<_> = fs::read_dir(folder.path().join("module-latches"))
            .unwrap()
            .flatten()
            .collect();
        assert!(left.len() == 1 && left[0].path() == stranger);

        let file = folder.path().join("file");
        durable::write(&file, b"", 0o644).unwrap();
        assert_eq!(Latches::in_folder(file.clone()).clear().unwrap(), [file]);
    }
}
