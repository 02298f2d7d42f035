//! The audit log of a node: who did what to it, with which command, and how it ended.
//!
//! Flow: a [`Deed`] is begun (its record is on the disk before anything happens) → the work → its end is recorded. The log is
//! `audit/audit.jsonl` below the state folder, one JSON object a line. Each record carries the SHA-256 of the line before it,
//! so that no line can be changed, removed or put in without breaking the chain behind it; `audit/head.json` remembers the
//! last one, so that lines missing at the end are noticed as well. Full files are set aside as `audit-<first number>.jsonl`
//! and the chain goes on across them.
//!
//! What it is about: upgrades (forced ones are marked), locks that were broken, restores, patches, and nodes that were
//! taken out of service by hand. What it never holds: secrets; see [`redact`].
//!
//! Deliberately absent: protection against somebody who is root and computes the whole chain anew. For that, keep a number
//! and digest of the log elsewhere (every notification carries them) and give them to `kato audit verify --expect`.
//!
//! Invariants: a deed whose beginning cannot be recorded is not done; a record is never changed; damage never stops the
//! next record, which says what was found instead; the log is never shortened, but for a last line that was never whole, and
//! that is kept beside it.

mod chain;
mod file;
mod record;
pub mod redact;
mod who;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use kato_shared::{chain::Chain, clock::Clock, durable::DurableError};

pub use chain::{Finding, Problem, Report};
pub use file::Head;
pub use record::{Deed, Flaw, Outcome, Record, SCHEMA, Subject};
pub use who::Who;

use crate::{
    exit::{Exit, Failure},
    report::terminal,
    run::Node,
};

/// A log that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Another program writes to it and does not come to an end.
    #[error("the audit log `{path}` is being written to by another program for too long")]
    Busy {
        /// The lock of the log.
        path: PathBuf,
    },
    /// What should be a file of it is something else: a device, a folder, a link to one.
    #[error("`{path}` is no regular file, so the audit log cannot be written")]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// It cannot be read or extended.
    #[error("{action} `{path}` failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A durable operation failed.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        let hint = match &error {
            AuditError::Busy { .. } => {
                "nothing was changed; look for a `kato` that hangs, then run the same command again"
            }
            AuditError::NotAFile { .. } => {
                "nothing was changed; move it away (and put the log back, if it was one), then run the same command again"
            }
            AuditError::Io { .. } | AuditError::Durable(_) => {
                "nothing was changed; check free space and the permissions of the state folder, then run the same command again"
            }
        };
        Self::new(Exit::Preflight, error).hint(hint)
    }
}

/// The audit log of a node.
#[derive(Debug, Clone)]
pub struct AuditLog {
    folder: PathBuf,
    /// A file that is only there after something was recorded.
    witness: Option<PathBuf>,
    node: String,
    clock: Clock,
}

/// A deed whose beginning is recorded.
#[derive(Debug)]
#[must_use = "a deed has an end, which is recorded too"]
pub struct Begun {
    log: AuditLog,
    deed: Deed,
    seq: u64,
}

impl AuditLog {
    /// The log of `node`.
    pub fn of(node: &Node) -> Self {
        Self {
            witness: Some(node.paths.installed()),
            ..Self::in_folder(&node.paths.audit(), &node.id, node.clock.clone())
        }
    }

    /// The log in `folder`, which need not exist yet.
    pub fn in_folder(folder: &Path, node: &str, clock: Clock) -> Self {
        Self {
            folder: folder.to_owned(),
            witness: None,
            node: node.to_owned(),
            clock,
        }
    }

    /// Records that `deed` begins; gives what its end is recorded with.
    ///
    /// # Errors
    /// [`AuditError`]; the deed must then not be done.
    pub fn begin(&self, deed: Deed) -> Result<Begun, AuditError> {
        let seq = self.write(&deed, Outcome::Begun)?;
        Ok(Begun {
            log: self.clone(),
            deed,
            seq,
        })
    }

    /// Records a deed that needs no beginning, or whose beginning another process recorded; gives the record's number.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn note(&self, deed: &Deed, outcome: Outcome) -> Result<u64, AuditError> {
        self.write(deed, outcome)
    }

    /// Does `work` as `deed`: its beginning is recorded before, its end after. An end that cannot be recorded is told and
    /// does not hide how the work ended.
    ///
    /// # Errors
    /// [`Failure`] of the work; of the log when nothing was done.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a beginning without an end, which is what happened.
    pub async fn around<T>(
        &self,
        deed: Deed,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let begun = self.begin(deed)?;
        let result = work.await;
        begun.end(match &result {
            Ok(_) => Outcome::Done,
            Err(failure) => Outcome::failed(failure),
        });
        result
    }

    /// All records that can be read, oldest first, and what is wrong with the log.
    ///
    /// # Errors
    /// [`AuditError::Io`] when a file of the log cannot be read.
    pub fn check(&self) -> Result<Report, AuditError> {
        file::check(&self.folder, self.has_history())
    }

    fn has_history(&self) -> bool {
        self.witness.as_ref().is_some_and(|witness| witness.exists())
    }

    /// The last record's number and digest; `None` for a log without records.
    ///
    /// # Errors
    /// [`AuditError::Io`].
    pub fn head(&self) -> Result<Option<Head>, AuditError> {
        file::head(&self.folder)
    }

    fn write(&self, deed: &Deed, outcome: Outcome) -> Result<u64, AuditError> {
        let who = Who::here();
        let command = redact::command_line(std::env::args_os());
        file::append(&self.folder, self.has_history(), |link| {
            Record::new(link, self.clock.now(), &self.node, who, command, deed, outcome)
        })
    }
}

impl Begun {
    /// The number of the record of its beginning.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Records how it ended. What cannot be recorded is told: the deed is done.
    pub fn end(self, outcome: Outcome) {
        let Self { log, mut deed, seq } = self;
        deed.of = Some(seq);
        if let Err(error) = log.write(&deed, outcome) {
            tracing::error!(error = %Chain(&error), "the end of a deed could not be recorded");
            terminal::say(&format!("warning: {}", Chain(&error)));
        }
    }
}
