//! One module's folder on the node, and what should be in it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use kato_shared::release::{Install, Module, OnConflict};

use crate::{
    customizations::{
        change::{Class, Fate, What},
        error::CustomizationError,
    },
    installed::{Installed, InstalledModule},
    module::{self, overlay::rule, tree::Entry},
    paths::NodePaths,
};

/// A module's folder and what should be there.
#[derive(Debug)]
pub(in crate::customizations) struct Subject<'a> {
    pub(in crate::customizations) name: &'a str,
    pub(in crate::customizations) class: Class,
    /// Where the folder is, as a path of the release.
    pub(in crate::customizations) dest: PathBuf,
    /// Where it is on this node; a link that an operator put there is followed.
    pub(in crate::customizations) folder: PathBuf,
    /// What was installed; `None` when the folder was never installed by a release that is known.
    pub(in crate::customizations) base: Option<&'a [Entry]>,
    conflict: OnConflict,
    conffiles: BTreeMap<String, OnConflict>,
}

impl<'a> Subject<'a> {
    /// The folder of an installed module; `None` where there is none to compare.
    pub(in crate::customizations) fn installed(
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
    pub(in crate::customizations) fn to_come(
        paths: &NodePaths,
        module: &'a Module,
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
    pub(super) fn at_worst(&self, path: &Path, what: &[What]) -> Fate {
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

pub(in crate::customizations) const fn conflict(install: &Install) -> OnConflict {
    if let Install::Overlay { conflict, .. } = install {
        *conflict
    } else {
        OnConflict::VendorSave
    }
}
