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
        // The first line may have been archived with its file; every other one is missed.
        assert_eq!(problems(&log).is_empty(), at == 0, "line {at} was removed");
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
    assert_eq!((problems(&log), log.check().unwrap().torn_bytes), (vec![], 15));
    log.note(&deed("fourth"), Outcome::Done).unwrap();
    let report = log.check().unwrap();
    assert_eq!(report.findings, []);
    let last = report.records.last().unwrap();
    assert_eq!((last.seq, &last.flaw), (4, &Some(Flaw::Torn { bytes: 15 })));
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
    // An operator may archive the oldest file; what is left is whole by itself.
    fs::remove_file(folder.path().join("audit-0000000001.jsonl")).unwrap();
    assert_eq!(problems(&log), []);
    let head = log.head().unwrap().unwrap();
    let mut report = log.check().unwrap();
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
