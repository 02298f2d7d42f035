//! Space for the steps to come, held by files that a step gives back when it begins to write.
//!
//! Flow: [`claims`] (pure) → [`take`]: the note of all files, then the files → [`give`] at the beginning of a step → nothing is
//! left when the last step has begun. [`give_all`] at the end of every run and at the beginning of the next, so that a killed
//! run's files hold nothing for longer than that.
//!
//! A file system that cannot hold space (`fallocate`) is only looked at; that is said once.
//!
//! Invariants: no file is made that is not in the note; the files are in the state folder where its file system is the one
//! that is needed, else at the mount point, and never inside what is backed up or scanned.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kato_shared::durable::{self, DurableError};
use serde::{Deserialize, Serialize};

use super::{Need, hold, mount_of};
use crate::{
    paths::NodePaths,
    plan::node::{IMAGES, KATO, RECORDS},
};

/// The version of the note's format.
const SCHEMA: u32 = 1;

/// Space that is held for a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The step that needs it.
    pub step: String,
    /// Where it writes, as a path of the machine.
    pub path: PathBuf,
    /// How many bytes.
    pub bytes: u64,
    /// How many files and folders; each takes a block at most beside its bytes.
    pub inodes: u64,
}

/// The note of what is held.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    schema: u32,
    held: Vec<Held>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Held {
    step: String,
    file: PathBuf,
    bytes: u64,
}

/// Space that cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// Somebody else took it since it was looked at.
    #[error("`{mount}` has no {bytes} bytes more for {step}: somebody took them since it was looked at")]
    Full {
        /// The mount point.
        mount: PathBuf,
        /// What was to be held.
        bytes: u64,
        /// For what.
        step: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be made or removed.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A mount cannot be looked at.
    #[error("asking for the file system of `{path}` failed")]
    Mount {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The step that gives back what releases after the next one need: the beginning of the next release.
const LATER: &str = "later";

/// What is held for which step. Downloads hold their own space; images are loaded at once.
///
/// `modules` are the names of the modules that are installed, in the order of their needs.
pub fn claims(needs: &[Need], later: &[Need], modules: &[&str]) -> Vec<Claim> {
    let claim = |step: String, need: &Need| Claim {
        step,
        path: need.path.clone(),
        bytes: need.bytes,
        inodes: need.inodes,
    };
    // Its own records are written all the time: what is left beside what is held is for them.
    let is_ours = |need: &&Need| need.on(1) > 0 && !matches!(need.purpose, "downloads" | IMAGES | RECORDS);
    let mut names = modules.iter();
    let mut first = modules.first();
    let mut claims = Vec::new();
    for need in needs {
        let step = match need.purpose {
            "backup" => "backup".to_owned(),
            KATO => "self-update".to_owned(),
            "unpacked modules" => {
                first = names.next();
                first.map_or_else(|| LATER.to_owned(), |name| format!("module:{name}"))
            }
            _ => first.map_or_else(|| LATER.to_owned(), |name| format!("module:{name}")),
        };
        if is_ours(&need) {
            claims.push(claim(step, need));
        }
    }
    claims.extend(
        later
            .iter()
            .filter(is_ours)
            .map(|need| claim(LATER.to_owned(), need)),
    );
    claims
}

/// Holds what `claims` say; gives the mount points whose file systems cannot.
///
/// # Errors
/// [`ReserveError`]; then nothing is held.
pub fn take(paths: &NodePaths, claims: &[Claim]) -> Result<Vec<PathBuf>, ReserveError> {
    let mut by_mount: BTreeMap<(u64, String), (PathBuf, PathBuf, u64)> = BTreeMap::new();
    for claim in claims {
        let mount = look(&claim.path)?;
        let folder = place(paths, &claim.path, &mount.point, mount.device)?;
        let (_, _, bytes) =
            by_mount
                .entry((mount.device, claim.step.clone()))
                .or_insert((folder, mount.point.clone(), 0));
        let taken = claim.inodes.saturating_mul(mount.block);
        *bytes = bytes.saturating_add(claim.bytes).saturating_add(taken);
    }
    let mut held = Vec::with_capacity(by_mount.len());
    let mut points = Vec::with_capacity(by_mount.len());
    for (at, ((_, step), (folder, point, bytes))) in by_mount.into_iter().enumerate() {
        // A name that whoever cleans up after a killed program knows as a temporary file.
        let file = folder.join(format!(".kato-r{at:05}"));
        held.push(Held { step, file, bytes });
        points.push(point);
    }
    durable::write_json(
        &note(paths),
        &Note {
            schema: SCHEMA,
            held: held.clone(),
        },
        0o644,
    )?;
    let mut cannot: Vec<PathBuf> = Vec::new();
    for (held, point) in held.into_iter().zip(points) {
        match make(&held) {
            Ok(true) => {}
            Ok(false) if cannot.contains(&point) => {}
            Ok(false) => cannot.push(point),
            Err(error) => {
                give_all(paths)?;
                return Err(if durable::is_disk_full(&error.source) {
                    ReserveError::Full {
                        mount: point,
                        bytes: held.bytes,
                        step: held.step,
                        source: error.source,
                    }
                } else {
                    error.into()
                });
            }
        }
    }
    Ok(cannot)
}

/// Gives back what is held for `step`, which begins to write now.
///
/// # Errors
/// [`DurableError`] when a file cannot be removed.
pub fn give(paths: &NodePaths, step: &str) -> Result<(), DurableError> {
    for held in read(paths).into_iter().filter(|held| held.step == step) {
        durable::remove(&held.file)?;
    }
    Ok(())
}

/// Gives everything back.
///
/// # Errors
/// [`DurableError`] when a file cannot be removed.
pub fn give_all(paths: &NodePaths) -> Result<(), DurableError> {
    for held in read(paths) {
        durable::remove(&held.file)?;
    }
    durable::remove(&note(paths))
}

/// Makes the file; whether its file system can hold space.
fn make(held: &Held) -> Result<bool, DurableError> {
    // A killed run's, which the note of this one took over.
    durable::remove(&held.file)?;
    let file = durable::create_new(&held.file)?;
    hold(&file, held.bytes).map_err(|source| DurableError {
        action: "holding space in",
        path: held.file.clone(),
        source,
    })
}

/// The folder for a file that holds space where `path` is.
fn place(paths: &NodePaths, path: &Path, point: &Path, device: u64) -> Result<PathBuf, ReserveError> {
    let state = paths.state_dir().join("state");
    if look(&state)?.device == device {
        return Ok(state);
    }
    // A mount point outside the node's root is not ours to write to.
    Ok(
        if point.starts_with(paths.root()) || !path.starts_with(paths.root()) {
            point.to_owned()
        } else {
            paths.root().to_owned()
        },
    )
}

fn look(path: &Path) -> Result<super::Mount, ReserveError> {
    mount_of(path).map_err(|source| ReserveError::Mount {
        path: path.to_owned(),
        source,
    })
}

fn note(paths: &NodePaths) -> PathBuf {
    paths.state_dir().join("state/held.json")
}

/// What the note says. One that cannot be read holds nothing that its files do not tell by their names.
fn read(paths: &NodePaths) -> Vec<Held> {
    let note = fs::read(note(paths)).ok();
    note.and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok())
        .map(|note| note.held)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(purpose: &'static str, bytes: u64) -> Need {
        Need {
            path: "/x".into(),
            bytes,
            inodes: 0,
            purpose,
        }
    }

    #[test]
    fn c13_every_need_is_held_until_the_step_that_writes() {
        let needs = [
            need("downloads", 1),
            need("backup", 2),
            need("images", 3),
            need("unpacked modules", 4),
            need("unpacked modules", 5),
            need(RECORDS, 9),
            need("what modules write", 6),
        ];
        let claims = claims(&needs, &[need("backup", 7), need("downloads", 8)], &["a", "b"]);
        let shown: Vec<_> = claims
            .iter()
            .map(|claim| (claim.step.as_str(), claim.bytes))
            .collect();
        assert_eq!(
            shown,
            [
                ("backup", 2),
                ("module:a", 4),
                ("module:b", 5),
                ("module:b", 6),
                ("later", 7)
            ]
        );
    }

    fn node(folder: &Path) -> NodePaths {
        let paths = NodePaths::new(folder, Path::new("/var/kato"));
        durable::create_folder(&paths.state_dir().join("state")).unwrap();
        paths
    }

    fn claim(step: &str, path: &Path, bytes: u64) -> Claim {
        Claim {
            step: step.into(),
            path: path.to_owned(),
            bytes,
            inodes: 0,
        }
    }

    fn files(paths: &NodePaths) -> usize {
        fs::read_dir(paths.state_dir().join("state")).unwrap().count()
    }

    #[test]
    fn c13_what_is_held_is_taken_from_the_disk_and_given_back_step_by_step() {
        let folder = tempfile::tempdir().unwrap();
        let paths = node(folder.path());
        let mebibyte = 1024 * 1024;
        let wanted = [
            claim("backup", folder.path(), 2 * mebibyte),
            claim("module:a", &folder.path().join("s/new"), mebibyte),
            claim("module:a", folder.path(), mebibyte),
        ];
        let cannot = take(&paths, &wanted).unwrap();
        assert_eq!(files(&paths), 3);
        if cannot.is_empty() {
            let held: u64 = read(&paths)
                .iter()
                .map(|held| super::super::taken_by(&held.file))
                .sum();
            assert!(held >= 4 * mebibyte, "{held}");
        }
        // A second run takes over what a killed one left.
        take(&paths, &wanted).unwrap();
        assert_eq!(files(&paths), 3);
        give(&paths, "backup").unwrap();
        assert_eq!(files(&paths), 2);
        give(&paths, "module:a").unwrap();
        give(&paths, "module:b").unwrap();
        assert_eq!(files(&paths), 1);
        give_all(&paths).unwrap();
        assert_eq!(files(&paths), 0);
    }

    #[test]
    fn c13_more_than_there_is_cannot_be_held_and_then_nothing_is() {
        let folder = tempfile::tempdir().unwrap();
        let paths = node(folder.path());
        let wanted = [
            claim("backup", folder.path(), 4096),
            claim("module:a", folder.path(), 1 << 43),
        ];
        match take(&paths, &wanted) {
            Err(ReserveError::Full { step, .. }) => assert_eq!(step, "module:a"),
            // A file system with smaller files than that says so before it says that it is full.
            Err(ReserveError::Durable(_)) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(files(&paths), 0);
    }
}
