//! How much room a plan needs, and where: bytes and inodes for downloads, the backup, images, unpacked modules and
//! `kato`'s own records. Pure.
//!
//! What the inodes take in blocks is added where the mount is known ([`Need::on`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use kato_shared::{
    Digest,
    release::{FileEntry, Install, Module, Release},
};

use super::node::{IMAGES, KATO, ModulePlan, NodeFacts, RECORDS};
use crate::space::Need;

/// The files and folders that a run keeps for itself, whatever it installs: journal, events, audit, the documents of the run and of
/// the node with their temporary names while they are written anew, the note of held space, the spool of notices.
const OWN: u64 = 12;

/// What one file that a release lists takes in a document of the run beside its path, in bytes at most: its digest, its mode, and
/// the names of the fields.
const LISTED: u64 = 192;

/// How many documents that list every file are written beside those that are there: the run's and the node's, each anew, the module's work
/// record and its note of the way back.
const LISTS: u64 = 4;

/// The files and folders of a backup's or an archive's own: what it is made of, its manifest, and their temporary names.
const SAVED: u64 = 12;

/// The files and folders that the run makes for a module beside its own, where it is installed: the folders that it is unpacked in
/// and put back from, and their temporary names.
const BESIDE: u64 = 4;

/// The files that the run writes for a module in its own folder: its latch, its work record, its note of the way back, each with its temporary
/// name.
const NOTES: u64 = 6;

/// The files and folders of a slot of `kato`: folders, program, link, script, and their temporary names.
const SLOT: u64 = 6;

/// Bytes to download.
pub(super) fn download(facts: &NodeFacts, modules: &[ModulePlan]) -> u64 {
    let files: u64 = files(facts, modules).values().sum();
    files.saturating_add(images_bytes(modules))
}

/// Bytes of the images of `install` that are not on the node yet.
pub(super) fn image_bytes(facts: &NodeFacts, install: &Install) -> u64 {
    let Install::Image { images } = install else {
        return 0;
    };
    let missing = images
        .iter()
        .filter(|image| !facts.images.contains(&image.digest));
    missing.map(|image| image.size).sum()
}

fn images_bytes(modules: &[ModulePlan]) -> u64 {
    modules.iter().map(|module| module.image_bytes).sum()
}

/// The archives and the `kato` that are not on the node yet, with their sizes.
fn files(facts: &NodeFacts, modules: &[ModulePlan]) -> BTreeMap<Digest, u64> {
    modules
        .iter()
        .map(|module| (module.sha256, module.bytes))
        .chain(facts.kato.iter().map(|kato| (kato.sha256, kato.size)))
        .filter(|(digest, _)| !facts.staged.contains(digest))
        .collect()
}

/// The files and folders that a module unpacks. Links are not listed by the release, so they are not counted.
fn inodes(module: &Module) -> u64 {
    let folders: BTreeSet<&Path> = module
        .files
        .iter()
        .flat_map(|file| file.path.ancestors().skip(1))
        .collect();
    (module.files.len() + folders.len()) as u64
}

/// What `kato` writes for itself while it installs `modules`: an allowance, in the file system of its state.
fn own<'a>(facts: &NodeFacts, modules: impl Iterator<Item = &'a Module>) -> Need {
    let line = |file: &FileEntry| (file.path.as_os_str().len() as u64).saturating_add(LISTED);
    let (mut bytes, mut inodes) = (0_u64, OWN);
    for module in modules {
        let listed: u64 = module.files.iter().map(line).sum();
        bytes = bytes.saturating_add(listed.saturating_mul(LISTS));
        inodes = inodes.saturating_add(NOTES);
    }
    Need {
        path: facts.staging.clone(),
        bytes,
        inodes,
        purpose: RECORDS,
    }
}

/// What the names of a module's files take in their folders, in bytes at most.
fn names(module: &Module) -> u64 {
    /// What a folder notes of a file beside its name, and what its blocks leave empty (ext4: 8 bytes, filled to half at worst).
    const NAMED: u64 = 16;
    let name = |file: &FileEntry| file.path.file_name().map_or(0, |name| name.len() as u64);
    module.files.iter().map(|file| (name(file) + NAMED) * 2).sum()
}

/// The free space that the plan needs, place by place.
pub(super) fn space(
    facts: &NodeFacts,
    release: &Release,
    modules: &[ModulePlan],
    backup: &BTreeSet<PathBuf>,
) -> Vec<Need> {
    let need = |path: &Path, bytes, inodes, purpose| Need {
        path: path.to_owned(),
        bytes,
        inodes,
        purpose,
    };
    let files = files(facts, modules);
    let mut needs = vec![need(
        &facts.staging,
        files.values().sum(),
        // And the release's document.
        files.len() as u64 + 1,
        "downloads",
    )];
    if let Some(kato) = &facts.kato {
        needs.push(need(&facts.slots, kato.size, SLOT, KATO));
    }
    if !facts.is_backed_up {
        // Compression may make it smaller; what cannot be compressed must fit as well.
        let bytes: u64 = backup.iter().filter_map(|path| facts.sizes.get(path)).sum();
        let bytes = bytes.saturating_add(facts.record_bytes);
        needs.push(need(&facts.backups, bytes, SAVED, "backup"));
        if facts.saved_bytes > 0 {
            needs.push(need(
                &facts.customizations,
                facts.saved_bytes,
                SAVED,
                "local changes",
            ));
        }
    }
    if let Some(folder) = &facts.images_folder {
        needs.push(need(folder, images_bytes(modules), 0, IMAGES));
    }
    let installed: Vec<_> = modules.iter().filter(|module| module.skip.is_none()).collect();
    let of = |planned: &ModulePlan| release.modules.iter().find(|module| module.name == planned.name);
    needs.push(own(facts, installed.iter().filter_map(|planned| of(planned))));
    for planned in installed {
        let module = of(planned);
        let (unpacked, more) = module.map_or((0, 0), |module| {
            (module.unpacked_size.saturating_add(names(module)), module.bytes)
        });
        let inodes = module.map_or(0, inodes);
        // An overlay is unpacked beside its folder and then copied into it; files of packages are kept for the way back.
        let copies = if matches!(planned.policy, "overlay" | "package") {
            2
        } else {
            1
        };
        let folder = planned.dest.as_deref().unwrap_or(&facts.work);
        needs.push(need(
            folder,
            unpacked.saturating_mul(copies),
            inodes.saturating_mul(copies).saturating_add(BESIDE),
            "unpacked modules",
        ));
        if more > 0 {
            needs.push(need(Path::new("/"), more, 0, "what modules write"));
        }
    }
    needs
}
