//! Durations by their size, and numbers that go up and down.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds in seconds.
pub(super) const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0,
];

/// Durations counted by upper bound.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Each duration is in the first bucket that it fits, or in none; the page adds them up.
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    sum_micros: AtomicU64,
}

/// A histogram as it was at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshot {
    /// Durations up to each bound, those below included.
    pub(super) cumulative: [u64; BUCKETS.len()],
    pub(super) count: u64,
    pub(super) sum: Duration,
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Relaxed);
        self.count.fetch_add(1, Relaxed);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut cumulative = [0; BUCKETS.len()];
        let mut sum = 0;
        for (bucket, total) in self.buckets.iter().zip(&mut cumulative) {
            sum += bucket.load(Relaxed);
            *total = sum;
        }
        Snapshot {
            cumulative,
            // What is observed between the two readings must not make the last bucket the smaller one.
            count: self.count.load(Relaxed).max(sum),
            sum: Duration::from_micros(self.sum_micros.load(Relaxed)),
        }
    }
}
