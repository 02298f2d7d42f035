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
    /// The bytes of a last line that was never whole; the next writer cuts it off.
    pub torn_bytes: u64,
    digests: Vec<(u64, Digest)>,
}

impl Report {
    /// Reads on with the lines of the next file.
    pub(super) fn read(&mut self, path: &Path, bytes: &[u8]) {
        for (line, text) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let Some(text) = text.strip_suffix(b"\n") else {
                self.torn_bytes += text.len() as u64;
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
        // A log whose oldest files were taken away begins somewhere: its first record's link leads out of what is there.
        let is_first = self.head.is_none();
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
        if let Some(Flaw::Lost { seq, sha256 }) = record.flaw {
            self.find(path, line, Problem::Missing { seq, sha256 });
        }
        self.head = Some(Head::new(record.seq, digest));
        self.digests.push((record.seq, digest));
        self.records.push(record);
    }

    /// Demands that the log holds the record `head`.
    pub fn expect(&mut self, path: &Path, head: Head) {
        if !self.digests.contains(&(head.seq, head.sha256)) {
            let Head { seq, sha256, .. } = head;
            self.find(path, 0, Problem::Missing { seq, sha256 });
        }
    }

    fn next(&self) -> u64 {
        self.head.map_or(1, |head| head.seq + 1)
    }

    fn find(&mut self, path: &Path, line: usize, problem: Problem) {
        self.findings.push(Finding {
            file: path.to_owned(),
            line,
            problem,
        });
    }
}
