//! Whether a password is still worth showing, so that no account is locked: one that was not taken is left alone for a while. Pure.
//!
//! A refusal may be about the password or about one repository that the account may not read, and nobody says which. A password that was
//! taken the last time is left alone at that place only; refused at a second place before it was taken anywhere, it is left alone at all.

use std::collections::HashMap;

use tokio::time::Instant;

use super::{AFTER_REFUSAL, MAX_CHALLENGES, RepositoryAt};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The last answer was not a refusal.
    was_taken: bool,
    /// Until then it is shown nowhere.
    rests_until: Option<Instant>,
    /// Until then it is not shown there.
    refused_until: HashMap<RepositoryAt, Instant>,
}

impl Standing {
    /// Whether it may be shown at `place`.
    pub(super) fn may_be_shown(&self, place: &RepositoryAt, now: Instant) -> bool {
        let is_over = |until: &Instant| *until <= now;
        self.rests_until.as_ref().is_none_or(is_over) && self.refused_until.get(place).is_none_or(is_over)
    }

    /// Whether it was taken the last time, so that nobody has to wait for the answer to another's trial.
    pub(super) const fn is_good(&self) -> bool {
        self.was_taken
    }

    /// It was taken.
    pub(super) fn taken(&mut self) {
        self.was_taken = true;
        self.rests_until = None;
    }

    /// It was not taken at `place`.
    pub(super) fn refused(&mut self, place: RepositoryAt, now: Instant) {
        let until = now + AFTER_REFUSAL;
        if !std::mem::take(&mut self.was_taken) {
            self.rests_until = Some(until);
        }
        self.refused_until.retain(|_, until| *until > now);
        if self.refused_until.len() < MAX_CHALLENGES {
            self.refused_until.insert(place, until);
        } else {
            self.rests_until = Some(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn place(repository: &str) -> RepositoryAt {
        ("http://lab.example".to_owned(), repository.to_owned())
    }

    #[test]
    fn a_wrong_password_is_shown_once_in_ten_seconds_whatever_is_asked_for() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        assert!(standing.may_be_shown(&place("a"), now) && !standing.is_good());
        standing.refused(place("a"), now);
        for repository in ["a", "b"] {
            let before = now + AFTER_REFUSAL - Duration::from_millis(1);
            assert!(!standing.may_be_shown(&place(repository), before));
            assert!(standing.may_be_shown(&place(repository), now + AFTER_REFUSAL));
        }
    }

    #[test]
    fn one_closed_repository_takes_nothing_from_the_others_and_two_in_a_row_are_a_wrong_password() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        standing.taken();
        standing.refused(place("closed"), now);
        assert!(!standing.may_be_shown(&place("closed"), now));
        assert!(standing.may_be_shown(&place("a"), now) && !standing.is_good());
        standing.taken();
        assert!(standing.is_good() && !standing.may_be_shown(&place("closed"), now));
        standing.refused(place("other"), now);
        standing.refused(place("third"), now);
        assert!(!standing.may_be_shown(&place("a"), now));
        assert!(standing.may_be_shown(&place("a"), now + AFTER_REFUSAL));
    }

    #[test]
    fn places_without_end_take_no_memory_without_end() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        for nth in 0..=MAX_CHALLENGES {
            standing.taken();
            standing.refused(place(&nth.to_string()), now);
        }
        assert!(standing.refused_until.len() <= MAX_CHALLENGES);
        assert!(!standing.may_be_shown(&place("a"), now));
    }
}
