//! Compares the node with the record of the installed release: a [`Change`] for each difference.
//!
//! Files that the record knows are read and compared by digest; what only the node has is listed without being read. Links are
//! not followed. What belongs to another module below a module's folder is that module's.
//!
//! Deliberately absent: folders that are only here, unless they are empty; their content says enough.

mod folder;
mod link;
mod subject;

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use kato_shared::release::{Install, Version};

pub(super) use self::subject::{Subject, conflict};
use super::{
    change::{Change, Class, Fate, What},
    error::CustomizationError,
    safe::SafePaths,
};
use crate::{
    installed::Installed,
    module,
    patch::{places, record::Patches},
    paths::NodePaths,
};

/// How many files of one safe path are listed: nothing is going to happen to them.
const SAFE_LISTED: usize = 1000;

/// The local changes of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The installed release.
    pub version: Version,
    /// The changes, by path.
    pub changes: Vec<Change>,
    /// What could not be compared, for people.
    pub notes: Vec<String>,
}

/// What local changes are compared with: the installed release with its patches.
///
/// # Errors
/// [`CustomizationError::Document`] when the record of the patches is damaged.
pub fn patched(paths: &NodePaths, installed: &Installed) -> Result<Installed, CustomizationError> {
    Ok(places::patched(installed, &Patches::load(paths)?))
}

/// Compares the node with its installed release.
///
/// # Errors
/// [`CustomizationError`] when a folder or file cannot be read.
pub fn scan(paths: &NodePaths, installed: &Installed) -> Result<Scan, CustomizationError> {
    let mut scanner = Scanner::new(paths, &installed.safe_paths, installed.owner);
    let mut notes = Vec::new();
    scanner.knows(paths, installed)?;
    for (name, module) in &installed.modules {
        if module.install.is_none() && module.dest.is_some() {
            notes.push(format!(
                "{name}: how it was installed is not recorded, so it is not compared; the next upgrade records it"
            ));
        }
        if let Some(subject) = Subject::installed(paths, installed, name, module)? {
            scanner.compare(&subject)?;
        }
        if let Some(install) = &module.install {
            scanner.in_place_of_link(paths, name, install)?;
        }
    }
    scanner.safe(paths, &mut notes)?;
    scanner.changes.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Scan {
        version: installed.version.clone(),
        changes: scanner.changes,
        notes,
    })
}

/// What is compared with what.
pub(super) struct Scanner {
    safe: SafePaths,
    /// Who owns what a release installed.
    owner: Option<(u32, u32)>,
    /// Everything on this machine that some module installed.
    known: BTreeSet<PathBuf>,
    /// Folders that belong to one module as a whole.
    own: BTreeSet<PathBuf>,
    state_dir: PathBuf,
    root: PathBuf,
    pub(super) changes: Vec<Change>,
}

impl Scanner {
    pub(super) fn new(paths: &NodePaths, safe: &[String], owner: Option<(u32, u32)>) -> Self {
        Self {
            safe: SafePaths::new(safe),
            owner,
            known: BTreeSet::new(),
            own: BTreeSet::new(),
            state_dir: paths.state_dir().to_owned(),
            root: paths.root().to_owned(),
            changes: Vec::new(),
        }
    }

    /// Notes what the installed modules have.
    pub(super) fn knows(
        &mut self,
        paths: &NodePaths,
        installed: &Installed,
    ) -> Result<(), CustomizationError> {
        for (name, module) in &installed.modules {
            let Some(subject) = Subject::installed(paths, installed, name, module)? else {
                continue;
            };
            let files = module
                .entries
                .iter()
                .map(|entry| subject.folder.join(&entry.path));
            self.known.extend(files);
            if let Some(dest) = module.dest.as_ref().filter(|_| subject.class != Class::Overlay) {
                self.own.insert(module::follow(paths, dest)?);
            }
            if let Some(link) = module.install.as_ref().and_then(Install::link) {
                let link = paths.on_node(&link);
                self.own.insert(link.clone());
                self.known.insert(link);
            }
        }
        Ok(())
    }

    /// The safe paths outside the modules' folders.
    fn safe(&mut self, paths: &NodePaths, notes: &mut Vec<String>) -> Result<(), CustomizationError> {
        let listed: BTreeSet<PathBuf> = self.changes.iter().map(|change| change.path.clone()).collect();
        for top in self.safe.present(paths) {
            let mut left = vec![top.clone()];
            let mut count = 0;
            while let Some(path) = left.pop() {
                let here = paths.on_node(&path);
                let Ok(metadata) = fs::symlink_metadata(&here) else {
                    continue;
                };
                if metadata.is_dir() {
                    left.extend(names(&here)?.into_iter().map(|name| path.join(name)));
                    continue;
                }
                if self.known.contains(&here) || listed.contains(&path) {
                    continue;
                }
                count += 1;
                if count > SAFE_LISTED {
                    notes.push(format!(
                        "{}: only the first {SAFE_LISTED} files are listed; no upgrade touches any of them",
                        top.display()
                    ));
                    break;
                }
                self.changes.push(Change {
                    path,
                    module: None,
                    class: Class::Safe,
                    what: vec![What::Added],
                    at_worst: Fate::Kept,
                    pristine: None,
                    local: None,
                    owner: Some((metadata.uid(), metadata.gid())),
                    bytes: if metadata.is_file() { metadata.size() } else { 0 },
                });
            }
        }
        Ok(())
    }
}

/// The names in a folder, sorted; none when it is not there.
fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>, CustomizationError> {
    let gone = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    let listed = fs::read_dir(folder).and_then(|listing| {
        listing
            .map(|item| item.map(|item| item.file_name()))
            .collect::<Result<Vec<_>, _>>()
    });
    match listed {
        Ok(mut names) => {
            names.sort_unstable();
            Ok(names)
        }
        Err(error) if gone.contains(&error.kind()) => Ok(Vec::new()),
        Err(error) => Err(CustomizationError::io("reading", folder)(error)),
    }
}
