//! The story of one run, as it is told to others. Pure: events and times in, documents out.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use kato_shared::Digest;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    exit::Exit,
    report::human,
    run::event::{ErrorReport, Event, EventKind},
};

/// The version of the documents' format. Fields may be added to a version; none changes its meaning.
pub const SCHEMA: u32 = 1;

/// How many of the last lines a failure is told with.
const LAST_LINES: usize = 20;
/// The longest such line, in characters.
const LINE: usize = 500;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A run began.
    Started,
    /// A step takes unusually long.
    Waiting,
    /// A run ended without success; the same command goes on.
    Failed,
    /// The node has its old release again.
    RolledBack,
    /// The way back failed as well; somebody must look.
    RollbackFailed,
    /// A run ended well.
    Succeeded,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Started,
        Self::Waiting,
        Self::Failed,
        Self::RolledBack,
        Self::RollbackFailed,
        Self::Succeeded,
    ];

    /// Its name in documents and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::RollbackFailed => "rollback-failed",
            Self::Succeeded => "succeeded",
        }
    }
}

/// What a receiver gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// Names this document; the same when it is sent again.
    pub id: String,
    /// What happened.
    pub event: Kind,
    /// When.
    pub time: Timestamp,
    /// The node's id.
    pub node: String,
    /// The node's roles.
    pub roles: Vec<String>,
    /// The run.
    pub run: String,
    /// The release before the run.
    pub from: Option<String>,
    /// The release that it leads to.
    pub to: Option<String>,
    /// The release that the node was seen to run, at the end of a run.
    pub version: Option<String>,
    /// The step that the run is or was at.
    pub step: Option<String>,
    /// How long that step has taken, in seconds, when it takes unusually long.
    pub waiting_secs: Option<u64>,
    /// The exit code, at the end of a run.
    pub exit: Option<u8>,
    /// What failed.
    pub error: Option<ErrorReport>,
    /// The last lines of the run, when it failed.
    pub last_lines: Vec<String>,
    /// What users must know of the release.
    pub notices: Vec<String>,
    /// The last record of the node's audit log; see `kato audit verify --expect`.
    pub audit: Option<Anchor>,
}

/// A record of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Its number.
    pub seq: u64,
    /// The digest of its line.
    pub sha256: Digest,
}

/// The story so far.
#[derive(Debug)]
pub(super) struct Story {
    node: String,
    roles: Vec<String>,
    run: String,
    patience: Duration,
    from: Option<String>,
    to: Option<String>,
    step: Option<(String, Instant)>,
    told_waiting: bool,
    lines: VecDeque<String>,
    notices: Vec<String>,
}

impl Story {
    pub(super) fn new(node: &str, roles: &[String], run: &str, patience: Duration) -> Self {
        Self {
            node: node.to_owned(),
            roles: roles.to_vec(),
            run: run.to_owned(),
            patience,
            from: None,
            to: None,
            step: None,
            told_waiting: false,
            lines: VecDeque::new(),
            notices: Vec::new(),
        }
    }

    /// Takes in an event that was told already.
    pub(super) fn recall(&mut self, event: &Event) {
        let _told_before = self.see(event, Instant::now());
        self.step = None;
    }

    /// Takes in an event; gives what is to be told of it.
    pub(super) fn see(&mut self, event: &Event, now: Instant) -> Option<Document> {
        if let Some(line) = human::line(&event.kind) {
            self.lines.push_back(line.chars().take(LINE).collect());
            if self.lines.len() > LAST_LINES {
                self.lines.pop_front();
            }
        }
        match &event.kind {
            EventKind::RunStarted { from, to } => {
                self.from.clone_from(from);
                self.to = Some(to.clone());
                Some(self.document(Kind::Started, event.seq, event.time))
            }
            EventKind::StepStarted { step } => {
                self.step = Some((step.clone(), now));
                self.told_waiting = false;
                None
            }
            EventKind::StepFinished { .. } | EventKind::StepSkipped { .. } => {
                self.step = None;
                None
            }
            EventKind::Notice { text } => {
                self.notices.push(text.clone());
                None
            }
            EventKind::RunFinished { exit, version, error } => {
                self.finished(event, *exit, version.as_deref(), error.as_ref())
            }
            EventKind::Progress { .. } | EventKind::Warning { .. } => None,
        }
    }

    fn finished(
        &self,
        event: &Event,
        exit: Exit,
        version: Option<&str>,
        error: Option<&ErrorReport>,
    ) -> Option<Document> {
        let kind = match (exit, error) {
            (Exit::RolledBack, _) => Kind::RolledBack,
            (Exit::RollbackFailed, _) => Kind::RollbackFailed,
            (_, Some(_)) => Kind::Failed,
            // Nothing was done, or the machine restarts and the story goes on.
            (Exit::Done, None) if self.to.is_some() => Kind::Succeeded,
            _ => return None,
        };
        let mut document = self.document(kind, event.seq, event.time);
        document.version = version.map(ToOwned::to_owned);
        document.exit = Some(exit.code());
        document.error = error.cloned();
        if let Some(error) = error {
            document.step = Some(error.step.clone());
        }
        if kind == Kind::Succeeded {
            document.notices.clone_from(&self.notices);
        } else {
            document.last_lines = self.lines.iter().cloned().collect();
        }
        Some(document)
    }

    /// When the step at hand has taken unusually long; `None` when that was told, or no step is at hand.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let (_, since) = self.step.as_ref().filter(|_| !self.told_waiting)?;
        since.checked_add(self.patience)
    }

    /// What is to be told of a step that takes unusually long; once for each step.
    pub(super) fn waiting(&mut self, now: Instant, time: Timestamp) -> Option<Document> {
        if self.waits_until().is_none_or(|until| now < until) {
            return None;
        }
        self.told_waiting = true;
        let (step, since) = self.step.clone()?;
        let mut document = self.document(Kind::Waiting, 0, time);
        document.id = format!("{}-{}-waiting-{step}", self.node, self.run);
        document.waiting_secs = Some(now.duration_since(since).as_secs());
        document.last_lines = self.lines.iter().cloned().collect();
        Some(document)
    }

    fn document(&self, event: Kind, seq: u64, time: Timestamp) -> Document {
        Document {
            schema: SCHEMA,
            id: format!("{}-{}-{seq}", self.node, self.run),
            event,
            time,
            node: self.node.clone(),
            roles: self.roles.clone(),
            run: self.run.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            version: None,
            step: self.step.as_ref().map(|(step, _)| step.clone()),
            waiting_secs: None,
            exit: None,
            error: None,
            last_lines: Vec::new(),
            notices: Vec::new(),
            audit: None,
        }
    }
}
