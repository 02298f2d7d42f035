//! The link of the origin: a rate that all connections share, or one of a single response.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::clock;

/// How far behind its rate a link may catch up: sleeping is not exact, and an idle link saves nothing up.
const SLACK: Duration = Duration::from_millis(5);

/// A link of so many bytes per second, 0 for no limit.
#[derive(Debug)]
pub(crate) struct Link {
    rate: u64,
    free_at: Instant,
}

impl Link {
    /// Idle.
    pub(crate) fn new(rate: u64) -> Self {
        Self {
            rate,
            free_at: clock::now(),
        }
    }

    /// Takes the link for `bytes`; how long to wait before they may leave.
    fn take(&mut self, bytes: usize) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let now = clock::now();
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let leaves = self.free_at.max(earliest);
        self.free_at = leaves + Duration::from_nanos(bytes as u64 * 1_000_000_000 / self.rate);
        leaves.saturating_duration_since(now)
    }

    /// Waits until `bytes` may leave.
    pub(crate) fn pass(&mut self, bytes: usize) {
        wait(self.take(bytes));
    }
}

/// The link of all connections.
#[derive(Debug)]
pub(crate) struct SharedLink(Mutex<Link>);

impl SharedLink {
    /// Idle.
    pub(crate) fn new(rate: u64) -> Self {
        Self(Mutex::new(Link::new(rate)))
    }

    /// Changes the rate.
    pub(crate) fn set_rate(&self, rate: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Link::new(rate);
    }

    /// Waits until `bytes` may leave; others may take the link meanwhile.
    pub(crate) fn pass(&self, bytes: usize) {
        let pause = self.0.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
        wait(pause);
    }
}

fn wait(pause: Duration) {
    if !pause.is_zero() {
        thread::sleep(pause);
    }
}
