//! Content that was wrong twice, remembered for a moment: whoever asks for it again hears both digests, and the upstream is not asked
//! for the same wrong content again and again.
//!
//! What was small is asked for again after a second, by one for all who ask: an upstream that is mended is noticed soon.
//! A large download is on its way to its client before its digest is known, and can only be cut off. Clients try that again at once;
//! from here they learn why.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderValue, header};
use tokio::time::Instant;

use super::{Answer, Ask, Pipeline};
use crate::{fill::FillError, metrics::Outcome, respond};

/// How long it is remembered: longer than most clients wait before they try again, and short for whoever mends the upstream.
const REMEMBERED: Duration = Duration::from_secs(5);
/// The same of what costs little to fetch, and whose verdict is reached before a client hears anything.
const REMEMBERED_SMALL: Duration = Duration::from_secs(1);
/// The largest content that counts as small, in bytes: what is held back until it is verified.
const SMALL: u64 = 256 << 10;
/// The most that is remembered; beyond that the oldest is forgotten.
const MOST: usize = 256;

/// What was wrong of late, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Mismatches(Mutex<VecDeque<Mismatch>>);

#[derive(Debug)]
struct Mismatch {
    /// The flight's, which names what was expected, too.
    key: String,
    until: Instant,
    error: Arc<FillError>,
}

impl Mismatches {
    fn note(&self, key: &str, error: Arc<FillError>, until: Instant, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| now < one.until && one.key != key);
        if all.len() >= MOST {
            all.pop_front();
        }
        all.push_back(Mismatch {
            key: key.to_owned(),
            until,
            error,
        });
    }

    /// What was wrong, and for how long that counts.
    fn get(&self, key: &str, now: Instant) -> Option<(Arc<FillError>, Duration)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().find(|one| now < one.until && one.key == key)?;
        Some((Arc::clone(&found.error), found.until - now))
    }
}

impl Pipeline {
    /// Notes that what `ask` is about is not what it should be; `announced` is its size, where that is known.
    pub(super) fn note_mismatch(&self, ask: &Ask, error: &Arc<FillError>, announced: Option<u64>) {
        let (key, error, now) = (ask.flight_key(), Arc::clone(error), Instant::now());
        let until = now + remembered(announced);
        self.0.fills.mismatches.note(&key, error, until, now);
    }

    /// Whether the same `error` was met a moment ago by who knew the digest no sooner than by the answer, so that asking a second time is
    /// in vain.
    pub(super) fn is_noted(&self, ask: &Ask, error: &FillError) -> bool {
        if ask.known.is_some() {
            return false;
        }
        let noted = self.0.fills.mismatches.get(&ask.flight_key(), Instant::now());
        noted.is_some_and(|(known, _)| known.expects_as(error))
    }

    /// The answer to whoever asks for content that was wrong a moment ago.
    pub(super) fn mismatched(&self, ask: &Ask) -> Option<Answer> {
        // Where nothing is known before, what the upstream has now has to be asked.
        ask.known?;
        let now = Instant::now();
        let (error, left) = self.0.fills.mismatches.get(&ask.flight_key(), now)?;
        let mut response = respond::problem(&respond::mismatch(ask.target.key.uri(), &error));
        let seconds = HeaderValue::from(left.as_secs() + 1);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
        Some(Answer::generated(response, Outcome::Failed, "digest-mismatch"))
    }
}

/// How long content of this size is not asked for again.
fn remembered(announced: Option<u64>) -> Duration {
    match announced {
        Some(..=SMALL) => REMEMBERED_SMALL,
        _ => REMEMBERED,
    }
}

#[cfg(test)]
mod tests {
    use kato_shared::Digest;

    use super::*;

    #[test]
    fn what_was_wrong_is_remembered_for_a_moment_and_no_more_of_it_than_the_limit() {
        let (all, now) = (Mismatches::default(), Instant::now());
        let error = || {
            Arc::new(FillError::Digest {
                expected: Box::new(Digest::of(b"a").into()),
                received: Box::new(Digest::of(b"b").into()),
            })
        };
        let until = now + REMEMBERED;
        all.note("first", error(), until, now);
        assert_eq!(all.get("first", now).unwrap().1, REMEMBERED);
        assert!(all.get("other", now).is_none());
        assert!(all.get("first", now + REMEMBERED).is_none());
        for nth in 0..MOST {
            all.note(&nth.to_string(), error(), until, now);
        }
        assert!(all.get("first", now).is_none());
        assert!(all.get("0", now).is_some());
        assert_eq!(all.0.lock().unwrap().len(), MOST);
    }

    #[test]
    fn what_is_small_is_asked_for_again_sooner() {
        for (announced, expected) in [
            (Some(0), REMEMBERED_SMALL),
            (Some(SMALL), REMEMBERED_SMALL),
            (Some(SMALL + 1), REMEMBERED),
            (None, REMEMBERED),
        ] {
            assert_eq!(remembered(announced), expected, "{announced:?}");
        }
    }
}
