//! Which cache keys the index has, in a few bytes each, so that a request for what is not stored costs no look at the disk.
//!
//! Flow: the writer of the index tells each key that a commit brought or took; after a start a thread reads the keys back
//! ([`Keys::learn`]). Until that is done, any key may be there.
//!
//! A key is known by 64 bits of its hash under a seed of this process. Two keys with the same bits are taken for one: what is
//! there may then be taken for absent once the other has gone, which costs one download, once in 2^64 pairs.
//!
//! Invariant: a key whose change is durable is known before anybody hears that it is.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use hashbrown::HashTable;

/// The keys of one index.
#[derive(Debug, Default)]
pub(super) struct Keys {
    seed: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    prints: HashTable<u64>,
    is_complete: bool,
}

impl Keys {
    /// Whether `key` may be in the index; false is certain.
    pub(super) fn may_have(&self, key: &str) -> bool {
        let print = self.print(key);
        let state = self.lock();
        !state.is_complete || state.prints.find(print, |known| *known == print).is_some()
    }

    /// `key` is in the index, or may be.
    pub(super) fn add(&self, key: &str) {
        let print = self.print(key);
        self.lock().add(print);
    }

    /// `key` is in the index no more.
    pub(super) fn remove(&self, key: &str) {
        let print = self.print(key);
        if let Ok(known) = self.lock().prints.find_entry(print, |known| *known == print) {
            known.remove();
        }
    }

    /// All keys that were in the index at some time since it was opened. What has gone meanwhile is taken to be there still.
    pub(super) fn learn(&self, prints: Vec<u64>) {
        let mut state = self.lock();
        state.prints.reserve(prints.len(), |known| *known);
        for print in prints {
            state.add(print);
        }
        state.is_complete = true;
    }

    /// What is remembered of `key`.
    pub(super) fn print(&self, key: &str) -> u64 {
        self.seed.hash_one(key)
    }

    /// Bytes of memory that this takes.
    pub(super) fn memory(&self) -> usize {
        self.lock().prints.allocation_size()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, print: u64) {
        if self.prints.find(print, |known| *known == print).is_none() {
            self.prints.insert_unique(print, print, |known| *known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_all_are_known_any_key_may_be_there_and_afterwards_only_those_that_are() {
        let keys = Keys::default();
        assert!(keys.may_have("a"));
        keys.add("came");
        keys.learn(vec![keys.print("was"), keys.print("came")]);
        assert!(keys.may_have("was") && keys.may_have("came") && !keys.may_have("a"));
        keys.remove("came");
        keys.remove("never was");
        assert!(!keys.may_have("came"));
    }

    #[test]
    fn a_hundred_thousand_keys_take_less_than_thirty_bytes_each() {
        let keys = Keys::default();
        for number in 0..100_000 {
            keys.add(&format!("https://mirror.example/pool/{number}"));
        }
        assert!(keys.memory() < 30 * 100_000, "{}", keys.memory());
    }
}
