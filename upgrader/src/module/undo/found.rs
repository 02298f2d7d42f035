//! The undo journal as it is found on the disk: each note by itself, so that a damaged one holds no other up.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Note, file};
use crate::{document, module::ModuleError, paths::NodePaths};

const WHAT: &str = "a note of the undo journal";

/// What the undo journal holds.
#[derive(Debug, Default)]
pub struct Found {
    /// The notes that can be read, in the order in which they are undone: last installed first, `kato` itself last of all.
    pub notes: Vec<Note>,
    /// The modules whose note cannot be read, and why.
    pub unreadable: Vec<(String, ModuleError)>,
}

/// Reads every note.
///
/// # Errors
/// [`ModuleError::Io`] when the folder of the notes cannot be read.
pub fn found(paths: &NodePaths) -> Result<Found, ModuleError> {
    let mut found = Found::default();
    for path in files(paths)? {
        match document::read::<Note>(&path, WHAT) {
            Ok(note) => found
                .notes
                .extend(note.map(|note: Note| note.below(paths.root()))),
            Err(error) => {
                let module = path.file_stem().unwrap_or_default().to_string_lossy();
                found.unreadable.push((module.into_owned(), error.into()));
            }
        }
    }
    found
        .notes
        .sort_by_key(|note| (note.recovery, std::cmp::Reverse(note.order)));
    found.unreadable.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

/// All notes, in the order in which they are undone.
///
/// # Errors
/// [`ModuleError::Note`] with the first that cannot be read.
pub fn all(paths: &NodePaths) -> Result<Vec<Note>, ModuleError> {
    let Found { notes, unreadable } = found(paths)?;
    match unreadable.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(notes),
    }
}

/// The note of one module, whatever became of the others.
///
/// # Errors
/// [`ModuleError::Note`].
pub fn read(paths: &NodePaths, module: &str) -> Result<Option<Note>, ModuleError> {
    let note: Option<Note> = document::read(&file(paths, module), WHAT)?;
    Ok(note.map(|note| note.below(paths.root())))
}

/// How many notes there are, readable or not.
pub(super) fn count(paths: &NodePaths) -> Result<usize, ModuleError> {
    Ok(files(paths)?.len())
}

fn files(paths: &NodePaths) -> Result<Vec<PathBuf>, ModuleError> {
    let folder = paths.undo();
    let listing = match fs::read_dir(&folder) {
        Ok(listing) => listing,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ModuleError::io("reading", &folder)(error)),
    };
    let is_note = |path: &PathBuf| Path::new(path).extension().is_some_and(|end| end == "json");
    Ok(listing
        .flatten()
        .map(|item| item.path())
        .filter(is_note)
        .collect())
}
