//! When a node has shown enough. Pure.
//!
//! A service that answers once and dies has shown nothing, and neither have two that were never good at the same time. So all checks are looked at
//! again and again, and all of them have to be good in one window, which is as long as the longest that one of them asks for and
//! ends now. One that is not good begins it anew; one that is not good from its deadline on ends the wait.

use std::time::Duration;

use tokio::time::Instant;

/// All checks of a node since its restart.
#[derive(Debug)]
pub(super) struct Window {
    began: Instant,
    /// Of each check, how long it has to stay good, and from when on it has to be good.
    terms: Vec<(Duration, Duration)>,
    all_good_since: Option<Instant>,
}

/// What follows from a look at all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// They were good for long enough.
    Shown,
    /// It is too early to say.
    GoOn,
    /// One was not good in its time.
    Over,
}

impl Window {
    /// Begins at the restart, with the shortest time of goodness and the deadline of each check.
    pub(super) fn new(began: Instant, terms: Vec<(Duration, Duration)>) -> Self {
        Self {
            began,
            terms,
            all_good_since: None,
        }
    }

    /// Takes in a look: the first check that was not good, if there was one.
    pub(super) fn judge(&mut self, red: Option<usize>, now: Instant) -> Seen {
        if let Some(red) = red {
            self.all_good_since = None;
            let is_over = self
                .terms
                .get(red)
                .is_none_or(|(_, deadline)| now.duration_since(self.began) >= *deadline);
            return if is_over { Seen::Over } else { Seen::GoOn };
        }
        let since = *self.all_good_since.get_or_insert(now);
        let length = self
            .terms
            .iter()
            .map(|(min_healthy, _)| *min_healthy)
            .max()
            .unwrap_or_default();
        if now.duration_since(since) >= length {
            Seen::Shown
        } else {
            Seen::GoOn
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Seen::*, *};

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// The verdicts on looks at these seconds, each with the check that was not good.
    fn verdicts(terms: &[(u64, u64)], looks: &[(u64, Option<usize>)]) -> Vec<Seen> {
        let began = Instant::now();
        let terms = terms
            .iter()
            .map(|(min_healthy, deadline)| (secs(*min_healthy), secs(*deadline)))
            .collect();
        let mut window = Window::new(began, terms);
        looks
            .iter()
            .map(|(at, red)| window.judge(*red, began + secs(*at)))
            .collect()
    }

    #[test]
    fn c10_all_checks_are_good_in_one_window_that_ends_with_the_verdict() {
        for (terms, looks, expected) in [
            // Nothing to look at, and nothing to wait for.
            (&[][..], &[(0, None)][..], &[Shown][..]),
            (&[(0, 600)], &[(0, None)], &[Shown]),
            // It has to stay good.
            (
                &[(2, 10)],
                &[(0, None), (1, None), (2, None)],
                &[GoOn, GoOn, Shown],
            ),
            // The second is good when the first is not any more: never together.
            (
                &[(2, 10), (2, 10)],
                &[
                    (0, Some(1)),
                    (1, Some(0)),
                    (3, None),
                    (4, Some(0)),
                    (5, None),
                    (7, None),
                ],
                &[GoOn, GoOn, GoOn, GoOn, GoOn, Shown],
            ),
            // The longest time counts for all, also for one that asks for none.
            (
                &[(0, 600), (3, 10)],
                &[(0, None), (2, Some(0)), (3, None), (5, None), (6, None)],
                &[GoOn, GoOn, GoOn, GoOn, Shown],
            ),
        ] {
            assert_eq!(verdicts(terms, looks), expected, "{terms:?} {looks:?}");
        }
    }

    #[test]
    fn c10_from_its_deadline_on_a_check_has_to_be_good() {
        let both = [(0, 600), (2, 5)];
        assert_eq!(verdicts(&both, &[(4, Some(1)), (5, Some(1))]), [GoOn, Over]);
        // Each has its own.
        assert_eq!(
            verdicts(&both, &[(5, Some(0)), (599, Some(0)), (600, Some(0))]),
            [GoOn, GoOn, Over]
        );
        // A window that began in time may end later.
        assert_eq!(verdicts(&both, &[(4, None), (6, None)]), [GoOn, Shown]);
        assert_eq!(verdicts(&both, &[(4, None), (5, Some(1))]), [GoOn, Over]);
    }
}
