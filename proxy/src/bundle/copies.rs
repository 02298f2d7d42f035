//! The copies of a volume: one may be damaged where another is whole, so each gives what the ones before it did not.

use std::{collections::BTreeSet, os::unix::fs::MetadataExt as _, path::Path};

use super::{
    BundleError,
    finding::{Finding, finding},
    header::{Table, Volume},
    medium::{Sink, open_regular},
    tar::Name,
    volume::Reading,
};

/// What was read of a volume by now.
pub(super) struct Copies<'b> {
    table: &'b Table,
    volume: &'b Volume,
    /// What no copy has given.
    wanted: BTreeSet<Name>,
    /// What some copy has, whole or not.
    seen: BTreeSet<Name>,
    /// Files that were read, by device and inode: the same file by another path gives the same once more.
    read: BTreeSet<(u64, u64)>,
    findings: Vec<Finding>,
}

impl<'b> Copies<'b> {
    /// None yet; `wanted` is what is to be found in them.
    pub(super) fn new(table: &'b Table, volume: &'b Volume, wanted: BTreeSet<Name>) -> Self {
        Self {
            table,
            volume,
            wanted,
            seen: BTreeSet::new(),
            read: BTreeSet::new(),
            findings: Vec::new(),
        }
    }

    /// Whether nothing is wanted any more.
    pub(super) fn are_enough(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Shows what is still wanted of the copy at `path` to `sink`.
    ///
    /// # Errors
    /// Those of `sink`.
    pub(super) fn read(&mut self, path: &Path, sink: &mut dyn Sink) -> Result<(), BundleError> {
        let file = match open_regular(path, Some(self.volume.size)) {
            Ok(file) => file,
            Err(problem) => {
                let name = &self.volume.file;
                self.findings.push(finding(name, Some(self.volume), problem));
                return Ok(());
            }
        };
        let identity = file.metadata().map(|found| (found.dev(), found.ino()));
        if identity.is_ok_and(|identity| !self.read.insert(identity)) {
            return Ok(());
        }
        let passed = Reading::new(self.table, self.volume, &file).members(&self.wanted, sink)?;
        self.wanted.retain(|name| !passed.whole.contains(name));
        self.seen.extend(passed.seen);
        if self.wanted.is_empty() && passed.findings.is_empty() {
            // What is wrong with the others is made good.
            self.findings.clear();
        }
        self.findings.extend(passed.findings);
        Ok(())
    }

    /// What is wrong with all copies together.
    pub(super) fn findings(mut self) -> Vec<Finding> {
        // What another copy has given is not lost, and the same in each copy is one matter.
        let mut said = BTreeSet::new();
        let (table, wanted) = (self.table, &self.wanted);
        self.findings.retain(|found| {
            let name = Name::parse(&found.what).filter(|name| table.contains_key(name));
            name.is_none_or(|name| wanted.contains(&name))
                && said.insert((found.what.clone(), found.problem.clone()))
        });
        if !self.read.is_empty() {
            for name in self.wanted.difference(&self.seen) {
                let problem = "the member is not in its volume".to_owned();
                self.findings
                    .push(finding(&name.path(), Some(self.volume), problem));
            }
        }
        self.findings
    }
}
