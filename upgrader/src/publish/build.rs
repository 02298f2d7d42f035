//! From a description folder to a build folder: archives, the release document, and the upgrader's program.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::{
    Digest, durable,
    release::{Artifact, Module, Patch, Release, SCHEMA, Upgrader, Version, layout},
    settings::{ByteSize, HumanDuration},
};
use serde::Serialize;

use super::{
    PublishError, archive,
    description::{self, Description, ModuleText},
    files,
};

/// An upgrader program that the release ships.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgraderFile {
    /// The program.
    pub file: PathBuf,
    /// Its target triple, e.g. `x86_64-unknown-linux-gnu`.
    pub triple: String,
    /// Its version.
    pub version: Version,
}

/// How a release is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOptions {
    /// The upgraders that it ships, one per triple.
    pub upgraders: Vec<UpgraderFile>,
    /// The zstd level, 1 to 19.
    pub level: i32,
}

impl Default for BuildOptions {
    fn default() -> Self {
        // 3 is zstd's own default: most of the gain at hundreds of MB/s.
        Self {
            upgraders: Vec::new(),
            level: 3,
        }
    }
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Built {
    /// The product.
    pub product: String,
    /// The version; of a patch, the newest release that it is for.
    pub version: Version,
    /// The patch, when it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// The build folder.
    pub folder: PathBuf,
    /// The artifacts by name.
    pub artifacts: BTreeMap<String, Artifact>,
    /// The upgraders by target triple.
    pub upgrader: BTreeMap<String, Upgrader>,
}

/// Builds the release that `description` (a folder with `release.toml`) describes into the folder `build`.
///
/// The same description and the same `published` give the same bytes.
///
/// # Errors
/// [`PublishError`] naming what is wrong in the description, or the file that cannot be read or written.
pub fn build(
    description: &Path,
    build: &Path,
    options: &BuildOptions,
    published: Timestamp,
) -> Result<Built, PublishError> {
    let path = description.join(description::FILE);
    let text = Description::load(description)?;
    let contradiction = |problem| PublishError::Contradiction {
        path: path.clone(),
        problem,
    };
    let mut release = outline(&text, published).map_err(contradiction)?;
    release.check(&path.display().to_string())?;

    let targets = build.join("targets");
    durable::create_folder(&targets.join("artifacts"))?;
    let revert = release.patch.iter_mut().flat_map(|patch| &mut patch.revert);
    for (module, entry) in text.all_modules().zip(release.modules.iter_mut().chain(revert)) {
        let packed = pack(
            module.source(description).as_deref(),
            &targets,
            &entry.artifact,
            options.level,
        )?;
        entry.unpacked_size = packed.unpacked_size;
        entry.files = packed.files;
        let artifact = Artifact {
            target: layout::artifact(&packed.digest, &entry.artifact),
            sha256: packed.digest,
            size: packed.size,
        };
        release.artifacts.insert(entry.artifact.clone(), artifact);
        has_its_programs(entry).map_err(contradiction)?;
    }
    // What is in the archives is known only now.
    release.check(&path.display().to_string())?;
    // A patch changes the release that is there; a new `kato` comes with a release.
    let upgraders = options.upgraders.iter().filter(|_| release.patch.is_none());
    for upgrader in upgraders {
        let shipped = ship(upgrader, &targets)?;
        release.upgrader.insert(upgrader.triple.clone(), shipped);
    }
    let document = targets.join(target_of(&release));
    durable::create_folder(document.parent().unwrap_or(&targets))?;
    durable::write_json(&document, &release, 0o644)?;
    Ok(Built {
        product: release.product,
        version: release.version,
        patch: release.patch.map(|patch| patch.name),
        folder: build.to_owned(),
        artifacts: release.artifacts,
        upgrader: release.upgrader,
    })
}

/// That the archive of a module holds the programs that it runs from there.
fn has_its_programs(module: &Module) -> Result<(), String> {
    let is_there = |program: &Path| module.files.iter().any(|file| file.path == program);
    match module
        .install
        .own_programs()
        .into_iter()
        .find(|program| !is_there(program))
    {
        Some(missing) => Err(format!(
            "the module `{}` runs `./{}`, which is not in its folder",
            module.name,
            missing.display()
        )),
        None => Ok(()),
    }
}

/// The target name of the document.
fn target_of(release: &Release) -> String {
    release.patch.as_ref().map_or_else(
        || layout::release(&release.version),
        |patch| layout::patch(patch.id),
    )
}

/// The release document with everything that is known before packing; artifacts are placeholders.
fn outline(text: &Description, published: Timestamp) -> Result<Release, String> {
    let mut release = head(text, published)?;
    release.modules = modules_of(&text.modules, text)?;
    if let (Some(patch), Some(of_text)) = (&mut release.patch, &text.patch) {
        patch.revert = modules_of(&of_text.revert, text)?;
    }
    for module in text.all_modules() {
        let placeholder = Artifact {
            target: String::new(),
            sha256: Digest::of(b""),
            size: 0,
        };
        let name = archive_name(module, text);
        if release.artifacts.insert(name.clone(), placeholder).is_some() {
            return Err(format!(
                "two modules have the archive `{name}`; give one of them a `version` of its own"
            ));
        }
    }
    Ok(release)
}

/// The release document without modules.
fn head(text: &Description, published: Timestamp) -> Result<Release, String> {
    // Defaults live in the document's own module; a document without the optional keys has them all.
    let bare = serde_json::json!({
        "schema": SCHEMA, "product": text.product, "version": text.version, "published": published, "modules": [],
    });
    let bare: Release = serde_json::from_value(bare).map_err(|error| error.to_string())?;
    Ok(Release {
        kind: text.kind,
        patch: text.patch.as_ref().map(|patch| Patch {
            id: patch.id,
            name: patch.name.clone(),
            summary: patch.summary.clone(),
            severity: patch.severity,
            roles: text.affected(patch),
            requires: patch.requires.clone(),
            revert: Vec::new(),
        }),
        supersedes_patches: text.supersedes_patches.clone(),
        channel: text.channel.clone().unwrap_or(bare.channel),
        from: text.sources(),
        floor: text.floor,
        min_upgrader: text.min_upgrader.clone(),
        reversible: text.reversible,
        required_patches: text.required_patches.clone(),
        role_order: text.role_order.clone().unwrap_or(bare.role_order),
        core_role: text.core_role.clone().unwrap_or(bare.core_role),
        implicit_role: text.implicit_role.clone().unwrap_or(bare.implicit_role),
        checks: text.checks()?,
        backup: text.backup.clone(),
        restart: text.restart,
        safe_paths: text.safe_paths.clone(),
        notices: text.notices.clone(),
        ..bare
    })
}

fn modules_of(modules: &[ModuleText], text: &Description) -> Result<Vec<Module>, String> {
    modules.iter().map(|module| module_of(module, text)).collect()
}

/// A module without what packing finds out.
fn module_of(module: &ModuleText, text: &Description) -> Result<Module, String> {
    Ok(Module {
        name: module.name.clone(),
        version: Some(version_of(module, text)),
        artifact: archive_name(module, text),
        roles: module.roles.clone(),
        after: module.after.clone(),
        install: module.install()?,
        unpacked_size: 0,
        bytes: module.bytes.map_or(0, ByteSize::bytes),
        files: Vec::new(),
        conffiles: module.conffiles.clone(),
        restart: module.restart.clone(),
        recovery: module.recovery,
        reversible: module.reversible,
        timeout: module.timeout.unwrap_or(HumanDuration::from_secs(1800)),
    })
}

/// Its own version, else the release's; of a patch the release's with the patch's name behind it.
fn version_of(module: &ModuleText, text: &Description) -> String {
    let whole = || match &text.patch {
        Some(patch) => format!("{}+{}", text.version, patch.name),
        None => text.version.to_string(),
    };
    module.version.clone().unwrap_or_else(whole)
}

fn archive_name(module: &ModuleText, text: &Description) -> String {
    // The name becomes part of a URL and of a file name.
    let plain = |text: String| -> String {
        text.chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "-_.+".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .collect()
    };
    format!(
        "{}-{}.tar.zst",
        plain(module.name.clone()),
        plain(version_of(module, text))
    )
}

/// Packs a module's folder, or nothing for a module without one; its digest, known only at the end, becomes part of the name.
fn pack(
    source: Option<&Path>,
    targets: &Path,
    name: &str,
    level: i32,
) -> Result<archive::Packed, PublishError> {
    let folder = targets.join("artifacts");
    let mut temp = tempfile::Builder::new()
        .prefix(".kato-")
        .tempfile_in(&folder)
        .map_err(PublishError::io("creating a temporary file in", &folder))?;
    let packed = archive::pack(source, temp.as_file_mut(), &folder.join(name), level)?;
    let (file, temp) = temp.into_parts();
    durable::commit(
        &file,
        &temp,
        &targets.join(layout::artifact(&packed.digest, name)),
    )?;
    Ok(packed)
}

fn ship(upgrader: &UpgraderFile, targets: &Path) -> Result<Upgrader, PublishError> {
    let target = layout::upgrader(&upgrader.version, &upgrader.triple);
    let (sha256, size) = files::digest(&upgrader.file)?;
    files::place(&upgrader.file, &targets.join(&target), sha256)?;
    Ok(Upgrader {
        target,
        version: upgrader.version.clone(),
        sha256,
        size,
    })
}
