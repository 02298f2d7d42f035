use std::{fs, path::Path};

use jiff::Timestamp;
use kato_shared::{Digest, clock::Clock, durable};

use super::*;

fn log(folder: &Path) -> AuditLog {
    AuditLog::in_folder(folder, "n1", Clock::held_at(Timestamp::UNIX_EPOCH))
}

fn deed(about: &str) -> Deed {
    Deed::new(Subject::Patch, about)
}

/// A log with `count` records.
fn with(count: usize) -> (tempfile::TempDir, AuditLog) {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path());
    for number in 0..count {
        log.note(&deed(&format!("p{number}")), Outcome::Done).unwrap();
    }
    (folder, log)
}

fn problems(log: &AuditLog) -> Vec<Problem> {
    let findings = log.check().unwrap().findings;
    findings.into_iter().map(|finding| finding.problem).collect()
}

fn lines(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    text.lines().map(ToOwned::to_owned).collect()
}

fn put(folder: &Path, lines: &[String]) {
    let text = format!("{}\n", lines.join("\n"));
    durable::write(&folder.join("audit.jsonl"), text.as_bytes(), 0o644).unwrap();
}

#[tokio::test]
async fn r36_a_deed_has_a_beginning_and_an_end_that_belong_together() {
    let (folder, log) = with(0);
    let forced = Deed::new(Subject::Upgrade, "1.0.0 to 2.0.0")
        .run("r1")
        .forced(true)
        .reason("told by support");
    let result: Result<(), Failure> = log
        .around(forced, async {
            Err(Failure::new(Exit::Trust, anyhow::anyhow!("no")))
        })
        .await;
    assert_eq!(result.unwrap_err().exit, Exit::Trust);
    let records = log.check().unwrap().records;
    assert_eq!(
        (records[0].seq, records[0].previous, &records[0].outcome),
        (1, None, &Outcome::Begun)
    );
    assert!(records[0].forced && records[0].reason.as_deref() == Some("told by support"));
    assert_eq!((records[1].of, records[1].run.as_deref()), (Some(1), Some("r1")));
    assert!(matches!(&records[1].outcome, Outcome::Failed { exit: Exit::Trust, message } if message == "no"));
    assert_eq!(
        records[1].previous,
        Some(Digest::of(lines(folder.path())[0].as_bytes()))
    );
    assert_eq!(problems(&log), []);
}

#[tokio::test]
async fn a_deed_that_cannot_be_recorded_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    durable::write(&blocked, b"", 0o644).unwrap();
    let mut done = false;
    let result = log(&blocked.join("audit"))
        .around(deed("x"), async {
            done = true;
            Ok(())
        })
        .await;
    assert_eq!(result.unwrap_err().exit, Exit::Preflight);
    assert!(!done);
}

#[test]
fn every_change_of_a_line_is_found() {
    let (folder, log) = with(5);
    let whole = lines(folder.path());
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] = changed[at].replace("\"about\":\"p", "\"about\":\"q");
        put(folder.path(), &changed);
        assert_eq!(problems(&log).len(), 1, "line {at} was changed");
        let mut removed = whole.clone();
        removed.remove(at);
        put(folder.path(), &removed);
        assert!(!problems(&log).is_empty(), "line {at} was removed");
        let mut twice = whole.clone();
        twice.insert(at, whole[at].clone());
        put(folder.path(), &twice);
        assert!(!problems(&log).is_empty(), "line {at} is there twice");
    }
    let mut garbage = whole.clone();
    garbage[2] = "not a record".into();
    put(folder.path(), &garbage);
    assert!(problems(&log).contains(&Problem::Unreadable));
    put(folder.path(), &whole);
    assert_eq!(problems(&log), []);
}

#[test]
fn lines_that_are_missing_at_the_end_are_found_also_after_more_were_written() {
    let (folder, log) = with(5);
    let whole = lines(folder.path());
    put(folder.path(), &whole[..3]);
    let lost = Problem::Missing {
        seq: 5,
        sha256: Digest::of(whole[4].as_bytes()),
    };
    assert_eq!(problems(&log), std::slice::from_ref(&lost));
    let seq = log.note(&deed("next"), Outcome::Done).unwrap();
    assert_eq!(seq, 6);
    assert!(problems(&log).contains(&lost), "{:?}", problems(&log));
    fs::remove_file(folder.path().join("audit.jsonl")).unwrap();
    log.note(&deed("next"), Outcome::Done).unwrap();
    assert!(matches!(problems(&log)[0], Problem::Missing { seq: 6, .. }));
}

#[test]
fn what_a_killed_writer_leaves_is_no_damage() {
    let (folder, log) = with(2);
    let head = fs::read(folder.path().join("head.json")).unwrap();
    log.note(&deed("third"), Outcome::Done).unwrap();
    // Killed between the line and the note of it.
    durable::write(&folder.path().join("head.json"), &head, 0o644).unwrap();
    assert_eq!(problems(&log), []);
    // Killed in the middle of a line.
    let text = fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    durable::write(
        &folder.path().join("audit.jsonl"),
        format!("{text}{{\"schema\":1,\"se").as_bytes(),
        0o644,
    )
    .unwrap();
    assert_eq!(
        (problems(&log), log.check().unwrap().torn_bytes),
        (vec![Problem::Torn { bytes: 15 }], 15)
    );
    log.note(&deed("fourth"), Outcome::Done).unwrap();
    repaired(folder.path(), &log, b"{\"schema\":1,\"se");
    // The next one has nothing to say about it.
    log.note(&deed("fifth"), Outcome::Done).unwrap();
    assert_eq!(log.check().unwrap().records.last().unwrap().flaw, None);
}

/// The last record, the fourth, says that `torn` was cut off, and where it is kept.
fn repaired(folder: &Path, log: &AuditLog, torn: &[u8]) {
    let report = log.check().unwrap();
    assert_eq!(report.findings, []);
    let last = report.records.last().unwrap();
    let kept = Some("torn-0000000004.bin".to_owned());
    let bytes = torn.len() as u64;
    assert_eq!((last.seq, &last.flaw), (4, &Some(Flaw::Torn { bytes, kept })));
    assert_eq!(fs::read(folder.join("torn-0000000004.bin")).unwrap(), torn);
    assert!(!folder.join("torn.part").exists());
}

#[test]
fn a_repair_that_is_killed_itself_loses_nothing() {
    let torn = b"\0\0\0\0";
    // Killed after the torn bytes were kept; after they were cut off as well; and while the record of it was written.
    for (kept, tail, all) in [
        (&torn[..], &torn[..], &torn[..]),
        (torn, b"", torn),
        (torn, b"{\"sch", b"\0\0\0\0{\"sch"),
    ] {
        let (folder, log) = with(3);
        let current = folder.path().join("audit.jsonl");
        durable::write(&folder.path().join("torn.part"), kept, 0o644).unwrap();
        let text = [fs::read(&current).unwrap().as_slice(), tail].concat();
        durable::write(&current, &text, 0o644).unwrap();
        log.note(&deed("fourth"), Outcome::Done).unwrap();
        repaired(folder.path(), &log, all);
    }
}

#[test]
fn a_log_without_its_note_or_its_beginning_is_named_and_stays_so() {
    let (folder, log) = with(3);
    let whole = lines(folder.path());
    for damage in [None, Some(&b"{\"schema\":1,"[..])] {
        let head = folder.path().join("head.json");
        let before = fs::read(&head).unwrap();
        match damage {
            None => fs::remove_file(&head).unwrap(),
            Some(bytes) => durable::write(&head, bytes, 0o644).unwrap(),
        }
        assert_eq!(problems(&log), [Problem::NoHead]);
        durable::write(&head, &before, 0o644).unwrap();
    }
    // Lines and note were taken together: the next record says what it did not find.
    put(folder.path(), &whole[..2]);
    fs::remove_file(folder.path().join("head.json")).unwrap();
    log.note(&deed("next"), Outcome::Done).unwrap();
    assert_eq!(problems(&log), [Problem::NoHead]);

    let (folder, log) = with(3);
    put(folder.path(), &whole[2..]);
    let previous = Some(Digest::of(whole[1].as_bytes()));
    assert!(problems(&log).contains(&Problem::NoBeginning { first: 3, previous }));
}

#[test]
fn a_node_with_a_release_and_without_a_log_is_named_and_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog {
        witness: Some(folder.path().join("installed.json")),
        ..log(&folder.path().join("audit"))
    };
    assert_eq!(problems(&log), []);
    log.note(&deed("first"), Outcome::Begun).unwrap();
    durable::write(&folder.path().join("installed.json"), b"{}", 0o644).unwrap();
    log.note(&deed("first"), Outcome::Done).unwrap();
    assert_eq!(problems(&log), []);
    fs::remove_dir_all(folder.path().join("audit")).unwrap();
    assert_eq!(problems(&log), [Problem::Emptied]);
    durable::create_folder(&folder.path().join("audit")).unwrap();
    assert_eq!(problems(&log), [Problem::Emptied]);
    log.note(&deed("next"), Outcome::Done).unwrap();
    assert_eq!(problems(&log), [Problem::Emptied]);
}

#[test]
fn what_is_no_file_is_neither_read_nor_written_to() {
    for target in ["/dev/full", "/dev/zero", "/nonexistent/log"] {
        let (folder, log) = with(2);
        let current = folder.path().join("audit.jsonl");
        fs::remove_file(&current).unwrap();
        durable::symlink(Path::new(target), &current).unwrap();
        assert!(problems(&log).contains(&Problem::NotAFile), "{target}");
        let error = log.note(&deed("next"), Outcome::Done).unwrap_err();
        assert!(matches!(error, AuditError::NotAFile { .. }), "{error}");
    }
}

#[test]
fn a_full_file_is_set_aside_and_the_chain_goes_on() {
    let (folder, log) = with(0);
    let text = "x".repeat(1024 * 1024);
    for _ in 0..6 {
        log.note(&deed("big").detail("text", text.as_str()), Outcome::Done)
            .unwrap();
    }
    assert!(folder.path().join("audit-0000000001.jsonl").exists());
    let report = log.check().unwrap();
    assert_eq!((report.records.len(), report.findings.len()), (6, 0));
    assert_eq!(report.head, log.head().unwrap());
    // An operator may archive the oldest file, and says where it ended.
    let archived = fs::read(folder.path().join("audit-0000000001.jsonl")).unwrap();
    fs::remove_file(folder.path().join("audit-0000000001.jsonl")).unwrap();
    let last = archived
        .trim_ascii_end()
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap();
    let seq = report
        .records
        .iter()
        .position(|record| record.previous == Some(Digest::of(last)));
    let head = log.head().unwrap().unwrap();
    let mut report = log.check().unwrap();
    report.begins_after(Head::new(seq.unwrap() as u64, Digest::of(b"another")));
    assert!(matches!(report.findings[0].problem, Problem::NoBeginning { .. }));
    report.begins_after(Head::new(seq.unwrap() as u64, Digest::of(last)));
    assert_eq!(report.findings, []);
    report.expect(folder.path(), head);
    assert_eq!(report.findings, []);
    report.expect(folder.path(), Head::new(head.seq, Digest::of(b"another")));
    assert_eq!(report.findings.len(), 1);
}

#[test]
fn many_writers_at_once_make_one_chain() {
    let (_folder, log) = with(0);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let log = log.clone();
            scope.spawn(move || {
                for number in 0..10 {
                    log.note(&deed(&format!("{writer}.{number}")), Outcome::Done)
                        .unwrap();
                }
            });
        }
    });
    let report = log.check().unwrap();
    assert_eq!((report.records.len(), report.findings.len()), (40, 0));
}
