//! Puts saved local changes back onto the release that is installed now.
//!
//! [`decide`] is pure: from what the release had when the change was saved, what was saved, and what is there now. A file that the
//! release has not changed since gets the saved one. Where both changed, the two are merged; where that cannot be, the saved file is
//! put beside as `….saved-<id>`. What is there is never overwritten unless it is the release's own or was saved first.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::durable;
use serde::Serialize;

use super::{
    archive::{self, LOCAL, Manifest, Merges, ORIGINAL, Reason, SavedFile, SavedFolder},
    change::{Change, What},
    difference::of_release,
    error::CustomizationError,
    scan::{Subject, scan},
    text,
};
use crate::{
    installed::Installed,
    module::{
        self, beside,
        tree::{self, Kind},
    },
    paths::NodePaths,
};

/// What is done with a saved change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "action", content = "why")]
pub enum Action {
    /// It is there already.
    InPlace,
    /// The saved file is put back.
    PutBack,
    /// Permission bits or owner are set again.
    Attributes,
    /// It is deleted again.
    Delete,
    /// The saved change and the release's are both made.
    Merge,
    /// The saved file is put beside what is there; why.
    Beside(&'static str),
    /// Nothing is done; why.
    Leave(&'static str),
}

impl Action {
    /// Whether a person has to look.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Beside(_) | Self::Leave(_))
    }
}

/// A saved change and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reapplied {
    /// Where it belongs now.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// What is done.
    #[serde(flatten)]
    pub action: Action,
    /// The file that was put beside it.
    #[serde(skip_serializing_if = "Option::is_none", with = "crate::path_text::option")]
    pub beside: Option<PathBuf>,
}

const CHANGED: &str = "the release and the saved change contradict each other there";
const NO_ORIGINAL: &str = "the release has another one, and what it was when it was saved is not known";
const NEW_ONE: &str = "something else is there now";
const NO_FOLDER: &str = "something else is where its folder was";
const TYPE: &str = "something of another type is there now";

/// Decides for one saved change; [`Action::Merge`] has to be tried.
pub fn decide(saved: &SavedFile, now: Option<&Kind>) -> Action {
    let only_attributes = saved
        .what
        .iter()
        .all(|what| matches!(what, What::Mode | What::Owner));
    let pristine = saved.pristine.as_ref();
    let is_pristine = |now: &Kind| pristine.is_some_and(|pristine| pristine.same_content(now));
    match (&saved.local, now) {
        (None, None | Some(Kind::Folder { .. })) => Action::InPlace,
        (Some(Kind::Folder { .. }), Some(Kind::Folder { .. })) => Action::Attributes,
        (None, Some(now)) if is_pristine(now) => Action::Delete,
        (None, Some(_)) => Action::Leave("it was deleted here, and the release has another one now"),
        (Some(Kind::Special), _) => Action::Leave("devices, sockets and pipes are not saved"),
        (Some(_), None) if only_attributes => Action::Leave("it is not there any more"),
        (Some(_), None) => Action::PutBack,
        (Some(Kind::Folder { .. }), Some(_)) => Action::Leave(TYPE),
        (Some(Kind::File { .. }), Some(Kind::File { .. })) if only_attributes => Action::Attributes,
        (Some(local), Some(now)) if local.same_content(now) => Action::Attributes,
        (Some(_), Some(Kind::Folder { .. } | Kind::Special)) => Action::Beside(TYPE),
        (Some(_), Some(now)) if is_pristine(now) => Action::PutBack,
        (Some(_), Some(_)) if pristine.is_none() => Action::Beside(NEW_ONE),
        (Some(Kind::File { .. }), Some(Kind::File { .. })) if saved.has_original => Action::Merge,
        (Some(Kind::File { .. }), Some(Kind::File { .. })) => Action::Beside(NO_ORIGINAL),
        (Some(_), Some(_)) => Action::Beside(TYPE),
    }
}

/// What is put back, and how.
#[derive(Debug)]
pub struct Request<'a> {
    /// The archive.
    pub from: &'a Manifest,
    /// Only what is at or below these paths; everything when empty.
    pub only: &'a [PathBuf],
    /// Nothing is changed; what would be done is said.
    pub plan_only: bool,
    /// Now.
    pub now: Timestamp,
}

/// Puts saved changes back and says for each what was done, in the order of their paths. May be called again.
///
/// # Errors
/// [`CustomizationError`]; what was put back before stays so.
pub fn reapply(
    paths: &NodePaths,
    installed: &Installed,
    request: &Request<'_>,
) -> Result<Vec<Reapplied>, CustomizationError> {
    let chosen = choose(paths, request)?;
    durable::create_folder(&paths.customizations())?;
    let scratch = tempfile::Builder::new()
        .prefix("reapply-")
        .suffix(".part")
        .tempdir_in(paths.customizations())
        .map_err(CustomizationError::io(
            "creating a folder in",
            &paths.customizations(),
        ))?;
    let wanted: BTreeSet<PathBuf> = chosen.iter().map(|saved| saved.path.clone()).collect();
    archive::extract(paths, request.from, &wanted, scratch.path())?;
    let id = &request.from.id;
    let made = Merges::load(paths, id)?;
    let mut steps = Vec::with_capacity(chosen.len());
    for saved in chosen {
        let folders = &request.from.folders;
        steps.push(Step::new(
            paths,
            installed,
            (saved, folders),
            scratch.path(),
            (id, &made),
        )?);
    }
    if !request.plan_only {
        save_first(paths, installed, &steps, request.now)?;
        made.record(paths, id, steps.iter().filter_map(Step::result))?;
        steps.iter().try_for_each(Step::take)?;
        // What a killed run left of a file that it was writing.
        let folders: BTreeSet<&Path> = steps.iter().filter_map(|step| step.here.parent()).collect();
        for folder in folders {
            durable::remove_temporary_files(folder)?;
        }
    }
    Ok(steps.into_iter().map(|step| step.told).collect())
}

fn choose<'a>(paths: &NodePaths, request: &Request<'a>) -> Result<Vec<&'a SavedFile>, CustomizationError> {
    let only: Vec<PathBuf> = request.only.iter().map(|path| of_release(paths, path)).collect();
    for path in &only {
        if !request
            .from
            .files
            .iter()
            .any(|saved| saved.path.starts_with(path))
        {
            return Err(CustomizationError::Path {
                path: path.clone(),
                problem: "is not among the saved local changes",
            });
        }
    }
    let is_meant =
        |saved: &&SavedFile| only.is_empty() || only.iter().any(|path| saved.path.starts_with(path));
    Ok(request.from.files.iter().filter(is_meant).collect())
}

/// Local changes that are going to be overwritten are saved themselves.
fn save_first(
    paths: &NodePaths,
    installed: &Installed,
    steps: &[Step<'_>],
    now: Timestamp,
) -> Result<(), CustomizationError> {
    let overwritten: BTreeSet<&Path> = steps
        .iter()
        .filter(|step| matches!(step.told.action, Action::PutBack | Action::Delete | Action::Merge))
        .map(|step| step.told.path.as_path())
        .collect();
    let changes: Vec<Change> = scan(paths, installed)?
        .changes
        .into_iter()
        .filter(|change| overwritten.contains(change.path.as_path()))
        .collect();
    let id = format!("before-reapply-{}", now.strftime("%Y%m%dT%H%M%S%3f"));
    archive::save(paths, installed, &changes, (&id, Reason::Reapply, now)).map(|_saved| ())
}

/// One saved change on its way back.
struct Step<'a> {
    saved: &'a SavedFile,
    /// What the folders were like.
    folders: &'a [SavedFolder],
    told: Reapplied,
    /// Where it belongs on this machine.
    here: PathBuf,
    /// The saved file, unpacked.
    content: PathBuf,
    merged: Option<Vec<u8>>,
}

impl<'a> Step<'a> {
    fn new(
        paths: &NodePaths,
        installed: &Installed,
        (saved, folders): (&'a SavedFile, &'a [SavedFolder]),
        scratch: &Path,
        (id, made): (&str, &Merges),
    ) -> Result<Self, CustomizationError> {
        let (path, here) = place(paths, installed, saved)?;
        let now = tree::look(&here).map_err(CustomizationError::io("reading", &here))?;
        let content = scratch.join(archive::name(LOCAL, &saved.path));
        let mut action = decide(saved, now.as_ref());
        let mut merged = None;
        if action == Action::Merge && made.has(&path, now.as_ref()) {
            action = Action::Attributes;
        }
        if action == Action::Merge {
            let original = scratch.join(archive::name(ORIGINAL, &saved.path));
            let read = |path: &Path| fs::read(path).map_err(CustomizationError::io("reading", path));
            let (base, current) = (read(&original)?, read(&here)?);
            merged = text::merge(&base, &read(&content)?, &current);
            action = match &merged {
                None => Action::Beside(CHANGED),
                Some(merged) if *merged == current => Action::Attributes,
                Some(_) => Action::Merge,
            };
        }
        if matches!(action, Action::PutBack | Action::Beside(_)) && !has_room(&here) {
            action = Action::Leave(NO_FOLDER);
        }
        if action == Action::Attributes && !attributes_differ(saved, &here) {
            action = Action::InPlace;
        }
        let beside = matches!(action, Action::Beside(_)).then(|| format!(".saved-{id}"));
        Ok(Self {
            told: Reapplied {
                beside: beside.map(|suffix| beside_of(&path, &suffix)),
                path,
                action,
            },
            saved,
            folders,
            here,
            content,
            merged,
        })
    }

    /// What merging makes of it, and where.
    fn result(&self) -> Option<(&Path, &[u8])> {
        let is_merged = self.told.action == Action::Merge;
        let merged = self.merged.as_deref().filter(|_| is_merged)?;
        Some((&self.told.path, merged))
    }

    fn take(&self) -> Result<(), CustomizationError> {
        match self.told.action {
            Action::InPlace | Action::Leave(_) => Ok(()),
            Action::Delete => Ok(durable::remove(&self.here)?),
            Action::Attributes => self.attributes(),
            Action::PutBack => self.put(&self.here, &module::attributes(&self.content)),
            Action::Merge => {
                let attributes = module::attributes(&self.content);
                durable::write(&self.content, self.merged.as_deref().unwrap_or_default(), 0o600)?;
                self.put(&self.here, &attributes)
            }
            Action::Beside(_) => {
                let name = self.told.beside.as_deref().and_then(Path::file_name);
                let beside = self.here.with_file_name(name.unwrap_or_default());
                self.put(&beside, &module::attributes(&self.content))
            }
        }
    }

    fn put(&self, to: &Path, attributes: &[(String, Vec<u8>)]) -> Result<(), CustomizationError> {
        self.make_folders(to)?;
        match &self.saved.local {
            Some(Kind::File { mode, .. }) => {
                let (mode, owner) = self.wanted(*mode, to);
                durable::copy_with(&self.content, to, (mode, owner), attributes)?;
            }
            Some(Kind::Link { to: target }) => durable::symlink(target, to)?,
            Some(Kind::Folder { mode: Some(mode) }) => make_folder(to, *mode, self.saved.owner)?,
            // Saved by a `kato` that did not note what folders are like.
            Some(Kind::Folder { mode: None }) => durable::create_folder(to)?,
            Some(Kind::Special) | None => {}
        }
        Ok(())
    }

    /// The missing folders above `to`, from the top, each like the one that was there when the file was saved: what a folder closed is
    /// never open meanwhile.
    fn make_folders(&self, to: &Path) -> Result<(), CustomizationError> {
        let depth = self.saved.below.components().count().saturating_sub(1);
        let saved = self.saved.path.ancestors().skip(1);
        let pairs: Vec<(&Path, &Path)> = saved
            .zip(to.ancestors().skip(1))
            .take(depth)
            .take_while(|(saved, here)| saved.file_name() == here.file_name())
            .collect();
        for (saved, here) in pairs.into_iter().rev() {
            let known = self.folders.iter().find(|folder| folder.path == saved);
            if let (Some(known), Some(above)) = (known, here.parent()) {
                durable::create_folder(above)?;
                make_folder(here, known.mode, Some(known.owner))?;
            }
        }
        if let Some(folder) = to.parent() {
            durable::create_folder(folder)?;
        }
        Ok(())
    }

    /// Bits and owner: the saved ones where they were changed or the file is not the release's, else those of what is there.
    fn wanted(&self, mode: u32, to: &Path) -> (u32, Option<(u32, u32)>) {
        let there = fs::metadata(to).ok();
        let is_own = self.saved.what.contains(&What::Added) || there.is_none();
        let keeps = |what: What| is_own || self.saved.what.contains(&what);
        let there_mode = there.as_ref().map(|there| there.permissions().mode() & 0o7777);
        let there_owner = there.as_ref().map(|there| (there.uid(), there.gid()));
        (
            if keeps(What::Mode) {
                mode
            } else {
                there_mode.unwrap_or(mode)
            },
            if keeps(What::Owner) {
                self.saved.owner
            } else {
                there_owner
            },
        )
    }

    fn attributes(&self) -> Result<(), CustomizationError> {
        if let Some(Kind::File { mode, .. }) = self.saved.local {
            let (mode, owner) = self.wanted(mode, &self.here);
            let attributes = module::attributes(&self.here);
            durable::copy_with(&self.here, &self.here, (mode, owner), &attributes)?;
        }
        if let Some(Kind::Folder { mode: Some(mode) }) = self.saved.local {
            let (mode, owner) = self.wanted(mode, &self.here);
            durable::mark_folder(&self.here, mode, owner)?;
        }
        Ok(())
    }
}

/// Makes the folder `path`, unless there is one. One that a killed run has made and not finished is empty and closed: it is finished.
fn make_folder(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<(), CustomizationError> {
    let Ok(there) = fs::symlink_metadata(path) else {
        return Ok(durable::create_folder_with(path, mode, owner)?);
    };
    let is_unfinished = there.is_dir()
        && there.permissions().mode() & 0o7777 == 0o700
        && there.uid() == rustix::process::geteuid().as_raw()
        && fs::read_dir(path).is_ok_and(|mut listing| listing.next().is_none());
    if is_unfinished {
        durable::mark_folder(path, mode, owner)?;
    }
    Ok(())
}

/// Whether bits or an owner that were changed are not as they were saved.
fn attributes_differ(saved: &SavedFile, here: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(here) else {
        return false;
    };
    let Some(Kind::File { mode, .. } | Kind::Folder { mode: Some(mode) }) = &saved.local else {
        return false;
    };
    let of = |what: What| saved.what.contains(&what);
    let mode = of(What::Mode) && metadata.permissions().mode() & 0o7777 != *mode;
    let owner = of(What::Owner)
        && saved
            .owner
            .is_some_and(|owner| owner != (metadata.uid(), metadata.gid()));
    mode || owner
}

/// Whether the folder of `here` exists or can be made.
fn has_room(here: &Path) -> bool {
    let mut above = here.ancestors().skip(1);
    above
        .find(|folder| folder.symlink_metadata().is_ok())
        .is_some_and(Path::is_dir)
}

fn beside_of(path: &Path, suffix: &str) -> PathBuf {
    beside(path, suffix)
}

/// Where a saved change belongs now: in its module's present folder, else where it was.
fn place(
    paths: &NodePaths,
    installed: &Installed,
    saved: &SavedFile,
) -> Result<(PathBuf, PathBuf), CustomizationError> {
    if let Some((name, module)) = installed.modules.get_key_value(&saved.module)
        && let Some(subject) = Subject::installed(paths, installed, name, module)?
        && subject.class == saved.class
    {
        return Ok((subject.dest.join(&saved.below), subject.folder.join(&saved.below)));
    }
    Ok((saved.path.clone(), paths.on_node(&saved.path)))
}
