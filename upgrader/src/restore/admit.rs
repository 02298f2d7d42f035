//! What must be so before a restoration begins: it is the right backup, everything it needs is here, and there is room.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use kato_shared::chain::Chain;

use super::{Request, Restoration, find, plan::below_root};
use crate::{
    attempt::Attempt,
    backup::{Found, Sizes},
    exit::{Exit, Failure},
    module::tree::Kind,
    report::terminal,
    run::{Node, taken_up},
    space::{self, Need},
};

/// The backup and what is done with it: what was begun, when it is that one.
pub(super) fn chosen(
    node: &Node,
    request: &Request,
    begun: Option<Restoration>,
) -> Result<(Found, Restoration), Failure> {
    let paths = &node.paths;
    let name = match (&request.backup, &begun) {
        (Some(name), _) => name.clone(),
        (None, Some(begun)) => begun.folder.display().to_string(),
        (None, None) => {
            let problem = anyhow!("which backup is to be restored?");
            return Err(Failure::new(Exit::Usage, problem).hint("`kato node backup list` shows them"));
        }
    };
    let backup = find(paths, &name)?;
    match begun {
        Some(begun) if begun.backup == backup.manifest.attempt && is_same(request, &begun) => {
            Ok((backup, begun))
        }
        Some(other) => {
            let what = if other.whole { "all of it" } else { "single paths" };
            let problem = anyhow!("the restoration of {} ({what}) is not complete", other.backup);
            Err(Failure::new(Exit::Preflight, problem).hint(format!(
                "nothing more was changed; finish it with `{}`, or take it back with `kato node restore --undo`",
                other.command()
            )))
        }
        None => {
            admit(node, &backup, request)?;
            let restoration = Restoration::plan(paths, &backup, &request.only, node.clock.now())?;
            dangling(&backup, &restoration, request.force)?;
            Ok((backup, restoration))
        }
    }
}

/// Whether the request is for the very paths of `begun`. One that names nothing at all means what was begun.
fn is_same(request: &Request, begun: &Restoration) -> bool {
    let only: BTreeSet<PathBuf> = request.only.iter().map(|path| below_root(path)).collect();
    let names_nothing = request.backup.is_none() && request.only.is_empty();
    names_nothing || begun.whole == only.is_empty() && only == begun.only
}

/// Whether the backup may be restored here.
fn admit(node: &Node, backup: &Found, request: &Request) -> Result<(), Failure> {
    let manifest = &backup.manifest;
    // A restoration gives the upgrade up, also one whose record cannot be read.
    let (attempt, is_damaged) = match Attempt::load(&node.paths) {
        Ok(attempt) => (attempt, false),
        Err(error) if taken_up::is_damage(&error) => {
            terminal::say(&format!(
                "warning: {}; the restoration gives that upgrade up",
                Chain(&error)
            ));
            (None, true)
        }
        Err(error) => return Err(error.into()),
    };
    let is_begun = attempt.as_ref().is_some_and(|attempt| attempt.begun) || taken_up::has_notes(node);
    if !request.only.is_empty() && (is_begun || is_damaged) {
        let problem = anyhow!(
            "the node is in the middle of an upgrade; single paths would be restored into half a release"
        );
        return Err(Failure::new(Exit::Preflight, problem)
            .hint("finish the upgrade with `kato node upgrade`, or restore the whole backup"));
    }
    let product = attempt.map(|attempt| attempt.release.product);
    let wrong = match (&manifest.node, &manifest.product, &product) {
        (Some(other), _, _) if *other != node.id => {
            format!("was taken on the node `{other}`, and this is `{}`", node.id)
        }
        (_, Some(other), Some(own)) if other != own => {
            format!("is of the product `{other}`, and this node has `{own}`")
        }
        (None, _, _) => "does not say which node it was taken on".into(),
        (Some(_), _, _) if manifest.amid.is_some() => {
            "was taken when an upgrade had changed this node already: it holds half of a release".into()
        }
        _ => return Ok(()),
    };
    let problem = anyhow!("the backup {} {wrong}", manifest.attempt);
    if request.force {
        terminal::say(&format!("warning: {problem}"));
        return Ok(());
    }
    Err(Failure::new(Exit::Preflight, problem)
        .hint("nothing was changed; `--force` restores it all the same"))
}

/// A link that would lead nowhere is the version of a module that is not on the node any more.
fn dangling(backup: &Found, restoration: &Restoration, force: bool) -> Result<(), Failure> {
    let saved: BTreeMap<&Path, &Kind> = backup
        .manifest
        .entries
        .iter()
        .map(|entry| (entry.path.as_path(), &entry.kind))
        .collect();
    for unit in &restoration.units {
        let Some(Kind::Link { to }) = saved.get(unit.below.as_path()) else {
            continue;
        };
        let target = plain(&unit.path.parent().unwrap_or(Path::new("/")).join(to));
        let comes_back = restoration
            .units
            .iter()
            .any(|other| other.saved && target.starts_with(&other.path));
        // A link that led nowhere before is as it was.
        if !comes_back && target.symlink_metadata().is_err() && !force {
            let problem = anyhow!(
                "`{}` would lead to `{}`, which is not on this node any more",
                unit.path.display(),
                target.display()
            );
            return Err(Failure::new(Exit::Preflight, problem).hint(format!(
                "nothing was changed; bring that folder back first, or say `--force` and then run `kato node upgrade --force` to install {} again",
                backup.manifest.from.as_ref().map_or_else(|| "a release".into(), ToString::to_string)
            )));
        }
    }
    Ok(())
}

/// The path without `..`, as far as names tell.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == std::path::Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}

/// Whether everything can be staged, mount by mount; `sizes` are those of the backup's files.
pub(super) fn room(sizes: &Sizes, restoration: &Restoration) -> Result<(), Failure> {
    let of = |unit: &super::Unit| -> Vec<u64> {
        let inside = sizes.iter().filter(|(path, _)| path.starts_with(&unit.below));
        inside.map(|(_, bytes)| *bytes).collect()
    };
    let need = |unit: &super::Unit| Need {
        path: unit.path.parent().unwrap_or(Path::new("/")).to_owned(),
        bytes: of(unit).iter().sum(),
        inodes: of(unit).len() as u64,
        purpose: "restored files",
    };
    let needs: Vec<_> = restoration.units.iter().map(need).collect();
    let mut mounts = Vec::new();
    for need in &needs {
        let mount = space::mount_of(&need.path).map_err(|error| Failure::new(Exit::Preflight, error))?;
        mounts.push((need, mount));
    }
    space::judge(mounts).map_err(|short| {
        Failure::new(Exit::Preflight, short)
            .hint("nothing was changed; free space there, then run the same command again")
    })
}
