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

/// A module that lists `files` (path, content, mode) and `unpacked_size`.
fn module(files: &[(&str, &[u8], u32)], unpacked_size: u64) -> kato_shared::release::Module {
    let listed: Vec<_> = files
        .iter()
        .map(|(path, content, mode)| {
            serde_json::json!({"path": path, "sha256": Digest::of(content), "mode": mode})
        })
        .collect();
    serde_json::from_value(serde_json::json!({
        "name": "app", "artifact": "app.tar.zst", "roles": ["*"], "unpacked_size": unpacked_size, "files": listed,
        "install": {"policy": "replace", "dest": "/s/app"},
    }))
    .unwrap()
}

#[test]
fn what_a_release_lists_is_what_its_archive_must_hold() {
    let fixture = Fixture::new(&[
        raw(EntryType::Directory, "./", None, b""),
        raw(EntryType::Directory, "empty/", None, b""),
        raw(EntryType::Regular, "bin/run", None, b"run"),
        raw(EntryType::Symlink, "current", Some("bin/run"), b""),
        raw(EntryType::Link, "twin", Some("bin/run"), b""),
    ]);
    let both = [("bin/run", &b"run"[..], 0o640), ("twin", b"run", 0o640)];
    agrees(&fixture.archive, &module(&both, 3)).unwrap();

    for (files, size, entry, problem) in [
        (&both[..1], 3, "twin", "the release does not list it"),
        (
            &both[..],
            2,
            "bin/run",
            "expected 2 bytes unpacked in all, found 3",
        ),
        (
            &[both[0], both[1], ("gone", b"", 0o644)][..],
            3,
            "gone",
            "expected a file, the archive has none",
        ),
        (
            &[("bin/run", &b"ran"[..], 0o640), both[1]][..],
            3,
            "bin/run",
            "expected content with the digest",
        ),
        (
            &[("bin/run", &b"run"[..], 0o600), both[1]][..],
            3,
            "bin/run",
            "expected the mode 0600, found 0640",
        ),
        (
            &[both[0], both[1], ("current", b"run", 0o640)][..],
            3,
            "current",
            "expected a file, found something else",
        ),
    ] {
        let refused = agrees(&fixture.archive, &module(files, size)).unwrap_err();
        let expected = format!("app.tar.zst is not what the release lists: `{entry}`: {problem}");
        assert!(refused.to_string().contains(&expected), "{refused}");
    }
}

#[test]
fn what_no_list_can_allow_is_refused_by_its_name() {
    let file = |name| raw(EntryType::Regular, name, None, b"x");
    let listed = [("a", &b"x"[..], 0o640), ("a/b", b"x", 0o640), ("c", b"x", 0o640)];
    for (label, entries, problem) in [
        ("parent", vec![file("../a")], "`../a`, expected a relative path"),
        ("absolute", vec![file("/a")], "`/a`, expected a relative path"),
        (
            "twice",
            vec![file("a"), file("a")],
            "`a`: expected each path once",
        ),
        (
            "a folder that is a file",
            vec![raw(EntryType::Directory, "a/", None, b""), file("a")],
            "`a`: expected each path once",
        ),
        (
            "below a file",
            vec![file("a"), file("a/b")],
            "`a/b`: expected `a` to be a folder",
        ),
        (
            "through a link",
            vec![raw(EntryType::Symlink, "a", Some(".."), b""), file("a/b")],
            "`a`: expected a file",
        ),
        (
            "through a link that is not listed",
            vec![raw(EntryType::Symlink, "d", Some(".."), b""), file("d/b")],
            "`d/b`: expected `d` to be a folder",
        ),
        (
            "a hard link out",
            vec![raw(EntryType::Link, "a", Some("../../etc/passwd"), b"")],
            "`a`: expected a hard link to a file before it in the archive",
        ),
        (
            "a device",
            vec![raw(EntryType::Char, "null", None, b"")],
            "`null`: expected files, folders and links only",
        ),
        (
            "a device with a name that is listed",
            vec![raw(EntryType::Char, "a", None, b"")],
            "`a`: expected a file, found something else",
        ),
    ] {
        let refused = agrees(&Fixture::new(&entries).archive, &module(&listed, 9)).unwrap_err();
        assert!(refused.to_string().contains(problem), "{label}: {refused}");
    }
    // No archive at all, and a disk that gives nothing.
    let fixture = Fixture::new(&[]);
    durable::write(&fixture.archive.path, b"no archive", 0o644).unwrap();
    let refused = agrees(&fixture.archive, &module(&[], 0)).unwrap_err();
    assert!(
        refused.to_string().contains("expected a tar compressed"),
        "{refused}"
    );
    fs::remove_file(&fixture.archive.path).unwrap();
    let refused = agrees(&fixture.archive, &module(&[], 0)).unwrap_err();
    assert!(matches!(refused, UnpackError::Read { .. }), "{refused}");
}

#[test]
fn an_archive_that_unpacks_without_end_costs_no_more_than_what_is_listed() {
    // A long name of 80 MiB: no file has these bytes, and no file's size tells of them.
    let long = vec![b'a'; 80 << 20];
    let fixture = Fixture::new(&[raw(EntryType::GNULongName, "././@LongLink", None, &long)]);
    let refused = agrees(&fixture.archive, &module(&[], 0)).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("it unpacks to more than the release lists"),
        "{refused}"
    );
}
