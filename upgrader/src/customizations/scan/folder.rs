//! The comparison of one module's folder: what the record has is looked for, and what only the node has is listed.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use kato_shared::durable;

use super::{Scanner, Subject, names};
use crate::{
    customizations::{
        change::{Change, Class, Fate, What},
        error::CustomizationError,
    },
    module::{
        self,
        tree::{self, Kind},
    },
};

impl Scanner {
    /// Adds the changes of one module's folder.
    pub(in crate::customizations) fn compare(
        &mut self,
        subject: &Subject<'_>,
    ) -> Result<(), CustomizationError> {
        // What is below something of another type is not there, whatever a link leads to.
        let mut hidden: BTreeSet<&Path> = BTreeSet::new();
        for entry in subject.base.unwrap_or_default() {
            if entry.path.ancestors().skip(1).any(|above| hidden.contains(above)) {
                continue;
            }
            let here = subject.folder.join(&entry.path);
            let local = tree::look(&here).map_err(CustomizationError::io("reading", &here))?;
            let local = local.map(|local| local.with_mode_of(&here));
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
        let is_other_mode = match (pristine, local) {
            // Those of a folder are recorded where the folder is the module's alone.
            (Kind::File { mode: pristine, .. }, Kind::File { mode: local, .. })
            | (Kind::Folder { mode: Some(pristine) }, Kind::Folder { mode: Some(local) }) => {
                pristine != local
            }
            _ => false,
        };
        if is_other_mode {
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
                let local = Kind::FOLDER.with_mode_of(&folder);
                self.add(subject, &below, vec![What::Added], None, Some(local));
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
        // What a release brings to a safe path need not be there.
        if class == Class::Safe && what.contains(&What::Deleted) {
            return;
        }
        let metadata = fs::symlink_metadata(subject.folder.join(below)).ok();
        let local = local.or_else(|| {
            metadata
                .as_ref()
                .filter(|found| is_special(found))
                .map(|_| Kind::Special)
        });
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
}

/// Whether it is a pipe, socket or device, whose content is nothing that could be read.
fn is_special(found: &fs::Metadata) -> bool {
    !(found.is_file() || found.is_dir() || found.is_symlink())
}
