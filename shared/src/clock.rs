//! The one place that reads the wall clock. Decisions take `now` as an argument; shells hold a [`Clock`].
//!
//! Intervals and deadlines use `tokio::time`, which tests can pause; a wall clock may step in either direction.
//!
//! With the cargo feature `test-util` the variable `KATO_CLOCK_SHIFT` (seconds, read once) has the system's clock go wrong by so much, because
//! no namespace of Linux does. Without the feature nothing of it is in the program.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

/// A source of the current time: the system's, or one that a test holds still.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Held(Arc<Mutex<Timestamp>>),
}

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `now` until [`Clock::advance`] moves it; clones share the hand.
    pub fn held_at(now: Timestamp) -> Self {
        Self(Source::Held(Arc::new(Mutex::new(now))))
    }

    /// The current time.
    #[expect(clippy::disallowed_methods, reason = "the owner of the wall clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => shifted(Timestamp::now()),
            Source::Held(at) => *at.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Moves a held clock forward; the system's clock is not moved. A time past the calendar's end stays put.
    pub fn advance(&self, by: SignedDuration) {
        if let Source::Held(at) = &self.0 {
            let mut at = at.lock().unwrap_or_else(PoisonError::into_inner);
            *at = at.checked_add(by).unwrap_or(*at);
        }
    }
}

#[cfg(not(feature = "test-util"))]
const fn shifted(now: Timestamp) -> Timestamp {
    now
}

/// `now` by a clock that a test has go wrong.
#[cfg(feature = "test-util")]
fn shifted(now: Timestamp) -> Timestamp {
    static SHIFT: std::sync::LazyLock<SignedDuration> = std::sync::LazyLock::new(|| {
        #[expect(clippy::disallowed_methods, reason = "a switch for tests, not a setting")]
        let shift = std::env::var("KATO_CLOCK_SHIFT").ok();
        SignedDuration::from_secs(shift.and_then(|shift| shift.parse().ok()).unwrap_or(0))
    });
    now.checked_add(*SHIFT).unwrap_or(now)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::System => f.write_str("Clock(system)"),
            Source::Held(_) => write!(f, "Clock(held at {})", self.now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_clock_moves_only_when_told_and_for_all_its_clones() {
        let clock = Clock::held_at(Timestamp::UNIX_EPOCH);
        let twin = clock.clone();
        clock.advance(SignedDuration::from_secs(60));
        assert_eq!(twin.now().as_second(), 60);
    }
}
