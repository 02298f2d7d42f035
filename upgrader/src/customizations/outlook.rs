//! What an upgrade to a release makes of the local changes, said before it begins.
//!
//! The release lists its files with their digests, so for overlays the three-way table itself decides here as it will during the
//! installation. What it cannot know: whether two changes of one file can be merged, and links that the release brings.
//!
//! Of several releases on the way each starts from what the one before it leaves: a change that was taken away is gone, one that
//! stayed is compared with what that release has there.

mod before;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use kato_shared::release::{Module, Release};
use serde::Serialize;

use self::before::left;
use super::{
    change::{Change, Class, Fate, What},
    error::CustomizationError,
    scan::{Scanner, Subject, conflict},
};
use crate::{
    installed::{Installed, InstalledModule},
    module::{
        beside,
        overlay::{
            rule,
            table::{Action, decide},
        },
        tree::{self, Kind},
    },
    paths::NodePaths,
};

/// How many files of a module a plan lists.
pub const LISTED: usize = 20;

/// A local change and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreseen {
    /// The change.
    pub change: Change,
    /// What becomes of it.
    pub fate: Fate,
    /// Whether it is known what was installed there. Else everything counts as added, and the backup has it.
    pub is_known: bool,
    /// What the release has there.
    pub new: Option<Kind>,
}

/// What local changes are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// What is installed, patches included.
    pub installed: Option<&'a Installed>,
    /// The pristine state of each module's files, by the module's name.
    pub bases: &'a BTreeMap<String, InstalledModule>,
    /// What was foreseen for the releases that come before this one on the way, in their order.
    pub before: &'a [Foreseen],
}

/// The local changes in one module's folder, as a plan shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleOutlook {
    /// The module.
    pub module: String,
    /// How its folder is treated.
    pub class: Class,
    /// Its folder.
    pub dest: PathBuf,
    /// Whether it is known what was installed there.
    pub is_known: bool,
    /// How many changes have which fate.
    pub counts: BTreeMap<Fate, usize>,
    /// The gravest ones, at most [`LISTED`].
    pub files: Vec<FileOutlook>,
    /// How many more there are.
    pub more: usize,
}

/// One change, as a plan shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileOutlook {
    /// The file.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// How it differs from the installed release.
    pub what: Vec<What>,
    /// What becomes of it.
    pub fate: Fate,
}

/// The local changes in the folders of `modules` of `release`, and what becomes of each.
///
/// # Errors
/// [`CustomizationError`] when a folder or file cannot be read.
pub fn foresee(
    paths: &NodePaths,
    basis: Basis<'_>,
    release: &Release,
    modules: &[&Module],
) -> Result<Vec<Foreseen>, CustomizationError> {
    let owner = basis.installed.and_then(|installed| installed.owner);
    let mut scanner = Scanner::new(paths, &release.safe_paths, owner);
    if let Some(installed) = basis.installed {
        scanner.knows(paths, installed)?;
    }
    let before: BTreeMap<&Path, &Foreseen> = basis
        .before
        .iter()
        .map(|found| (found.change.path.as_path(), found))
        .collect();
    let mut foreseen = Vec::new();
    for module in modules {
        let Some(class) = Class::of(&module.install) else {
            continue;
        };
        let first = foreseen.len();
        if let Some(subject) = subject(paths, &basis, module, class)? {
            scanner.changes.clear();
            scanner.compare(&subject)?;
            let new = New::of(module);
            let changes = std::mem::take(&mut scanner.changes);
            for change in changes.into_iter().filter_map(|change| left(&before, change)) {
                let (fate, there) = new.fate(module, &subject, &change)?;
                foreseen.push(Foreseen {
                    fate,
                    is_known: subject.base.is_some(),
                    new: there,
                    change,
                });
            }
        }
        if class == Class::Versioned {
            let is_known = is_own_link(&basis, module);
            scanner.in_place_of_link(paths, &module.name, &module.install)?;
            let changes = std::mem::take(&mut scanner.changes);
            let there = changes.into_iter().filter_map(|change| left(&before, change));
            foreseen.extend(there.map(|change| Foreseen {
                fate: change.at_worst,
                is_known,
                new: None,
                change,
            }));
        }
        give_way(&mut foreseen[first..]);
    }
    Ok(foreseen)
}

/// The folder that is compared: of a versioned module that of the installed version, of others that which is installed to.
fn subject<'a>(
    paths: &NodePaths,
    basis: &Basis<'a>,
    module: &'a Module,
    class: Class,
) -> Result<Option<Subject<'a>>, CustomizationError> {
    if class != Class::Versioned {
        return Subject::to_come(paths, module, class, basis.bases.get(&module.name));
    }
    let base = basis.installed.and_then(|installed| {
        let (name, base) = installed.modules.get_key_value(&module.name)?;
        Some((installed, name, base))
    });
    let Some((installed, name, base)) = base else {
        return Ok(None);
    };
    let found = Subject::installed(paths, installed, name, base)?;
    Ok(found.filter(|subject| subject.class == Class::Versioned))
}

/// Whether the link of a versioned module was made by the installed release.
fn is_own_link(basis: &Basis<'_>, module: &Module) -> bool {
    let base = basis
        .installed
        .and_then(|installed| installed.modules.get(&module.name));
    base.and_then(|base| base.install.as_ref())
        .is_some_and(|install| install.link() == module.install.link())
}

/// A local file stands where the release's is put beside another one: it is saved and gives way.
fn give_way(foreseen: &mut [Foreseen]) {
    let wanted: Vec<PathBuf> = foreseen
        .iter()
        .filter(|found| found.fate == Fate::Beside)
        .map(|found| beside(&found.change.path, ".new"))
        .collect();
    for found in foreseen
        .iter_mut()
        .filter(|found| wanted.contains(&found.change.path))
    {
        found.fate = Fate::Saved;
    }
}

/// The changes by module, in the order of the modules, the gravest first.
pub fn summary(foreseen: &[Foreseen], modules: &[&Module]) -> Vec<ModuleOutlook> {
    let of = |module: &&Module| {
        let mut mine: Vec<&Foreseen> = foreseen
            .iter()
            .filter(|found| found.change.module.as_deref() == Some(&module.name))
            .collect();
        let first = mine.first()?;
        let mut counts: BTreeMap<Fate, usize> = BTreeMap::new();
        for found in &mine {
            *counts.entry(found.fate).or_default() += 1;
        }
        let is_known = first.is_known;
        mine.sort_by(|one, other| (one.fate, &one.change.path).cmp(&(other.fate, &other.change.path)));
        let file = |found: &&Foreseen| FileOutlook {
            path: found.change.path.clone(),
            what: found.change.what.clone(),
            fate: found.fate,
        };
        Some(ModuleOutlook {
            module: module.name.clone(),
            class: Class::of(&module.install)?,
            dest: module.install.dest()?.to_owned(),
            is_known,
            counts,
            more: mine.len().saturating_sub(LISTED),
            files: mine.iter().take(LISTED).map(file).collect(),
        })
    };
    modules.iter().filter_map(of).collect()
}

/// The changes that leave their place and are worth saving: what was installed there is known, so they are not simply everything.
pub fn taken_away(foreseen: &[Foreseen]) -> Vec<Change> {
    foreseen
        .iter()
        .filter(|found| found.is_known && found.fate.takes_away())
        .map(|found| found.change.clone())
        .collect()
}

/// What a module brings, as far as its list tells.
struct New {
    files: BTreeMap<PathBuf, Kind>,
    folders: BTreeSet<PathBuf>,
}

impl New {
    fn of(module: &Module) -> Self {
        let file = |file: &kato_shared::release::FileEntry| {
            let kind = Kind::File {
                sha256: file.sha256,
                mode: file.mode,
            };
            (file.path.clone(), kind)
        };
        let above = |file: &kato_shared::release::FileEntry| {
            let above: Vec<_> = file.path.ancestors().skip(1).map(Path::to_owned).collect();
            above
        };
        Self {
            files: module.files.iter().map(file).collect(),
            folders: module.files.iter().flat_map(above).collect(),
        }
    }

    fn get(&self, below: &Path, subject: &Subject<'_>, pristine: Option<&Kind>) -> Option<Kind> {
        let had_files = || {
            let base = subject.base.unwrap_or_default();
            base.iter()
                .any(|entry| entry.path != below && entry.path.starts_with(below))
        };
        match (self.files.get(below), pristine) {
            (Some(file), _) => Some(file.clone()),
            (None, _) if self.folders.contains(below) => Some(Kind::FOLDER),
            (None, Some(Kind::Folder { .. })) if had_files() => None,
            // Links and empty folders are not listed: most stay as they were.
            (None, Some(Kind::Link { .. } | Kind::Folder { .. } | Kind::Special)) => pristine.cloned(),
            (None, _) => None,
        }
    }

    fn fate(
        &self,
        module: &Module,
        subject: &Subject<'_>,
        change: &Change,
    ) -> Result<(Fate, Option<Kind>), CustomizationError> {
        let below = change.path.strip_prefix(&subject.dest).unwrap_or(&change.path);
        let new = self.get(below, subject, change.pristine.as_ref());
        // Neither copied with a safe path nor saved.
        let is_special = change.local == Some(Kind::Special);
        let fate = match change.class {
            Class::Safe if is_special && subject.class == Class::Replace => Fate::Dropped,
            Class::Safe => Fate::Kept,
            Class::Versioned if change.is(What::Deleted) => Fate::Kept,
            Class::Versioned | Class::Replace if is_special => Fate::Dropped,
            Class::Versioned => Fate::LeftBehind,
            Class::Replace if change.is(What::Deleted) && new.is_none() => Fate::Kept,
            Class::Replace if change.is(What::Deleted) => Fate::Back,
            Class::Replace => Fate::Lost,
            Class::Overlay => self.overlay(module, subject, change, below, new.as_ref())?,
        };
        Ok((fate, new))
    }

    fn overlay(
        &self,
        module: &Module,
        subject: &Subject<'_>,
        change: &Change,
        below: &Path,
        new: Option<&Kind>,
    ) -> Result<Fate, CustomizationError> {
        let is_file = |above: &Path| self.files.contains_key(above);
        if !change.is(What::Deleted) && below.ancestors().skip(1).any(is_file) {
            // A folder here where the release has a file.
            return Ok(Fate::Refused);
        }
        let here = subject.folder.join(below);
        let local = match (&change.local, new) {
            // What only the node has is not read unless the release brings it as well.
            (None, Some(_)) if change.is(What::Added) => {
                tree::look(&here).map_err(CustomizationError::io("reading", &here))?
            }
            (local, _) => local.clone(),
        };
        if change.is(What::Added) && local.is_none() {
            return Ok(Fate::Kept);
        }
        let conflict = rule(conflict(&module.install), &module.conffiles, &change.path);
        Ok(
            match decide(change.pristine.as_ref(), local.as_ref(), new, conflict) {
                Action::Nothing | Action::KeepLocal | Action::StayDeleted | Action::Install => Fate::Kept,
                Action::InstallDeleted => Fate::Back,
                Action::SaveAndInstall => Fate::Saved,
                Action::Merge => Fate::Merged,
                Action::Beside => Fate::Beside,
                Action::Remove => Fate::Lost,
                Action::Refuse(_) => Fate::Refused,
            },
        )
    }
}
