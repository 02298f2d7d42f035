//! An upgrade in progress whose record (`state/upgrade.json`) is lost: what else it has left tells that there is one, and which.
//!
//! The undo journal names it: every original is kept under the id of the upgrade that put it aside. The id names the backup from
//! before the first change, and with both nothing is lost: the run goes on as the upgrade that began. Where the notes are lost as
//! well, a backup that is newer than the installed release and leads from it names the upgrade. Where neither does, the command
//! ends with [`Exit::Damaged`].
//!
//! What only the record knew is decided again: how often a module failed, whether the node was on its way back (it goes forward),
//! and which releases come after this one. What was passed for good is read from the journal.
//!
//! Deliberately absent: patches in progress. Their backup brings them back.

use std::{collections::BTreeSet, fs};

use anyhow::anyhow;
use kato_shared::release::Version;

use super::Node;
use crate::{
    attempt::Attempt,
    backup,
    document::DocumentError,
    exit::{Exit, Failure},
    installed::Installed,
    latch::Latches,
    module::{Work, undo},
    patch::record::Patches,
    quarantine::Quarantine,
};

/// An upgrade that is known by what it has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TakenUp {
    /// Its id.
    pub(super) id: String,
    /// The release that it leads to.
    pub(super) target: Version,
}

/// What there is of an upgrade that has no record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// Notes of one that is recorded as complete: they only need to be removed.
    Over,
    /// Enough to go on with it.
    Known(TakenUp),
    /// It has begun; which one it is cannot be told. What shows it.
    Unknown(String),
}

/// Traces of upgrades in progress.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    /// The upgrades that the undo journal names.
    ids: BTreeSet<String>,
    /// The modules that have notes in it, readable or not.
    modules: BTreeSet<String>,
    /// The releases that modules were or are being installed for, other than the installed one.
    targets: BTreeSet<Version>,
}

impl Traces {
    /// What is on the node.
    ///
    /// # Errors
    /// [`Failure`] when a folder cannot be read.
    pub(crate) fn of(node: &Node, installed: Option<&Installed>) -> Result<Self, Failure> {
        let paths = &node.paths;
        let found = undo::found(paths)?;
        let unreadable = found.unreadable.into_iter().map(|(module, _)| module);
        let quarantine = Quarantine::load(paths)?;
        let is_other = |version: &Version| installed.is_none_or(|installed| installed.version != *version);
        let latched = Latches::in_folder(paths.latches()).targets()?;
        // A latch that could not be removed after a rollback says nothing.
        let latched = latched
            .into_iter()
            .filter(|version| !quarantine.releases.iter().any(|one| one.version == *version));
        let worked = Work::targets(paths);
        Ok(Self {
            ids: found.notes.iter().map(|note| note.attempt().to_owned()).collect(),
            modules: found
                .notes
                .into_iter()
                .map(|note| note.module)
                .chain(unreadable)
                .collect(),
            targets: latched.chain(worked).filter(is_other).collect(),
        })
    }

    /// Whether an upgrade has changed modules and is not complete.
    pub(crate) fn is_any(&self) -> bool {
        !self.modules.is_empty() || !self.targets.is_empty()
    }

    /// Whether `module` was changed.
    pub(crate) fn has_changed(&self, module: &str) -> bool {
        self.modules.contains(module)
    }

    /// The upgrade that they are of, for the manifest of a backup.
    pub(crate) fn name(&self) -> String {
        let known = self.ids.first().cloned();
        known.unwrap_or_else(|| "an upgrade that is not known".into())
    }

    fn described(&self, node: &Node) -> String {
        if self.modules.is_empty() {
            let targets: Vec<_> = self.targets.iter().map(ToString::to_string).collect();
            return format!("modules were installed for {}", targets.join(", "));
        }
        let modules: Vec<_> = self.modules.iter().map(String::as_str).collect();
        let folder = node.paths.undo();
        format!("`{}` has notes of {}", folder.display(), modules.join(", "))
    }
}

/// Looks for an upgrade on a node without a record of one.
///
/// # Errors
/// [`Failure`] when what is there cannot be read.
pub(super) fn look(node: &Node, installed: Option<&Installed>) -> Result<Left, Failure> {
    let traces = Traces::of(node, installed)?;
    if !traces.is_any() {
        return Ok(Left::Nothing);
    }
    let quarantine = Quarantine::load(&node.paths)?;
    let patches = Patches::load(&node.paths)?;
    let is_over = |id: &String| {
        installed.is_some_and(|installed| installed.attempt == *id)
            || quarantine.has_attempt(id)
            || patches.ended.as_ref() == Some(id)
    };
    if !traces.ids.is_empty() && traces.ids.iter().all(is_over) {
        return Ok(Left::Over);
    }
    let before = before(node, installed);
    let named = traces.ids.iter().filter(|id| !is_over(id));
    let mut known: Vec<TakenUp> = named
        .filter_map(|id| taken_up(id, installed, &traces.targets))
        .collect();
    // Of several, the first one took the backup of the whole node.
    known.sort_by_key(|one| before.as_ref().is_none_or(|before| before.id != one.id));
    let by_backup = before.filter(|before| {
        traces.ids.is_empty() && (traces.targets.is_empty() || traces.targets.contains(&before.target))
    });
    Ok(match known.into_iter().next().or(by_backup) {
        Some(known) => Left::Known(known),
        None => Left::Unknown(traces.described(node)),
    })
}

/// The upgrade from the installed release whose backup is the newest, by that.
fn before(node: &Node, installed: Option<&Installed>) -> Option<TakenUp> {
    let backup = backup::all(&node.paths)
        .into_iter()
        .find(|backup| backup.manifest.amid.is_none())?;
    let manifest = backup.manifest;
    let is_from = manifest.from.as_ref() == installed.map(|installed| &installed.version);
    let is_newer = installed.is_none_or(|installed| installed.time < manifest.time);
    let known = taken_up(&manifest.attempt, installed, &[manifest.to.clone()].into())?;
    (is_from && is_newer).then_some(known)
}

/// The upgrade that is called `id`; `None` when it is not from the installed release, or about a patch.
fn taken_up(id: &str, installed: Option<&Installed>, targets: &BTreeSet<Version>) -> Option<TakenUp> {
    let (target, _began) = id.rsplit_once('-')?;
    let from = installed.map_or_else(|| "none".into(), |installed| installed.version.to_string());
    let target = target.strip_prefix(&format!("{from}-to-"))?;
    let target: Version = target.parse().ok()?;
    // The name of a patch looks like a pre-release.
    (target.pre.is_empty() || targets.contains(&target)).then(|| TakenUp {
        id: id.to_owned(),
        target,
    })
}

impl TakenUp {
    /// When it began, as its id has it.
    pub(super) fn began(&self) -> &str {
        self.id.rsplit_once('-').map_or("", |(_, began)| began)
    }

    /// `attempt` as the upgrade that began, when it is to the same release; else as one that comes after it.
    pub(super) fn continued(&self, mut attempt: Attempt) -> Attempt {
        attempt.begun = true;
        if attempt.patch.is_none() && attempt.release.version == self.target {
            attempt.id.clone_from(&self.id);
            attempt.changed = true;
        }
        attempt
    }

    /// What the operator reads.
    pub(super) fn told(&self, node: &Node) -> String {
        format!(
            "the record of the upgrade in progress `{}` is missing; the upgrade {} has begun by what it has left on this node, and \
             is gone on with to {}; releases after that one are for the next run",
            node.paths.attempt().display(),
            self.id,
            self.target
        )
    }
}

/// The refusal to begin anew on a node that is half new.
pub(super) fn refuse(node: &Node, installed: Option<&Installed>, trace: &str) -> Failure {
    let problem = anyhow!(
        "the record of the upgrade in progress `{}` is missing, and this node is in the middle of one: {trace}",
        node.paths.attempt().display()
    );
    let all = backup::all(&node.paths);
    let is_before = |backup: &&backup::Found| {
        let manifest = &backup.manifest;
        manifest.amid.is_none()
            && manifest.from.as_ref() == installed.map(|installed| &installed.version)
            && installed.is_none_or(|installed| installed.time < manifest.time)
    };
    let forward = "`kato node upgrade --force` goes forward, every module is installed again, and there is no way back from it";
    Failure::new(Exit::Damaged, problem).hint(match all.iter().find(is_before) {
        Some(backup) => format!(
            "`kato node restore {}` brings the whole node back to what it was before; {forward}",
            backup.manifest.attempt
        ),
        None => forward.to_owned(),
    })
}

/// Whether `error` says that a document is there and cannot be used.
pub(crate) fn is_damage(error: &DocumentError) -> bool {
    matches!(error, DocumentError::Damaged { .. } | DocumentError::Empty { .. })
}

/// Whether a killed upgrade may have left notes or latches, whatever is installed.
pub(crate) fn has_notes(node: &Node) -> bool {
    let is_filled = |folder| fs::read_dir(folder).is_ok_and(|mut items| items.next().is_some());
    let latches = Latches::in_folder(node.paths.latches()).targets();
    is_filled(node.paths.undo())
        || is_filled(node.paths.work())
        || latches.is_ok_and(|targets| !targets.is_empty())
}
