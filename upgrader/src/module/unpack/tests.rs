//! Archives that must not do harm.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use kato_shared::durable;
use tar::EntryType;

use super::*;
use crate::module::tree;

/// A tar entry by its raw name, because the builder's checked methods refuse the names that matter here.
fn raw(kind: EntryType, name: &str, link: Option<&str>, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    if let Some(link) = link {
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
    }
    header.set_entry_type(kind);
    header.set_mode(0o640);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

struct Fixture {
    folder: tempfile::TempDir,
    archive: Archive,
}

impl Fixture {
    fn new(entries: &[Vec<u8>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut tar = entries.concat();
        tar.extend([0; 1024]);
        let bytes = zstd::encode_all(&tar[..], 1).unwrap();
        let path = folder.path().join("a.tar.zst");
        durable::write(&path, &bytes, 0o644).unwrap();
        let archive = Archive {
            path,
            sha256: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        Self { folder, archive }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("outer/inner")
    }

    fn unpack(&self) -> Result<Option<u32>, UnpackError> {
        unpack(
            &self.archive,
            &self.target(),
            Instant::now() + Duration::from_secs(60),
        )
    }
}

#[test]
fn files_modes_links_and_folders_arrive() {
    let fixture = Fixture::new(&[
        raw(EntryType::Directory, "./", None, b""),
        raw(EntryType::Directory, "empty/", None, b""),
        raw(EntryType::Regular, "bin/run", None, b"run"),
        raw(EntryType::Symlink, "current", Some("bin/run"), b""),
        raw(EntryType::Symlink, "absolute", Some("/etc/hostname"), b""),
        raw(EntryType::Link, "twin", Some("bin/run"), b""),
    ]);
    assert_eq!(fixture.unpack().unwrap(), Some(0o740), "what `./` says");
    let found = tree::scan(&fixture.target()).unwrap();
    let paths: Vec<_> = found.iter().map(|entry| entry.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["absolute", "bin", "bin/run", "current", "empty", "twin"]);
    let expected = tree::Kind::File {
        sha256: Digest::of(b"run"),
        mode: 0o640,
    };
    assert_eq!(found[2].kind, expected);
    assert_eq!(found[5].kind, expected);
    let mode = |path: &str| {
        fs::metadata(fixture.target().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    // As in the archive, whatever the umask is; and never closed to ourselves.
    assert_eq!((mode("empty"), mode(".")), (0o740, 0o740));
}

#[test]
fn an_archive_that_cannot_be_unpacked_leaves_no_half_of_it() {
    let fixture = Fixture::new(&[
        raw(EntryType::Regular, "first", None, b"x"),
        raw(EntryType::Fifo, "pipe", None, b""),
    ]);
    assert!(matches!(fixture.unpack(), Err(UnpackError::Entry { .. })));
    assert!(!fixture.target().exists());
}

#[test]
fn no_entry_leaves_the_folder() {
    for (label, entries) in [
        ("parent", vec![raw(EntryType::Regular, "../escaped", None, b"x")]),
        (
            "absolute",
            vec![raw(EntryType::Regular, "/tmp/escaped", None, b"x")],
        ),
        (
            "inner parent",
            vec![raw(EntryType::Regular, "a/../../escaped", None, b"x")],
        ),
        (
            "through a link",
            vec![
                raw(EntryType::Symlink, "out", Some(".."), b""),
                raw(EntryType::Regular, "out/escaped", None, b"x"),
            ],
        ),
        (
            "through an absolute link",
            vec![
                raw(EntryType::Symlink, "out", Some("/"), b""),
                raw(EntryType::Regular, "out/escaped", None, b"x"),
            ],
        ),
        (
            "hard link",
            vec![raw(EntryType::Link, "shadow", Some("../../a.tar.zst"), b"")],
        ),
        ("device", vec![raw(EntryType::Char, "null", None, b"")]),
    ] {
        let fixture = Fixture::new(&entries);
        assert!(fixture.unpack().is_err(), "{label}");
        let outside: Vec<_> = tree::scan(fixture.folder.path())
            .unwrap()
            .into_iter()
            .filter(|entry| entry.path.ends_with("escaped") || entry.path.ends_with("shadow"))
            .collect();
        assert!(outside.is_empty(), "{label}: {outside:?}");
        assert!(
            !Path::new("/tmp/escaped").exists() && !Path::new("/escaped").exists(),
            "{label}"
        );
    }
}

#[test]
fn an_archive_that_was_altered_after_its_download_is_refused() {
    let mut fixture = Fixture::new(&[raw(EntryType::Regular, "a", None, b"x")]);
    fixture.archive.sha256 = Digest::of(b"other");
    assert!(matches!(fixture.unpack(), Err(UnpackError::Altered { .. })));

    let fixture = Fixture::new(&[raw(EntryType::Regular, "a", None, b"x")]);
    let mut bytes = fs::read(&fixture.archive.path).unwrap();
    bytes.extend_from_slice(b"tail");
    durable::write(&fixture.archive.path, &bytes, 0o644).unwrap();
    assert!(fixture.unpack().is_err());
}

#[test]
fn an_archive_that_takes_longer_than_its_module_may_is_stopped() {
    let fixture = Fixture::new(&[raw(EntryType::Regular, "a", None, b"x")]);
    let past = Instant::now() - Duration::from_secs(1);
    assert!(matches!(
        unpack(&fixture.archive, &fixture.target(), past),
        Err(UnpackError::Timeout { .. })
    ));
}
