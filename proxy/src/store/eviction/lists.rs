//! Objects in doubly linked queues over one vector: O(1) to find, append, move and take out, 64 bytes a node and 5 to 10 for
//! the index when keys are digests.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::Key;

/// No node.
const NONE: u32 = u32::MAX;

/// One object.
#[derive(Debug)]
pub(super) struct Node<K> {
    pub(super) key: K,
    pub(super) size: u64,
    /// Grows with each entry into a queue, so that the queues can be written down and built again.
    pub(super) order: u64,
    /// The owner's note about the last use.
    pub(super) at: u32,
    previous: u32,
    next: u32,
    /// Which of the `N` queues it stands in.
    pub(super) queue: u8,
    /// Hits that still speak for it.
    pub(super) uses: u8,
    /// Whether it differs from what the owner has written down.
    pub(super) is_changed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
    length: usize,
    bytes: u64,
}

/// `N` queues of objects, each object in exactly one.
#[derive(Debug)]
pub(super) struct Lists<K, const N: usize> {
    nodes: Vec<Node<K>>,
    vacant: u32,
    index: HashTable<u32>,
    hasher: RandomState,
    ends: [Ends; N],
    next_order: u64,
}

impl<K: Key, const N: usize> Lists<K, N> {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            vacant: NONE,
            index: HashTable::new(),
            hasher: RandomState::new(),
            ends: [Ends {
                first: NONE,
                last: NONE,
                length: 0,
                bytes: 0,
            }; N],
            // Zero is what an owner writes down that has not been told the order yet.
            next_order: 1,
        }
    }

    /// Where `key` is.
    pub(super) fn find(&self, key: &K) -> Option<u32> {
        let nodes = &self.nodes;
        self.index
            .find(self.hasher.hash_one(key), |slot| {
                nodes[*slot as usize].key == *key
            })
            .copied()
    }

    /// A short stand-in for `key`.
    pub(super) fn fingerprint(&self, key: &K) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(super) fn node(&self, slot: u32) -> &Node<K> {
        &self.nodes[slot as usize]
    }

    pub(super) fn node_mut(&mut self, slot: u32) -> &mut Node<K> {
        &mut self.nodes[slot as usize]
    }

    /// Puts a new object at the end of `queue`; `key` must not be known.
    pub(super) fn push(&mut self, key: K, size: u64, queue: u8) -> u32 {
        let node = Node {
            key,
            size,
            order: 0,
            at: 0,
            previous: NONE,
            next: NONE,
            queue,
            uses: 0,
            is_changed: false,
        };
        let slot = if self.vacant == NONE {
            self.nodes.push(node);
            // More than four billion objects do not fit the memory of any host.
            u32::try_from(self.nodes.len() - 1).unwrap_or(NONE)
        } else {
            let slot = self.vacant;
            self.vacant = self.nodes[slot as usize].next;
            self.nodes[slot as usize] = node;
            slot
        };
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        self.index.insert_unique(hasher.hash_one(key), slot, |slot| {
            hasher.hash_one(nodes[*slot as usize].key)
        });
        self.append(slot, queue);
        slot
    }

    /// Moves an object to the end of `queue`.
    pub(super) fn move_to(&mut self, slot: u32, queue: u8) {
        self.unlink(slot);
        self.append(slot, queue);
    }

    /// Forgets an object.
    pub(super) fn take(&mut self, slot: u32) -> (K, u64) {
        self.unlink(slot);
        let (key, size) = (self.node(slot).key, self.node(slot).size);
        if let Ok(entry) = self
            .index
            .find_entry(self.hasher.hash_one(key), |found| *found == slot)
        {
            entry.remove();
        }
        let vacant = self.vacant;
        let node = self.node_mut(slot);
        node.next = vacant;
        // A slot that is listed as changed says nothing any more.
        node.is_changed = false;
        self.vacant = slot;
        (key, size)
    }

    /// Numbers from here on are above `order`.
    pub(super) fn number_above(&mut self, order: u64) {
        self.next_order = self.next_order.max(order.saturating_add(1));
    }

    /// Gives an object another size.
    pub(super) fn resize(&mut self, slot: u32, size: u64) {
        let (queue, before) = (self.node(slot).queue, self.node(slot).size);
        let bytes = &mut self.ends[usize::from(queue)].bytes;
        *bytes = *bytes - before + size;
        self.node_mut(slot).size = size;
    }

    /// The object that has stood in `queue` for longest.
    pub(super) fn first(&self, queue: u8) -> Option<u32> {
        Some(self.ends[usize::from(queue)].first).filter(|slot| *slot != NONE)
    }

    /// The objects of `queue`, the oldest first.
    pub(super) fn queue(&self, queue: u8) -> impl Iterator<Item = &Node<K>> {
        let mut next = self.ends[usize::from(queue)].first;
        std::iter::from_fn(move || {
            let node = self.nodes.get(next as usize)?;
            next = node.next;
            Some(node)
        })
    }

    pub(super) fn bytes_of(&self, queue: u8) -> u64 {
        self.ends[usize::from(queue)].bytes
    }

    pub(super) fn len_of(&self, queue: u8) -> usize {
        self.ends[usize::from(queue)].length
    }

    pub(super) fn bytes(&self) -> u64 {
        self.ends.iter().map(|ends| ends.bytes).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn memory(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<K>>() + self.index.allocation_size()
    }

    /// Makes room for `more` objects at once, without the slack of growing step by step.
    pub(super) fn reserve(&mut self, more: usize) {
        self.nodes.reserve_exact(more);
    }

    fn append(&mut self, slot: u32, queue: u8) {
        let order = self.next_order;
        self.next_order += 1;
        let last = self.ends[usize::from(queue)].last;
        let node = self.node_mut(slot);
        (node.previous, node.next, node.queue, node.order) = (last, NONE, queue, order);
        let size = node.size;
        if last != NONE {
            self.node_mut(last).next = slot;
        }
        let ends = &mut self.ends[usize::from(queue)];
        if ends.first == NONE {
            ends.first = slot;
        }
        ends.last = slot;
        ends.length += 1;
        ends.bytes += size;
    }

    fn unlink(&mut self, slot: u32) {
        let node = self.node(slot);
        let (previous, next, queue, size) = (node.previous, node.next, node.queue, node.size);
        if previous != NONE {
            self.node_mut(previous).next = next;
        }
        if next != NONE {
            self.node_mut(next).previous = previous;
        }
        let ends = &mut self.ends[usize::from(queue)];
        if ends.first == slot {
            ends.first = next;
        }
        if ends.last == slot {
            ends.last = previous;
        }
        ends.length -= 1;
        ends.bytes -= size;
    }
}
