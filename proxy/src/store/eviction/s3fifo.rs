//! S3-FIFO over bytes, with objects that are held and standings that can be written down.
//!
//! ```text
//!  new ─────────► small (a tenth of the bytes) ── not asked for again ──► gone, its fingerprint remembered
//!  came back ─┐        │ asked for again
//!             ▼        ▼
//!             main ◄─── one round more for each hit (three at most) ──── no hits left ──► gone
//! ```

use super::{
    Key, Policy,
    ghosts::Ghosts,
    lists::{Lists, Node},
};

/// The part of the bytes that the small queue keeps: a tenth, as the paper found best over its traces.
const SMALL_DIVISOR: u64 = 10;
/// Hits that are counted; more say no more.
const MOST_USES: u8 = 3;
/// Hits in the small queue that lead to the main one.
const PROMOTING_USES: u8 = 1;

const SMALL: u8 = 0;
const MAIN: u8 = 1;
const HELD: u8 = 2;

/// Where an object waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// New, on probation.
    Small,
    /// Proven.
    Main,
}

/// What a policy knows about one object, to be written down and restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its queue. A held object counts as proven.
    pub queue: Queue,
    /// Hits that still speak for it, 0 to 3.
    pub uses: u8,
    /// Its place: lower is nearer to the exit; 0 is not known, and taken for new.
    pub order: u64,
    /// The owner's note about the last use.
    pub at: u32,
}

/// The policy of the store.
#[derive(Debug)]
pub struct S3Fifo<K> {
    lists: Lists<K, 3>,
    ghosts: Ghosts,
    /// Slots whose object may have changed since [`S3Fifo::changes`]; the node's mark decides.
    changed: Vec<u32>,
}

impl<K: Key> Default for S3Fifo<K> {
    fn default() -> Self {
        Self {
            lists: Lists::new(),
            ghosts: Ghosts::default(),
            changed: Vec::new(),
        }
    }
}

impl<K: Key> S3Fifo<K> {
    /// A policy with the objects of an earlier one, in any order.
    pub fn restore(mut rows: Vec<(K, u64, Standing)>) -> Self {
        let mut policy = Self::default();
        policy.lists.reserve(rows.len());
        rows.sort_by_key(|(_, _, standing)| (standing.order == 0, standing.order, standing.at));
        for (key, size, standing) in rows {
            if policy.lists.find(&key).is_some() {
                continue;
            }
            let queue = match standing.queue {
                Queue::Small => SMALL,
                Queue::Main => MAIN,
            };
            let slot = policy.lists.push(key, size, queue);
            let node = policy.lists.node_mut(slot);
            (node.uses, node.at) = (standing.uses.min(MOST_USES), standing.at);
            // What is written down stays true: numbers are kept, and later ones are higher.
            if standing.order == 0 {
                policy.mark(slot);
            } else {
                node.order = standing.order;
                policy.lists.number_above(standing.order);
            }
        }
        policy
    }

    /// Takes over what `newer` has learned while this one was being restored.
    pub fn take_over(&mut self, newer: &Self) {
        for queue in [SMALL, MAIN, HELD] {
            for node in newer.lists.queue(queue) {
                let slot = if let Some(slot) = self.lists.find(&node.key) {
                    self.lists.resize(slot, node.size);
                    self.lists.move_to(slot, queue);
                    slot
                } else {
                    self.lists.push(node.key, node.size, queue)
                };
                let mine = self.lists.node_mut(slot);
                mine.uses = mine.uses.max(node.uses);
                mine.at = mine.at.max(node.at);
                self.mark(slot);
            }
        }
    }

    /// [`Policy::insert`], with the owner's note about the last use.
    pub fn insert_at(&mut self, key: K, size: u64, at: u32) {
        if let Some(slot) = self.lists.find(&key) {
            self.lists.resize(slot, size);
            return;
        }
        let came_back = self.ghosts.came_back(self.lists.fingerprint(&key));
        let slot = self.lists.push(key, size, if came_back { MAIN } else { SMALL });
        self.lists.node_mut(slot).at = at;
        self.mark(slot);
    }

    /// Notes a use at `at`; tells whether `key` is known.
    pub fn use_at(&mut self, key: &K, at: u32) -> bool {
        let Some(slot) = self.lists.find(key) else {
            return false;
        };
        let node = self.lists.node_mut(slot);
        let uses = (node.uses + 1).min(MOST_USES);
        if (uses, at) != (node.uses, node.at) {
            (node.uses, node.at) = (uses, at);
            self.mark(slot);
        }
        true
    }

    /// Holds `key`, so that it never goes, or lets go of it again; it is then as good as new among the proven.
    pub fn hold(&mut self, key: &K, held: bool) {
        if let Some(slot) = self.lists.find(key)
            && (self.lists.node(slot).queue == HELD) != held
        {
            self.lists.move_to(slot, if held { HELD } else { MAIN });
            self.lists.node_mut(slot).uses = 0;
            self.mark(slot);
        }
    }

    /// Bytes of what is held.
    pub fn held_bytes(&self) -> u64 {
        self.lists.bytes_of(HELD)
    }

    /// How many objects are held.
    pub fn held(&self) -> usize {
        self.lists.len_of(HELD)
    }

    /// Whether `key` is known.
    pub fn contains(&self, key: &K) -> bool {
        self.lists.find(key).is_some()
    }

    /// Whether `key` is held.
    pub fn is_held(&self, key: &K) -> bool {
        self.lists
            .find(key)
            .is_some_and(|slot| self.lists.node(slot).queue == HELD)
    }

    /// Fingerprints of what went recently.
    pub fn ghosts(&self) -> usize {
        self.ghosts.len()
    }

    /// What has changed since the last call, to be written down; at most `most` objects, the rest next time.
    pub fn changes(&mut self, most: usize) -> Vec<(K, Standing)> {
        let mut found = Vec::new();
        while found.len() < most
            && let Some(slot) = self.changed.pop()
        {
            let node = self.lists.node_mut(slot);
            if std::mem::take(&mut node.is_changed) {
                found.push((node.key, standing(node)));
            }
        }
        if self.changed.is_empty() {
            self.changed.shrink_to_fit();
        }
        found
    }

    /// Marks `key` as changed again, since it could not be written down.
    pub fn note_unwritten(&mut self, key: &K) {
        if let Some(slot) = self.lists.find(key) {
            self.mark(slot);
        }
    }

    fn mark(&mut self, slot: u32) {
        let node = self.lists.node_mut(slot);
        if !std::mem::replace(&mut node.is_changed, true) {
            self.changed.push(slot);
        }
    }

    /// The queue to take from: the small one while it has more than its part, or while there is no other.
    fn queue_to_shorten(&self) -> Option<u8> {
        let (small, main) = (self.lists.bytes_of(SMALL), self.lists.bytes_of(MAIN));
        let is_small_over = small > (small + main) / SMALL_DIVISOR;
        match (self.lists.len_of(SMALL), self.lists.len_of(MAIN)) {
            (0, 0) => None,
            (0, _) => Some(MAIN),
            (_, 0) => Some(SMALL),
            _ if is_small_over => Some(SMALL),
            _ => Some(MAIN),
        }
    }
}

impl<K: Key> Policy<K> for S3Fifo<K> {
    fn insert(&mut self, key: K, size: u64) {
        self.insert_at(key, size, 0);
    }

    fn hit(&mut self, key: &K) -> bool {
        self.use_at(key, 0)
    }

    fn evict(&mut self, spare: &dyn Fn(&K) -> bool) -> Option<(K, u64)> {
        // Each step ends it, lowers a count, or spares one: once around for each count and once for sparing is all.
        let steps = (usize::from(MOST_USES) + 2) * (self.lists.len() - self.lists.len_of(HELD));
        for _ in 0..steps {
            let queue = self.queue_to_shorten()?;
            let slot = self.lists.first(queue)?;
            let node = self.lists.node_mut(slot);
            if spare(&node.key) {
                // Being read is being asked for.
                self.lists.move_to(slot, MAIN);
                self.mark(slot);
            } else if queue == MAIN && node.uses > 0 {
                node.uses -= 1;
                self.lists.move_to(slot, MAIN);
                self.mark(slot);
            } else if queue == SMALL && node.uses >= PROMOTING_USES {
                node.uses = 0;
                self.lists.move_to(slot, MAIN);
                self.mark(slot);
            } else {
                let (key, size) = self.lists.take(slot);
                if queue == SMALL {
                    let fingerprint = self.lists.fingerprint(&key);
                    self.ghosts.remember(fingerprint, self.lists.len());
                }
                return Some((key, size));
            }
        }
        None
    }

    fn remove(&mut self, key: &K) -> Option<u64> {
        let slot = self.lists.find(key)?;
        Some(self.lists.take(slot).1)
    }

    fn bytes(&self) -> u64 {
        self.lists.bytes()
    }

    fn len(&self) -> usize {
        self.lists.len()
    }

    fn memory(&self) -> usize {
        self.lists.memory() + self.ghosts.memory() + self.changed.capacity() * size_of::<u32>()
    }
}

fn standing<K>(node: &Node<K>) -> Standing {
    Standing {
        queue: if node.queue == SMALL {
            Queue::Small
        } else {
            Queue::Main
        },
        uses: node.uses,
        order: node.order,
        at: node.at,
    }
}
