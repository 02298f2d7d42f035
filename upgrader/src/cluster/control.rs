//! Pause, resume and abort: what an operator wants of a rollout that is under way.
//!
//! The wish is a small document beside the plan and names the plan that it is about, so that it reaches an orchestrator in another
//! session, and the next one after a kill. It is looked at before every batch. Nodes that are at work are never interrupted: half
//! an upgrade is worse than a whole one.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kato_shared::{
    chain::Chain,
    durable::{self, DurableError},
};
use serde::{Deserialize, Serialize};

use super::AGAIN;
use crate::document::{self, DocumentError};

/// The version of the document.
const SCHEMA: u32 = 1;

/// What is wanted of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// No further node is begun until `kato cluster resume`.
    Pause,
    /// No further node is begun, and the plan is given up.
    Abort,
}

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The version of this format.
    pub schema: u32,
    /// The plan that it is about.
    pub plan: String,
    /// What is wanted.
    pub wish: Wish,
    /// Since when.
    pub since: Timestamp,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Wanted {
    /// What it means for the rollout, for people, and what lets it go on.
    pub fn text(&self) -> String {
        let next = match self.wish {
            Wish::Pause => "`kato cluster resume` lets it go on".to_owned(),
            Wish::Abort => format!("`{AGAIN}` makes a new plan"),
        };
        format!("{}; {next}", self.since_when())
    }

    /// What it means for the rollout, since when, and why.
    pub fn since_when(&self) -> String {
        let reason = self.reason.as_ref();
        let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        let what = match self.wish {
            Wish::Pause => "paused",
            Wish::Abort => "given up",
        };
        format!("{what} since {:.0}{reason}", self.since)
    }
}

/// Where the wish about the plans of this Core is.
#[derive(Debug, Clone)]
pub struct Control {
    path: PathBuf,
}

impl Control {
    /// The wish of the Core whose state folder is `state_dir`.
    pub fn in_state_dir(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("state/rollout-control.json"),
        }
    }

    /// What is wanted of `plan`; `None` when it is to go on. What cannot be read is taken for a pause: somebody wanted something.
    pub fn wanted(&self, plan: &str) -> Option<Wanted> {
        match self.load() {
            Ok(wanted) => wanted.filter(|wanted| wanted.plan == plan),
            Err(damaged) => {
                tracing::warn!(error = %Chain(&damaged), "taken for a pause");
                Some(Wanted {
                    schema: SCHEMA,
                    plan: plan.to_owned(),
                    wish: Wish::Pause,
                    since: Timestamp::UNIX_EPOCH,
                    reason: Some(format!(
                        "`{}` cannot be read; `kato cluster resume` removes it",
                        self.path.display()
                    )),
                })
            }
        }
    }

    /// The document, whichever plan it is about.
    ///
    /// # Errors
    /// [`DocumentError`] when it is damaged.
    pub fn load(&self) -> Result<Option<Wanted>, DocumentError> {
        document::read(&self.path, "what is wanted of a rollout")
    }

    /// Wants `wish` of `plan` from now on.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn want(
        &self,
        plan: &str,
        wish: Wish,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<(), DurableError> {
        let wanted = Wanted {
            schema: SCHEMA,
            plan: plan.to_owned(),
            wish,
            since: now,
            reason,
        };
        if let Some(folder) = self.path.parent() {
            durable::create_folder(folder)?;
        }
        durable::write_json(&self.path, &wanted, 0o644)
    }

    /// Lets every plan go on.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn clear(&self) -> Result<(), DurableError> {
        durable::remove(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_about_one_plan_and_what_cannot_be_read_is_a_pause() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::in_state_dir(folder.path());
        assert_eq!(control.wanted("p1"), None);
        control.clear().unwrap();
        control
            .want("p1", Wish::Abort, Some("wrong day".into()), Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(control.wanted("p1").unwrap().wish, Wish::Abort);
        assert_eq!(control.wanted("p2"), None);
        durable::write(&control.path, b"{", 0o644).unwrap();
        assert_eq!(control.wanted("p2").unwrap().wish, Wish::Pause);
        control.clear().unwrap();
        assert_eq!(control.wanted("p1"), None);
    }
}
