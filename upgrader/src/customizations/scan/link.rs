//! What somebody put in the place of a versioned module's link.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use kato_shared::release::Install;

use super::{Scanner, names};
use crate::{
    customizations::{
        change::{Change, Class, Fate, What},
        error::CustomizationError,
    },
    module::tree,
    paths::NodePaths,
};

impl Scanner {
    /// Adds what stands where the link of `install` belongs and is none: a file, or everything in a folder. The next version's
    /// link takes its place.
    ///
    /// Where a link leads is nobody's change: the folders of all versions stay.
    pub(in crate::customizations) fn in_place_of_link(
        &mut self,
        paths: &NodePaths,
        module: &str,
        install: &Install,
    ) -> Result<(), CustomizationError> {
        let Some(link) = install.link() else {
            return Ok(());
        };
        let mut left = vec![(link, What::Type)];
        while let Some((path, what)) = left.pop() {
            let here = paths.on_node(&path);
            let Ok(metadata) = fs::symlink_metadata(&here) else {
                continue;
            };
            if metadata.is_symlink() && what == What::Type {
                continue;
            }
            let below = if metadata.is_dir() {
                names(&here)?
            } else {
                Vec::new()
            };
            if below.is_empty() {
                let read = what == What::Type || !metadata.is_file();
                let local = if read {
                    tree::look(&here).map_err(CustomizationError::io("reading", &here))?
                } else {
                    None
                };
                self.push(module, path, what, (local, &metadata));
            } else {
                left.extend(below.into_iter().map(|name| (path.join(name), What::Added)));
            }
        }
        Ok(())
    }

    fn push(
        &mut self,
        module: &str,
        path: PathBuf,
        what: What,
        (local, metadata): (Option<tree::Kind>, &fs::Metadata),
    ) {
        let at_worst = if local == Some(tree::Kind::Special) {
            Fate::Dropped
        } else {
            Fate::Saved
        };
        self.changes.push(Change {
            path,
            module: Some(module.to_owned()),
            class: Class::Versioned,
            what: vec![what],
            at_worst,
            pristine: None,
            local,
            owner: Some((metadata.uid(), metadata.gid())),
            bytes: if metadata.is_file() { metadata.size() } else { 0 },
        });
    }
}
