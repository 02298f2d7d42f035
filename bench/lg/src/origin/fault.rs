//! What a path asks of the origin beyond its file: faults, a rate, a freshness.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The options of a path `/c/TOKEN[.name-value]…/rest`. Offsets are those of the file, sizes in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "switches, as they stand in a path")]
pub(crate) struct Faults {
    /// `die-N`: the connection closes when a response reaches offset N.
    pub(crate) die: Option<u64>,
    /// `stall-N`: nothing more leaves from offset N on; the connection stays open.
    pub(crate) stall: Option<u64>,
    /// `rst-1`: `die` by RST instead of FIN.
    pub(crate) reset: bool,
    /// `times-K`: `die` and `stall` happen K times for this path; without it, always.
    pub(crate) times: Option<u64>,
    /// `chunked-1`: chunks instead of a length.
    pub(crate) chunked: bool,
    /// `delay-MS`: milliseconds before the response head.
    pub(crate) delay: Duration,
    /// `norange-1`: ranges are ignored.
    pub(crate) no_range: bool,
    /// `noval-1`: no validators.
    pub(crate) no_validators: bool,
    /// `rate-N`: bytes per second of this one response.
    pub(crate) rate: u64,
    /// `age-S`: seconds that a response is fresh; without it, a day.
    pub(crate) max_age: Option<u64>,
}

impl Faults {
    /// The options of a path, and the file below the root.
    pub(crate) fn of(path: &str) -> (Self, &str) {
        let path = path.trim_start_matches('/');
        let mut parts = path.splitn(3, '/');
        let (kind, token, rest) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        match kind {
            "c" => (Self::parse(token), rest),
            "u" => (Self::default(), rest),
            _ => (Self::default(), path),
        }
    }

    fn parse(token: &str) -> Self {
        let mut faults = Self::default();
        for (name, value) in token
            .split('.')
            .skip(1)
            .filter_map(|option| option.split_once('-'))
        {
            let Ok(value) = value.parse::<u64>() else {
                continue;
            };
            match name {
                "die" => faults.die = Some(value),
                "stall" => faults.stall = Some(value),
                "rst" => faults.reset = true,
                "times" => faults.times = Some(value),
                "chunked" => faults.chunked = true,
                "delay" => faults.delay = Duration::from_millis(value),
                "norange" => faults.no_range = true,
                "noval" => faults.no_validators = true,
                "rate" => faults.rate = value,
                "age" => faults.max_age = Some(value),
                _ => {}
            }
        }
        faults
    }

    /// The offset at which a response of `[first, past)` goes wrong.
    pub(crate) fn offset(&self, first: u64, past: u64) -> Option<u64> {
        self.die
            .or(self.stall)
            .filter(|offset| (first..past).contains(offset))
    }
}

/// How often each path has gone wrong.
#[derive(Debug, Default)]
pub(crate) struct Fired(Mutex<HashMap<String, u64>>);

impl Fired {
    /// Whether `path` goes wrong once more, of `times` in all.
    pub(crate) fn once_more(&self, path: &str, times: Option<u64>) -> bool {
        let mut fired = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = fired.entry(path.to_owned()).or_default();
        *count += 1;
        times.is_none_or(|times| *count <= times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_carries_its_faults() {
        let (faults, file) = Faults::of("/c/x7.die-100.times-1.age-2/pool/a.deb");
        assert_eq!(file, "pool/a.deb");
        assert_eq!(
            (faults.die, faults.times, faults.max_age),
            (Some(100), Some(1), Some(2))
        );
        assert_eq!(faults.offset(0, 101), Some(100));
        assert_eq!(faults.offset(101, 200), None);
        assert_eq!(Faults::of("/u/x.die-1/a"), (Faults::default(), "a"));
    }

    #[test]
    fn a_fault_happens_as_often_as_it_was_asked_for() {
        let fired = Fired::default();
        assert!(fired.once_more("/a", Some(1)));
        assert!(!fired.once_more("/a", Some(1)));
        assert!(fired.once_more("/b", None) && fired.once_more("/b", None));
    }
}
