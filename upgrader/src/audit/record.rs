//! One record: what a deed is, and how it is written down.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kato_shared::Digest;
use serde::{Deserialize, Serialize};

use super::Who;
use crate::{
    exit::{Exit, Failure},
    report::terminal,
};

/// The version of the records' format.
pub const SCHEMA: u32 = 1;

/// What is done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// An upgrade of this node.
    Upgrade,
    /// An upgrade of the cluster, from this node.
    ClusterUpgrade,
    /// `kato` itself was replaced.
    UpdateKato,
    /// A lock was broken.
    LockBreak,
    /// A backup was restored.
    Restore,
    /// Patches were installed, taken back or marked.
    Patch,
    /// The node was taken out of service by hand.
    Retire,
    /// The node was put back into service by hand.
    Rejoin,
    /// Local changes were applied again.
    Customizations,
    /// A setting of the platform was changed.
    Config,
    /// A command that a killed run had left at work was ended.
    EndCommand,
}

/// Something that is done to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    pub(super) what: Subject,
    pub(super) about: String,
    pub(super) run: Option<String>,
    pub(super) forced: bool,
    pub(super) reason: Option<String>,
    pub(super) detail: BTreeMap<String, String>,
    pub(super) of: Option<u64>,
}

impl Deed {
    /// `what` is done to `about`, e.g. a restore of a backup's id.
    pub fn new(what: Subject, about: impl Into<String>) -> Self {
        Self {
            what,
            about: about.into(),
            run: None,
            forced: false,
            reason: None,
            detail: BTreeMap::new(),
            of: None,
        }
    }

    /// It belongs to the run with this id.
    #[must_use]
    pub fn run(mut self, run: impl Into<String>) -> Self {
        self.run = Some(run.into());
        self
    }

    /// Whether a refusal was overridden with `--force` or its like.
    #[must_use]
    pub const fn forced(mut self, forced: bool) -> Self {
        self.forced = forced;
        self
    }

    /// Whether a node that is not healthy was taken as it is, because `--tolerant` was given.
    #[must_use]
    pub fn tolerant(self, tolerant: bool) -> Self {
        if tolerant {
            self.detail("tolerant", "--tolerant was given")
        } else {
            self
        }
    }

    /// Why it is done, in the operator's words.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Something else to know about it; never a secret.
    #[must_use]
    pub fn detail(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.detail.insert(name.into(), value.into());
        self
    }
}

/// How a deed ended, or that it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It is about to begin.
    Begun,
    /// It is done.
    Done,
    /// It is not complete, and goes on later: after a restart of the machine, or with the same command.
    Paused,
    /// It failed.
    Failed {
        /// How the command ended.
        exit: Exit,
        /// What failed, with its causes.
        message: String,
    },
}

impl Outcome {
    /// It ended with `failure`.
    pub fn failed(failure: &Failure) -> Self {
        Self::Failed {
            exit: failure.exit,
            message: terminal::describe(failure),
        }
    }
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// Counts up by one on a node.
    pub seq: u64,
    /// The digest of the line before, without its newline; `None` in the first line of all.
    pub previous: Option<Digest>,
    /// When it was written.
    pub time: Timestamp,
    /// The node's id.
    pub node: String,
    /// Who did it.
    pub who: Who,
    /// The command line, without secrets.
    pub command: Vec<String>,
    /// What was done.
    pub what: Subject,
    /// To what.
    pub about: String,
    /// The run that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Whether a refusal was overridden.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What else is to know about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, String>,
    /// The number of the record of its beginning, in that of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What was found wrong with the log when this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flaw: Option<Flaw>,
}

/// What the writer of a record found wrong with the end of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Flaw {
    /// A killed writer, or a power cut, had left the beginning of a line, which was cut off.
    Torn {
        /// How long it was, in bytes.
        bytes: u64,
        /// The file beside the log that keeps what was cut off.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<String>,
    },
    /// The log does not end with the record that it once ended with.
    Lost {
        /// The number of that record.
        seq: u64,
        /// The digest of that record.
        sha256: Digest,
    },
    /// The last line is no record.
    Unreadable,
    /// Nothing remembered the last record any more, so that lines may have been missing at the end.
    NoHead,
    /// The node has a release, and there was no log.
    Emptied,
}

/// What a record is chained to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) seq: u64,
    pub(super) previous: Option<Digest>,
    pub(super) flaw: Option<Flaw>,
}

impl Record {
    pub(super) fn new(
        link: Link,
        time: Timestamp,
        node: &str,
        who: Who,
        command: Vec<String>,
        deed: &Deed,
        outcome: Outcome,
    ) -> Self {
        Self {
            schema: SCHEMA,
            seq: link.seq,
            previous: link.previous,
            time,
            node: node.to_owned(),
            who,
            command,
            what: deed.what,
            about: deed.about.clone(),
            run: deed.run.clone(),
            forced: deed.forced,
            reason: deed.reason.clone(),
            detail: deed.detail.clone(),
            of: deed.of,
            outcome,
            flaw: link.flaw,
        }
    }
}
