use jiff::{SignedDuration, Timestamp};
use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

fn hosts(all: &[&str]) -> Hosts {
    all.iter().copied().collect()
}

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn key_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|ending| ending == "key"))
        .collect()
}

#[test]
fn the_first_start_makes_an_authority_and_the_next_one_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, clock) = (folder.path().join("ca"), Clock::held_at(now()));
    let wanted = hosts(&["PKG.example", "[::1]", "127.0.0.1"]);
    assert!(
        Authority::ready(&dir, &Hosts::default(), &clock)
            .unwrap()
            .is_none()
    );
    assert!(!dir.exists(), "nobody wants one");
    let first = Authority::ready(&dir, &wanted, &clock).unwrap().unwrap();
    let again = Authority::ready(&dir, &hosts(&["pkg.example"]), &clock)
        .unwrap()
        .unwrap();
    assert_eq!(first.record(), again.record());
    assert_eq!(first.record().hosts.to_string(), "127.0.0.1, ::1, pkg.example");
    let [key] = &key_files(&dir)[..] else {
        panic!("one key")
    };
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    let public = fs::read_to_string(dir.join("authority.json")).unwrap();
    assert!(!public.contains("PRIVATE"), "{public}");
    assert!(!format!("{first:?}").contains("PRIVATE"));
}

#[test]
fn hosts_beyond_the_constraints_get_nothing_and_the_hint_says_rotate() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::held_at(now());
    let authority = Authority::ready(folder.path(), &hosts(&["pkg.example"]), &clock)
        .unwrap()
        .unwrap();
    assert!(authority.acceptor("pkg.EXAMPLE").is_ok());
    for other in ["other.example", "a.pkg.example", "127.0.0.1"] {
        assert!(
            matches!(authority.acceptor(other), Err(AuthorityError::Uncovered { .. })),
            "{other}"
        );
    }
    let error = Authority::ready(folder.path(), &hosts(&["pkg.example", "new.example"]), &clock).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("may not sign for new.example: its constraints name pkg.example"),
        "{text}"
    );
    assert!(text.contains("ca rotate"), "{text}");
}

#[test]
fn a_rotation_keeps_one_key_and_the_word_of_the_predecessor() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        Record::rotate(folder.path(), &hosts(&["a.example"]), now()),
        Err(AuthorityError::Absent { .. })
    ));
    let old = Record::create(folder.path(), &hosts(&["a.example"]), now()).unwrap();
    assert!(matches!(
        Record::create(folder.path(), &hosts(&["a.example"]), now()),
        Err(AuthorityError::Exists { .. })
    ));
    let new = Record::rotate(folder.path(), &hosts(&["a.example", "b.example"]), now()).unwrap();
    assert_ne!(old.fingerprint(), new.fingerprint());
    let predecessor = new.predecessor.as_ref().unwrap();
    assert_eq!(predecessor.fingerprint(), old.fingerprint());
    assert_eq!(key_files(folder.path()).len(), 1, "the old key is gone");
    let late = now() + SignedDuration::from_hours(24 * 365 * 6);
    let last = Record::rotate(folder.path(), &hosts(&["a.example"]), late).unwrap();
    assert_eq!(last.predecessor, None, "whose time is over vouches for nobody");
}

#[test]
fn a_key_that_others_can_read_and_an_authority_that_is_over_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = hosts(&["a.example"]);
    let clock = Clock::held_at(now());
    let authority = Authority::ready(folder.path(), &wanted, &clock).unwrap().unwrap();
    let key = &key_files(folder.path())[0];
    fs::set_permissions(key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Authority::ready(folder.path(), &wanted, &clock).unwrap_err();
    assert!(
        error.to_string().contains("has mode 640: expected 600"),
        "{error}"
    );
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    clock.advance(SignedDuration::from_hours(24 * 365 * 6));
    assert!(matches!(
        authority.acceptor("a.example"),
        Err(AuthorityError::Over { .. })
    ));
    assert!(matches!(
        Authority::ready(folder.path(), &wanted, &clock),
        Err(AuthorityError::Over { .. })
    ));
}

#[test]
fn a_record_of_a_later_program_or_none_at_all_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("{\"schema\":2,\"more\":1}", "has schema 2: expected at most 1"),
        ("{\"schema\":1}", "is no record of a local authority"),
        ("no", "is no record of a local authority"),
    ] {
        kato_shared::durable::write(&folder.path().join("authority.json"), text.as_bytes(), 0o644).unwrap();
        let error = Record::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_leaf_is_kept_and_renewed_before_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::held_at(now());
    let authority = Authority::ready(folder.path(), &hosts(&["a.example"]), &clock)
        .unwrap()
        .unwrap();
    let config = || Arc::as_ptr(authority.acceptor("a.example").unwrap().config());
    let first = config();
    clock.advance(SignedDuration::from_hours(24 * 50));
    assert_eq!(first, config());
    clock.advance(SignedDuration::from_hours(24 * 11));
    assert_ne!(first, config(), "less than 30 days are left");
}
