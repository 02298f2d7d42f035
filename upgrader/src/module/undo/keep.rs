//! Notes and originals that outlive their upgrade: put by when it is recorded, taken out again when it is to be undone later.
//!
//! `<folder>/<module>.json` is the note, `<folder>/<module>/<n>` the original of its n-th place. Both ways may be killed
//! anywhere and started again.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use kato_shared::durable;

use super::{Act, ModuleError, Note, Was, all, beside, copy, file};
use crate::{document, failpoint, module::tree, paths::NodePaths};

/// Moves all notes of the undo journal and the originals that they speak of into `folder`.
///
/// # Errors
/// [`ModuleError`].
pub fn put_by(paths: &NodePaths, folder: &Path) -> Result<(), ModuleError> {
    for note in all(paths)? {
        let originals = folder.join(&note.module);
        durable::create_folder(&originals)?;
        let mut kept = note.clone();
        for (number, place) in kept.places.values_mut().enumerate() {
            let to = originals.join(number.to_string());
            if place.kept.symlink_metadata().is_ok() {
                relocate(&place.kept, &to)?;
            }
            place.kept = to;
        }
        keep_packages(&mut kept, &originals)?;
        durable::write_json(&folder.join(format!("{}.json", note.module)), &kept, 0o600)?;
        failpoint::hit("patch.kept");
        durable::remove(&file(paths, &note.module))?;
    }
    Ok(())
}

/// Keeps the files of packages that lead back; the next installation of packages throws them away where they are.
fn keep_packages(note: &mut Note, originals: &Path) -> Result<(), ModuleError> {
    for noted in &mut note.acts {
        let Act::Packages { before, .. } = &mut noted.act else {
            continue;
        };
        for deb in before.iter_mut().filter_map(|package| package.deb.as_mut()) {
            if let Some(name) = deb.file_name().filter(|_| deb.is_file()) {
                let to = originals.join(name);
                durable::copy(deb, &to, 0o600, None)?;
                *deb = to;
            }
        }
    }
    Ok(())
}

/// Whether `folder` has notes that can be taken out.
pub fn is_put_by(folder: &Path) -> bool {
    let Ok(listing) = fs::read_dir(folder) else {
        return false;
    };
    listing
        .flatten()
        .any(|item| item.path().extension().is_some_and(|end| end == "json"))
}

/// Puts the notes in `folder` back into the undo journal, so that what they note can be undone.
///
/// # Errors
/// [`ModuleError`].
pub fn take_out(paths: &NodePaths, folder: &Path) -> Result<(), ModuleError> {
    let listing = fs::read_dir(folder).map_err(ModuleError::io("reading", folder))?;
    for item in listing.flatten() {
        let path = item.path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let Some(note) = document::read::<Note>(&path, "a note of the undo journal")? else {
            continue;
        };
        let mut note = note.below(paths.root());
        if file(paths, &note.module).exists() {
            continue;
        }
        bring_near(&mut note)?;
        durable::create_folder(&paths.undo())?;
        durable::write_json(&file(paths, &note.module), &note, 0o600)?;
        failpoint::hit("patch.taken_out");
    }
    Ok(())
}

/// Moves kept folders beside their places: from there they come back by one rename, wherever they were kept.
fn bring_near(note: &mut Note) -> Result<(), ModuleError> {
    if note.shared {
        return Ok(());
    }
    let suffix = note.suffix.clone();
    for (path, place) in &mut note.places {
        let near = beside(path, &suffix);
        if place.was.as_ref().is_none_or(Was::is_copied) {
            continue;
        }
        if place.kept.symlink_metadata().is_ok() {
            relocate(&place.kept, &near)?;
        }
        if let Some(found) = Was::look(&near)? {
            place.was = Some(found);
            place.kept = near;
        }
    }
    Ok(())
}

/// Moves `from` to `to`; to another file system by way of a copy that is whole before it has the name.
fn relocate(from: &Path, to: &Path) -> Result<(), ModuleError> {
    let (Some(folder), Ok(metadata)) = (to.parent(), from.symlink_metadata()) else {
        return Ok(());
    };
    let there = fs::metadata(folder).map_err(ModuleError::io("reading", folder))?;
    tree::remove(to).map_err(ModuleError::io("removing", to))?;
    if metadata.dev() == there.dev() {
        return Ok(durable::rename(from, to)?);
    }
    let part = beside(to, ".new-000000000000");
    tree::remove(&part).map_err(ModuleError::io("removing", &part))?;
    copy_tree(from, &part)?;
    durable::rename(&part, to)?;
    tree::remove(from).map_err(ModuleError::io("removing", from))
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), ModuleError> {
    let reading = || ModuleError::io("reading", from);
    let Some(kind) = tree::look(from).map_err(reading())? else {
        return Ok(());
    };
    if !kind.is_folder() {
        return copy(&kind, from, to);
    }
    let metadata = fs::symlink_metadata(from).map_err(reading())?;
    durable::create_folder(to)?;
    for item in fs::read_dir(from).map_err(reading())? {
        let name = item.map_err(reading())?.file_name();
        copy_tree(&from.join(&name), &to.join(&name))?;
    }
    let setting = || ModuleError::io("setting owner and mode of", to);
    std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid())).map_err(setting())?;
    fs::set_permissions(
        to,
        fs::Permissions::from_mode(metadata.permissions().mode() & 0o7777),
    )
    .map_err(setting())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_copied_with_modes_and_links() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("sub")).unwrap();
        durable::write(&from.join("sub/file"), b"content", 0o640).unwrap();
        durable::symlink(Path::new("sub/file"), &from.join("link")).unwrap();
        fs::set_permissions(from.join("sub"), fs::Permissions::from_mode(0o750)).unwrap();
        copy_tree(&from, &to).unwrap();
        assert_eq!(tree::scan(&from).unwrap(), tree::scan(&to).unwrap());
        assert_eq!(
            fs::metadata(to.join("sub")).unwrap().permissions().mode() & 0o777,
            0o750
        );
    }
}
