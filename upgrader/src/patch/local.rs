//! The verbs on this node.
//!
//! `install`, `reinstall` and `revert` are runs of the engine, with lock, journal, events and resumption; [`Wish`] is what they
//! are asked for. `mark`, `reset` and `update` change documents of the node under the same lock.

use std::{path::Path, sync::Arc};

use anyhow::anyhow;
use kato_shared::release::PatchList;

use super::{
    act::Purpose,
    choice::{ChoiceError, Wanted},
    document::KeptDocument,
    listed::Listed,
    record::{InstalledPatch, Patches},
};
use crate::{
    attempt::Attempt,
    cli::node::UpgradeRequest,
    document::DocumentError,
    exit::{Exit, Failure},
    installed::Installed,
    module::{ModuleError, tree, undo},
    paths::NodePaths,
    plan::node::modules_for,
    run::{Node, goal},
};

/// What a run is to do with patches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// What.
    pub verb: Verb,
    /// Whether services stay as they are.
    pub no_restart: bool,
    /// Only patches of these names count, where an operator gave a manifest of their own.
    pub only: Option<Vec<String>>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Install patches.
    Install(Wanted),
    /// Install a patch once more.
    Reinstall(String),
    /// Take a patch back; the one that was installed last when `None`.
    Revert(Option<String>),
}

impl From<ChoiceError> for Failure {
    fn from(error: ChoiceError) -> Self {
        let hint = match &error {
            ChoiceError::Unknown { .. } | ChoiceError::UnknownId { .. } => {
                "nothing was changed; `kato patch update` fetches the newest list, `kato patch status --all` shows it".to_owned()
            }
            ChoiceError::OtherRelease { .. } => {
                "nothing was changed; `kato patch status` shows those that are for this release".to_owned()
            }
            ChoiceError::Requires { missing, .. } => {
                format!("nothing was changed; run `kato patch install {}` first", missing.join(" "))
            }
            ChoiceError::NoneInstalled | ChoiceError::NotInstalled { .. } => {
                "nothing was changed; `kato patch status` shows what is installed".to_owned()
            }
            ChoiceError::Needed { later, .. } => match later.first() {
                Some(first) => format!("nothing was changed; run `kato patch revert {first}` first"),
                None => "nothing was changed".to_owned(),
            },
        };
        Self::new(Exit::Preflight, error).hint(hint)
    }
}

/// Only the patches of `list` that `only` names.
///
/// # Errors
/// [`ChoiceError::Unknown`] for a name that is not in the signed list: a manifest selects, it adds nothing.
pub fn restricted(mut list: PatchList, only: Option<&[String]>) -> Result<PatchList, ChoiceError> {
    let Some(only) = only else { return Ok(list) };
    if let Some(unknown) = only.iter().find(|name| list.named(name).is_none()) {
        return Err(ChoiceError::Unknown {
            name: unknown.clone(),
            known: list.patches.into_iter().map(|entry| entry.name).collect(),
        });
    }
    list.patches.retain(|entry| only.contains(&entry.name));
    Ok(list)
}

/// Reads an operator's own manifest: a JSON document with `patches`, a list of names or of objects with a `name`.
///
/// # Errors
/// [`Failure`] with 2 when it cannot be read.
pub fn manifest(path: &Path) -> Result<Vec<String>, Failure> {
    let wrong = |error: anyhow::Error| {
        let problem = error.context(format!("the manifest `{}` cannot be used", path.display()));
        Failure::new(Exit::Usage, problem).hint("it is JSON: {\"patches\": [\"name\", …]}")
    };
    let bytes = std::fs::read(path).map_err(|error| wrong(error.into()))?;
    let document: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| wrong(error.into()))?;
    let name = |item: &serde_json::Value| {
        let name = item.as_str().or_else(|| item.get("name")?.as_str());
        name.map(ToOwned::to_owned)
    };
    let names = document.get("patches").and_then(serde_json::Value::as_array);
    let names: Option<Vec<String>> = names.and_then(|names| names.iter().map(name).collect());
    names.ok_or_else(|| wrong(anyhow!("expected a list `patches` of names")))
}

/// Fetches the newest list and keeps it.
///
/// # Errors
/// [`Failure`] with 26 for a refusal, 75 when it cannot be reached.
pub async fn update(node: &Node, request: &UpgradeRequest) -> Result<Listed, Failure> {
    let source = goal::connect(node, request).await?;
    let list = Arc::clone(&source).patches().await?;
    Ok(Listed::keep(&node.paths, list, node.clock.now())?)
}

/// The list that the node has, or the newest one where it has none or `fresh` is asked for.
///
/// # Errors
/// As [`update`].
pub async fn list(node: &Node, request: &UpgradeRequest, fresh: bool) -> Result<Listed, Failure> {
    match Listed::load(&node.paths)? {
        Some(listed) if !fresh => Ok(listed),
        _ => update(node, request).await,
    }
}

/// The record of the installed release.
///
/// # Errors
/// [`Failure`] with 20 on a node that never had one.
pub fn installed(paths: &NodePaths) -> Result<Installed, Failure> {
    Installed::load(paths)?.ok_or_else(|| {
        let problem = anyhow!("no release is installed on this node, and a patch changes a release");
        Failure::new(Exit::Preflight, problem).hint("install one with `kato node upgrade`")
    })
}

/// Writes down that the patch `name` is installed. What must still be restarted counts as restarted.
///
/// # Errors
/// [`Failure`] with 20 for a patch that is not known or not for this release.
pub fn mark_installed(node: &Node, list: &PatchList, name: &str) -> Result<(), Failure> {
    let installed = installed(&node.paths)?;
    let mut patches = Patches::load(&node.paths)?;
    if let Some(patch) = patches.installed.iter_mut().find(|patch| patch.name == name) {
        patch.restart = None;
        return Ok(patches.save(&node.paths)?);
    }
    let entry = list.named(name).ok_or_else(|| ChoiceError::Unknown {
        name: name.to_owned(),
        known: list.patches.iter().map(|entry| entry.name.clone()).collect(),
    })?;
    if !entry.is_for(&installed.version) {
        return Err(ChoiceError::OtherRelease {
            name: name.to_owned(),
            version: installed.version,
        }
        .into());
    }
    patches.put(InstalledPatch::by_hand(
        entry,
        &installed.version,
        node.clock.now(),
    ));
    Ok(patches.save(&node.paths)?)
}

/// Writes down that the patch `name` is not installed. Files stay as they are, and so does what was kept for its way back: when it
/// is installed again over its own files, those are not the originals. See [`choose_originals`].
///
/// # Errors
/// [`Failure`] with 20 when it is not installed by the record.
pub fn mark_missing(node: &Node, name: &str) -> Result<(), Failure> {
    let mut patches = Patches::load(&node.paths)?;
    let is_rolled_back = patches.rolled_back.iter().any(|patch| patch.name == name);
    if !patches.remove(name) && !is_rolled_back {
        return Err(ChoiceError::NotInstalled {
            name: name.to_owned(),
            installed: patches.installed.into_iter().map(|patch| patch.name).collect(),
        }
        .into());
    }
    patches.rolled_back.retain(|patch| patch.name != name);
    Ok(patches.save(&node.paths)?)
}

/// Decides which originals lead back from the patch that `attempt` is about to install: those of an installation that was marked
/// as missing, where the node still has its files; else what is on the node now, and older ones go.
///
/// # Errors
/// [`Failure`] when what is kept, or a file of the patch on the node, cannot be read.
pub fn choose_originals(node: &Node, attempt: &mut Attempt) -> Result<(), Failure> {
    let patches = Patches::load(&node.paths)?;
    let act = attempt.patch.as_mut().filter(|_| !attempt.changed);
    let act = act.filter(|act| act.purpose == Purpose::Install && patches.installed(&act.name).is_none());
    if let Some(act) = act {
        act.keeps = !has_originals(&node.paths, node.roles(), &act.name)?;
        if act.keeps {
            forget_kept(&node.paths, &act.name)?;
        }
    }
    Ok(())
}

/// Whether something is kept for the patch `name`, and the node still has the files that the patch brought.
fn has_originals(paths: &NodePaths, roles: &[String], name: &str) -> Result<bool, Failure> {
    let Some(kept) = KeptDocument::load(paths, name)?.filter(|_| undo::is_put_by(&paths.patch_kept(name)))
    else {
        return Ok(false);
    };
    for module in modules_for(&kept.release, roles) {
        let Some(dest) = module.install.dest() else {
            continue;
        };
        for file in &module.files {
            let path = paths.on_node(dest).join(&file.path);
            let found = tree::look(&path).map_err(ModuleError::io("reading", &path))?;
            if !matches!(found, Some(tree::Kind::File { sha256, .. }) if sha256 == file.sha256) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Removes what was kept for the way back of the patch `name`.
///
/// # Errors
/// [`ModuleError::Io`].
pub fn forget_kept(paths: &NodePaths, name: &str) -> Result<(), ModuleError> {
    let folder = paths.patch_kept(name);
    tree::remove(&folder).map_err(ModuleError::io("removing", &folder))
}

/// Brings the record into line with the release that was installed: what it contains or has replaced is gone. May be called
/// again.
///
/// # Errors
/// [`Failure`].
pub fn after_release(
    paths: &NodePaths,
    release: &kato_shared::release::Release,
    roles: &[String],
) -> Result<(), Failure> {
    let before = Patches::load(paths)?;
    let list = Listed::load(paths).unwrap_or_else(|damaged: DocumentError| {
        tracing::warn!(error = %kato_shared::chain::Chain(&damaged), "the list of patches is not used");
        None
    });
    let mut patches = before.clone();
    let gone = patches.after(release, roles, list.as_ref().map(|listed| &listed.list));
    if patches != before {
        patches.save(paths)?;
    }
    for name in gone {
        forget_kept(paths, &name)?;
    }
    // What a killed run left: originals of patches that are not in the record any more.
    if let Ok(listing) = std::fs::read_dir(paths.patch_kept("")) {
        for item in listing.flatten() {
            let name = item.file_name().to_string_lossy().into_owned();
            if patches.installed(&name).is_none() {
                forget_kept(paths, &name)?;
            }
        }
    }
    Ok(())
}
