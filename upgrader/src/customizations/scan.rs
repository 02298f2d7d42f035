//! Compares the node with the record of the installed release: a [`Change`] for each difference.
//!
//! Files that the record knows are read and compared by digest; what only the node has is listed without being read. Links are
//! not followed. What belongs to another module below a module's folder is that module's.
//!
//! Deliberately absent: folders that are only here, unless they are empty; their content says enough.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use kato_shared::{
    durable,
    release::{Install, OnConflict, Version},
};

use super::{
    change::{Change, Class, Fate, What},
    error::CustomizationError,
    safe::SafePaths,
};
use crate::{
    installed::{Installed, InstalledModule},
    module::{
        self,
        overlay::rule,
        tree::{self, Entry, Kind},
    },
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

/// A module's folder and what should be there.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) name: &'a str,
    pub(super) class: Class,
    /// Where the folder is, as a path of the release.
    pub(super) dest: PathBuf,
    /// Where it is on this node; a link that an operator put there is followed.
    pub(super) folder: PathBuf,
    /// What was installed; `None` when the folder was never installed by a release that is known.
    pub(super) base: Option<&'a [Entry]>,
    conflict: OnConflict,
    conffiles: BTreeMap<String, OnConflict>,
}

impl<'a> Subject<'a> {
    /// The folder of an installed module; `None` where there is none to compare.
    pub(super) fn installed(
        paths: &NodePaths,
        installed: &Installed,
        name: &'a str,
        module: &'a InstalledModule,
    ) -> Result<Option<Self>, CustomizationError> {
        let Some((install, class)) = module
            .install
            .as_ref()
            .and_then(|install| Some((install, Class::of(install)?)))
        else {
            return Ok(None);
        };
        let Some(dest) = &module.dest else {
            return Ok(None);
        };
        let (mut dest, mut folder) = (dest.clone(), module::follow(paths, dest)?);
        if class == Class::Versioned {
            let version = module
                .version
                .clone()
                .unwrap_or_else(|| installed.version.to_string());
            let below = format!("{version}-{}", &module.sha256.hex()[..12]);
            dest.push(&below);
            folder.push(&below);
        }
        Ok(Some(Self {
            name,
            class,
            dest,
            folder,
            base: Some(&module.entries),
            conflict: conflict(install),
            conffiles: BTreeMap::new(),
        }))
    }

    /// The folder that a module of a release to come installs to, as it is now.
    pub(super) fn to_come(
        paths: &NodePaths,
        module: &'a kato_shared::release::Module,
        class: Class,
        base: Option<&'a InstalledModule>,
    ) -> Result<Option<Self>, CustomizationError> {
        let Some(dest) = module.install.dest().map(Path::to_owned) else {
            return Ok(None);
        };
        Ok(Some(Self {
            name: &module.name,
            class,
            folder: module::follow(paths, &dest)?,
            base: base
                .filter(|base| base.dest.as_ref() == Some(&dest))
                .map(|base| &*base.entries),
            dest,
            conflict: conflict(&module.install),
            conffiles: module.conffiles.clone(),
        }))
    }

    /// What the next upgrade makes of a change at worst.
    fn at_worst(&self, path: &Path, what: &[What]) -> Fate {
        let is_deleted = what.contains(&What::Deleted);
        match self.class {
            Class::Safe => Fate::Kept,
            _ if is_deleted => Fate::Back,
            Class::Replace => Fate::Lost,
            Class::Versioned => Fate::LeftBehind,
            Class::Overlay if what.contains(&What::Type) => Fate::Refused,
            // Bits and owners of files that are there stay.
            Class::Overlay if what.iter().all(|what| matches!(what, What::Mode | What::Owner)) => Fate::Kept,
            Class::Overlay => Fate::by(rule(self.conflict, &self.conffiles, path)),
        }
    }
}

pub(super) const fn conflict(install: &Install) -> OnConflict {
    if let Install::Overlay { conflict, .. } = install {
        *conflict
    } else {
        OnConflict::VendorSave
    }
}

/// Compares the node with its installed release.
///
/// # Errors
/// [`CustomizationError`] when a folder or file cannot be read.
pub fn scan(paths: &NodePaths, installed: &Installed) -> Result<Scan, CustomizationError> {
    let mut scanner = Scanner::new(paths, &installed.safe_paths, installed.owner);
    let mut notes = Vec::new();
    for module in installed.modules.values() {
        scanner.knows(paths, module)?;
    }
    for (name, module) in &installed.modules {
        if module.install.is_none() && module.dest.is_some() {
            notes.push(format!(
                "{name}: how it was installed is not recorded, so it is not compared; the next upgrade records it"
            ));
        }
        if let Some(subject) = Subject::installed(paths, installed, name, module)? {
            scanner.compare(&subject)?;
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

    /// Notes what an installed module has.
    pub(super) fn knows(
        &mut self,
        paths: &NodePaths,
        module: &InstalledModule,
    ) -> Result<(), CustomizationError> {
        let (Some(install), Some(dest)) = (&module.install, &module.dest) else {
            return Ok(());
        };
        let folder = module::follow(paths, dest)?;
        if let Install::Versioned { link, .. } = install {
            let link = link
                .as_ref()
                .map_or_else(|| folder.join("current"), |link| paths.on_node(link));
            self.known.insert(link);
        }
        if !matches!(install, Install::Overlay { .. }) {
            self.own.insert(folder.clone());
        }
        let installed = module.entries.iter().map(|entry| folder.join(&entry.path));
        self.known.extend(installed);
        Ok(())
    }

    /// Adds the changes of one module's folder.
    pub(super) fn compare(&mut self, subject: &Subject<'_>) -> Result<(), CustomizationError> {
        // What is below something of another type is not there, whatever a link leads to.
        let mut hidden: BTreeSet<&Path> = BTreeSet::new();
        for entry in subject.base.unwrap_or_default() {
            if entry.path.ancestors().skip(1).any(|above| hidden.contains(above)) {
                continue;
            }
            let here = subject.folder.join(&entry.path);
            let local = tree::look(&here).map_err(CustomizationError::io("reading", &here))?;
            let what = self.differences(&here, &entry.kind, local.as_ref());
            if what.contains(&What::Type) || what.contains(&What::Deleted) {
                hidden.insert(&entry.path);
            }
            self.add(subject, &entry.path, what, Some(entry.kind.clone()), local);
            if hidden.contains(entry.path.as_path()) && entry.kind.is_folder() {
                self.hidden_files(subject, &entry.path);
            }
        }
        self.additions(subject)
    }

    /// The files of a folder that is not there as one.
    fn hidden_files(&mut self, subject: &Subject<'_>, folder: &Path) {
        let base = subject.base.unwrap_or_default();
        for entry in base {
            let is_inside = entry.path.starts_with(folder) && entry.path != folder;
            if is_inside && !entry.kind.is_folder() {
                self.add(
                    subject,
                    &entry.path,
                    vec![What::Deleted],
                    Some(entry.kind.clone()),
                    None,
                );
            }
        }
    }

    fn differences(&self, here: &Path, pristine: &Kind, local: Option<&Kind>) -> Vec<What> {
        let Some(local) = local else {
            return vec![What::Deleted];
        };
        if std::mem::discriminant(pristine) != std::mem::discriminant(local) {
            return vec![What::Type];
        }
        let mut what = Vec::new();
        if !pristine.same_content(local) {
            what.push(What::Changed);
        }
        if let (Kind::File { mode: pristine, .. }, Kind::File { mode: local, .. }) = (pristine, local)
            && pristine != local
        {
            what.push(What::Mode);
        }
        if self.has_other_owner(here) {
            what.push(What::Owner);
        }
        what
    }

    /// Whether somebody else owns it than whoever installed it. In a folder that hands its group down, the group says nothing.
    fn has_other_owner(&self, here: &Path) -> bool {
        let (Some((user, group)), Ok(metadata)) = (self.owner, fs::symlink_metadata(here)) else {
            return false;
        };
        let hands_down = here
            .parent()
            .and_then(|folder| fs::metadata(folder).ok())
            .is_some_and(|folder| folder.mode() & 0o2000 != 0);
        metadata.uid() != user || (metadata.gid() != group && !hands_down)
    }

    /// What only the node has below the folder.
    fn additions(&mut self, subject: &Subject<'_>) -> Result<(), CustomizationError> {
        // Of a whole machine everything else is "added".
        if subject.class == Class::Overlay && subject.folder == self.root {
            return Ok(());
        }
        let mut folders = vec![PathBuf::new()];
        while let Some(below) = folders.pop() {
            let folder = subject.folder.join(&below);
            let mut is_empty = true;
            for name in names(&folder)? {
                is_empty = false;
                let (path, here) = (below.join(&name), folder.join(&name));
                if self.is_not_local(subject, &here) {
                    continue;
                }
                let is_known = self.known.contains(&here);
                match fs::symlink_metadata(&here) {
                    Ok(metadata) if metadata.is_dir() => folders.push(path),
                    Ok(_file) if is_known => {}
                    Ok(_file) => self.add(subject, &path, vec![What::Added], None, None),
                    // It went away while we looked.
                    Err(_gone) => {}
                }
            }
            let is_ours = below.as_os_str().is_empty() || self.known.contains(&folder);
            if is_empty && !is_ours {
                self.add(subject, &below, vec![What::Added], None, Some(Kind::Folder));
            }
        }
        Ok(())
    }

    /// The upgrade's own files, and folders of other modules.
    fn is_not_local(&self, subject: &Subject<'_>, here: &Path) -> bool {
        let is_temporary = here.file_name().is_some_and(durable::is_temporary);
        let is_own = subject.class == Class::Overlay && self.own.contains(here);
        is_temporary || is_own || here == self.state_dir || module::is_left_by_an_upgrade(here)
    }

    fn add(
        &mut self,
        subject: &Subject<'_>,
        below: &Path,
        what: Vec<What>,
        pristine: Option<Kind>,
        local: Option<Kind>,
    ) {
        if what.is_empty() {
            return;
        }
        let path = subject.dest.join(below);
        let class = if self.safe.contain(&path) {
            Class::Safe
        } else {
            subject.class
        };
        let metadata = fs::symlink_metadata(subject.folder.join(below)).ok();
        self.changes.push(Change {
            module: Some(subject.name.to_owned()),
            at_worst: if class == Class::Safe {
                Fate::Kept
            } else {
                subject.at_worst(&path, &what)
            },
            class,
            what,
            pristine,
            local,
            owner: metadata.as_ref().map(|metadata| (metadata.uid(), metadata.gid())),
            bytes: metadata
                .filter(fs::Metadata::is_file)
                .map_or(0, |metadata| metadata.size()),
            path,
        });
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
