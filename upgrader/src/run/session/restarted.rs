//! A run that goes on after the restart of the machine which an earlier run of the same upgrade asked for, or that came before it.

use jiff::{SignedDuration, Timestamp};

use super::Session;
use crate::{
    attempt::Attempt,
    exit::Failure,
    lock,
    run::{ending::Ending, event::EventKind, steps::retire},
};

/// How long a restart that was asked for may take to come. An operator may have asked for one in some minutes, and who asks again then
/// puts it off.
const COMES_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// What a run finds about the restart of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    /// The upgrade has not asked for one.
    NotAsked,
    /// It came.
    Came,
    /// It was asked for a moment ago.
    Awaited(SignedDuration),
    /// It was asked for and did not come.
    Missed,
}

/// `asked` is the boot in which it was asked for, and when; `boot` is the one that is.
fn restart(asked: Option<(&str, Timestamp)>, boot: &str, now: Timestamp) -> Restart {
    match asked {
        None => Restart::NotAsked,
        Some((ended, _)) if ended != boot => Restart::Came,
        Some((_, when)) => {
            let since = now.duration_since(when);
            // A clock that was set back says nothing.
            if (SignedDuration::ZERO..COMES_WITHIN).contains(&since) {
                Restart::Awaited(since)
            } else {
                Restart::Missed
            }
        }
    }
}

impl Session {
    fn restart_of(&self, attempt: Option<&Attempt>) -> Restart {
        let attempt = attempt.filter(|attempt| attempt.begun);
        let (Some(attempt), Some((journal, _))) = (attempt, &self.desk) else {
            return Restart::NotAsked;
        };
        let boot = lock::boot_id(self.node.paths.root());
        let asked = journal.restart_asked(&attempt.restart_id());
        restart(asked, &boot, self.node.clock.now())
    }

    /// After the restart that `attempt` has asked for the platform may be silent for a while. Who looks or downloads asks it nothing.
    pub(super) fn be_patient_after_restart(&self, attempt: Option<&Attempt>) {
        let request = &self.request;
        let is_to_work = !(request.plan_only || request.download_only || self.start.kato_alone);
        if is_to_work && self.restart_of(attempt) == Restart::Came {
            self.node.patience.begin(self.node.settings.upgrade.settle);
        }
    }

    /// How `--resume` ends when nothing has begun, or when the restart that `attempt` has asked for is all there is to wait for: the unit
    /// calls it again and again, and never puts that off. Any other command asks for it once more.
    pub(super) fn kept_from_resuming(&mut self, attempt: Option<&Attempt>) -> Option<Ending> {
        if !self.request.resume {
            return None;
        }
        match self.restart_of(attempt) {
            Restart::Awaited(since) if !self.request.plan_only => return Some(Ending::Awaiting(since)),
            Restart::NotAsked | Restart::Came | Restart::Awaited(_) | Restart::Missed => {}
        }
        if attempt.is_some_and(|attempt| attempt.begun) || self.taken_up.is_some() {
            return None;
        }
        let text = "there is no interrupted upgrade to resume".into();
        self.tell(EventKind::Notice { text });
        Some(Ending::Done)
    }

    /// Puts the node back into service if a run took it out.
    ///
    /// # Errors
    /// [`Failure`] when the platform cannot.
    pub(super) async fn rejoined(&mut self) -> Result<(), Failure> {
        let node = std::sync::Arc::clone(&self.node);
        let mut tell = |subject| {
            self.tell(EventKind::Progress {
                step: "rejoin".into(),
                subject,
                done: 0,
                total: 0,
            });
        };
        retire::rejoin(&node, &node.words(), &mut tell).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r41_a_restart_that_was_asked_for_is_awaited_before_it_is_missed() {
        let asked = Timestamp::from_second(1_000_000).unwrap();
        let after = |secs| asked + SignedDuration::from_secs(secs);
        let awaited = |secs| Restart::Awaited(SignedDuration::from_secs(secs));
        for (asked, boot, now, expected) in [
            (None, "b1", after(0), Restart::NotAsked),
            (Some(("b1", asked)), "b2", after(1), Restart::Came),
            (Some(("b1", asked)), "b2", after(-1), Restart::Came),
            (Some(("b1", asked)), "b1", after(0), awaited(0)),
            (Some(("b1", asked)), "b1", after(599), awaited(599)),
            (Some(("b1", asked)), "b1", after(600), Restart::Missed),
            (Some(("b1", asked)), "b1", after(-1), Restart::Missed),
        ] {
            assert_eq!(restart(asked, boot, now), expected, "{boot} {now}");
        }
    }
}
