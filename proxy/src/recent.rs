//! A map that keeps what is asked for again, bounded by weight: second chance over first in, first out.
//!
//! Whoever takes a value notes it with one store to an atomic flag, so that a hit needs neither the map nor its lock: see
//! [`Held`]. What was taken since its turn came last goes to the end of the queue instead of going; one pass over many values
//! that nobody asks for again therefore pushes out other such values first, which a list ordered by last use would not do.
//!
//! Deliberately absent: a lock (the owner has one) and a limit (the owner may share one among several maps).

use std::{
    borrow::Borrow,
    collections::VecDeque,
    hash::Hash,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::quick_map::QuickMap;

/// A value that a [`Recent`] may hold, shared with everybody who serves from it.
#[derive(Debug, Default)]
pub struct Held<V> {
    value: V,
    was_used: AtomicBool,
    is_current: AtomicBool,
}

impl<V> Held<V> {
    /// A value that is not held anywhere yet.
    pub const fn new(value: V) -> Self {
        Self {
            value,
            was_used: AtomicBool::new(false),
            is_current: AtomicBool::new(false),
        }
    }

    /// Whether it is still what its key stands for: false once it was replaced, removed or pushed out.
    ///
    /// Whoever changes what the key stands for removes the value first and tells of the change afterwards, so that who has
    /// heard of the change sees `false` here.
    pub fn is_held(&self) -> bool {
        self.is_current.load(Ordering::Acquire)
    }

    /// Notes that it was of use.
    pub fn note_use(&self) {
        // Most uses follow a use: reading does not take the cache line away from others.
        if !self.was_used.load(Ordering::Relaxed) {
            self.was_used.store(true, Ordering::Relaxed);
        }
    }
}

impl<V> Deref for Held<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    entries: QuickMap<K, Slot<V>>,
    /// In the order of their turns; entries that are gone leave their place until it is its turn.
    turns: VecDeque<(u64, K)>,
    last: u64,
    weight: usize,
}

#[derive(Debug)]
struct Slot<V> {
    number: u64,
    weight: usize,
    held: Arc<Held<V>>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self {
            entries: QuickMap::default(),
            turns: VecDeque::new(),
            last: 0,
            weight: 0,
        }
    }
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    /// The value of `key`; that it was of use is noted.
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<Arc<Held<V>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let held = &self.entries.get(key)?.held;
        held.note_use();
        Some(Arc::clone(held))
    }

    /// Holds `value` in the place of what `key` stood for.
    pub(crate) fn insert(&mut self, key: K, value: Arc<Held<V>>, weight: usize) {
        self.remove(&key);
        self.last += 1;
        self.weight += weight;
        value.is_current.store(true, Ordering::Release);
        self.turns.push_back((self.last, key.clone()));
        let slot = Slot {
            number: self.last,
            weight,
            held: value,
        };
        self.entries.insert(key, slot);
    }

    /// Lets go of `key`.
    pub(crate) fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(slot) = self.entries.remove(key) {
            slot.held.is_current.store(false, Ordering::Release);
            self.weight -= slot.weight;
            self.tidy();
        }
    }

    /// Lets go of everything.
    pub(crate) fn clear(&mut self) {
        for slot in self.entries.values() {
            slot.held.is_current.store(false, Ordering::Release);
        }
        *self = Self::default();
    }

    /// Lets go of whose turn it is and who was of no use since the last one. False where nothing is held.
    pub(crate) fn push_out(&mut self) -> bool {
        while let Some((number, key)) = self.turns.pop_front() {
            let Some(slot) = self.entries.get(&key).filter(|slot| slot.number == number) else {
                continue;
            };
            if slot.held.was_used.swap(false, Ordering::Relaxed) {
                self.turns.push_back((number, key));
                continue;
            }
            self.remove(&key);
            return true;
        }
        false
    }

    /// The weight of all that is held.
    pub(crate) const fn weight(&self) -> usize {
        self.weight
    }

    /// How many are held.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Places of what is gone must not outnumber what is there.
    fn tidy(&mut self) {
        if self.turns.len() > 2 * self.entries.len() + 16 {
            let entries = &self.entries;
            self.turns
                .retain(|(number, key)| entries.get(key).is_some_and(|slot| slot.number == *number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[(&'static str, usize)]) -> Recent<&'static str, usize> {
        let mut recent = Recent::default();
        for (key, weight) in values {
            recent.insert(*key, Arc::new(Held::new(*weight)), *weight);
        }
        recent
    }

    #[test]
    fn what_was_of_use_gets_a_second_chance_and_the_rest_goes_in_order() {
        let mut recent = with(&[("a", 1), ("b", 2), ("c", 4)]);
        assert_eq!(recent.get("a").map(|held| **held), Some(1));
        assert!(recent.push_out());
        assert!(recent.get("b").is_none());
        assert_eq!((recent.weight(), recent.len()), (5, 2));
        assert!(recent.push_out() && recent.push_out() && !recent.push_out());
        assert_eq!((recent.weight(), recent.len()), (0, 0));
    }

    #[test]
    fn who_serves_from_a_value_sees_when_it_is_no_longer_what_its_key_stands_for() {
        let mut recent = with(&[("a", 1), ("b", 1), ("c", 1)]);
        let [replaced, removed, cleared] = ["a", "b", "c"].map(|key| recent.get(key).unwrap());
        assert!(replaced.is_held() && removed.is_held() && cleared.is_held());
        recent.insert("a", Arc::new(Held::new(7)), 1);
        recent.remove("b");
        assert!(!replaced.is_held() && !removed.is_held() && cleared.is_held());
        recent.clear();
        assert!(!cleared.is_held());
        assert_eq!((recent.weight(), recent.len()), (0, 0));
    }

    #[test]
    fn places_of_what_is_gone_do_not_pile_up() {
        let mut recent = Recent::default();
        for round in 0..10_000_usize {
            recent.insert(round % 3, Arc::new(Held::new(round)), 1);
        }
        assert!(
            recent.turns.len() <= 2 * recent.len() + 17,
            "{}",
            recent.turns.len()
        );
        assert_eq!(recent.weight(), 3);
    }
}
