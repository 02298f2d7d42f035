//! How much room a plan needs, and where: bytes and inodes for downloads, the backup, images and unpacked modules. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use kato_shared::{
    Digest,
    release::{Install, Module, Release},
};

use super::node::{IMAGES, KATO, ModulePlan, NodeFacts};
use crate::space::Need;

/// The files and folders of a backup's or an archive's own: what it is made of, its manifest, and their temporary names.
const RECORDS: u64 = 12;

/// The files and folders that the run makes for a module beside its own: its latch, its work record, the folders that it is unpacked
/// in and put back from, and their temporary names.
const NOTES: u64 = 4;

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
        needs.push(need(&facts.backups, bytes, RECORDS, "backup"));
        if facts.saved_bytes > 0 {
            needs.push(need(
                &facts.customizations,
                facts.saved_bytes,
                RECORDS,
                "local changes",
            ));
        }
    }
    if let Some(folder) = &facts.images_folder {
        needs.push(need(folder, images_bytes(modules), 0, IMAGES));
    }
    for planned in modules.iter().filter(|module| module.skip.is_none()) {
        let module = release.modules.iter().find(|module| module.name == planned.name);
        let (unpacked, more) = module.map_or((0, 0), |module| (module.unpacked_size, module.bytes));
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
            inodes.saturating_mul(copies).saturating_add(NOTES),
            "unpacked modules",
        ));
        if more > 0 {
            needs.push(need(Path::new("/"), more, 0, "what modules write"));
        }
    }
    needs
}
