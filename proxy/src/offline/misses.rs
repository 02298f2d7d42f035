//! The notes about requests that were not answered, one JSON line each in `misses.jsonl` beside the store.
//!
//! A line is written when a URL is missed for the first time in the life of the process; what is asked for again and again costs a
//! look into a set.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use kato_shared::{chain::Chain, durable};
use serde::{Deserialize, Serialize};

use crate::snapshot::judge;

/// The name of the file, in the store's folder.
pub const MISSES_FILE: &str = "misses.jsonl";

/// The most URLs that one process notes. An installation of a whole machine misses some hundred.
const MOST: usize = 16 << 10;
/// The most bytes of the file; what comes after that is not noted until `kato-proxy request --clear`.
const MOST_BYTES: u64 = 16 << 20;
/// The longest URL that is noted.
const LONGEST: usize = 4 << 10;

/// A request that was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miss {
    /// When.
    pub time: Timestamp,
    /// The target URI, normalised as in the cache key.
    pub url: String,
    /// Which form the client wanted, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// Why there was no answer: a label of `policy::Absence`.
    pub reason: String,
    /// The name of the upstream that it is of.
    #[serde(default)]
    pub upstream: String,
    /// The snapshot that was served, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// What is to be written.
#[derive(Debug, Default)]
struct Waiting {
    misses: Vec<Miss>,
    is_writing: bool,
}

/// Takes notes; shared by all generations of the settings.
#[derive(Debug)]
pub struct Misses {
    path: PathBuf,
    seen: Mutex<HashSet<String>>,
    waiting: Mutex<Waiting>,
    has_failed: AtomicBool,
}

impl Misses {
    /// Notes of the store in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            path: folder.join(MISSES_FILE),
            seen: Mutex::default(),
            waiting: Mutex::default(),
            has_failed: AtomicBool::new(false),
        }
    }

    /// Whether a miss of `url` has to be written down: the first one, if it may cross where `allowed` parameters of queries may.
    pub fn is_new(&self, url: &str, allowed: &[String]) -> bool {
        if url.len() > LONGEST || judge(url, allowed).is_err() {
            return false;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.len() < MOST && seen.insert(url.to_owned())
    }

    /// Puts `miss` among those that are to be written. True where nobody writes by now: then [`Self::write`] has to be called.
    #[must_use]
    pub fn put(&self, miss: Miss) -> bool {
        let mut waiting = self.waiting();
        waiting.misses.push(miss);
        !std::mem::replace(&mut waiting.is_writing, true)
    }

    /// Writes down what waits, many at once where many came at once, until nothing waits. Blocks. A disk that refuses is told of once: no
    /// client's answer depends on it.
    pub fn write(&self) {
        loop {
            let misses = {
                let mut waiting = self.waiting();
                waiting.is_writing = !waiting.misses.is_empty();
                std::mem::take(&mut waiting.misses)
            };
            if misses.is_empty() {
                return;
            }
            let is_full = std::fs::metadata(&self.path).is_ok_and(|found| found.len() >= MOST_BYTES);
            let lines: Vec<String> = misses
                .iter()
                .filter_map(|miss| serde_json::to_string(miss).ok())
                .collect();
            if is_full {
                self.fails(&format!("it has {MOST_BYTES} bytes already"));
            } else if let Err(error) = durable::append_line(&self.path, &lines.join("\n")) {
                self.fails(&Chain(&error).to_string());
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, why: &str) {
        if !self.has_failed.swap(true, Ordering::Relaxed) {
            tracing::warn!(path = %self.path.display(), why, "misses are not noted any more");
        }
    }
}

/// The notes in the store's `folder`, each URL once, in the order of their first miss. None where there is no file. Lines that were torn
/// by a crash are passed over.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read_misses(folder: &Path) -> std::io::Result<Vec<Miss>> {
    let file = match std::fs::File::open(folder.join(MISSES_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let (mut misses, mut seen) = (Vec::new(), HashSet::new());
    for line in BufReader::new(file).split(b'\n') {
        let Ok(miss) = serde_json::from_slice::<Miss>(&line?) else {
            continue;
        };
        if seen.insert((miss.url.clone(), miss.accept.clone())) {
            misses.push(miss);
        }
    }
    Ok(misses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miss(url: &str) -> Miss {
        Miss {
            time: Timestamp::UNIX_EPOCH,
            url: url.into(),
            accept: None,
            reason: "unknown".into(),
            upstream: "pkg".into(),
            snapshot: None,
        }
    }

    #[test]
    fn each_url_is_noted_once_and_torn_lines_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_misses(folder.path()).unwrap(), []);
        let misses = Misses::new(folder.path());
        for url in ["http://a.example/1", "http://a.example/1", "http://a.example/2"] {
            if misses.is_new(url, &[]) {
                assert!(misses.put(miss(url)), "nobody writes");
                assert!(!misses.put(miss(url)), "somebody writes already");
                misses.write();
            }
        }
        durable::append_line(&folder.path().join(MISSES_FILE), "{\"time\":").unwrap();
        // After a restart it is noted again, and read once.
        let again = Misses::new(folder.path());
        assert!(again.is_new("http://a.example/1", &[]));
        assert!(again.put(miss("http://a.example/1")));
        again.write();
        let read: Vec<String> = read_misses(folder.path())
            .unwrap()
            .into_iter()
            .map(|miss| miss.url)
            .collect();
        assert_eq!(read, ["http://a.example/1", "http://a.example/2"]);
    }

    #[test]
    fn what_looks_signed_and_what_is_endless_is_not_noted() {
        let folder = tempfile::tempdir().unwrap();
        let misses = Misses::new(folder.path());
        for url in [
            "https://cdn.example/x?X-Amz-Signature=1",
            "https://cdn.example/x?access_token=1",
            "https://u:p@cdn.example/x",
            "no url",
        ] {
            assert!(!misses.is_new(url, &[]), "{url}");
        }
        assert!(!misses.is_new(&format!("https://cdn.example/{}", "x".repeat(LONGEST)), &[]));
        assert!(!misses.is_new("https://cdn.example/x?page=2", &[]));
        assert!(misses.is_new("https://cdn.example/x?page=2", &["page".to_owned()]));
        for nth in 1..MOST {
            assert!(misses.is_new(&format!("https://cdn.example/{nth}"), &[]));
        }
        assert!(!misses.is_new("https://cdn.example/one-more", &[]));
    }
}
