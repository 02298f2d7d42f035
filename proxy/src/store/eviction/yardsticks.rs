//! The two policies that everybody knows, to compare with.

use super::{Key, Policy, lists::Lists};

/// Least recently used goes first.
#[derive(Debug)]
pub struct Lru<K>(Lists<K, 1>);

/// What came first goes first; hits change nothing.
#[derive(Debug)]
pub struct Fifo<K>(Lists<K, 1>);

impl<K: Key> Default for Lru<K> {
    fn default() -> Self {
        Self(Lists::new())
    }
}

impl<K: Key> Default for Fifo<K> {
    fn default() -> Self {
        Self(Lists::new())
    }
}

impl<K: Key> Policy<K> for Lru<K> {
    fn insert(&mut self, key: K, size: u64) {
        if let Some(slot) = self.0.find(&key) {
            self.0.resize(slot, size);
        } else {
            self.0.push(key, size, 0);
        }
    }

    fn hit(&mut self, key: &K) -> bool {
        let found = self.0.find(key);
        if let Some(slot) = found {
            self.0.move_to(slot, 0);
        }
        found.is_some()
    }

    fn evict(&mut self, spare: &dyn Fn(&K) -> bool) -> Option<(K, u64)> {
        evict_first(&mut self.0, spare)
    }

    fn remove(&mut self, key: &K) -> Option<u64> {
        let slot = self.0.find(key)?;
        Some(self.0.take(slot).1)
    }

    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn memory(&self) -> usize {
        self.0.memory()
    }
}

impl<K: Key> Policy<K> for Fifo<K> {
    fn insert(&mut self, key: K, size: u64) {
        if let Some(slot) = self.0.find(&key) {
            self.0.resize(slot, size);
        } else {
            self.0.push(key, size, 0);
        }
    }

    fn hit(&mut self, key: &K) -> bool {
        self.0.find(key).is_some()
    }

    fn evict(&mut self, spare: &dyn Fn(&K) -> bool) -> Option<(K, u64)> {
        evict_first(&mut self.0, spare)
    }

    fn remove(&mut self, key: &K) -> Option<u64> {
        let slot = self.0.find(key)?;
        Some(self.0.take(slot).1)
    }

    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn memory(&self) -> usize {
        self.0.memory()
    }
}

/// Takes the first that need not be spared; those that must are moved to the end.
fn evict_first<K: Key>(lists: &mut Lists<K, 1>, spare: &dyn Fn(&K) -> bool) -> Option<(K, u64)> {
    for _ in 0..lists.len() {
        let slot = lists.first(0)?;
        if spare(&lists.node(slot).key) {
            lists.move_to(slot, 0);
        } else {
            return Some(lists.take(slot));
        }
    }
    None
}
