//! Which content goes when room is needed: policies as pure types, without I/O, without a clock.
//!
//! The store uses [`S3Fifo`]; [`Lru`] and [`Fifo`] are the yardsticks beside it, and [`replay()`] feeds any of them a trace, so
//! that the choice can be judged again on other traffic.
//!
//! Why S3-FIFO ("FIFO queues are all you need for cache eviction", SOSP 2023). Package traffic is a skewed, slowly drifting
//! popularity with one-time scans across it: a mirror run, a crawler, a backup that asks for everything once. Under LRU
//! each scan pushes out what is popular. Here what is new waits in a small queue with a tenth of the bytes and leaves
//! it again unless it is asked for a second time, so a scan costs at most that tenth. What was driven out too early is
//! remembered by a fingerprint and goes straight to the main queue when it comes back. A hit changes a counter and moves nothing.
//!
//! Invariants: a policy knows exactly what was inserted and neither evicted nor removed; [`Policy::evict`] never names what it was
//! told to spare, nor what is held; its work is amortised O(1) and independent of how much is stored.
//!
//! Deliberately absent: limits (see `quota`), what is being read (the caller's `spare`), and names of files.

mod ghosts;
mod lists;
mod replay;
mod s3fifo;
mod yardsticks;

#[cfg(test)]
mod tests;

use std::hash::Hash;

pub use replay::{Tally, replay};
pub use s3fifo::{Queue, S3Fifo, Standing};
pub use yardsticks::{Fifo, Lru};

/// What a policy keeps apart: small, cheap to copy.
pub trait Key: Copy + Eq + Hash {}

impl<K: Copy + Eq + Hash> Key for K {}

/// A policy over objects with a key and a size in bytes.
pub trait Policy<K: Key> {
    /// `key`, of `size` bytes, has come in. Known already: only its size is brought in line.
    fn insert(&mut self, key: K, size: u64);

    /// `key` was asked for; tells whether it is known.
    fn hit(&mut self, key: &K) -> bool;

    /// Names the next object to go, which the policy then knows no more. `spare` tells what must stay for now.
    /// `None` when nothing may go.
    fn evict(&mut self, spare: &dyn Fn(&K) -> bool) -> Option<(K, u64)>;

    /// Forgets `key`, which went for another reason; tells its size.
    fn remove(&mut self, key: &K) -> Option<u64>;

    /// Bytes of all objects known.
    fn bytes(&self) -> u64;

    /// How many objects are known.
    fn len(&self) -> usize;

    /// Whether none is known.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the policy itself takes.
    fn memory(&self) -> usize;
}
