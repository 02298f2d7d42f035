//! The notes about requests that were not answered, one JSON line each in `misses.jsonl` beside the store.
//!
//! A line is written when a URL is missed for the first time in the life of the process; what is asked for again and again costs a
//! look into a set.

use std::{
    collections::{HashMap, HashSet},
    fmt,
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

/// Whether a request that was not answered is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It is on the disk.
    Kept,
    /// It will be written in a moment.
    Coming,
    /// It is not, and why.
    Not(Unnoted),
}

/// Why a request is not noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnoted {
    /// The settings say so.
    Off,
    /// Its URL must not cross.
    Closed,
    /// Its URL is too long.
    Long,
    /// There are enough notes.
    Full,
    /// The disk refuses.
    Failed,
}

impl fmt::Display for Unnoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "`note_misses` is off",
            Self::Closed => "its URL has something that may not cross, see `carried_parameters`",
            Self::Long => "its URL is too long",
            Self::Full => {
                "there are as many notes as are kept; `kato-proxy request --clear` and a restart make room"
            }
            Self::Failed => "the notes could not be written, and the log of the proxy says why",
        })
    }
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
    /// URLs, and whether they are on the disk.
    seen: Mutex<HashMap<String, bool>>,
    waiting: Mutex<Waiting>,
    has_failed: AtomicBool,
    is_full: AtomicBool,
}

impl Misses {
    /// Notes of the store in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            path: folder.join(MISSES_FILE),
            seen: Mutex::default(),
            waiting: Mutex::default(),
            has_failed: AtomicBool::new(false),
            is_full: AtomicBool::new(is_full(&folder.join(MISSES_FILE))),
        }
    }

    /// Notes the miss of `url`, which `miss` describes, unless that was done before, or must not be: it may cross where `allowed` parameters of queries
    /// may. True where [`Self::write`] has to be called.
    #[must_use]
    pub fn note(&self, url: &str, allowed: &[String], miss: impl FnOnce() -> Miss) -> (Noted, bool) {
        let not = |why| (Noted::Not(why), false);
        if url.len() > LONGEST {
            return not(Unnoted::Long);
        }
        if judge(url, allowed).is_err() {
            return not(Unnoted::Closed);
        }
        let mut seen = self.seen();
        match seen.get(url) {
            Some(true) => return (Noted::Kept, false),
            Some(false) => return (Noted::Coming, false),
            None if seen.len() >= MOST || self.is_full() => return not(Unnoted::Full),
            None => seen.insert(url.to_owned(), false),
        };
        drop(seen);
        let has_failed = self.has_failed.load(Ordering::Relaxed);
        let must_write = self.put(miss());
        // It is tried again: the disk may have room by now.
        let noted = if has_failed {
            Noted::Not(Unnoted::Failed)
        } else {
            Noted::Coming
        };
        (noted, must_write)
    }

    /// Puts `miss` among those that are to be written. True where nobody writes by now: then [`Self::write`] has to be called.
    fn put(&self, miss: Miss) -> bool {
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
            let lines: Vec<String> = misses
                .iter()
                .filter_map(|miss| serde_json::to_string(miss).ok())
                .collect();
            let is_full = is_full(&self.path);
            self.is_full.store(is_full, Ordering::Relaxed);
            let written = if is_full {
                Err(format!("it has {MOST_BYTES} bytes already"))
            } else {
                durable::append_line(&self.path, &lines.join("\n")).map_err(|error| Chain(&error).to_string())
            };
            let mut seen = self.seen();
            for miss in misses {
                match written {
                    Ok(()) => seen.insert(miss.url, true),
                    // Who asks again is noted then.
                    Err(_) => seen.remove(&miss.url),
                };
            }
            drop(seen);
            match written {
                Ok(()) => self.has_failed.store(false, Ordering::Relaxed),
                Err(why) => self.fails(&why),
            }
        }
    }

    /// Whether the file was full when it was last written to, and still is.
    fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed) && is_full(&self.path)
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Whether the file at `path` has as many notes as are kept.
fn is_full(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.len() >= MOST_BYTES)
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

    /// Notes a miss of `url`, and writes it where that is for the caller to do.
    fn note(misses: &Misses, url: &str, allowed: &[String]) -> Noted {
        let (noted, must_write) = misses.note(url, allowed, || miss(url));
        if must_write {
            misses.write();
        }
        noted
    }

    #[test]
    fn each_url_is_noted_once_and_torn_lines_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_misses(folder.path()).unwrap(), []);
        let misses = Misses::new(folder.path());
        for (url, must_write) in [("http://a.example/1", true), ("http://a.example/1", false)] {
            assert_eq!(
                misses.note(url, &[], || miss(url)),
                (Noted::Coming, must_write),
                "somebody writes already"
            );
        }
        misses.write();
        assert_eq!(note(&misses, "http://a.example/1", &[]), Noted::Kept);
        assert_eq!(note(&misses, "http://a.example/2", &[]), Noted::Coming);
        durable::append_line(&folder.path().join(MISSES_FILE), "{\"time\":").unwrap();
        // After a restart it is noted again, and read once.
        let again = Misses::new(folder.path());
        assert_eq!(note(&again, "http://a.example/1", &[]), Noted::Coming);
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
            "https://cdn.example/x?page=2",
            "no url",
        ] {
            assert_eq!(note(&misses, url, &[]), Noted::Not(Unnoted::Closed), "{url}");
        }
        let long = format!("https://cdn.example/{}", "x".repeat(LONGEST));
        assert_eq!(note(&misses, &long, &[]), Noted::Not(Unnoted::Long));
        let paged = "https://cdn.example/x?page=2";
        assert_eq!(note(&misses, paged, &["page".to_owned()]), Noted::Coming);
        for nth in 1..MOST {
            let url = format!("https://cdn.example/{nth}");
            assert_eq!(misses.note(&url, &[], || miss(&url)).0, Noted::Coming);
        }
        misses.write();
        assert_eq!(
            note(&misses, "https://cdn.example/one-more", &[]),
            Noted::Not(Unnoted::Full)
        );
    }

    /// What cannot be written is not said to be noted, and is noted once the disk takes it.
    #[test]
    fn a_note_counts_when_the_disk_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MISSES_FILE);
        // Nothing can be appended to a folder, not even by root.
        durable::create_folder(&path).unwrap();
        let misses = Misses::new(folder.path());
        let url = "http://a.example/1";
        assert_eq!(note(&misses, url, &[]), Noted::Coming, "nobody knows by now");
        assert_eq!(note(&misses, url, &[]), Noted::Not(Unnoted::Failed));
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(
            note(&misses, url, &[]),
            Noted::Not(Unnoted::Failed),
            "it is tried again"
        );
        assert_eq!(note(&misses, url, &[]), Noted::Kept);
        assert_eq!(read_misses(folder.path()).unwrap(), [miss(url)]);
    }

    #[test]
    fn a_full_file_of_notes_takes_no_more_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = durable::create_new(&folder.path().join(MISSES_FILE)).unwrap();
        file.set_len(MOST_BYTES).unwrap();
        let misses = Misses::new(folder.path());
        assert_eq!(
            note(&misses, "http://a.example/1", &[]),
            Noted::Not(Unnoted::Full)
        );
    }
}
