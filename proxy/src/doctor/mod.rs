//! `kato-proxy doctor`, on the machine of a client: can it reach the cache, does it trust it, and what on this machine would lead a
//! client past it.
//!
//! ```text
//! reach         name, connection, answer, clock
//! upstreams     one object of each, through the cache
//! certificate   where hosts are opened: is ours among those that this machine trusts
//! apt           the suites of sources that lead to the cache: do they answer, have they expired
//! files         settings of clients that do nothing, or shadow others
//! environment   variables that beat what a client was told
//! ```
//! Each finding is a [`Check`]. Those about facts of this machine are pure functions ([`environment`], [`files`], [`sources`]); asking is
//! `reach`, `upstreams` and `trust`.
//!
//! Deliberately absent: repairing anything.

mod clock;
pub mod environment;
pub mod files;
mod reach;
pub mod sources;
mod trust;
mod upstreams;

use serde::Serialize;

pub use reach::{Machine, examine};

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, but perhaps not as intended.
    Warning,
    /// Clients will fail.
    Failed,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub subject: String,
    /// How it stands.
    pub state: State,
    /// What was seen.
    pub said: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The version of this document; 1.
    pub schema: u32,
    /// The server that was asked.
    pub server: String,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Check {
    /// As it should be.
    pub fn ok(subject: impl Into<String>, said: impl Into<String>) -> Self {
        Self::new(State::Ok, subject, said, None)
    }

    /// Perhaps not as intended.
    pub fn warning(subject: impl Into<String>, said: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(State::Warning, subject, said, Some(hint.into()))
    }

    /// Clients will fail.
    pub fn failed(subject: impl Into<String>, said: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(State::Failed, subject, said, Some(hint.into()))
    }

    fn new(state: State, subject: impl Into<String>, said: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            subject: subject.into(),
            state,
            said: said.into(),
            hint,
        }
    }
}

impl Report {
    /// Whether nothing has failed.
    pub fn is_healthy(&self) -> bool {
        self.checks.iter().all(|check| check.state < State::Failed)
    }

    /// A table for people: one line for each finding, its hint below it.
    pub fn table(&self) -> String {
        let widest = self
            .checks
            .iter()
            .map(|check| check.subject.chars().count())
            .max();
        let width = widest.unwrap_or_default();
        let lines = self.checks.iter().map(|check| {
            let state = match check.state {
                State::Ok => "ok     ",
                State::Warning => "warning",
                State::Failed => "FAILED ",
            };
            let hint = check.hint.as_ref().map(|hint| format!("         hint: {hint}\n"));
            format!(
                "{state}  {:width$}  {}\n{}",
                check.subject,
                check.said,
                hint.unwrap_or_default()
            )
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_a_failure_is_the_verdict() {
        let mut report = Report {
            schema: 1,
            server: "http://cache.site/".into(),
            checks: vec![
                Check::ok("name", "10.0.0.1"),
                Check::warning("clock", "1 min ahead", "set it"),
            ],
        };
        assert!(report.is_healthy());
        assert_eq!(
            report.table(),
            "ok       name   10.0.0.1\nwarning  clock  1 min ahead\n         hint: set it\n"
        );
        report.checks.push(Check::failed("answer", "none", "start it"));
        assert!(!report.is_healthy());
    }
}
