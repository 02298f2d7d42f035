//! The conflict rule `merge`: both changes of a file, made line by line.
//!
//! What the file was before either change comes from the kept archive of the installed release. Every decision is made before the
//! first change of the module; what cannot be merged becomes [`Action::SaveAndInstall`] with its reason.
//!
//! A killed run starts over: what it merged is recognised by the local file that it saved first. Merging that one again gives
//! what is there, so that nothing is merged twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use super::{Row, table::Action};
use crate::{
    customizations::{pristine, text},
    module::{
        Job, ModuleError,
        tree::{self, Kind},
    },
};

const NO_ORIGINAL: &str = "what it was before is not kept on this node";
const NO_TEXT: &str = "it is not a short text";
const CONTRADICTION: &str = "the two changes contradict each other";

/// Merges files of one module.
pub(super) struct Merger<'a> {
    job: &'a Job<'a>,
}

/// What becomes of a file.
enum Merged {
    /// It has both changes already.
    There,
    /// This.
    Bytes(Vec<u8>),
    /// It cannot be merged; why.
    Not(&'static str),
}

impl<'a> Merger<'a> {
    pub(super) const fn new(job: &'a Job<'a>) -> Self {
        Self { job }
    }

    /// Decides for every row that is to be merged, with the module's new files in `fresh`.
    pub(super) fn decide(&self, rows: &mut [Row], dest: &Path, fresh: &Path) -> Result<(), ModuleError> {
        let wanted: BTreeSet<PathBuf> = rows
            .iter()
            .filter(|row| row.action == Action::Merge)
            .map(|row| row.path.clone())
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let originals = self.originals(&wanted);
        for row in rows.iter_mut().filter(|row| row.action == Action::Merge) {
            let here = dest.join(&row.path);
            match self.merged(&originals, &row.path, &here, &fresh.join(&row.path))? {
                Merged::There => row.action = Action::Nothing,
                Merged::Bytes(bytes) => row.merged = Some(bytes),
                Merged::Not(why) => {
                    row.action = Action::SaveAndInstall;
                    row.unmerged = Some(why);
                }
            }
        }
        Ok(())
    }

    fn originals(&self, wanted: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Vec<u8>> {
        let Some(base) = self.job.base else {
            return BTreeMap::new();
        };
        match pristine::contents(self.job.paths, base, wanted) {
            Ok(contents) => contents,
            Err(error) => {
                tracing::warn!(error = %kato_shared::chain::Chain(&error), "files cannot be merged");
                BTreeMap::new()
            }
        }
    }

    fn merged(
        &self,
        originals: &BTreeMap<PathBuf, Vec<u8>>,
        path: &Path,
        here: &Path,
        new: &Path,
    ) -> Result<Merged, ModuleError> {
        let (Some(local), Some(new)) = (short(here)?, short(new)?) else {
            return Ok(Merged::Not(NO_TEXT));
        };
        let Some(base) = originals.get(path) else {
            return Ok(Merged::Not(NO_ORIGINAL));
        };
        let saved = short(&self.job.saved().join(path))?;
        if saved.and_then(|saved| text::merge(base, &saved, &new)).as_ref() == Some(&local) {
            return Ok(Merged::There);
        }
        if ![base, &local, &new].into_iter().all(|bytes| text::is_text(bytes)) {
            return Ok(Merged::Not(NO_TEXT));
        }
        Ok(match text::merge(base, &local, &new) {
            Some(merged) => Merged::Bytes(merged),
            None => Merged::Not(CONTRADICTION),
        })
    }
}

/// Whether the local file was saved before it was merged.
pub(super) fn is_saved(job: &Job<'_>, row: &Row) -> bool {
    matches!(
        tree::look(&job.saved().join(&row.path)),
        Ok(Some(Kind::File { .. }))
    )
}

/// The content of a file that is no longer than a text may be; `None` for a longer one, or when there is none.
fn short(path: &Path) -> Result<Option<Vec<u8>>, ModuleError> {
    let longest = text::LONGEST as u64;
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= longest => {
            fs::read(path).map(Some).map_err(ModuleError::io("reading", path))
        }
        Ok(_other) => Ok(None),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ModuleError::io("reading", path)(error)),
    }
}
