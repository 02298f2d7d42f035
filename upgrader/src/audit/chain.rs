//! Whether a log is whole: pure functions of its bytes.

use std::path::{Path, PathBuf};

use kato_shared::Digest;

use super::{
    file::Head,
    record::{Flaw, Record},
};

/// Something wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; 0 for the log as a whole.
    pub line: usize,
    /// What is wrong.
    #[serde(flatten)]
    pub problem: Problem,
}

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, thiserror::Error)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    /// A line is no record.
    #[error("the line is no record: it was changed, or written by something else")]
    Unreadable,
    /// A record is not chained to the line before it.
    #[error("the line before was changed, removed or put in: expected {expected}, found {}", shown(found.as_ref()))]
    Broken {
        /// What the record says the line before has.
        expected: Digest,
        /// What it has; `None` where there is no line before.
        found: Option<Digest>,
    },
    /// A record's number does not follow the one before.
    #[error("expected record {expected}, found {found}")]
    Gap {
        /// The number that follows.
        expected: u64,
        /// The number that is there.
        found: u64,
    },
    /// The log does not begin with its first record, or with the one that follows what was archived.
    #[error("the records before {first} are not here: the log began with record 1, or went on from {}", shown(previous.as_ref()))]
    NoBeginning {
        /// The number of the first record that is there.
        first: u64,
        /// The digest of the line before it.
        previous: Option<Digest>,
    },
    /// The last line was never whole.
    #[error(
        "the line is torn ({bytes} bytes): its writer was killed, or the power was cut; the next record sets it aside"
    )]
    Torn {
        /// What there is of it, in bytes.
        bytes: u64,
    },
    /// Nothing remembers the last record, so that lines may be missing at the end.
    #[error("the note of the last record is missing or cannot be read, so lines may be missing at the end")]
    NoHead,
    /// The node has a release, and there is no log, or there was none when this record was written.
    #[error("the node was upgraded, and there is no record of it: the log was removed")]
    Emptied,
    /// What should be a file of the log is something else.
    #[error("this is no regular file, expected one of the log")]
    NotAFile,
    /// A record that was there once is not there any more, or is another.
    #[error("record {seq} with {sha256} is not in the log")]
    Missing {
        /// Its number.
        seq: u64,
        /// Its digest.
        sha256: Digest,
    },
}

fn shown(digest: Option<&Digest>) -> String {
    digest.map_or_else(|| "no line".into(), Digest::to_string)
}

/// What a look at the whole log found.
#[derive(Debug, Default)]
pub struct Report {
    /// All records that can be read, oldest first.
    pub records: Vec<Record>,
    /// What is wrong, in the order of the log.
    pub findings: Vec<Finding>,
    /// The last record.
    pub head: Option<Head>,
    /// The bytes of a last line that was never whole; the next writer sets it aside.
    pub torn_bytes: u64,
    digests: Vec<(u64, Digest)>,
}

impl Report {
    /// Reads on with the lines of the next file.
    pub(super) fn read(&mut self, path: &Path, bytes: &[u8]) {
        for (line, text) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let Some(text) = text.strip_suffix(b"\n") else {
                let bytes = text.len() as u64;
                self.torn_bytes += bytes;
                self.find(path, line + 1, Problem::Torn { bytes });
                break;
            };
            let digest = Digest::of(text);
            match serde_json::from_slice::<Record>(text) {
                Ok(record) => self.take(path, line + 1, record, digest),
                Err(_not_one) => {
                    self.find(path, line + 1, Problem::Unreadable);
                    // What follows is chained to it all the same.
                    let seq = self.head.map_or(0, |head| head.seq) + 1;
                    self.head = Some(Head::new(seq, digest));
                }
            }
        }
    }

    fn take(&mut self, path: &Path, line: usize, record: Record, digest: Digest) {
        let before = self.head.map(|head| head.sha256);
        let is_first = self.head.is_none();
        let says_lost = matches!(record.flaw, Some(Flaw::Lost { .. } | Flaw::Emptied));
        if is_first && !says_lost && (record.seq != 1 || record.previous.is_some()) {
            let (first, previous) = (record.seq, record.previous);
            self.find(path, line, Problem::NoBeginning { first, previous });
        }
        match record.previous {
            Some(expected) if !is_first && before != Some(expected) => {
                self.find(
                    path,
                    line,
                    Problem::Broken {
                        expected,
                        found: before,
                    },
                );
            }
            None if !is_first => self.find(
                path,
                line,
                Problem::Gap {
                    expected: self.next(),
                    found: record.seq,
                },
            ),
            _ => {}
        }
        if !is_first && record.previous.is_some() && record.seq != self.next() {
            self.find(
                path,
                line,
                Problem::Gap {
                    expected: self.next(),
                    found: record.seq,
                },
            );
        }
        match record.flaw {
            Some(Flaw::Lost { seq, sha256 }) => self.find(path, line, Problem::Missing { seq, sha256 }),
            Some(Flaw::NoHead) => self.find(path, line, Problem::NoHead),
            Some(Flaw::Emptied) => self.find(path, line, Problem::Emptied),
            // The line itself is found where it stands; what was torn is kept beside.
            Some(Flaw::Unreadable | Flaw::Torn { .. }) | None => {}
        }
        self.head = Some(Head::new(record.seq, digest));
        self.digests.push((record.seq, digest));
        self.records.push(record);
    }

    /// Demands that the log holds the record `head`.
    pub fn expect(&mut self, path: &Path, head: Head) {
        if head.seq > 0 && !self.digests.contains(&(head.seq, head.sha256)) {
            let Head { seq, sha256, .. } = head;
            self.find(path, 0, Problem::Missing { seq, sha256 });
        }
    }

    /// Takes the record `last` for the last one that was archived: a log that goes on from it has its beginning elsewhere.
    pub fn begins_after(&mut self, last: Head) {
        let follows = Problem::NoBeginning {
            first: last.seq + 1,
            previous: Some(last.sha256),
        };
        self.findings.retain(|finding| finding.problem != follows);
    }

    fn next(&self) -> u64 {
        self.head.map_or(1, |head| head.seq + 1)
    }

    /// Adds a finding about `line` of the file `path`; 0 for the file as a whole.
    pub(super) fn find(&mut self, path: &Path, line: usize, problem: Problem) {
        self.findings.push(Finding {
            file: path.to_owned(),
            line,
            problem,
        });
    }
}
