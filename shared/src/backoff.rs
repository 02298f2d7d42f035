//! How long to wait before trying again: exponential with full jitter, bounded.
//!
//! Full jitter spreads the retries of a whole cluster that lost the same upstream at the same moment.

use std::time::Duration;

/// An exponential back-off. `attempt` counts from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The upper bound of the first wait.
    pub base: Duration,
    /// The upper bound of every wait.
    pub cap: Duration,
}

impl Backoff {
    /// For network requests: up to 200 ms at first, up to 10 s later.
    pub const NETWORK: Self = Self {
        base: Duration::from_millis(200),
        cap: Duration::from_secs(10),
    };

    /// The wait before attempt `attempt + 1`, where `unit` is a random number in `0.0..=1.0`.
    ///
    /// At least half of the bound is waited, so that a run of small random numbers cannot hammer an upstream.
    pub fn wait(&self, attempt: u32, unit: f64) -> Duration {
        let bound = self
            .base
            .saturating_mul(2_u32.saturating_pow(attempt.min(20)))
            .min(self.cap);
        bound.mul_f64(0.5 + 0.5 * unit.clamp(0.0, 1.0))
    }

    /// [`Backoff::wait`] with the operating system's randomness; without any, the whole bound is waited.
    pub fn wait_jittered(&self, attempt: u32) -> Duration {
        let mut bytes = [0_u8; 2];
        let unit = match aws_lc_rs::rand::fill(&mut bytes) {
            Ok(()) => f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX),
            Err(_unspecified) => 1.0,
        };
        self.wait(attempt, unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_wait_stays_between_half_the_base_and_the_cap(attempt in 0_u32..100, unit in 0.0_f64..=1.0) {
            let wait = Backoff::NETWORK.wait(attempt, unit);
            proptest::prop_assert!(wait >= Backoff::NETWORK.base / 2 && wait <= Backoff::NETWORK.cap);
        }
    }

    #[test]
    fn the_bound_doubles() {
        assert_eq!(Backoff::NETWORK.wait(1, 1.0), Duration::from_millis(400));
        assert_eq!(Backoff::NETWORK.wait(2, 1.0), Duration::from_millis(800));
    }
}
