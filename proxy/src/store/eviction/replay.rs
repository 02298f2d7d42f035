//! A trace through a policy: what a cache of some size would have answered by itself.

use super::{Key, Policy};

/// What came of a trace. Bytes are those of whole objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Those for what was stored.
    pub hits: u64,
    /// Bytes asked for.
    pub bytes: u64,
    /// The part of them that was stored.
    pub hit_bytes: u64,
    /// Objects that went.
    pub evictions: u64,
}

impl Tally {
    /// Hits for each request, from 0 to 1.
    pub fn hit_ratio(&self) -> f64 {
        ratio(self.hits, self.requests)
    }

    /// Bytes from the store for each byte asked for, from 0 to 1.
    pub fn byte_hit_ratio(&self) -> f64 {
        ratio(self.hit_bytes, self.bytes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio is read by people")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Feeds `trace`, pairs of key and size in bytes in the order of requests, to `policy` with room for `capacity` bytes. What is
/// larger than the whole room passes through.
pub fn replay<K: Key>(
    policy: &mut impl Policy<K>,
    capacity: u64,
    trace: impl IntoIterator<Item = (K, u64)>,
) -> Tally {
    let mut tally = Tally::default();
    for (key, size) in trace {
        tally.requests += 1;
        tally.bytes += size;
        if policy.hit(&key) {
            tally.hits += 1;
            tally.hit_bytes += size;
            continue;
        }
        if size > capacity {
            continue;
        }
        while policy.bytes() + size > capacity && policy.evict(&|_| false).is_some() {
            tally.evictions += 1;
        }
        policy.insert(key, size);
    }
    tally
}
