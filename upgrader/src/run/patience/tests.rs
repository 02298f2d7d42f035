use std::{io, os::unix::process::ExitStatusExt as _, process::ExitStatus};

use super::*;
use crate::{exit::Exit, platform::Verb, settings::Settings};

fn command(source: ProcessError) -> PlatformError {
    PlatformError::Command {
        verb: Verb::Retire.key(),
        setting: "[platform.nomad]".into(),
        source,
    }
}

fn silent() -> PlatformError {
    command(ProcessError::Status {
        command: "nomad node drain".into(),
        status: ExitStatus::from_raw(256),
        output: "Error: dial tcp\n127.0.0.1:4646: connection refused".into(),
    })
}

fn junk() -> serde_json::Error {
    serde_json::from_str::<u64>("starting").unwrap_err()
}

#[test]
fn r41_only_a_platform_that_gives_no_answer_is_silent() {
    let program = || "nomad".to_owned();
    let source = || io::Error::from(io::ErrorKind::NotFound);
    for (error, expected) in [
        (silent(), true),
        (
            command(ProcessError::Start {
                program: program(),
                source: source(),
            }),
            true,
        ),
        (
            command(ProcessError::Timeout {
                command: program(),
                limit: Duration::from_secs(1),
                output: String::new(),
            }),
            true,
        ),
        (
            PlatformError::Output {
                verb: "resident",
                output: "starting".into(),
                expected: "a node",
                source: junk(),
            },
            true,
        ),
        (command(ProcessError::Empty), false),
        (
            command(ProcessError::Unnoted {
                program: program(),
                source: source(),
            }),
            false,
        ),
        (
            command(ProcessError::TooMuch {
                command: program(),
                size: 1 << 40,
            }),
            false,
        ),
        (
            PlatformError::Refused {
                verb: "health",
                reason: "the node is down".into(),
            },
            false,
        ),
        (
            PlatformError::Notes {
                verb: "retire",
                source: Box::new(source()),
            },
            false,
        ),
    ] {
        assert_eq!(is_silence(&error), expected, "{error:?}");
    }
}

// The clock stands still.
#[tokio::test(start_paused = true)]
async fn r41_silence_is_waited_for_until_the_time_is_over_and_nothing_else_is() {
    let wait = |tries| Wait {
        tries,
        ..Wait::begin()
    };
    let no = PlatformError::Refused {
        verb: "retire",
        reason: "no".into(),
    };
    let minute = HumanDuration::from_secs(60);
    let secs = Duration::from_secs;
    let judged =
        |limit, error: &PlatformError, tries, at| wait(tries).judge(limit, error, Instant::now() + at);
    assert_eq!(judged(None, &silent(), 0, secs(0)), Verdict::Counts);
    assert_eq!(judged(Some(minute), &no, 0, secs(0)), Verdict::Counts);
    for (tries, at, expected) in [
        (0, 0, Verdict::Again(POLL)),
        (2, 9, Verdict::Again(POLL * 4)),
        (40, 30, Verdict::Again(SLOWEST)),
        // The last question is asked at the very end.
        (40, 58, Verdict::Again(secs(2))),
        (40, 60, Verdict::Over(minute)),
        (40, 99, Verdict::Over(minute)),
    ] {
        assert_eq!(
            judged(Some(minute), &silent(), tries, secs(at)),
            expected,
            "{tries} {at}"
        );
    }
}

fn node() -> Node {
    Node::new(Settings::default())
}

/// Asks a platform that is silent, until the wait ends; gives how often it was asked, and why it ended.
async fn ask(node: &Node, told: &mut Vec<String>) -> (u32, Failure) {
    let mut wait = Wait::begin();
    let mut asked = 0;
    loop {
        asked += 1;
        let mut tell = |text| told.push(text);
        if let Err(failure) = wait.after(node, silent(), &mut tell).await {
            return (asked, failure);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r41_the_wait_is_told_and_one_that_was_in_vain_is_the_last() {
    let node = node();
    let mut told = Vec::new();
    assert_eq!(ask(&node, &mut told).await.0, 1, "no restart, no patience");
    node.patience.begin(HumanDuration::from_secs(60));
    let began = Instant::now();
    let (asked, failure) = ask(&node, &mut told).await;
    assert_eq!(
        (began.elapsed(), failure.exit),
        (Duration::from_secs(60), Exit::Failed)
    );
    assert!(asked > 10, "{asked}");
    assert_eq!(told.len(), 6, "{told:#?}");
    assert!(
        told[1].starts_with(
            "waits for the platform to answer after the restart: the platform's `retire` failed"
        ) && told[1].contains("connection refused")
            && told[1].ends_with("s of 1m")
            && !told[1].contains('\n'),
        "{}",
        told[1]
    );
    let said = format!("{:#}", failure.source);
    assert!(
        said.starts_with("the platform did not answer within 1m after the restart")
            && said.contains("refused"),
        "{said}"
    );
    let hint = failure.hint.clone().unwrap_or_default();
    assert!(
        hint.contains("--resume") && hint.contains("[platform.nomad]"),
        "{hint}"
    );
    assert!(was_in_vain(&failure), "{said}");
    // Nobody waits a second time, and what is silent still is in vain as well.
    let (asked, failure) = ask(&node, &mut told).await;
    assert_eq!((asked, was_in_vain(&failure)), (1, true));
}

#[tokio::test]
async fn r41_only_silence_after_a_restart_is_in_vain() {
    let mut nothing = |_| {};
    let never = node();
    let failure = Wait::begin()
        .after(&never, silent(), &mut nothing)
        .await
        .unwrap_err();
    assert!(!was_in_vain(&failure), "no restart: {failure}");
    let node = node();
    node.patience.begin(HumanDuration::from_secs(0));
    let no = PlatformError::Refused {
        verb: "retire",
        reason: "no".into(),
    };
    let failure = Wait::begin().after(&node, no, &mut nothing).await.unwrap_err();
    assert!(!was_in_vain(&failure), "an answer: {failure}");
    let failure = Wait::begin()
        .after(&node, silent(), &mut nothing)
        .await
        .unwrap_err();
    assert!(was_in_vain(&failure), "{failure}");
    // Whatever is said about it on its way out.
    let failure = Failure {
        source: failure.source.context("while the node was looked at"),
        ..failure
    };
    assert!(was_in_vain(&failure), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn r41_a_signal_ends_the_wait() {
    let node = node();
    node.patience.begin(HumanDuration::from_secs(600));
    let stop = node.stop.token().clone();
    let mut told = Vec::new();
    let signal = async {
        let nothing = std::future::pending::<()>();
        tokio::time::timeout(Duration::from_secs(7), nothing)
            .await
            .unwrap_err();
        stop.cancel();
    };
    let began = Instant::now();
    let ((_, failure), ()) = tokio::join!(ask(&node, &mut told), signal);
    assert_eq!(
        (began.elapsed(), failure.exit),
        (Duration::from_secs(7), Exit::TryAgain)
    );
    // What comes after it is asked once.
    assert_eq!(ask(&node, &mut told).await.0, 1);
}
