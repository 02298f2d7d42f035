use std::{
    ffi::OsStr,
    fs::File,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, MetadataExt as _},
    },
};

use super::*;

fn node() -> (tempfile::TempDir, NodePaths) {
    let root = tempfile::tempdir().unwrap();
    let paths = NodePaths::new(root.path(), Path::new("/var/kato"));
    fs::create_dir_all(root.path().join("s/etc/d")).unwrap();
    durable::write(&root.path().join("s/etc/d/a"), b"content", 0o640).unwrap();
    durable::symlink(Path::new("etc"), &root.path().join("s/link")).unwrap();
    (root, paths)
}

fn take(paths: &NodePaths, attempt: &str, second: i64, what: &[&str]) -> Manifest {
    take_amid(paths, attempt, second, what, None)
}

fn take_amid(paths: &NodePaths, attempt: &str, second: i64, what: &[&str], amid: Option<&str>) -> Manifest {
    let part = begin(paths, attempt).unwrap();
    let head = Head {
        attempt: attempt.into(),
        node: "n1".into(),
        product: "demo".into(),
        from: None,
        to: Version::new(2, 0, 0),
        amid: amid.map(ToOwned::to_owned),
        time: Timestamp::from_second(second).unwrap(),
    };
    let what = what.iter().map(PathBuf::from).collect();
    finish(paths, &part, &what, head).unwrap()
}

const ALL: &[&str] = &["/s/etc", "/s/link", "/s/missing"];

/// Restores everything of the backup below `into` and gives where its root is.
fn restored(backup: &Found, into: &Path) -> PathBuf {
    let staging = into.join(format!("{STAGING}test"));
    fs::create_dir(&staging).unwrap();
    for parent in ["s", "var"] {
        fs::create_dir(staging.join(parent)).unwrap();
    }
    backup
        .extract(|path| {
            let rest = path.strip_prefix("s").ok()?;
            let mut parts = rest.components();
            let first = parts.next()?;
            Some(staging.join(first).join(parts.as_path()).components().collect())
        })
        .unwrap();
    staging
}

#[test]
fn r39_a_backup_holds_what_its_manifest_says_and_old_ones_go() {
    let (root, paths) = node();
    let manifest = take(&paths, "one", 1, ALL);
    let backup = named(&paths, "one").unwrap();
    backup.verify().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&folder(&paths, "one")), mode(&backup.archive())),
        (0o700, 0o600)
    );
    let names: Vec<_> = manifest
        .entries
        .iter()
        .map(|entry| entry.path.to_str().unwrap())
        .collect();
    assert_eq!(names, ["s/etc", "s/etc/d", "s/etc/d/a", "s/link"]);
    assert!(manifest.paths.contains(Path::new("s/missing")));
    let into = tempfile::tempdir().unwrap();
    let found = restored(&backup, into.path());
    assert_eq!(
        tree::scan(&found.join("etc")).unwrap(),
        tree::scan(&root.path().join("s/etc")).unwrap()
    );

    take(&paths, "two", 2, ALL);
    take(&paths, "three", 3, ALL);
    begin(&paths, "killed").unwrap();
    let left = || {
        let all = all(&paths);
        all.into_iter()
            .map(|backup| backup.manifest.attempt)
            .collect::<Vec<_>>()
    };
    let now = Timestamp::from_second(1000).unwrap();
    let by_count = Retention {
        keep: 2,
        max_age: None,
    };
    retain(&paths, by_count, now).unwrap();
    assert_eq!(left(), ["three", "two"]);
    assert!(!paths.backups().join("killed.part").exists());
    let by_age = Retention {
        keep: 9,
        max_age: Some(HumanDuration::from_secs(10)),
    };
    retain(&paths, by_age, now).unwrap();
    assert_eq!(left(), ["three"], "the newest stays, however old it is");
    assert!(matches!(
        named(&paths, "one").unwrap_err(),
        BackupError::Unknown { known, .. } if known == ["three"]
    ));
}

#[test]
fn r39_files_of_any_name_come_back() {
    let (root, paths) = node();
    let odd = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let etc = root.path().join("s/etc");
    fs::create_dir(etc.join(odd(b"d-\xff"))).unwrap();
    durable::write(&etc.join(odd(b"d-\xff/caf\xe9")), b"latin", 0o640).unwrap();
    fs::hard_link(etc.join(odd(b"d-\xff/caf\xe9")), etc.join(odd(b"second-\xe9"))).unwrap();
    durable::symlink(&odd(b"d-\xff/\xfe"), &etc.join(odd(b"link-\xff"))).unwrap();
    durable::write(&etc.join("dev\\x2d"), b"a unit", 0o644).unwrap();
    // Too long for the field of the header.
    let long = [&b"long-\xff".repeat(30)[..], b"/x"].concat();
    fs::create_dir(etc.join(odd(&long[..long.len() - 2]))).unwrap();
    durable::write(&etc.join(odd(&long)), b"deep", 0o644).unwrap();

    let manifest = take(&paths, "one", 1, ALL);
    let text = fs::read_to_string(folder(&paths, "one").join("manifest.json")).unwrap();
    assert!(
        text.contains(r#""escaped:s/etc/d-\\xff/caf\\xe9""#) && text.contains(r#""s/etc/dev\\x2d""#),
        "{text}"
    );
    let backup = named(&paths, "one").unwrap();
    assert_eq!(backup.manifest, manifest);
    backup.verify().unwrap();
    let into = tempfile::tempdir().unwrap();
    let found = restored(&backup, into.path()).join("etc");
    assert_eq!(tree::scan(&found).unwrap(), tree::scan(&etc).unwrap());
    assert_eq!(fs::metadata(found.join(odd(b"second-\xe9"))).unwrap().nlink(), 2);
}

#[test]
fn r39_attributes_owners_second_names_holes_and_pipes_come_back() {
    let (root, paths) = node();
    let at = |name: &str| root.path().join("s/etc").join(name);
    fs::hard_link(at("d/a"), at("second")).unwrap();
    let sparse = File::create_new(at("sparse")).unwrap();
    sparse.set_len(9 * 1024 * 1024).unwrap();
    sparse.write_all_at(b"end", 9 * 1024 * 1024 - 3).unwrap();
    let pipe = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, pipe, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let none = rustix::fs::XattrFlags::empty();
    let has_attributes = rustix::fs::lsetxattr(at("d/a"), "user.note", b"x\0y", none).is_ok();
    let is_root = std::os::unix::fs::lchown(at("d"), Some(12), Some(34)).is_ok();

    let manifest = take(&paths, "one", 1, ALL);
    assert_eq!(manifest.skipped, [PathBuf::from("s/etc/socket")]);
    assert!(manifest.unsettled.is_empty());
    let backup = named(&paths, "latest").unwrap();
    let into = tempfile::tempdir().unwrap();
    let found = restored(&backup, into.path()).join("etc");
    let look = |path: &Path| fs::symlink_metadata(path).unwrap();
    assert_eq!(look(&found.join("second")).ino(), look(&found.join("d/a")).ino());
    let (was, is) = (look(&at("sparse")), look(&found.join("sparse")));
    assert_eq!((is.len(), is.mtime()), (was.len(), was.mtime()));
    assert!(is.blocks() * 512 < 1024 * 1024, "{} blocks", is.blocks());
    assert_eq!(
        tree::digest(&found.join("sparse")).unwrap(),
        tree::digest(&at("sparse")).unwrap()
    );
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(
        &look(&found.join("pipe")).file_type()
    ));
    if has_attributes {
        let found = attributes(&found.join("d/a")).unwrap();
        assert!(
            found.contains(&("user.note".into(), b"x\0y".to_vec())),
            "{found:?}"
        );
    }
    if is_root {
        let d = look(&found.join("d"));
        assert_eq!((d.uid(), d.gid()), (12, 34));
    }
}

#[test]
fn r39_a_file_that_cannot_be_read_is_an_error_that_names_it() {
    // Its first page is not mapped, so that even root reads nothing.
    let paths = NodePaths::new(Path::new("/proc/self"), Path::new("/var/kato"));
    let folder = tempfile::tempdir().unwrap();
    let what = [PathBuf::from("/mem")].into();
    let error = archive::write(
        paths.root(),
        &what,
        Path::new("/none"),
        &folder.path().join("archive"),
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("saving `/proc/self/mem` failed"),
        "{error}"
    );
}

#[test]
fn r39_backups_are_not_in_backups() {
    let (_root, paths) = node();
    durable::create_folder(&paths.state_dir().join("state")).unwrap();
    durable::write(&paths.installed(), b"{}", 0o644).unwrap();
    take(&paths, "one", 1, ALL);
    let manifest = take(&paths, "two", 2, &["/var", "/var/kato/state/installed.json"]);
    let names: Vec<_> = manifest
        .entries
        .iter()
        .map(|entry| entry.path.to_str().unwrap())
        .collect();
    assert_eq!(names, ["var", "var/kato/state/installed.json"]);
}

#[test]
fn r39_a_backup_that_was_altered_is_found_out() {
    let (_root, paths) = node();
    take(&paths, "one", 1, ALL);
    let backup = named(&paths, "one").unwrap();
    let mut manifest = backup.manifest.clone();
    manifest.entries.pop();
    let other = Found {
        manifest,
        ..backup.clone()
    };
    assert!(matches!(other.verify().unwrap_err(), BackupError::Altered { .. }));
    let archive = fs::read(backup.archive()).unwrap();
    durable::write(&backup.archive(), &archive[..archive.len() - 1], 0o600).unwrap();
    assert!(matches!(backup.verify().unwrap_err(), BackupError::Digest { .. }));
}

#[test]
fn c14_a_backup_of_a_node_that_was_half_new_is_not_the_latest_and_displaces_none() {
    let (_root, paths) = node();
    take(&paths, "one", 1, ALL);
    for (second, name) in [(2, "two"), (3, "three"), (4, "four")] {
        take_amid(&paths, name, second, ALL, Some("one"));
    }
    assert_eq!(named(&paths, "latest").unwrap().manifest.attempt, "one");
    assert_eq!(leads_back(&paths, "four"), "one");
    assert_eq!(leads_back(&paths, "one"), "one");
    let retention = Retention {
        keep: 2,
        max_age: None,
    };
    retain(&paths, retention, Timestamp::from_second(9).unwrap()).unwrap();
    let left: Vec<_> = all(&paths).into_iter().map(|one| one.manifest.attempt).collect();
    assert_eq!(left, ["four", "three", "one"]);
}

#[test]
fn r39_patches_do_not_push_the_backup_of_the_newest_upgrade_out() {
    let (_root, paths) = node();
    let ids = [
        "none-to-2.0.0-20260101T000000001",
        "none-to-2.0.0-20260101T000000002",
    ];
    take(&paths, ids[0], 1, ALL);
    take(&paths, ids[1], 2, ALL);
    for patch in 3..8 {
        take(
            &paths,
            &format!("none-to-2.0.0-dea-fix-2026010{patch}T000000000"),
            patch,
            ALL,
        );
    }
    let retention = |keep| Retention { keep, max_age: None };
    let now = Timestamp::from_second(1000).unwrap();
    for keep in [3, 2, 1] {
        retain(&paths, retention(keep), now).unwrap();
        let left: Vec<String> = all(&paths)
            .into_iter()
            .map(|backup| backup.manifest.attempt)
            .collect();
        assert_eq!(left.len(), usize::try_from(keep).unwrap() + 1, "{left:?}");
        assert_eq!(left.last().map(String::as_str), Some(ids[1]), "{left:?}");
    }
}

#[test]
fn r39_devices_and_times_before_1970_and_between_seconds_come_back_and_gnu_tar_reads_them() {
    let (root, paths) = node();
    let at = |name: &str| root.path().join("s/etc").join(name);
    let times = [
        ("old", -315_619_200, 0),
        ("older", -1, 750_000_000),
        ("exact", 1_000_000, 5),
        ("plain", 7, 0),
    ];
    for (name, secs, nanos) in times {
        durable::write(&at(name), b"x", 0o644).unwrap();
        let time = rustix::fs::Timespec {
            tv_sec: secs,
            tv_nsec: nanos,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::utimensat(rustix::fs::CWD, at(name), &times, rustix::fs::AtFlags::empty()).unwrap();
    }
    fs::hard_link(at("old"), at("zz-second")).unwrap();
    let bits = rustix::fs::Mode::from_raw_mode(0o600);
    let device = |name: &str, kind, major, minor| {
        let number = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(rustix::fs::CWD, at(name), kind, bits, number).is_ok()
    };
    let can_make = device("nul", rustix::fs::FileType::CharacterDevice, 1, 3)
        && device("blk", rustix::fs::FileType::BlockDevice, 7, 5);
    take(&paths, "one", 1, ALL);
    let backup = named(&paths, "one").unwrap();
    backup.verify().unwrap();
    let into = tempfile::tempdir().unwrap();
    let found = restored(&backup, into.path()).join("etc");
    for (name, secs, nanos) in times {
        let is = fs::symlink_metadata(found.join(name)).unwrap();
        assert_eq!((is.mtime(), is.mtime_nsec()), (secs, nanos), "{name}");
    }
    if can_make {
        for name in ["nul", "blk"] {
            let was = fs::symlink_metadata(at(name)).unwrap();
            let is = fs::symlink_metadata(found.join(name)).unwrap();
            assert_eq!(is.rdev(), was.rdev(), "{name}");
        }
    }
    #[expect(clippy::disallowed_methods, reason = "a reader that is not ours")]
    let tar = std::process::Command::new("tar")
        .args(["-I", "zstd", "-tvf"])
        .arg(backup.archive())
        .output();
    if let Ok(tar) = tar {
        let said = String::from_utf8_lossy(&tar.stderr).into_owned();
        assert!(tar.status.success() || said.contains("zstd"), "{said}");
    }
}
