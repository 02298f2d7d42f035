//! Which origins did not answer a moment ago, and which asked to be left alone: so that later requests need not wait for them.
//!
//! ```text
//! Up ──failed──▶ Down ──its time is over──▶ Probing ──connected──▶ OnTrial ──answered──▶ Up
//!                 ▲                            │                      │
//!                 └──────── failed, for twice as long ───────────────┘
//! Up ──busy──▶ Busy ──its time is over, or a trial was answered──▶ Up
//! ```
//! A request never waits for a probe: it is a connection made beside the requests. The first request after it is the trial; until it
//! was answered, all others see the origin as down.
//!
//! What one URL says or does not say (`Retry-After`, silence) is held against this URL; only when several say the same within a
//! while, it is held against their origin ([`super::paths`]). One busy page does not close the shop.
//!
//! A registry that says that it answers no more questions about manifests for a while (`rate_limit`) is not asked any where a stored
//! response can stand in.
//!
//! It never makes an answer worse: a request without another URL and without a stored response to stand in asks the origin all the
//! same (one that is busy, at most once a second), and any answer ends the matter.

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

use super::{
    paths::{Complaint, Paths},
    rate_limit::is_counted,
};

/// How long the first failure counts. Long enough that a burst of requests pays once for a connect timeout, short enough that a
/// restarted origin is seen soon.
const FIRST: Duration = Duration::from_secs(5);
/// How long a failure counts at most.
const LONGEST: Duration = Duration::from_secs(60);
/// How long the silence of one URL counts for it: a request pays for finding out with `limits.progress_timeout`.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// How often a busy origin is asked by those who have nothing else: enough to see that it is back, no burden for one that is not.
const TRIAL_EVERY: Duration = Duration::from_secs(1);
/// Origins remembered; those whose time is long over are dropped first.
const MAX_ORIGINS: usize = 4096;

/// What is known, by origin (scheme, host and port); clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether anything is known at all: mostly not, and then nobody takes the lock.
    has_marks: AtomicBool,
    known: Mutex<HashMap<String, Known>>,
}

/// What is known about one origin.
#[derive(Debug, Default)]
struct Known {
    mark: Option<Mark>,
    paths: Paths,
    /// Until then it answers no more requests that it counts.
    exhausted: Option<Instant>,
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
    /// Several of its URLs sent `Retry-After`; when it was tried last.
    Busy {
        tried: Option<Instant>,
    },
}

/// What to think of a URL.
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
    /// What to think of `url`. A trial that is due is given to whoever asks.
    pub(super) fn standing(&self, url: &Url, now: Instant) -> Standing {
        if !self.0.has_marks.load(Ordering::Acquire) {
            return Standing::Up;
        }
        let mut all = self.lock();
        let Some(known) = all.get_mut(&key(url)) else {
            return Standing::Up;
        };
        let of_path = match known.paths.complaint(url.path(), now) {
            Some((Complaint::Busy, left)) => Standing::Busy(left),
            Some((Complaint::Silent, _)) => Standing::Down { probe: false },
            None => known.quota(url, now),
        };
        match known
            .mark
            .as_mut()
            .map_or(Standing::Up, |mark| mark.standing(now))
        {
            Standing::Up => of_path,
            of_origin @ (Standing::Down { .. } | Standing::Busy(_)) => of_origin,
        }
    }

    /// Whether a request that has nothing else may try `url` although its origin is busy. What the URL said of itself stays said.
    pub(super) fn may_try(&self, url: &Url, now: Instant) -> bool {
        let mut all = self.lock();
        let Some(known) = all.get_mut(&key(url)) else {
            return true;
        };
        if known.paths.complaint(url.path(), now).is_some() {
            return false;
        }
        let Some(Mark {
            state: State::Busy { tried },
            ..
        }) = &mut known.mark
        else {
            return true;
        };
        let is_due = tried.is_none_or(|last| now >= last + TRIAL_EVERY);
        if is_due {
            *tried = Some(now);
        }
        is_due
    }

    /// Whether `url`'s origin has a mark against it now. Unlike [`Self::standing`] it gives no trial away: for those who only look.
    pub(super) fn is_marked(&self, url: &Url, now: Instant) -> bool {
        let all = self.lock();
        let mark = all.get(&key(url)).and_then(|known| known.mark);
        mark.is_some_and(|mark| now < mark.until)
    }

    /// Notes that `url`'s origin was not reached; tells whether it was up before.
    pub(super) fn failed(&self, url: &Url, now: Instant) -> bool {
        self.known(url, now, |known| known.failed(now))
    }

    /// Notes that `url` was silent; tells whether its origin, of which several URLs were silent by now, was up before.
    pub(super) fn stalled(&self, url: &Url, now: Instant) -> bool {
        self.known(url, now, |known| {
            let until = now + SILENT_FOR;
            known.paths.complain(url.path(), (Complaint::Silent, until), now) && known.failed(now)
        })
    }

    /// Notes that `url`'s origin can be connected to again.
    pub(super) fn connected(&self, url: &Url, now: Instant) {
        if let Some(Known { mark: Some(mark), .. }) = self.lock().get_mut(&key(url))
            && mark.state == State::Probing
        {
            mark.state = State::OnTrial { taken: false };
            mark.until = now + LONGEST;
        }
    }

    /// Notes that `url` wants no requests for `wait`, and its origin neither where several of its URLs said so.
    pub(super) fn busy(&self, url: &Url, wait: Duration, now: Instant) {
        self.known(url, now, |known| {
            let until = now + wait;
            if known.paths.complain(url.path(), (Complaint::Busy, until), now) {
                // What it said while it was tried counts for the next trial, too.
                known.mark = Some(Mark {
                    state: State::Busy { tried: Some(now) },
                    until,
                    next: FIRST,
                });
            }
        });
    }

    /// Notes that the origin of `url` answers no more requests of the kind that it counts for `wait`, or that it does again; tells
    /// whether that is news.
    pub(super) fn limited(&self, url: &Url, wait: Option<Duration>, now: Instant) -> bool {
        if wait.is_none() && !self.0.has_marks.load(Ordering::Acquire) {
            return false;
        }
        self.known(url, now, |known| {
            let before = known.exhausted.filter(|until| now < *until);
            known.exhausted = wait.map(|wait| now + wait);
            before.is_some() != wait.is_some()
        })
    }

    /// Notes that `url` answered, perhaps only that it wants patience; tells whether it is news that its origin does.
    pub(super) fn answered(&self, url: &Url, wants_patience: bool) -> bool {
        if !self.0.has_marks.load(Ordering::Acquire) {
            return false;
        }
        let mut all = self.lock();
        let Some(known) = all.get_mut(&key(url)) else {
            return false;
        };
        let was_down = known
            .mark
            .is_some_and(|mark| !matches!(mark.state, State::Busy { .. }));
        if was_down || !wants_patience {
            known.mark = None;
        }
        if !wants_patience {
            known.paths.answered(url.path());
        }
        if known.mark.is_none() && known.paths.is_empty() && known.exhausted.is_none() {
            all.remove(&key(url));
        }
        if all.is_empty() {
            self.0.has_marks.store(false, Ordering::Release);
        }
        was_down
    }

    /// Changes what is known about `url`'s origin.
    fn known<T>(&self, url: &Url, now: Instant, change: impl FnOnce(&mut Known) -> T) -> T {
        let mut all = self.lock();
        if all.len() >= MAX_ORIGINS {
            all.retain(|_, known| known.counts(now));
        }
        self.0.has_marks.store(true, Ordering::Release);
        change(all.entry(key(url)).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The origin did not answer; tells whether it was up before.
    fn failed(&mut self, now: Instant) -> bool {
        let before = self.mark;
        // Of many requests that fail together, the first counts.
        if before.is_some_and(|mark| mark.state == State::Down && now < mark.until) {
            return false;
        }
        let lasts = before.map_or(FIRST, |mark| mark.next);
        self.mark = Some(Mark {
            state: State::Down,
            until: now + lasts,
            next: (lasts * 2).min(LONGEST),
        });
        before.is_none()
    }

    /// Whether requests for `url` would be counted by an origin that has said that none is left.
    fn quota(&self, url: &Url, now: Instant) -> Standing {
        match self.exhausted {
            Some(until) if now < until && is_counted(url) => Standing::Busy(until - now),
            _ => Standing::Up,
        }
    }

    fn counts(&self, now: Instant) -> bool {
        self.mark.is_some_and(|mark| now < mark.until + LONGEST)
            || self.paths.counts(now)
            || self.exhausted.is_some_and(|until| now < until)
    }
}

impl Mark {
    fn standing(&mut self, now: Instant) -> Standing {
        match self.state {
            State::Busy { .. } if now < self.until => Standing::Busy(self.until - now),
            State::Busy { .. } => Standing::Up,
            State::OnTrial { taken: false } => {
                self.state = State::OnTrial { taken: true };
                self.until = now + LONGEST;
                Standing::Up
            }
            _ if now < self.until => Standing::Down { probe: false },
            // Its time is over, or whoever tried it never told.
            State::Down | State::Probing | State::OnTrial { taken: true } => {
                self.state = State::Probing;
                self.until = now + LONGEST;
                Standing::Down { probe: true }
            }
        }
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
mod tests;
