//! The journal of a node: every act is written down before it happens, and its result after.
//!
//! It is the truth about what was tried. Latches and the failure marker are projections of it for operators; the state
//! that decides what is left to do is always read from the node itself, so that an act whose effect was undone by hand
//! is done again.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kato_shared::clock::Clock;
use serde::{Deserialize, Serialize};

use crate::{
    exit::Exit,
    failpoint,
    jsonl::{self, LinesError},
};

/// The version of the journal's format.
pub const SCHEMA: u32 = 1;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// Counts up by one on a node, across runs.
    pub seq: u64,
    /// When it was written.
    pub time: Timestamp,
    /// The run that wrote it.
    pub run: String,
    /// What is about to happen or has happened.
    #[serde(flatten)]
    pub act: Act,
}

/// What is about to happen or has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// A run began.
    Started {
        /// The installed version.
        from: Option<String>,
        /// The wanted version.
        to: String,
    },
    /// A step is about to act.
    Intent {
        /// The step.
        step: String,
    },
    /// A step acted and its effect was verified.
    Done {
        /// The step.
        step: String,
    },
    /// A step was left out because the operator wanted it so.
    Skipped {
        /// The step.
        step: String,
        /// What the operator said.
        reason: String,
    },
    /// A step failed.
    Failed {
        /// The step.
        step: String,
        /// Why, with its causes.
        message: String,
    },
    /// The machine is about to be restarted.
    Rebooting {
        /// The upgrade that it belongs to.
        attempt: String,
        /// The boot that ends.
        boot_id: String,
    },
    /// The run ended.
    Finished {
        /// How.
        exit: Exit,
    },
}

/// A journal that this program must not go on with.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read, or a line of it is no record.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// A newer program wrote it.
    #[error("`{path}` record {seq} has the format {found}, this program knows formats up to {SCHEMA}")]
    Newer {
        /// The journal.
        path: PathBuf,
        /// The record's number.
        seq: u64,
        /// The version of its format.
        found: u32,
    },
}

/// Checks that this program understands every record of the journal at `path`; a missing one has none. Gives the number of the
/// last, 0 when there is none.
///
/// # Errors
/// [`JournalError`].
pub fn check(path: &Path) -> Result<u64, JournalError> {
    let (records, _) = jsonl::read::<Record>(path)?;
    understood(path, &records)?;
    Ok(records.last().map_or(0, |last| last.seq))
}

/// Whether the last thing that a run wrote into the journal at `path` is that it restarts the machine: what ended it was wanted.
///
/// # Errors
/// [`JournalError`].
pub fn is_restarting(path: &Path) -> Result<bool, JournalError> {
    let (records, _) = jsonl::read::<Record>(path)?;
    let last = records
        .iter()
        .rfind(|record| !matches!(record.act, Act::Finished { .. }));
    Ok(last.is_some_and(|record| matches!(record.act, Act::Rebooting { .. })))
}

/// The boot in which the last restart of the machine for `attempt` was asked for, and when, by the journal at `path`; `None` as well when
/// a step has failed since: it is that failure then which the upgrade stands at.
///
/// # Errors
/// [`JournalError`].
pub fn stands_at_restart(path: &Path, attempt: &str) -> Result<Option<(String, Timestamp)>, JournalError> {
    let (records, _) = jsonl::read::<Record>(path)?;
    let failed = records
        .iter()
        .rposition(|record| matches!(record.act, Act::Failed { .. }));
    let since = failed.map_or(0, |failed| failed + 1);
    Ok(restart_asked(&records[since..], attempt).map(|(boot_id, time)| (boot_id.to_owned(), time)))
}

fn restart_asked<'a>(records: &'a [Record], attempt: &str) -> Option<(&'a str, Timestamp)> {
    records.iter().rev().find_map(|record| match &record.act {
        Act::Rebooting { attempt: of, boot_id } if of == attempt => Some((boot_id.as_str(), record.time)),
        Act::Rebooting { .. }
        | Act::Started { .. }
        | Act::Intent { .. }
        | Act::Done { .. }
        | Act::Skipped { .. }
        | Act::Failed { .. }
        | Act::Finished { .. } => None,
    })
}

fn understood(path: &Path, records: &[Record]) -> Result<(), JournalError> {
    match records.iter().find(|record| record.schema > SCHEMA) {
        None => Ok(()),
        Some(record) => Err(JournalError::Newer {
            path: path.to_owned(),
            seq: record.seq,
            found: record.schema,
        }),
    }
}

/// The journal, open for a run.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    run: String,
    clock: Clock,
    records: Vec<Record>,
}

impl Journal {
    /// Opens the journal for `run` and cuts off what a killed run left of its last line.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be read, is damaged, or was written by a newer program.
    pub fn open(path: &Path, run: &str, clock: Clock) -> Result<Self, JournalError> {
        let records = jsonl::open(path)?;
        understood(path, &records)?;
        Ok(Self {
            path: path.to_owned(),
            run: run.to_owned(),
            clock,
            records,
        })
    }

    /// Writes `act` and flushes it to the disk.
    ///
    /// # Errors
    /// [`LinesError`]; the act must then not be done.
    pub fn record(&mut self, act: Act) -> Result<(), LinesError> {
        failpoint::hit("journal.before");
        let record = Record {
            schema: SCHEMA,
            seq: self.records.last().map_or(1, |last| last.seq + 1),
            time: self.clock.now(),
            run: self.run.clone(),
            act,
        };
        jsonl::append(&self.path, &record)?;
        self.records.push(record);
        failpoint::hit("journal.appended");
        Ok(())
    }

    /// Whether `step` was begun since the time `since`, which is written as in the id of an upgrade.
    pub fn has_begun(&self, step: &str, since: &str) -> bool {
        self.records.iter().rev().any(|record| {
            let time = record.time.strftime(crate::attempt::BEGAN).to_string();
            matches!(&record.act, Act::Intent { step: one } if one == step) && time.as_str() >= since
        })
    }

    /// The boot in which the last restart of the machine for `attempt` was asked for.
    pub fn rebooted_in(&self, attempt: &str) -> Option<&str> {
        self.restart_asked(attempt).map(|(boot_id, _)| boot_id)
    }

    /// The boot in which the last restart of the machine for `attempt` was asked for, and when.
    pub fn restart_asked(&self, attempt: &str) -> Option<(&str, Timestamp)> {
        restart_asked(&self.records, attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_continues_the_numbers_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let clock = Clock::held_at(Timestamp::UNIX_EPOCH);
        let step = || "backup".to_owned();
        Journal::open(&path, "r1", clock.clone())
            .unwrap()
            .record(Act::Intent { step: step() })
            .unwrap();
        let mut again = Journal::open(&path, "r2", clock).unwrap();
        again.record(Act::Done { step: step() }).unwrap();
        let (records, _) = jsonl::read::<Record>(&path).unwrap();
        assert_eq!(
            records
                .iter()
                .map(|r| (r.seq, r.run.as_str()))
                .collect::<Vec<_>>(),
            [(1, "r1"), (2, "r2")]
        );
        let line = std::fs::read_to_string(&path).unwrap();
        assert!(
            line.starts_with(r#"{"schema":1,"seq":1,"time":"1970-01-01T00:00:00Z","run":"r1","act":"intent","step":"backup"}"#),
            "{line}"
        );
    }

    #[test]
    fn r34_a_journal_of_a_newer_program_is_refused_and_not_shortened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let clock = Clock::held_at(Timestamp::UNIX_EPOCH);
        let step = Act::Intent {
            step: "backup".into(),
        };
        Journal::open(&path, "r1", clock.clone())
            .unwrap()
            .record(step)
            .unwrap();
        check(&path).unwrap();
        let known = std::fs::read_to_string(&path).unwrap();
        for (newer, problem) in [
            (known.replace("\"schema\":1", "\"schema\":2"), "has the format 2"),
            (
                known.replace("\"act\":\"intent\"", "\"act\":\"teleport\""),
                "line 2 is damaged",
            ),
        ] {
            let text = format!("{known}{newer}");
            kato_shared::durable::write(&path, text.as_bytes(), 0o644).unwrap();
            let error = check(&path).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
            assert!(Journal::open(&path, "r2", clock.clone()).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn the_last_restart_of_an_upgrade_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut journal = Journal::open(&path, "r1", Clock::system()).unwrap();
        for boot_id in ["b1", "b2"] {
            journal
                .record(Act::Rebooting {
                    attempt: "a".into(),
                    boot_id: boot_id.into(),
                })
                .unwrap();
        }
        assert_eq!(journal.rebooted_in("a"), Some("b2"));
        assert_eq!(journal.rebooted_in("other"), None);
        let stands_at = |attempt| {
            let asked = stands_at_restart(&path, attempt).unwrap();
            asked.map(|(boot_id, _)| boot_id)
        };
        assert_eq!(
            (stands_at("a").as_deref(), stands_at("other")),
            (Some("b2"), None)
        );
        let finished = Act::Finished { exit: Exit::TryAgain };
        journal.record(finished).unwrap();
        assert_eq!(stands_at("a").as_deref(), Some("b2"));
        let failed = Act::Failed {
            step: "verify".into(),
            message: "not well".into(),
        };
        journal.record(failed).unwrap();
        assert_eq!((stands_at("a"), journal.rebooted_in("a")), (None, Some("b2")));
    }
}
