//! What is said of a file that is read all the same: values that earlier versions took, and that are out of their range now.
//!
//! Flow: [`super::range`] takes the nearest allowed value and says so ([`say`]) → [`super::value`] adds where it stands ([`at`]), as it does
//! with errors → [`super::parse_told`] gives it with file and line ([`take`]).
//!
//! A visitor of serde has no other way out than its value or its error; so what it says waits here, in the thread that reads the file.

use std::{cell::RefCell, path::PathBuf};

/// The version from which on such values are refused.
pub const REFUSED_FROM: &str = "0.3.0";

thread_local! {
    static TOLD: RefCell<Vec<(Option<usize>, String)>> = const { RefCell::new(Vec::new()) };
}

/// A value of a settings file that a later version will refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// What was given, what was expected, and what is taken.
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// `given` was out of its range, and `taken` is used in its place.
pub(super) fn say(given: &str, expected: &str, taken: &str) {
    let text = format!(
        "`{given}` given, expected {expected}; `{taken}` is taken, and kato {REFUSED_FROM} will refuse the file"
    );
    TOLD.with_borrow_mut(|told| told.push((None, text)));
}

/// What was said since, and has no place yet, is about the value at `offset`.
pub(super) fn at(offset: usize) {
    TOLD.with_borrow_mut(|told| {
        for (place, _) in told.iter_mut().rev().take_while(|(place, _)| place.is_none()) {
            *place = Some(offset);
        }
    });
}

/// All that was said since it was asked the last time.
pub(super) fn take() -> Vec<(usize, String)> {
    let told = TOLD.take();
    let placed = |(place, text): (Option<usize>, String)| (place.unwrap_or(0), text);
    told.into_iter().map(placed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The version that was named has come: the ranges are to be hard ones.
    #[test]
    fn the_version_that_refuses_them_is_a_later_one() {
        let of = |text: &str| semver::Version::parse(text).unwrap();
        assert!(of(env!("CARGO_PKG_VERSION")) < of(REFUSED_FROM));
    }
}
