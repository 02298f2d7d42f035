//! Local changes as text: unified differences from the installed release to the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    change::{Change, What},
    error::CustomizationError,
    pristine,
    scan::Subject,
    text,
};
use crate::{installed::Installed, module::tree::Kind, path_text, paths::NodePaths};

/// One change as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The file.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// How it differs.
    pub what: Vec<What>,
    /// The unified difference; `None` where there is none to show.
    pub diff: Option<String>,
    /// What the difference does not say, or why there is none.
    pub notes: Vec<String>,
}

/// The differences of `changes`, in their order.
///
/// # Errors
/// [`CustomizationError`] when a file cannot be read.
pub fn differences(
    paths: &NodePaths,
    installed: &Installed,
    changes: &[Change],
) -> Result<Vec<Difference>, CustomizationError> {
    let originals = Originals::read(paths, installed, changes)?;
    changes
        .iter()
        .map(|change| one(paths, &originals, change))
        .collect()
}

/// What changed files were.
struct Originals {
    texts: BTreeMap<PathBuf, Vec<u8>>,
    /// Why those of a module are not known.
    unknown: BTreeMap<String, String>,
}

impl Originals {
    fn read(
        paths: &NodePaths,
        installed: &Installed,
        changes: &[Change],
    ) -> Result<Self, CustomizationError> {
        let (mut texts, mut unknown) = (BTreeMap::new(), BTreeMap::new());
        for (name, module) in &installed.modules {
            let Some(subject) = Subject::installed(paths, installed, name, module)? else {
                continue;
            };
            let wanted: BTreeSet<PathBuf> = changes
                .iter()
                .filter(|change| change.module.as_ref() == Some(name) && !change.is(What::Added))
                .filter_map(|change| Some(change.path.strip_prefix(&subject.dest).ok()?.to_owned()))
                .collect();
            if wanted.is_empty() {
                continue;
            }
            match pristine::contents(paths, module, &wanted) {
                Ok(found) => {
                    texts.extend(
                        found
                            .into_iter()
                            .map(|(below, text)| (subject.dest.join(below), text)),
                    );
                }
                Err(error) => {
                    unknown.insert(name.clone(), kato_shared::chain::Chain(&error).to_string());
                }
            }
        }
        Ok(Self { texts, unknown })
    }
}

fn one(paths: &NodePaths, originals: &Originals, change: &Change) -> Result<Difference, CustomizationError> {
    let mut notes = Vec::new();
    let local = local(paths, change)?;
    let old = originals.texts.get(&change.path).map(Vec::as_slice);
    let diff = match (&change.pristine, &local) {
        (Some(Kind::File { .. }), Local::File(bytes)) if change.is(What::Changed) => {
            shown(change, old, Some(bytes), originals, &mut notes)
        }
        (Some(Kind::File { .. }), Local::None) => shown(change, old, None, originals, &mut notes),
        (None, Local::File(bytes)) => shown(change, None, Some(bytes), originals, &mut notes),
        _ => None,
    };
    notes.extend(attributes(change, &local));
    Ok(Difference {
        path: change.path.clone(),
        what: change.what.clone(),
        diff,
        notes,
    })
}

/// What is there now.
enum Local {
    None,
    /// A file; its content is cut where it is longer than a text may be.
    File(Vec<u8>),
    Other(Kind),
}

fn local(paths: &NodePaths, change: &Change) -> Result<Local, CustomizationError> {
    let here = paths.on_node(&change.path);
    match crate::module::tree::look(&here).map_err(CustomizationError::io("reading", &here))? {
        None => Ok(Local::None),
        Some(Kind::File { .. }) => {
            use std::io::Read as _;
            let mut bytes = Vec::new();
            fs::File::open(&here)
                .and_then(|file| file.take(text::LONGEST as u64 + 1).read_to_end(&mut bytes))
                .map_err(CustomizationError::io("reading", &here))?;
            Ok(Local::File(bytes))
        }
        Some(other) => Ok(Local::Other(other)),
    }
}

fn shown(
    change: &Change,
    old: Option<&[u8]>,
    new: Option<&[u8]>,
    originals: &Originals,
    notes: &mut Vec<String>,
) -> Option<String> {
    if old.is_none() && change.pristine.is_some() {
        let why = change
            .module
            .as_ref()
            .and_then(|module| originals.unknown.get(module));
        notes.push(match why {
            Some(why) => format!("what it was is not known: {why}"),
            None => "what it was is no short text".into(),
        });
        return None;
    }
    let named = |side: &str, there: bool| {
        if there {
            let mut name = OsString::from(side);
            name.push(&change.path);
            path_text::show(Path::new(&name)).into_owned()
        } else {
            "/dev/null".into()
        }
    };
    let (before, after) = (named("a", old.is_some()), named("b", new.is_some()));
    let diff = text::unified(
        (&before, old.unwrap_or_default()),
        (&after, new.unwrap_or_default()),
    );
    if diff.is_none() {
        notes.push("it is no short text".into());
    }
    diff
}

/// What is no content: types, links, bits and owners.
fn attributes(change: &Change, local: &Local) -> Vec<String> {
    let mut notes = Vec::new();
    match (&change.pristine, local) {
        (Some(Kind::Link { to: old }), Local::Other(Kind::Link { to: new })) if old != new => {
            notes.push(format!("link to {} → {}", old.display(), new.display()));
        }
        (None, Local::Other(Kind::Link { to })) => notes.push(format!("link to {}", to.display())),
        (Some(old), Local::Other(new)) if change.is(What::Type) => {
            notes.push(format!("{} → {}", name(old), name(new)));
        }
        (Some(old), Local::File(_)) if change.is(What::Type) => notes.push(format!("{} → file", name(old))),
        _ => {}
    }
    if let (true, Some(Kind::File { mode: old, .. }), Some(Kind::File { mode: new, .. })) =
        (change.is(What::Mode), &change.pristine, &change.local)
    {
        notes.push(format!("mode {old:04o} → {new:04o}"));
    }
    if let (true, Some((user, group))) = (change.is(What::Owner), change.owner) {
        notes.push(format!("belongs to {user}:{group}"));
    }
    notes
}

const fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::File { .. } => "file",
        Kind::Link { .. } => "link",
        Kind::Folder { .. } => "folder",
        Kind::Special => "device, socket or pipe",
    }
}

/// Those of `changes` that `named`, paths of the node with or without its root, mean: themselves and what is below them.
///
/// # Errors
/// [`CustomizationError::Path`] for one that is no local change.
pub fn choose(
    paths: &NodePaths,
    changes: Vec<Change>,
    named: &[PathBuf],
) -> Result<Vec<Change>, CustomizationError> {
    let named: Vec<PathBuf> = named.iter().map(|path| of_release(paths, path)).collect();
    for path in &named {
        if !changes.iter().any(|change| change.path.starts_with(path)) {
            return Err(CustomizationError::Path {
                path: path.clone(),
                problem: "is as the installed release has it, or belongs to none of its modules",
            });
        }
    }
    let is_meant = |change: &Change| named.iter().any(|path| change.path.starts_with(path));
    Ok(changes
        .into_iter()
        .filter(|change| named.is_empty() || is_meant(change))
        .collect())
}

/// A path as the release writes it: absolute, without the node's root.
pub(super) fn of_release(paths: &NodePaths, path: &Path) -> PathBuf {
    let below = path.strip_prefix(paths.root()).unwrap_or(path);
    Path::new("/").join(below)
}
