//! Patience with a platform that is starting.
//!
//! A run that goes on after the restart of the machine that it asked for begins beside the platform's own services. Until the agent, the
//! API server or the daemon is up, the platform's program ends with "connection refused" or "no such socket", which says nothing about
//! the node. So what is silent is asked again, until it answers or `[upgrade].settle` is over; the wait is told, and a signal ends it.
//!
//! An answer that says no is an answer: it is never waited for ([`is_silence`]). A run that has waited in vain does not wait a second
//! time: what it does on its way out is done once. Outside of such a run nobody waits at all.
//!
//! Deliberately absent: the health and the version that `verify` asks for. It asks again and again by itself, for as long.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kato_shared::{chain::Chain, settings::HumanDuration};
use tokio::time::{Instant, sleep};

use super::{context::Node, engine::stopped};
use crate::{
    exit::Failure,
    platform::{PlatformError, ProcessError},
};

/// After how long it is asked again; it doubles up to [`SLOWEST`].
const POLL: Duration = Duration::from_millis(500);
const SLOWEST: Duration = Duration::from_secs(5);
/// After how long a wait for the same is told again.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// Hears what is waited for, in words for people.
pub(crate) type Tell<'a> = &'a mut (dyn FnMut(String) + Send);

/// How long the platform of a node may be silent.
#[derive(Debug, Default)]
pub struct Patience {
    limit: OnceLock<HumanDuration>,
    is_used_up: AtomicBool,
}

impl Patience {
    /// From now on the platform may be silent for `limit`.
    pub(super) fn begin(&self, limit: HumanDuration) {
        let _already_begun = self.limit.set(limit);
    }

    /// How long a silent platform is waited for; `None` when it is not.
    pub(super) fn limit(&self) -> Option<HumanDuration> {
        let is_used_up = self.is_used_up.load(Ordering::Relaxed);
        self.limit.get().copied().filter(|_| !is_used_up)
    }

    /// Somebody waited in vain.
    pub(super) fn use_up(&self) {
        self.is_used_up.store(true, Ordering::Relaxed);
    }
}

/// Whether `error` means that the platform gave no answer: its program did not run, failed, or said what nobody understands. What
/// it says no to, and what is wrong on our side, no wait mends.
pub(super) const fn is_silence(error: &PlatformError) -> bool {
    match error {
        PlatformError::Command { source, .. } => match source {
            ProcessError::Start { .. } | ProcessError::Status { .. } | ProcessError::Timeout { .. } => true,
            ProcessError::Empty | ProcessError::Unnoted { .. } | ProcessError::TooMuch { .. } => false,
        },
        PlatformError::Output { .. } => true,
        PlatformError::Refused { .. } | PlatformError::Notes { .. } => false,
    }
}

/// What a silent platform is waited for with, as people read it.
pub(super) fn words(reason: &str, waited: Duration, limit: HumanDuration) -> String {
    let waited = humantime::format_duration(Duration::from_secs(waited.as_secs()));
    format!(
        "waits for the platform to answer after the restart: {}, {waited} of {limit}",
        reason.replace('\n', " ")
    )
}

/// What follows from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It counts.
    Counts,
    /// It is asked again after a pause.
    Again(Duration),
    /// It was silent for too long.
    Over(HumanDuration),
}

/// One wait for an answer, from the first question on.
pub(super) struct Wait {
    began: Instant,
    tries: u32,
    told: Option<(String, Instant)>,
}

impl Wait {
    /// Begins.
    pub(super) fn begin() -> Self {
        Self {
            began: Instant::now(),
            tries: 0,
            told: None,
        }
    }

    fn judge(&self, limit: Option<HumanDuration>, error: &PlatformError, now: Instant) -> Verdict {
        let Some(limit) = limit.filter(|_| is_silence(error)) else {
            return Verdict::Counts;
        };
        let left = limit.get().saturating_sub(now.duration_since(self.began));
        if left.is_zero() {
            return Verdict::Over(limit);
        }
        let pause = POLL.saturating_mul(1 << self.tries.min(8)).min(SLOWEST);
        // The last question is asked at the very end.
        Verdict::Again(pause.min(left))
    }

    /// Comes back when the platform is to be asked once more after `error`.
    ///
    /// # Errors
    /// [`Failure`]: the error, when it counts; with how long was waited, when that was in vain; that of a run that was stopped.
    pub(super) async fn after(
        &mut self,
        node: &Node,
        error: PlatformError,
        tell: Tell<'_>,
    ) -> Result<(), Failure> {
        let now = Instant::now();
        let limit = node
            .patience
            .limit()
            .filter(|_| !node.stop.token().is_cancelled());
        let pause = match self.judge(limit, &error, now) {
            Verdict::Counts => return Err(error.into()),
            Verdict::Over(limit) => {
                node.patience.use_up();
                return Err(in_vain(error, limit));
            }
            Verdict::Again(pause) => pause,
        };
        self.tries += 1;
        let reason = Chain(&error).to_string();
        let is_news = self
            .told
            .as_ref()
            .is_none_or(|(last, when)| *last != reason || now.duration_since(*when) >= TELL_AGAIN);
        if let Some(limit) = limit.filter(|_| is_news) {
            tell(words(&reason, now.duration_since(self.began), limit));
            self.told = Some((reason, now));
        }
        tokio::select! {
            () = sleep(pause) => Ok(()),
            () = node.stop.token().cancelled() => Err(stopped()),
        }
    }
}

/// The failure of a wait that was in vain.
fn in_vain(error: PlatformError, limit: HumanDuration) -> Failure {
    let mut failure = Failure::from(error);
    failure.source = failure.source.context(format!(
        "the platform did not answer within {limit} after the restart of the machine"
    ));
    let hint = failure.hint.take().unwrap_or_default();
    failure.hint = Some(format!(
        "see to it that the platform's services come up on this machine; kato-resume.service tries again where systemd is the first \
         process, `kato node upgrade --resume` anywhere; {hint}"
    ));
    failure
}

#[cfg(test)]
mod tests {
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

    fn refused_connection() -> PlatformError {
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
            (refused_connection(), true),
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

    #[test]
    fn r41_silence_is_waited_for_until_the_time_is_over_and_nothing_else_is() {
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
        for (limit, error, tries, at, expected) in [
            (None, refused_connection(), 0, secs(0), Verdict::Counts),
            (Some(minute), no, 0, secs(0), Verdict::Counts),
            (
                Some(minute),
                refused_connection(),
                0,
                secs(0),
                Verdict::Again(POLL),
            ),
            (
                Some(minute),
                refused_connection(),
                2,
                secs(9),
                Verdict::Again(POLL * 4),
            ),
            (
                Some(minute),
                refused_connection(),
                40,
                secs(30),
                Verdict::Again(SLOWEST),
            ),
            (
                Some(minute),
                refused_connection(),
                40,
                secs(58),
                Verdict::Again(secs(2)),
            ),
            (
                Some(minute),
                refused_connection(),
                40,
                secs(60),
                Verdict::Over(minute),
            ),
            (
                Some(minute),
                refused_connection(),
                40,
                secs(99),
                Verdict::Over(minute),
            ),
        ] {
            let wait = wait(tries);
            assert_eq!(
                wait.judge(limit, &error, wait.began + at),
                expected,
                "{limit:?} {at:?}"
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
            if let Err(failure) = wait.after(node, refused_connection(), &mut tell).await {
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
        let hint = failure.hint.unwrap_or_default();
        assert!(
            hint.contains("--resume") && hint.contains("[platform.nomad]"),
            "{hint}"
        );
        assert_eq!(ask(&node, &mut told).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn r41_a_signal_ends_the_wait() {
        let node = node();
        node.patience.begin(HumanDuration::from_secs(600));
        let stop = node.stop.token().clone();
        let mut told = Vec::new();
        let signal = async {
            sleep(Duration::from_secs(7)).await;
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
}
