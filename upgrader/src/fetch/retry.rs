//! When to try again, and when to give up. Progress earns new attempts, so a flaky line ends, a dead one too.

use std::time::Duration;

use kato_shared::backoff::Backoff;

/// Attempts without any progress before giving up: with [`Backoff::NETWORK`], after about 5 s.
const MAX_IDLE: u32 = 5;

/// All attempts for one file: a connection that always breaks after a few bytes wastes no more than this.
const MAX_ATTEMPTS: u32 = 100;

/// What may be received for one file in vain, in multiples of its size: beginnings that were thrown away, parts that did not
/// fit together. One fresh start is one size.
const MAX_WASTE: u64 = 2;

/// What may be received in vain whatever the size, in bytes: small files are begun anew more often.
const SMALL_WASTE: u64 = 1024 * 1024;

/// The longest wait that a server may ask for with `Retry-After`; who asks for more has the run end and say until when.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Counts the attempts for one file.
#[derive(Debug)]
pub(super) struct Retries {
    backoff: Backoff,
    idle: u32,
    all: u32,
    best: u64,
    received: u64,
    most: u64,
}

impl Retries {
    /// For a file of `size` bytes; `u64::MAX` when that is not known.
    pub(super) const fn new(size: u64) -> Self {
        Self {
            backoff: Backoff::NETWORK,
            idle: 0,
            all: 0,
            best: 0,
            received: 0,
            most: size.saturating_mul(1 + MAX_WASTE).saturating_add(SMALL_WASTE),
        }
    }

    /// Notes that `bytes` more were received, whether they are of use or not.
    pub(super) const fn spend(&mut self, bytes: u64) {
        self.received = self.received.saturating_add(bytes);
    }

    /// Whether a file may be begun anew: not when too much was received in vain.
    pub(super) const fn may_restart(&self) -> bool {
        self.received < self.most
    }

    /// Notes that `received` bytes are there; more than ever before is progress.
    pub(super) const fn progress(&mut self, received: u64) {
        if received > self.best {
            self.best = received;
            self.idle = 0;
        }
    }

    /// How long to wait before the next attempt, or `None` to give up.
    pub(super) fn again(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        self.all += 1;
        self.idle += 1;
        if self.idle >= MAX_IDLE || self.all >= MAX_ATTEMPTS || !self.may_restart() {
            return None;
        }
        let wait = self.backoff.wait_jittered(self.idle - 1);
        Some(retry_after.map_or(wait, |asked| asked.min(MAX_RETRY_AFTER).max(wait)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_progress_it_ends_soon_and_with_progress_later() {
        let mut retries = Retries::new(1000);
        assert_eq!((1..200).take_while(|_| retries.again(None).is_some()).count(), 4);
        let mut retries = Retries::new(1000);
        let attempts = (1..200).take_while(|at| {
            retries.progress(*at);
            retries.again(None).is_some()
        });
        assert_eq!(attempts.count(), 99);
    }

    #[test]
    fn bytes_that_were_there_before_are_no_progress() {
        let mut retries = Retries::new(1000);
        retries.progress(10);
        let attempts = (1..20).take_while(|_| {
            retries.progress(10);
            retries.again(None).is_some()
        });
        assert_eq!(attempts.count(), 4);
    }

    #[test]
    fn what_is_received_in_vain_is_bounded_by_the_size_of_the_file() {
        let size = 100 * 1024 * 1024;
        let mut retries = Retries::new(size);
        let mut begun = 0;
        while retries.may_restart() {
            retries.spend(size / 2);
            begun += 1;
        }
        assert_eq!(begun, 7);
        assert_eq!(retries.again(None), None);
        assert!(Retries::new(u64::MAX).may_restart());
    }

    #[test]
    fn a_server_may_ask_for_patience_within_reason() {
        let asked = |secs| Retries::new(1000).again(Some(Duration::from_secs(secs))).unwrap();
        assert_eq!(asked(7), Duration::from_secs(7));
        assert_eq!(asked(86_400), MAX_RETRY_AFTER);
        assert!(asked(0) >= Duration::from_millis(100));
    }
}
