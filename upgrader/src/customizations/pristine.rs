//! What the files of the installed release were: its archives, kept when the upgrade to it is recorded.
//!
//! `pristine/<digest>`, a second name of the download in the staging folder, so that keeping costs no copy. Which archives are kept
//! is decided anew at each record: those of overlays first, then the smallest, as much as `customizations.pristine` allows.
//!
//! Keeping is a convenience: what cannot be kept is logged and fails no upgrade. What is read is compared with the digests of the
//! record, so an archive that was altered gives nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use kato_shared::{
    Digest,
    chain::Chain,
    durable::{self, DurableError},
};

use super::{change::Class, text};
use crate::{
    installed::{Installed, InstalledModule},
    module::tree::Kind,
    paths::NodePaths,
};

/// Why a file's content before its change is not known.
#[derive(Debug, thiserror::Error)]
pub enum PristineError {
    /// The archive is not kept.
    #[error(
        "the archive {sha256} of the installed release is not kept (`customizations.pristine` says how much is)"
    )]
    NotKept {
        /// The archive.
        sha256: Digest,
    },
    /// The archive cannot be read.
    #[error("reading the kept archive `{path}` failed")]
    Read {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Keeps what `installed` was made of, up to `limit` bytes, and removes the rest. Called before downloads are removed.
pub fn keep(paths: &NodePaths, installed: &Installed, limit: u64) {
    if let Err(error) = try_keep(paths, installed, limit) {
        tracing::warn!(error = %Chain(&error), "archives of the installed release are not kept");
    }
}

fn try_keep(paths: &NodePaths, installed: &Installed, limit: u64) -> Result<(), DurableError> {
    let folder = paths.pristine();
    let mut found: Vec<(bool, u64, String, PathBuf)> = installed
        .modules
        .values()
        .filter_map(|module| {
            let class = Class::of(module.install.as_ref()?)?;
            let name = module.sha256.hex();
            let place = [folder.join(&name), paths.staging().join(&name)]
                .into_iter()
                .find(|place| place.is_file())?;
            let size = fs::metadata(&place).ok()?.len();
            Some((class != Class::Overlay, size, name, place))
        })
        .collect();
    found.sort_unstable();
    found.dedup_by(|one, other| one.2 == other.2);
    let mut left = limit;
    let mut kept = BTreeSet::new();
    for (_, size, name, place) in found {
        let Some(rest) = left.checked_sub(size) else {
            continue;
        };
        let to = folder.join(&name);
        if place != to {
            durable::create_folder(&folder)?;
            second_name(&place, &to)?;
        }
        left = rest;
        kept.insert(name);
    }
    let Ok(listing) = fs::read_dir(&folder) else {
        return Ok(());
    };
    for item in listing.flatten() {
        let name = item.file_name();
        let is_over = |name: &str| crate::fetch::is_download(name) && !kept.contains(name);
        if name.to_str().is_some_and(is_over) {
            durable::remove(&item.path())?;
        }
    }
    Ok(())
}

fn second_name(from: &Path, to: &Path) -> Result<(), DurableError> {
    match fs::hard_link(from, to) {
        Ok(()) => durable::sync_folder(to.parent().unwrap_or(to)),
        // Another file system, or one without second names.
        Err(_) => durable::copy(from, to, 0o600, None),
    }
}

/// The content of those of the `wanted` files of an installed module that are texts, by their path below the module's folder.
///
/// # Errors
/// [`PristineError`] when the module's archive is not there or not to be read.
pub fn contents(
    paths: &NodePaths,
    module: &InstalledModule,
    wanted: &BTreeSet<PathBuf>,
) -> Result<BTreeMap<PathBuf, Vec<u8>>, PristineError> {
    let path = paths.pristine().join(module.sha256.hex());
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            return Err(PristineError::NotKept {
                sha256: module.sha256,
            });
        }
        Err(source) => return Err(PristineError::Read { path, source }),
    };
    let digests: BTreeMap<&Path, Digest> = module
        .entries
        .iter()
        .filter_map(|entry| match &entry.kind {
            Kind::File { sha256, .. } if wanted.contains(&entry.path) => Some((&*entry.path, *sha256)),
            Kind::File { .. } | Kind::Link { .. } | Kind::Folder { .. } | Kind::Special => None,
        })
        .collect();
    read(file, &digests).map_err(|source| PristineError::Read { path, source })
}

fn read(file: File, digests: &BTreeMap<&Path, Digest>) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut contents = BTreeMap::new();
    let mut tar = tar::Archive::new(zstd::stream::read::Decoder::new(file)?);
    for entry in tar.entries()? {
        if contents.len() == digests.len() {
            break;
        }
        let mut entry = entry?;
        let name: PathBuf = entry
            .path()?
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        let Some(expected) = digests.get(name.as_path()) else {
            continue;
        };
        if entry.size() > text::LONGEST as u64 {
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if Digest::of(&bytes) == *expected && text::is_text(&bytes) {
            contents.insert(name, bytes);
        }
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kato_shared::release::{Install, OnConflict, Version};

    use super::*;
    use crate::{customizations::tests::archive, module::tree::Entry};

    fn module(install: Install, archive: &[u8], files: &[(&str, &[u8])]) -> InstalledModule {
        InstalledModule {
            version: None,
            sha256: Digest::of(archive),
            dest: install.dest().map(Path::to_owned),
            install: Some(install),
            entries: files
                .iter()
                .map(|(path, content)| Entry {
                    path: path.into(),
                    kind: Kind::File {
                        sha256: Digest::of(content),
                        mode: 0o644,
                    },
                })
                .collect(),
        }
    }

    #[test]
    fn overlays_and_small_archives_are_kept_first_and_files_are_read_from_them() {
        let root = tempfile::tempdir().unwrap();
        let paths = NodePaths::new(root.path(), Path::new("/var/kato"));
        let files: &[(&str, &[u8])] = &[("a.conf", b"a\n"), ("b.bin", b"\0")];
        let (large, small): (&[(&str, &[u8])], _) = (&[("x", b"large enough to be larger")], files);
        let (one, two) = (archive(small), archive(large));
        let overlay = Install::Overlay {
            dest: "/s/etc".into(),
            conflict: OnConflict::Merge,
        };
        let replace = Install::Replace {
            dest: "/s/web".into(),
        };
        durable::create_folder(&paths.staging()).unwrap();
        for archive in [&one, &two] {
            durable::write(&paths.staging().join(Digest::of(archive).hex()), archive, 0o644).unwrap();
        }
        let mut installed = Installed {
            schema: 1,
            version: Version::new(1, 0, 0),
            release_digest: Digest::of(b"r"),
            attempt: "a".into(),
            time: Timestamp::UNIX_EPOCH,
            modules: [
                ("etc".into(), module(overlay, &one, small)),
                ("web".into(), module(replace, &two, large)),
            ]
            .into(),
            safe_paths: Vec::new(),
            owner: None,
            checks: Vec::new(),
        };
        let kept = || fs::read_dir(paths.pristine()).unwrap().count();
        keep(&paths, &installed, 1 << 20);
        assert_eq!(kept(), 2);
        keep(&paths, &installed, one.len() as u64);
        assert_eq!(kept(), 1);
        let wanted = ["a.conf", "b.bin"].map(PathBuf::from).into();
        let read = contents(&paths, &installed.modules["etc"], &wanted).unwrap();
        assert_eq!(read, [("a.conf".into(), b"a\n".to_vec())].into());
        let lost = contents(&paths, &installed.modules["web"], &["x".into()].into()).unwrap_err();
        assert!(lost.to_string().contains("is not kept"), "{lost}");
        // An archive that is not the record's gives nothing.
        installed.modules.get_mut("etc").unwrap().entries[0].kind = Kind::File {
            sha256: Digest::of(b"other"),
            mode: 0o644,
        };
        assert!(
            contents(&paths, &installed.modules["etc"], &wanted)
                .unwrap()
                .is_empty()
        );
    }
}
