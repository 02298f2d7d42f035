//! Log lines of which one a minute is enough: what every request meets while the disk is full would fill the log's disk as well.
//!
//! Each place has its own minute; the first line of the next says how many were left out. Counters count every one of them.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How often one place may speak.
const EVERY: Duration = Duration::from_secs(60);

/// A place that speaks seldom.
#[derive(Debug)]
pub(crate) struct Seldom(Mutex<Spoken>);

#[derive(Debug)]
struct Spoken {
    last: Option<Instant>,
    /// Since then.
    unsaid: u64,
}

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Spoken {
            last: None,
            unsaid: 0,
        }))
    }

    /// Whether it may speak now: then how many times it was silent since it last did.
    pub(crate) fn due(&self) -> Option<u64> {
        let mut spoken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if spoken.last.is_some_and(|last| now < last + EVERY) {
            spoken.unsaid += 1;
            return None;
        }
        spoken.last = Some(now);
        Some(std::mem::take(&mut spoken.unsaid))
    }
}

/// [`tracing::warn!`], at most once a minute from where it stands.
macro_rules! warn_seldom {
    ($($said:tt)*) => {{
        static PLACE: $crate::seldom::Seldom = $crate::seldom::Seldom::new();
        if let Some(unsaid) = PLACE.due() {
            let unsaid = (unsaid > 0).then_some(unsaid);
            ::tracing::warn!(unsaid, $($said)*);
        }
    }};
}
pub(crate) use warn_seldom;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_minute_says_how_many_were_left_out() {
        let place = Seldom::new();
        assert_eq!(place.due(), Some(0));
        for _ in 0..3 {
            assert_eq!(place.due(), None);
        }
        tokio::time::advance(EVERY).await;
        assert_eq!(place.due(), Some(3));
        assert_eq!(place.due(), None);
    }
}
