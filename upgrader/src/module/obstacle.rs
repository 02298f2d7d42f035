//! What would stop the installation of a module half way, looked for before anything is changed.
//!
//! Flow: everything of a module that is on the node and in its archive → [`obstacles`] → refused by preflight. For overlays the
//! decisions are those of the installation itself, made with the archive's list instead of the unpacked folder.
//!
//! Deliberately absent: what nobody can know before, such as a disk that fails, or a command of a module.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use kato_shared::release::{FileEntry, Install};

use super::{
    Job, ModuleError,
    mounts::Mounts,
    overlay,
    sealed::{self, Seal},
    tree, unpack, versioned,
};
use crate::space;

/// Something that is in the way of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A local change, or a file of another type, that the module's rule does not let pass.
    Conflict {
        /// The file.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A folder or file that is exchanged by renaming is a mount point, or has one below it.
    Mount {
        /// What is exchanged.
        place: PathBuf,
        /// What is mounted there.
        mount: PathBuf,
    },
    /// A file or folder that nobody may change.
    Sealed {
        /// The file or folder.
        place: PathBuf,
        /// What keeps it.
        seal: Seal,
    },
    /// The file system can only be read.
    ReadOnly {
        /// What would be written.
        place: PathBuf,
    },
}

/// What is in the way of the module; nothing is changed.
///
/// # Errors
/// [`ModuleError`] when something cannot be read, or the destination leads out of the root.
pub fn obstacles(job: &Job<'_>, mounts: &Mounts) -> Result<Vec<Obstacle>, ModuleError> {
    let mut found = Vec::new();
    match &job.module.install {
        Install::Versioned { .. } => {
            let (dest, folder, link) = versioned::whereabouts(job)?;
            no_folder(&dest, &mut found);
            // Older versions are removed, once the upgrade is recorded.
            removed(&dest, &mut found)?;
            removed(&link, &mut found)?;
            for place in [&folder, &link] {
                exchanged(place, mounts, &mut found);
                writable(place.parent().unwrap_or(place), &mut found)?;
            }
        }
        Install::Replace { .. } => {
            let dest = job.dest()?;
            exchanged(&dest, mounts, &mut found);
            removed(&dest, &mut found)?;
            writable(dest.parent().unwrap_or(&dest), &mut found)?;
        }
        Install::Overlay { conflict, .. } => {
            let dest = job.dest()?;
            no_folder(&dest, &mut found);
            if found.is_empty() {
                let new = entries(job)?;
                overlay::way::obstacles(job, &dest, (&new, *conflict), mounts, &mut found)?;
            }
            // Unpacked beside it, put in place in it.
            for place in [dest.parent().unwrap_or(&dest), &dest] {
                writable(place, &mut found)?;
            }
        }
        Install::Package { .. } | Install::Image { .. } | Install::Exec { .. } => {}
    }
    Ok(found)
}

/// What the archive holds; as far as the release lists it, where only a look at the plan is taken and nothing was downloaded.
fn entries(job: &Job<'_>) -> Result<Vec<tree::Entry>, ModuleError> {
    let archive = job.archive();
    if archive.path.exists() {
        return Ok(unpack::list(&archive)?);
    }
    let file = |file: &FileEntry| tree::Entry {
        path: file.path.clone(),
        kind: tree::Kind::File {
            sha256: file.sha256,
            mode: file.mode,
        },
    };
    let folder = |path: &Path| tree::Entry {
        path: path.to_owned(),
        kind: tree::Kind::FOLDER,
    };
    let files = &job.module.files;
    let above = files.iter().flat_map(|file| file.path.ancestors().skip(1));
    let folders: BTreeSet<&Path> = above.filter(|path| !path.as_os_str().is_empty()).collect();
    let folders = folders.into_iter().map(folder);
    Ok(folders.chain(files.iter().map(file)).collect())
}

/// Something else stands where a folder has to be.
fn no_folder(dest: &Path, found: &mut Vec<Obstacle>) {
    let above = dest
        .ancestors()
        .find(|above| above.symlink_metadata().is_ok())
        .filter(|above| !above.is_dir());
    found.extend(above.map(|above| Obstacle::Conflict {
        path: above.to_owned(),
        why: "no folder here, one in the release",
    }));
}

/// What is exchanged goes away as a whole, once the upgrade is recorded.
fn exchanged(place: &Path, mounts: &Mounts, found: &mut Vec<Obstacle>) {
    found.extend(mounts.at_or_below(place).map(|mount| Obstacle::Mount {
        place: place.to_owned(),
        mount,
    }));
}

/// What goes away as a whole has nothing in it that nobody may remove.
fn removed(place: &Path, found: &mut Vec<Obstacle>) -> Result<(), ModuleError> {
    let sealed = sealed::below(place).map_err(ModuleError::io("reading", place))?;
    found.extend(
        sealed
            .into_iter()
            .map(|(place, seal)| Obstacle::Sealed { place, seal }),
    );
    Ok(())
}

/// Names are made and exchanged in the folder `place`, or in the first one above it that is there.
fn writable(place: &Path, found: &mut Vec<Obstacle>) -> Result<(), ModuleError> {
    let mount = space::mount_of(place).map_err(ModuleError::io("looking at the file system of", place))?;
    if mount.is_read_only {
        found.push(Obstacle::ReadOnly {
            place: place.to_owned(),
        });
    }
    let above = place.ancestors().find(|above| above.exists());
    if let Some(folder) = above.and_then(|above| above.canonicalize().ok()) {
        let seal = sealed::of(&folder).map_err(ModuleError::io("reading", &folder))?;
        found.extend(seal.map(|seal| Obstacle::Sealed { place: folder, seal }));
    }
    Ok(())
}
