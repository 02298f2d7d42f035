//! Keys whose responses must not be reused without validation (RFC 9111 §4.4), though the index could not be told so: the disk is full,
//! read-only or failing, and what it says about them is from before.
//!
//! Kept for as long as the process lives, or until the index has something newer. Bounded: with more than [`MOST`] keys, all are in doubt.
//!
//! Deliberately absent: outliving the process, which would take the disk that does not write.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::StoredResponse;

/// The most keys that are told apart.
const MOST: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    keys: HashSet<String>,
    is_everything: bool,
}

impl Doubts {
    /// `key` is in doubt.
    pub(super) fn add(&self, key: &str) {
        let mut state = self.lock();
        if state.keys.len() >= MOST {
            state.keys = HashSet::new();
            state.is_everything = true;
            tracing::warn!(
                "so many invalidations could not be written that everything stored is validated before it is sent"
            );
        }
        if !state.is_everything {
            state.keys.insert(key.to_owned());
        }
    }

    /// The index has something newer about `keys`. Whether one of them was in doubt.
    pub(super) fn settle<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> bool {
        let mut state = self.lock();
        let before = state.keys.len();
        if before > 0 {
            for key in keys {
                state.keys.remove(key);
            }
        }
        state.keys.len() < before
    }

    /// Marks what was read about `key`, if that is in doubt.
    pub(super) fn mark(&self, key: &str, responses: &mut [StoredResponse]) {
        let state = self.lock();
        if state.is_everything || state.keys.contains(key) {
            for response in responses {
                response.head.invalidated = true;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_doubt_until_it_is_settled_and_beyond_the_bound_all_are() {
        let doubts = Doubts::default();
        let is_in_doubt = |key: &str| {
            let state = doubts.lock();
            state.is_everything || state.keys.contains(key)
        };
        doubts.add("a");
        assert!(is_in_doubt("a") && !is_in_doubt("b"));
        assert!(!doubts.settle(["b"]));
        assert!(doubts.settle(["b", "a", "c"]) && !is_in_doubt("a"));
        for number in 0..=MOST {
            doubts.add(&number.to_string());
        }
        assert!(is_in_doubt("a"));
    }
}
