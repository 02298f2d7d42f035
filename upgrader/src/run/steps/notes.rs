//! What the way back goes by: the notes of the undo journal, and the modules whose note is lost.
//!
//! Every module writes its note before it unpacks anything. One that has a latch of this upgrade, or notes of what it unpacked, and no
//! note in the undo journal was changed all the same: it is never taken for one that is back.

use std::path::Path;

use crate::{
    attempt::Attempt,
    latch::{Latches, Verdict},
    module::{
        self, ModuleError, Work,
        undo::{self, Found},
    },
    plan::node::modules_for,
    run::Node,
};

/// The undo journal of `attempt`; the modules that were changed and have no note count as unreadable.
///
/// # Errors
/// [`ModuleError`] when the folder of the notes cannot be read.
pub fn of(node: &Node, attempt: &Attempt) -> Result<Found, ModuleError> {
    let mut found = undo::found(&node.paths)?;
    let latches = Latches::in_folder(node.paths.latches());
    for module in modules_for(&attempt.release, node.roles()) {
        let is_known = found.notes.iter().any(|note| note.module == module.name)
            || found.unreadable.iter().any(|(name, _)| *name == module.name);
        let Some(artifact) = attempt.release.artifacts.get(&module.artifact) else {
            continue;
        };
        let verdict = latches.verdict(&module.name, &attempt.release.version, &artifact.sha256);
        let is_installed = matches!(verdict, Ok(Verdict::Installed));
        if !is_known && (is_installed || !matches!(Work::load(&node.paths, &module.name), Ok(None))) {
            found
                .unreadable
                .push((module.name.clone(), no_note(node, &module.name)));
        }
    }
    Ok(found)
}

/// The error of a module that has no note.
pub(super) fn no_note(node: &Node, module: &str) -> ModuleError {
    ModuleError::NoNote {
        path: undo::file(&node.paths, module),
    }
}

/// Removes what modules without a note have left beside their places: it is found by its name.
///
/// # Errors
/// [`ModuleError`] with the first that cannot be removed.
pub(super) fn sweep(node: &Node, attempt: &Attempt) -> Result<(), ModuleError> {
    let lost = of(node, attempt)?.unreadable;
    let modules = modules_for(&attempt.release, node.roles());
    for module in modules {
        if !lost.iter().any(|(name, _)| *name == module.name) {
            continue;
        }
        let dest = module.install.dest().map(Path::to_owned);
        for place in dest.into_iter().chain(module.install.link()) {
            module::sweep(&module::follow(&node.paths, &place)?)?;
        }
    }
    Ok(())
}
