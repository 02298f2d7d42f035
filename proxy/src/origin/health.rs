//! Which origins did not answer a moment ago, and which asked to be left alone: so that later requests need not wait for them.
//!
//! ```text
//! Up ──failed──▶ Down ──its time is over──▶ Probing ──connected──▶ OnTrial ──answered──▶ Up
//!                 ▲                            │                      │
//!                 └──────── failed, for twice as long ───────────────┘
//! ```
//! A request never waits for a probe: it is a connection made beside the requests. The first request after it is the trial; until it
//! was answered, all others see the origin as down.
//!
//! It never makes an answer worse: a request without another URL and without a stored response to stand in asks the origin all the
//! same, and any answer ends the matter.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use url::{Position, Url};

/// How long the first failure counts. Long enough that a burst of requests pays once for a connect timeout, short enough that a
/// restarted origin is seen soon.
const FIRST: Duration = Duration::from_secs(5);
/// How long a failure counts at most.
const LONGEST: Duration = Duration::from_secs(60);
/// Origins remembered; those whose time is long over are dropped first.
const MAX_ORIGINS: usize = 4096;

/// What is known, by origin (scheme, host and port); clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether anything is known at all: mostly not, and then nobody takes the lock.
    has_marks: AtomicBool,
    marks: Mutex<HashMap<String, Mark>>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    state: State,
    /// When the state is over.
    until: Instant,
    /// How long the next failure counts.
    next: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    Probing,
    /// Connected again; `taken` by the request that tries it.
    OnTrial {
        taken: bool,
    },
    /// It sent `Retry-After`.
    Busy,
}

/// What to think of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Ask it.
    Up,
    /// Ask it last; with `probe`, whoever reads this makes a connection beside the request and reports.
    Down {
        /// See above.
        probe: bool,
    },
    /// It wants no requests for this long.
    Busy(Duration),
}

impl Health {
    /// What to think of `url`'s origin. A trial that is due is given to whoever asks.
    pub(super) fn standing(&self, url: &Url, now: Instant) -> Standing {
        if !self.0.has_marks.load(Ordering::Acquire) {
            return Standing::Up;
        }
        let mut marks = self.lock();
        let Some(mark) = marks.get_mut(&key(url)) else {
            return Standing::Up;
        };
        match mark.state {
            State::Busy if now < mark.until => Standing::Busy(mark.until - now),
            State::Busy => Standing::Up,
            State::OnTrial { taken: false } => {
                mark.state = State::OnTrial { taken: true };
                mark.until = now + LONGEST;
                Standing::Up
            }
            _ if now < mark.until => Standing::Down { probe: false },
            // Its time is over, or whoever tried it never told.
            State::Down | State::Probing | State::OnTrial { taken: true } => {
                mark.state = State::Probing;
                mark.until = now + LONGEST;
                Standing::Down { probe: true }
            }
        }
    }

    /// Whether `url`'s origin has a mark against it now. Unlike [`Self::standing`] it gives no trial away: for those who only look.
    pub(super) fn is_marked(&self, url: &Url, now: Instant) -> bool {
        let marks = self.lock();
        marks.get(&key(url)).is_some_and(|mark| now < mark.until)
    }

    /// Notes that `url`'s origin did not answer; tells whether it was up before.
    pub(super) fn failed(&self, url: &Url, now: Instant) -> bool {
        let mut marks = self.lock();
        if marks.len() >= MAX_ORIGINS {
            marks.retain(|_, mark| now < mark.until + LONGEST);
        }
        let before = marks.get(&key(url)).copied();
        // Of many requests that fail together, the first counts.
        if before.is_some_and(|mark| mark.state == State::Down && now < mark.until) {
            return false;
        }
        let lasts = before.map_or(FIRST, |mark| mark.next);
        let mark = Mark {
            state: State::Down,
            until: now + lasts,
            next: (lasts * 2).min(LONGEST),
        };
        marks.insert(key(url), mark);
        self.0.has_marks.store(true, Ordering::Release);
        before.is_none()
    }

    /// Notes that `url`'s origin can be connected to again.
    pub(super) fn connected(&self, url: &Url, now: Instant) {
        if let Some(mark) = self.lock().get_mut(&key(url))
            && mark.state == State::Probing
        {
            mark.state = State::OnTrial { taken: false };
            mark.until = now + LONGEST;
        }
    }

    /// Notes that `url`'s origin wants no requests for `wait`.
    pub(super) fn busy(&self, url: &Url, wait: Duration, now: Instant) {
        let mark = Mark {
            state: State::Busy,
            until: now + wait,
            next: FIRST,
        };
        self.lock().insert(key(url), mark);
        self.0.has_marks.store(true, Ordering::Release);
    }

    /// Notes that `url`'s origin answered; tells whether that is news.
    pub(super) fn answered(&self, url: &Url) -> bool {
        if !self.0.has_marks.load(Ordering::Acquire) {
            return false;
        }
        let mut marks = self.lock();
        let removed = marks.remove(&key(url));
        if marks.is_empty() {
            self.0.has_marks.store(false, Ordering::Release);
        }
        removed.is_some_and(|mark| mark.state != State::Busy)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Mark>> {
        self.0.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Scheme, host and port, without credentials; default ports are not written.
fn key(url: &Url) -> String {
    format!(
        "{}://{}",
        url.scheme(),
        &url[Position::BeforeHost..Position::AfterPort]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[tokio::test]
    async fn a_failure_counts_for_its_origin_and_for_a_while_then_a_probe_and_a_trial_decide() {
        let health = Health::default();
        let (one, same, other) = (
            url("http://a.example/x"),
            url("http://user:pw@a.example:80/y"),
            url("http://a.example:81/x"),
        );
        let now = Instant::now();
        assert!(health.failed(&one, now));
        assert!(!health.failed(&same, now), "the same failure");
        assert_eq!(health.standing(&same, now), Standing::Down { probe: false });
        assert_eq!(health.standing(&other, now), Standing::Up);
        let later = now + FIRST;
        assert_eq!(health.standing(&one, later), Standing::Down { probe: true });
        assert_eq!(
            health.standing(&one, later),
            Standing::Down { probe: false },
            "one probe"
        );
        health.connected(&one, later);
        assert_eq!(health.standing(&one, later), Standing::Up, "the trial");
        assert_eq!(
            health.standing(&one, later),
            Standing::Down { probe: false },
            "one trial"
        );
        health.failed(&one, later);
        assert_eq!(
            health.standing(&one, later + FIRST),
            Standing::Down { probe: false },
            "longer now"
        );
        assert_eq!(
            health.standing(&one, later + FIRST * 2),
            Standing::Down { probe: true }
        );
        health.connected(&one, later);
        assert!(health.answered(&one));
        assert_eq!(health.standing(&one, later), Standing::Up);
        assert!(!health.answered(&one));
    }

    #[tokio::test]
    async fn p11_retry_after_is_remembered() {
        let health = Health::default();
        let (origin, now) = (url("https://a.example/"), Instant::now());
        health.busy(&origin, Duration::from_secs(30), now);
        let seconds = |after: u64| health.standing(&origin, now + Duration::from_secs(after));
        assert_eq!(seconds(10), Standing::Busy(Duration::from_secs(20)));
        assert_eq!(seconds(30), Standing::Up);
    }
}
