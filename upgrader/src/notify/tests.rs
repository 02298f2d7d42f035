use std::time::Duration;

use jiff::Timestamp;
use kato_shared::secret::Secret;

use super::*;
use crate::{
    exit::Exit,
    run::event::{self, ErrorReport, EventKind},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn event(seq: u64, kind: EventKind) -> Event {
    Event {
        schema: event::SCHEMA,
        seq,
        time: Timestamp::UNIX_EPOCH,
        node: "n1".into(),
        run: "r1".into(),
        kind,
    }
}

fn started() -> Event {
    event(
        1,
        EventKind::RunStarted {
            from: Some("1.0.0".into()),
            to: "2.0.0".into(),
        },
    )
}

fn finished(exit: Exit, failed: bool) -> Event {
    let error = failed.then(|| ErrorReport {
        step: "verify".into(),
        message: "not healthy".into(),
        hint: None,
    });
    event(
        9,
        EventKind::RunFinished {
            exit,
            version: Some("2.0.0".into()),
            error,
        },
    )
}

fn story() -> Story {
    Story::new("n1", &["dea".into()], "r1", PATIENCE)
}

/// What the last of `events` is told as.
fn told(events: &[Event]) -> Option<Document> {
    let mut story = story();
    let now = Instant::now();
    events.iter().map(|event| story.see(event, now)).last().flatten()
}

#[tokio::test]
async fn every_end_of_a_run_has_its_kind() {
    let kind = |exit, failed| told(&[started(), finished(exit, failed)]).map(|document| document.event);
    assert_eq!(kind(Exit::Done, false), Some(Kind::Succeeded));
    assert_eq!(kind(Exit::Failed, true), Some(Kind::Failed));
    assert_eq!(kind(Exit::TryAgain, true), Some(Kind::Failed));
    assert_eq!(kind(Exit::RolledBack, true), Some(Kind::RolledBack));
    assert_eq!(kind(Exit::RollbackFailed, true), Some(Kind::RollbackFailed));
    // The machine restarts: the story goes on.
    assert_eq!(kind(Exit::TryAgain, false), None);
    // A refusal before the run began is a failure; that there was nothing to do is no news.
    assert_eq!(
        told(&[finished(Exit::Preflight, true)]).unwrap().event,
        Kind::Failed
    );
    assert_eq!(told(&[finished(Exit::Done, false)]), None);
}

#[tokio::test]
async fn r62_success_carries_the_notices_and_failure_the_last_lines() {
    let notice = event(
        5,
        EventKind::Notice {
            text: "reload the console".into(),
        },
    );
    let steps: Vec<_> = (2..40)
        .map(|seq| {
            event(
                seq,
                EventKind::StepStarted {
                    step: format!("s{seq}"),
                },
            )
        })
        .collect();
    let with = |last| [vec![started(), notice.clone()], steps.clone(), vec![last]].concat();
    let good = told(&with(finished(Exit::Done, false))).unwrap();
    assert_eq!(good.notices, ["reload the console"]);
    assert_eq!((good.version.as_deref(), good.exit), (Some("2.0.0"), Some(0)));
    assert!(good.last_lines.is_empty());
    let bad = told(&with(finished(Exit::Failed, true))).unwrap();
    assert_eq!((bad.step.as_deref(), bad.exit), (Some("verify"), Some(21)));
    assert_eq!((bad.last_lines.len(), bad.last_lines[19].as_str()), (20, "  s39"));
    assert_eq!(
        (bad.from.as_deref(), bad.to.as_deref()),
        (Some("1.0.0"), Some("2.0.0"))
    );
}

#[tokio::test]
async fn a_step_that_takes_long_is_told_once() {
    let mut story = story();
    let (now, time) = (Instant::now(), Timestamp::UNIX_EPOCH);
    let step = |seq, step: &str| event(seq, EventKind::StepStarted { step: step.into() });
    assert_eq!(story.waits_until(), None);
    story.see(&step(2, "retire"), now);
    assert_eq!(story.waits_until(), Some(now + PATIENCE));
    assert_eq!(story.waiting(now + PATIENCE / 2, time), None);
    let document = story.waiting(now + 2 * PATIENCE, time).unwrap();
    assert_eq!(
        (document.event, document.step.as_deref(), document.waiting_secs),
        (Kind::Waiting, Some("retire"), Some(120))
    );
    assert_eq!(
        (story.waits_until(), story.waiting(now + 3 * PATIENCE, time)),
        (None, None)
    );
    story.see(&step(3, "backup"), now);
    assert_eq!(story.waits_until(), Some(now + PATIENCE));
}

#[tokio::test]
async fn a_document_has_the_fields_that_are_promised() {
    let document = told(&[started()]).unwrap();
    let value = serde_json::to_value(&document).unwrap();
    let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        keys.join(" "),
        "audit error event exit from id last_lines node notices roles run schema step time to version waiting_secs"
    );
    assert_eq!(
        (&value["schema"], &value["event"]),
        (&1.into(), &"started".into())
    );
}

#[tokio::test]
async fn the_spool_keeps_documents_in_their_order_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::in_folder(folder.path().join("notify"));
    let url = "https://hooks.example/x".parse().unwrap();
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let mut document = told(&[started()]).unwrap();
    for second in 0..250 {
        document.time = at(1_000_000 + second);
        spool.put(&url, &document).unwrap();
    }
    let times = |spool: &Spool, now| -> Vec<i64> {
        let pending = spool.pending(now);
        pending
            .iter()
            .map(|pending| pending.document.time.as_second())
            .collect()
    };
    let expected: Vec<i64> = (50..250).map(|second| 1_000_000 + second).collect();
    assert_eq!(times(&spool, at(1_000_300)), expected);
    spool.pending(at(1_000_300))[0].delivered();
    assert_eq!(times(&spool, at(1_000_300)), expected[1..]);
    // A week later only what is younger than a week is news.
    let week = 7 * 24 * 3600;
    assert_eq!(times(&spool, at(1_000_240 + week)), expected[190..]);
    assert_eq!(times(&spool, at(1_000_300 + week)), Vec::<i64>::new());
}

#[test]
fn the_signature_is_that_of_rfc_4231() {
    // Test case 2.
    let signature = deliver::signature(&Secret::new("Jefe"), b"what do ya want for nothing?");
    assert_eq!(
        signature,
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn every_kind_has_the_name_that_it_is_written_with() {
    for kind in Kind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
}
