//! The policies against models that are slow and plain, and against the traffic that they are chosen for.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// S3-FIFO as its paper has it, over vectors.
#[derive(Debug, Default)]
struct Model {
    small: VecDeque<(u8, u64, u8)>,
    main: VecDeque<(u8, u64, u8)>,
    held: Vec<(u8, u64)>,
    ghosts: VecDeque<u8>,
}

impl Model {
    fn find(&mut self, key: u8) -> Option<&mut (u8, u64, u8)> {
        self.small
            .iter_mut()
            .chain(&mut self.main)
            .find(|entry| entry.0 == key)
    }

    fn knows(&mut self, key: u8) -> bool {
        self.find(key).is_some() || self.held.iter().any(|entry| entry.0 == key)
    }

    fn hit(&mut self, key: u8) -> bool {
        if let Some(entry) = self.find(key) {
            entry.2 = (entry.2 + 1).min(3);
        }
        self.knows(key)
    }

    fn insert(&mut self, key: u8, size: u64) {
        if let Some(held) = self.held.iter_mut().find(|entry| entry.0 == key) {
            held.1 = size;
        } else if let Some(entry) = self.find(key) {
            entry.1 = size;
        } else if let Some(place) = self.ghosts.iter().position(|ghost| *ghost == key) {
            self.ghosts.remove(place);
            self.main.push_back((key, size, 0));
        } else {
            self.small.push_back((key, size, 0));
        }
    }

    fn remove(&mut self, key: u8) {
        self.small.retain(|entry| entry.0 != key);
        self.main.retain(|entry| entry.0 != key);
        self.held.retain(|entry| entry.0 != key);
    }

    fn hold(&mut self, key: u8, held: bool) {
        if held {
            if let Some((key, size, _)) = self.find(key).copied() {
                self.remove(key);
                self.held.push((key, size));
            }
        } else if let Some(place) = self.held.iter().position(|entry| entry.0 == key) {
            let (key, size) = self.held.remove(place);
            self.main.push_back((key, size, 0));
        }
    }

    fn evict(&mut self, spared: u8) -> Option<(u8, u64)> {
        let bytes = |queue: &VecDeque<(u8, u64, u8)>| queue.iter().map(|entry| entry.1).sum::<u64>();
        for _ in 0..10_000 {
            let (small, main) = (bytes(&self.small), bytes(&self.main));
            let is_small = !self.small.is_empty() && (self.main.is_empty() || small > (small + main) / 10);
            let queue = if is_small { &mut self.small } else { &mut self.main };
            let (key, size, uses) = queue.pop_front()?;
            if key == spared {
                self.main.push_back((key, size, uses));
            } else if uses == 0 {
                if is_small {
                    self.ghosts.push_back(key);
                }
                return Some((key, size));
            } else {
                self.main
                    .push_back((key, size, if is_small { 0 } else { uses - 1 }));
            }
        }
        None
    }
}

#[derive(Debug, Clone)]
enum Act {
    Ask(u8, u64),
    Evict(u8),
    Remove(u8),
    Hold(u8, bool),
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    // Fewer keys than ghosts are kept at least: the model never forgets one.
    let key = 0..40_u8;
    let act = prop_oneof![
        8 => (key.clone(), prop_oneof![1..100_u64, 1000..5000_u64]).prop_map(|(key, size)| Act::Ask(key, size)),
        4 => any::<u8>().prop_map(Act::Evict),
        1 => key.clone().prop_map(Act::Remove),
        1 => (key, any::<bool>()).prop_map(|(key, held)| Act::Hold(key, held)),
        1 => Just(Act::Restart),
    ];
    proptest::collection::vec(act, 1..300)
}

/// Forgetting the ghosts, as a restart does.
fn restarted(policy: &mut S3Fifo<u8>, model: &mut Model, written: &mut Vec<(u8, u64, Standing)>) {
    let held: Vec<u8> = model.held.iter().map(|entry| entry.0).collect();
    for (key, standing) in policy.changes(usize::MAX) {
        let size = model
            .find(key)
            .map(|entry| entry.1)
            .or_else(|| held.contains(&key).then_some(0));
        written.retain(|row| row.0 != key);
        written.extend(size.map(|size| (key, size, standing)));
    }
    written.retain(|row| model.knows(row.0));
    for row in written.iter_mut() {
        let held = model
            .held
            .iter()
            .find(|entry| entry.0 == row.0)
            .map(|entry| entry.1);
        row.1 = held.or_else(|| model.find(row.0).map(|entry| entry.1)).unwrap();
    }
    *policy = S3Fifo::restore(written.clone());
    for key in held {
        policy.hold(&key, true);
    }
    model.ghosts.clear();
}

proptest! {
    #[test]
    fn p14_the_policy_does_what_its_model_does_through_restarts(acts in acts()) {
        let (mut policy, mut model) = (S3Fifo::default(), Model::default());
        let mut written = Vec::new();
        for act in acts {
            match act {
                Act::Ask(key, size) => {
                    let known = policy.hit(&key);
                    prop_assert_eq!(known, model.hit(key));
                    if !known {
                        policy.insert(key, size);
                        model.insert(key, size);
                    }
                }
                Act::Evict(spared) => {
                    prop_assert_eq!(policy.evict(&|key| *key == spared), model.evict(spared));
                }
                Act::Remove(key) => {
                    prop_assert_eq!(policy.remove(&key).is_some(), model.knows(key));
                    model.remove(key);
                }
                Act::Hold(key, held) => {
                    policy.hold(&key, held);
                    model.hold(key, held);
                }
                Act::Restart => restarted(&mut policy, &mut model, &mut written),
            }
            let in_queues: u64 = model.small.iter().chain(&model.main).map(|entry| entry.1).sum();
            let held: u64 = model.held.iter().map(|entry| entry.1).sum();
            prop_assert_eq!(policy.bytes(), in_queues + held);
            prop_assert_eq!(policy.held_bytes(), held);
            prop_assert_eq!(policy.len(), model.small.len() + model.main.len() + model.held.len());
        }
    }

    #[test]
    fn every_policy_keeps_its_books_and_names_what_was_inserted_once(keys in proptest::collection::vec(0..500_u16, 1..400)) {
        fn check(mut policy: impl Policy<u16>, keys: &[u16]) {
            for key in keys {
                if !policy.hit(key) {
                    policy.insert(*key, u64::from(*key) + 1);
                }
            }
            let mut expected: Vec<u16> = keys.to_vec();
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(policy.len(), expected.len());
            let mut gone: Vec<u16> = std::iter::from_fn(|| policy.evict(&|_| false)).map(|(key, _)| key).collect();
            gone.sort_unstable();
            assert_eq!(gone, expected);
            assert_eq!((policy.bytes(), policy.len()), (0, 0));
        }
        check(S3Fifo::default(), &keys);
        check(Lru::default(), &keys);
        check(Fifo::default(), &keys);
    }
}

#[test]
fn nothing_goes_when_all_is_held_or_spared() {
    let mut policy = S3Fifo::default();
    for key in 0..10 {
        policy.insert(key, 10);
    }
    assert_eq!(policy.evict(&|_| true), None);
    for key in 0..9 {
        policy.hold(&key, true);
    }
    assert_eq!(policy.evict(&|_| false), Some((9, 10)));
    assert_eq!(policy.evict(&|_| false), None);
    policy.hold(&3, false);
    assert_eq!(policy.evict(&|_| false), Some((3, 10)));
}

#[test]
fn what_was_learned_during_the_restoration_is_taken_over() {
    let mut newer = S3Fifo::default();
    newer.insert(1, 10);
    newer.insert(2, 10);
    newer.use_at(&2, 99);
    let row = |key, order| {
        let standing = Standing {
            queue: Queue::Small,
            uses: 0,
            order,
            at: 5,
        };
        (key, 10, standing)
    };
    let mut policy = S3Fifo::restore(vec![row(3, 70), row(2, 0), row(4, 60)]);
    policy.take_over(&newer);
    let gone: Vec<i32> = std::iter::from_fn(|| policy.evict(&|_| false))
        .map(|(key, _)| key)
        .collect();
    assert_eq!(gone, [4, 3, 1, 2]);
}

/// xorshift: a trace must be the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / f64::from(u32::MAX)
    }
}

/// Popularity falls as one over the rank; sizes are from 1 KiB to 32 MiB, whatever the rank; `scan` one-time objects are
/// asked for after each 20 000 requests, as a mirror run does.
fn package_traffic(requests: u64, scan: u64) -> Vec<(u64, u64)> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let size = |key: u64| 1024_u64 << (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60);
    let mut trace = Vec::new();
    for nth in 0..requests {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank below 20 000"
        )]
        let rank = 20_000_f64.powf(random.unit()) as u64;
        trace.push((rank, size(rank)));
        if nth % 20_000 == 19_999 {
            trace.extend((0..scan).map(|one| (1 << 40 | nth << 20 | one, size(nth ^ one << 7))));
        }
    }
    trace
}

#[test]
fn p14_a_mirror_scan_does_not_push_out_what_is_popular() {
    let capacity = 4 << 30;
    let (quiet, scanned) = (package_traffic(100_000, 0), package_traffic(100_000, 4000));
    let hits = |trace: &[(u64, u64)]| {
        let trace = || trace.iter().copied();
        (
            replay(&mut S3Fifo::default(), capacity, trace()),
            replay(&mut Lru::default(), capacity, trace()),
            replay(&mut Fifo::default(), capacity, trace()),
        )
    };
    let (ours, lru, fifo) = hits(&quiet);
    assert!(
        ours.hits > lru.hits && lru.hits > fifo.hits,
        "{ours:?} {lru:?} {fifo:?}"
    );
    assert!(ours.hit_bytes > lru.hit_bytes, "{ours:?} {lru:?}");
    let (ours_scanned, lru_scanned, _) = hits(&scanned);
    let lost = |quiet: Tally, scanned: Tally| quiet.hits - scanned.hits.min(quiet.hits);
    assert!(
        lost(ours, ours_scanned) * 2 < lost(lru, lru_scanned),
        "lost {} of {}, LRU {} of {}",
        lost(ours, ours_scanned),
        ours.hits,
        lost(lru, lru_scanned),
        lru.hits
    );
}

#[test]
fn p14_ghosts_are_bounded_and_memory_is_small() {
    let mut policy = S3Fifo::default();
    for key in 0..50_000_u64 {
        policy.insert(kato_shared::Digest::of(&key.to_le_bytes()), 1000);
        if policy.len() > 10_000 {
            policy.evict(&|_| false);
        }
    }
    assert!(policy.ghosts() <= policy.len());
    policy.changes(usize::MAX);
    let each = policy.memory() / policy.len();
    assert!(each < 200, "{each} bytes an object");
}
