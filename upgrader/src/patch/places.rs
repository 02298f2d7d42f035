//! Which paths modules change, and what the pristine state of a node's files is when patches are part of it. Pure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use kato_shared::release::{Install, Module, Release};

use super::{
    act::{PatchAct, Purpose},
    record::{PatchedModule, Patches},
};
use crate::{
    installed::{Installed, InstalledModule},
    module::tree::Entry,
};

/// The paths that `modules` change on a node with `roles`, as the release names them: files of an overlay, else the whole
/// folder or link. Packages, images and commands have no paths of their own.
pub fn of(modules: &[Module], roles: &[String]) -> Vec<PathBuf> {
    let of = |module: &Module| match &module.install {
        Install::Versioned { dest, link, .. } => {
            vec![link.clone().unwrap_or_else(|| dest.join("current"))]
        }
        Install::Replace { dest } => vec![dest.clone()],
        Install::Overlay { dest, .. } => module.files.iter().map(|file| dest.join(&file.path)).collect(),
        Install::Package { .. } | Install::Image { .. } | Install::Exec { .. } => Vec::new(),
    };
    modules
        .iter()
        .filter(|module| module.is_for(roles))
        .flat_map(of)
        .collect()
}

/// The first path of `ours` that is one of `theirs`, or above or below one.
pub fn overlap<'a>(ours: &'a [PathBuf], theirs: &[PathBuf]) -> Option<&'a Path> {
    let meets = |one: &Path, two: &Path| one.starts_with(two) || two.starts_with(one);
    let found = ours.iter().find(|one| theirs.iter().any(|two| meets(one, two)));
    found.map(PathBuf::as_path)
}

/// The pristine state of each module of `document`, by its name: what was installed at its paths, patches included.
pub fn bases(
    document: &Release,
    act: Option<&PatchAct>,
    installed: Option<&Installed>,
    patches: &Patches,
) -> BTreeMap<String, InstalledModule> {
    let Some(installed) = installed else {
        return BTreeMap::new();
    };
    // Installed once more, a patch is compared with what was there before it.
    let own = act
        .filter(|act| act.purpose == Purpose::Install)
        .map(|act| act.name.as_str());
    let known = pristine(installed, patches, own);
    if let Some(act) = act {
        let base = |module: &Module| {
            (
                module.name.clone(),
                under(module, act, installed, patches, &known),
            )
        };
        return document.modules.iter().map(base).collect();
    }
    let mut bases = BTreeMap::new();
    for (name, module) in &installed.modules {
        bases.insert(name.clone(), with(module, &known));
    }
    let listed = |path: &Path| installed.modules.values().any(|module| has(module, path));
    for (path, entry) in known.iter().filter(|(path, _)| !listed(path)) {
        if let Some(base) = owner(document, path).and_then(|owner| bases.get_mut(&owner.name))
            && let Some(Ok(below)) = base.dest.as_ref().map(|dest| path.strip_prefix(dest))
        {
            base.entries.push(Entry {
                path: below.to_owned(),
                kind: entry.kind.clone(),
            });
        }
    }
    bases
}

/// The record of the release with what patches made of it: what local changes are compared with.
pub fn patched(installed: &Installed, patches: &Patches) -> Installed {
    let known = pristine(installed, patches, None);
    let mut record = installed.clone();
    for module in record.modules.values_mut() {
        *module = with(module, &known);
    }
    let listed = |path: &Path| installed.modules.values().any(|module| has(module, path));
    for (path, entry) in known.iter().filter(|(path, _)| !listed(path)) {
        let depth =
            |module: &&mut InstalledModule| module.dest.as_ref().map_or(0, |dest| dest.components().count());
        let around =
            |module: &&mut InstalledModule| module.dest.as_ref().is_some_and(|dest| path.starts_with(dest));
        let nearest = record.modules.values_mut().filter(around).max_by_key(depth);
        if let Some(module) = nearest
            && let Some(Ok(below)) = module.dest.as_ref().map(|dest| path.strip_prefix(dest))
        {
            let path = below.to_owned();
            let kind = entry.kind.clone();
            module.entries.push(Entry { path, kind });
        }
    }
    record
}

fn has(module: &InstalledModule, path: &Path) -> bool {
    let below = module.dest.as_ref().and_then(|dest| path.strip_prefix(dest).ok());
    below.is_some_and(|below| module.entries.iter().any(|entry| entry.path == below))
}

/// The module of a release that decides about a path that a patch brought: the one that lists it, else the nearest overlay.
fn owner<'a>(release: &'a Release, path: &Path) -> Option<&'a Module> {
    let lists = |module: &&Module| {
        let below = module
            .install
            .dest()
            .and_then(|dest| path.strip_prefix(dest).ok());
        below.is_some_and(|below| module.files.iter().any(|file| file.path == below))
    };
    let overlays = || {
        let around = |module: &&Module| matches!(&module.install, Install::Overlay { dest, .. } if path.starts_with(dest));
        let depth = |module: &&Module| module.install.dest().map_or(0, |dest| dest.components().count());
        release.modules.iter().filter(around).max_by_key(depth)
    };
    release.modules.iter().find(lists).or_else(overlays)
}

/// Every pristine file by its path, as the newest of release and patches has it, without the patch `except`.
fn pristine<'a>(
    installed: &'a Installed,
    patches: &'a Patches,
    except: Option<&str>,
) -> BTreeMap<PathBuf, &'a Entry> {
    let mut known = BTreeMap::new();
    for module in installed.modules.values() {
        if let Some(dest) = &module.dest {
            known.extend(absolute(dest, &module.entries));
        }
    }
    let others = patches
        .installed
        .iter()
        .filter(|patch| except != Some(patch.name.as_str()));
    for module in others.flat_map(|patch| patch.modules.values()) {
        if module.whole {
            known.retain(|path, _| !path.starts_with(&module.dest));
        }
        known.extend(absolute(&module.dest, &module.entries));
    }
    known
}

fn absolute<'a>(dest: &'a Path, entries: &'a [Entry]) -> impl Iterator<Item = (PathBuf, &'a Entry)> {
    entries.iter().map(move |entry| (dest.join(&entry.path), entry))
}

/// A module of the release with what patches made of its files.
fn with(module: &InstalledModule, known: &BTreeMap<PathBuf, &Entry>) -> InstalledModule {
    let Some(dest) = &module.dest else {
        return module.clone();
    };
    let now = |entry: &Entry| {
        known.get(&dest.join(&entry.path)).map(|known| Entry {
            path: entry.path.clone(),
            kind: known.kind.clone(),
        })
    };
    InstalledModule {
        entries: module.entries.iter().filter_map(now).collect(),
        ..module.clone()
    }
}

/// The entries below `dest`, by their path there.
fn below<'a>(
    dest: &'a Path,
    known: &'a BTreeMap<PathBuf, &'a Entry>,
) -> impl Iterator<Item = Entry> + use<'a> {
    known.iter().filter_map(move |(path, entry)| {
        let below = path
            .strip_prefix(dest)
            .ok()
            .filter(|below| *below != Path::new(""))?;
        Some(Entry {
            path: below.to_owned(),
            kind: entry.kind.clone(),
        })
    })
}

/// The pristine state under a module of a patch: of the files that it brings; and when it takes a patch back, of those that
/// the patch brought, so that they go away where they are no more wanted.
fn under(
    module: &Module,
    act: &PatchAct,
    installed: &Installed,
    patches: &Patches,
    known: &BTreeMap<PathBuf, &Entry>,
) -> InstalledModule {
    let Some(dest) = module.install.dest() else {
        return InstalledModule {
            version: None,
            sha256: installed.release_digest,
            dest: None,
            install: Some(module.install.clone()),
            entries: Vec::new(),
        };
    };
    let is_brought = |entry: &Entry| module.files.iter().any(|file| file.path == entry.path);
    let own = patches
        .installed(&act.name)
        .filter(|_| act.purpose == Purpose::Revert);
    let was_brought = |entry: &Entry| {
        let path = dest.join(&entry.path);
        let in_module = |of: &PatchedModule| of.entries.iter().any(|had| of.dest.join(&had.path) == path);
        own.is_some_and(|own| own.modules.values().any(in_module))
    };
    InstalledModule {
        version: Some(installed.version.to_string()),
        sha256: installed.release_digest,
        dest: Some(dest.to_owned()),
        install: Some(module.install.clone()),
        entries: below(dest, known)
            .filter(|entry| is_brought(entry) || was_brought(entry))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kato_shared::{Digest, release::Version};
    use serde_json::json;

    use super::*;
    use crate::{
        module::tree::Kind,
        patch::record::{By, InstalledPatch},
    };

    fn file(path: &str, content: &str) -> Entry {
        Entry {
            path: path.into(),
            kind: Kind::File {
                sha256: Digest::of(content.as_bytes()),
                mode: 0o644,
            },
        }
    }

    fn installed() -> Installed {
        let etc = InstalledModule {
            version: None,
            sha256: Digest::of(b"etc"),
            dest: Some("/s/etc".into()),
            install: None,
            entries: vec![file("a", "a1"), file("b", "b1")],
        };
        Installed {
            schema: 1,
            version: Version::new(1, 0, 0),
            release_digest: Digest::of(b"r"),
            attempt: "x".into(),
            time: Timestamp::UNIX_EPOCH,
            modules: [("etc".to_owned(), etc)].into(),
            safe_paths: Vec::new(),
            owner: None,
            checks: Vec::new(),
        }
    }

    fn patched() -> Patches {
        let mut patches = Patches::default();
        let module = PatchedModule {
            dest: "/s/etc".into(),
            whole: false,
            entries: vec![file("b", "b2"), file("c", "c2")],
        };
        patches.put(InstalledPatch {
            id: 1,
            name: "fix".into(),
            sha256: Digest::of(b"fix"),
            release: Version::new(1, 0, 0),
            time: Timestamp::UNIX_EPOCH,
            by: By::Hand,
            requires: Vec::new(),
            places: vec!["/s/etc/b".into(), "/s/etc/c".into()],
            modules: [("etc-fix".to_owned(), module)].into(),
            restart: None,
        });
        patches
    }

    fn patch_document(files: &[&str]) -> Release {
        let files: Vec<_> = files
            .iter()
            .map(|path| json!({"path": path, "sha256": Digest::of(b"n"), "mode": 420}))
            .collect();
        serde_json::from_value(json!({
            "schema": 1, "kind": "patch", "product": "demo", "version": "1.0.0", "published": "2026-01-01T00:00:00Z",
            "modules": [{"name": "m", "artifact": "a", "roles": ["*"], "files": files,
                         "install": {"policy": "overlay", "dest": "/s/etc"}}],
            "patch": {"id": 2, "name": "two", "summary": "", "severity": "optional"},
        }))
        .unwrap()
    }

    #[test]
    fn r70_the_next_release_finds_what_patches_brought_as_pristine() {
        let mut release = patch_document(&[]);
        release.modules[0].name = "etc".into();
        let found = bases(&release, None, Some(&installed()), &patched());
        assert_eq!(
            found["etc"].entries,
            [file("a", "a1"), file("b", "b2"), file("c", "c2")]
        );
        // Another module in the same folder is not told of it.
        let mut two = installed();
        let mut other = two.modules["etc"].clone();
        other.entries = vec![file("z", "z1")];
        two.modules.insert("other".into(), other);
        let found = bases(&release, None, Some(&two), &patched());
        assert_eq!(found["other"].entries, [file("z", "z1")]);
    }

    #[test]
    fn r70_a_patch_sees_only_the_files_that_it_brings_so_that_others_stay() {
        let document = patch_document(&["b", "new"]);
        let act = PatchAct::install(document.patch.as_ref().unwrap());
        let found = bases(&document, Some(&act), Some(&installed()), &patched());
        assert_eq!(found["m"].entries, [file("b", "b2")]);
        // Taken back by modules of its own, what it brought and they do not goes away.
        let act = PatchAct {
            name: "fix".into(),
            purpose: Purpose::Revert,
            ..act
        };
        let found = bases(&document, Some(&act), Some(&installed()), &patched());
        assert_eq!(found["m"].entries, [file("b", "b2"), file("c", "c2")]);
    }

    #[test]
    fn r70_paths_meet_when_one_is_above_the_other() {
        let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
        let ours = paths(&["/s/etc/a", "/s/web"]);
        assert_eq!(overlap(&ours, &paths(&["/s/web/x"])), Some(Path::new("/s/web")));
        assert_eq!(overlap(&ours, &paths(&["/s/etc/ab", "/s/webx"])), None);
    }
}
