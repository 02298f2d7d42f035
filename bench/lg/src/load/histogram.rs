//! Durations in log-linear buckets: 128 per power of two, so a quantile is off by less than 1 %, and adding costs nothing.
#![expect(
    clippy::cast_precision_loss,
    reason = "figures for people; 53 bits of nanoseconds are 104 days"
)]

use std::time::Duration;

use serde_json::{Value, json};

/// Buckets per power of two.
const FINE: u64 = 128;
/// Its binary logarithm.
const FINE_BITS: u32 = FINE.ilog2();

/// A histogram of durations, kept in nanoseconds.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
    max: u64,
}

impl Histogram {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![0; 64 * 128],
            count: 0,
            sum: 0.0,
            max: 0,
        }
    }

    /// Counts one duration.
    pub(crate) fn add(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.sum += nanos as f64;
        self.max = self.max.max(nanos);
    }

    /// The duration below which `numerator / denominator` of all lie, in microseconds.
    fn quantile(&self, numerator: u64, denominator: u64) -> f64 {
        let wanted = (self.count * numerator).div_ceil(denominator).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return floor(index) as f64 / 1e3;
            }
        }
        self.max as f64 / 1e3
    }

    /// Quantiles in microseconds; null when nothing was counted.
    pub(crate) fn figures(&self) -> Value {
        if self.count == 0 {
            return json!({"p50": null, "p90": null, "p99": null, "p999": null, "max": null, "mean": null});
        }
        json!({
            "p50": self.quantile(1, 2),
            "p90": self.quantile(9, 10),
            "p99": self.quantile(99, 100),
            "p999": self.quantile(999, 1000),
            "max": self.max as f64 / 1e3,
            "mean": self.sum / self.count as f64 / 1e3,
        })
    }
}

/// The bucket of a value.
fn bucket(value: u64) -> usize {
    let index = if value < FINE {
        value
    } else {
        let exponent = value.ilog2();
        let shift = exponent - FINE_BITS;
        u64::from(shift + 1) * FINE + ((value >> shift) & (FINE - 1))
    };
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The least value of a bucket.
fn floor(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < FINE {
        return bucket;
    }
    let shift = bucket / FINE - 1;
    (FINE + bucket % FINE) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_begins_at_most_one_percent_below_its_values() {
        for value in [0, 1, 127, 128, 129, 1_000, 123_456, 999_999_999, u64::MAX / 3] {
            let least = floor(bucket(value));
            assert!(least <= value, "{value}");
            assert!(value - least <= value / 100, "{value} fell to {least}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let mut histogram = Histogram::new();
        for micros in 1..=100 {
            histogram.add(Duration::from_micros(micros));
        }
        let median = histogram.quantile(1, 2);
        assert!((49.5..=50.0).contains(&median), "{median}");
        let highest = histogram.quantile(99, 100);
        assert!((98.0..=99.0).contains(&highest), "{highest}");
    }
}
