//! What went recently, by fingerprint alone: bounded, forgetful, 8 bytes and a set's slot each.

use std::collections::{HashSet, VecDeque};

/// Ghosts that are kept however little is stored.
const AT_LEAST: usize = 64;
/// Ghosts that are kept at most: some 30 MiB.
const AT_MOST: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Ghosts {
    known: HashSet<u64>,
    /// In the order in which they went. One that came back may still stand here; it is passed over.
    order: VecDeque<u64>,
}

impl Ghosts {
    /// Remembers `fingerprint`, and as many as there are objects in the store besides.
    pub(super) fn remember(&mut self, fingerprint: u64, stored: usize) {
        if self.known.insert(fingerprint) {
            self.order.push_back(fingerprint);
        }
        while self.order.len() > stored.clamp(AT_LEAST, AT_MOST) {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Whether it went recently; forgets it.
    pub(super) fn came_back(&mut self, fingerprint: u64) -> bool {
        self.known.remove(&fingerprint)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn memory(&self) -> usize {
        // The set keeps one control byte beside each slot, and an eighth of its slots free.
        self.order.capacity() * size_of::<u64>() + self.known.capacity() * 8 / 7 * (size_of::<u64>() + 1)
    }
}
