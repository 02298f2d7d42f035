//! What the single URLs of an origin said against being asked, or did not say: by path, since a query often carries what changes from
//! request to request.
//!
//! Several different paths with the same complaint within a while are the origin's complaint.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// How many different paths speak for their origin. One is a limit on one resource or a slow page, two may be chance.
const SEVERAL: usize = 3;
/// The time within which they must have spoken.
const WINDOW: Duration = Duration::from_secs(60);
/// Paths remembered of one origin; what was said first is forgotten first. More than [`SEVERAL`] are for the paths' own sake.
const MAX_PATHS: usize = 64;

/// What is held against a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Complaint {
    /// It sent `Retry-After`.
    Busy,
    /// It sent nothing.
    Silent,
}

/// The paths of one origin.
#[derive(Debug, Default)]
pub(super) struct Paths(HashMap<String, Said>);

#[derive(Debug, Clone, Copy)]
struct Said {
    what: Complaint,
    at: Instant,
    until: Instant,
    /// Whether the origin has answered something else since: then it speaks for its own path alone.
    is_private: bool,
}

impl Paths {
    /// What is held against `path` at `now`, and for how much longer.
    pub(super) fn complaint(&self, path: &str, now: Instant) -> Option<(Complaint, Duration)> {
        let said = self.0.get(path).filter(|said| now < said.until)?;
        Some((said.what, said.until - now))
    }

    /// Notes a complaint of `path`, which counts for it until then; tells whether it is the origin's by now.
    pub(super) fn complain(&mut self, path: &str, (what, until): (Complaint, Instant), now: Instant) -> bool {
        if self.0.len() >= MAX_PATHS && !self.0.contains_key(path) {
            self.0.retain(|_, said| said.counts(now));
            let oldest = self.0.iter().min_by_key(|(_, said)| said.at);
            if self.0.len() >= MAX_PATHS
                && let Some(oldest) = oldest.map(|(path, _)| path.clone())
            {
                self.0.remove(&oldest);
            }
        }
        let said = Said {
            what,
            at: now,
            until,
            is_private: false,
        };
        self.0.insert(path.to_owned(), said);
        let speaks = |said: &&Said| said.what == what && !said.is_private && now < said.at + WINDOW;
        self.0.values().filter(speaks).count() >= SEVERAL
    }

    /// `path` answered: nothing is held against it, and what others said is about them alone.
    pub(super) fn answered(&mut self, path: &str) {
        self.0.remove(path);
        self.0.values_mut().for_each(|said| said.is_private = true);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anything said still counts.
    pub(super) fn counts(&self, now: Instant) -> bool {
        self.0.values().any(|said| said.counts(now))
    }
}

impl Said {
    fn counts(&self, now: Instant) -> bool {
        now < self.until || now < self.at + WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn several_paths_speak_for_their_origin_and_one_does_not() {
        let (mut paths, now) = (Paths::default(), Instant::now());
        let until = now + Duration::from_secs(300);
        let mut busy = |path: &str, now| paths.complain(path, (Complaint::Busy, until), now);
        assert!(!busy("/a", now) && !busy("/a", now) && !busy("/a", now));
        assert!(!busy("/b", now));
        assert!(!busy("/c", now + WINDOW), "too long ago");
        assert!(!busy("/d", now + WINDOW));
        assert!(busy("/e", now + WINDOW));
        assert!(
            !paths.complain("/f", (Complaint::Silent, until), now + WINDOW),
            "other words"
        );
        paths.answered("/e");
        assert!(!paths.complain("/g", (Complaint::Busy, until), now + WINDOW));
        assert!(paths.complaint("/e", now).is_none() && paths.complaint("/c", now).is_some());
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let (mut paths, now) = (Paths::default(), Instant::now());
        for nth in 0..10 * MAX_PATHS {
            let until = now + Duration::from_secs(300);
            paths.complain(&nth.to_string(), (Complaint::Busy, until), now);
        }
        assert!(paths.0.len() <= MAX_PATHS);
    }
}
