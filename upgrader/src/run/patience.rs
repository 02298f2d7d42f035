//! Patience with a platform that is starting.
//!
//! A run that goes on after the restart of the machine that it asked for begins beside the platform's own services. Until the agent, the
//! API server or the daemon is up, the platform's program ends with "connection refused" or "no such socket", which says nothing about
//! the node. So what is silent is asked again, until it answers or `[upgrade].settle` is over; the wait is told, and a signal ends it.
//!
//! A wait that was in vain ([`InVain`]) shows nothing about the release: it ends the run and not the upgrade.
//!
//! An answer that says no is an answer: it is never waited for ([`is_silence`]). A run that has waited in vain does not wait a second
//! time: what it does on its way out is done once. Outside of such a run nobody waits at all.
//!
//! Deliberately absent: the health and the version that `verify` asks for. It asks again and again by itself, for as long, and says
//! [`in_vain`] of a platform that was silent all the time.

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

    /// For how long it was waited for, also when that is over; `None` of a run that does not go on after a restart of the machine.
    pub(super) fn was(&self) -> Option<HumanDuration> {
        self.limit.get().copied()
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
            Verdict::Counts => {
                // Silent still, after somebody else has waited for as long.
                let was = node.patience.was().filter(|_| is_silence(&error));
                let failure = Failure::from(error);
                return Err(match was {
                    Some(limit) if !node.stop.token().is_cancelled() => in_vain(failure, limit),
                    _ => failure,
                });
            }
            Verdict::Over(limit) => {
                node.patience.use_up();
                return Err(in_vain(error.into(), limit));
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

/// The platform gave no answer for as long as it might be silent: nothing is known about the node, and nothing about the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the platform did not answer within {limit} after the restart of the machine")]
pub(super) struct InVain {
    limit: HumanDuration,
}

/// Whether a run failed because it has waited in vain.
pub(super) fn was_in_vain(failure: &Failure) -> bool {
    failure.source.downcast_ref::<InVain>().is_some()
}

/// `failure` as that of a wait that was in vain.
pub(super) fn in_vain(mut failure: Failure, limit: HumanDuration) -> Failure {
    failure.source = failure.source.context(InVain { limit });
    let hint = failure.hint.take().unwrap_or_default();
    failure.hint = Some(format!(
        "see to it that the platform's services come up on this machine; kato-resume.service tries again where systemd is the first \
         process, `kato node upgrade --resume` anywhere; {hint}"
    ));
    failure
}

#[cfg(test)]
mod tests;
