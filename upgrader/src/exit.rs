//! The exit codes of `kato`. Scripts depend on them: a number never changes its meaning.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// A bug in `kato`; please report it.
    Bug = 1,
    /// The command line or a settings file is wrong.
    Usage = 2,
    /// The operator was asked and did not say yes; nothing was changed.
    Declined = 3,
    /// A newer release is available.
    UpgradeAvailable = 10,
    /// There are local changes, or some that were saved need a person to be applied again.
    LocalChanges = 11,
    /// Refused before anything was changed.
    Preflight = 20,
    /// The node was upgraded but did not show that it is healthy, or a module failed; the same command resumes.
    Failed = 21,
    /// The upgrade failed and the node runs the old release again.
    RolledBack = 22,
    /// The upgrade failed and so did the way back; a person must look.
    RollbackFailed = 23,
    /// Some nodes of the cluster are upgraded, others are not.
    Partial = 24,
    /// Another run holds the lock.
    LockHeld = 25,
    /// A signature, digest, version or expiry of the release metadata was refused.
    Trust = 26,
    /// A file of kato's own state is damaged or lost; nothing was guessed in its place.
    Damaged = 27,
    /// Try again later with the same command; nothing is lost.
    TryAgain = 75,
}

impl Exit {
    /// All codes, ascending.
    pub const ALL: [Self; 15] = [
        Self::Done,
        Self::Bug,
        Self::Usage,
        Self::Declined,
        Self::UpgradeAvailable,
        Self::LocalChanges,
        Self::Preflight,
        Self::Failed,
        Self::RolledBack,
        Self::RollbackFailed,
        Self::Partial,
        Self::LockHeld,
        Self::Trust,
        Self::Damaged,
        Self::TryAgain,
    ];

    /// The number that the process ends with.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The exit of a `kato` on another node by its number; unknown numbers (a shell's, ssh's 255) are `None`.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A failure on its way to the operator: what failed, with which code, and what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The next command or action, for the line `hint: …`.
    pub hint: Option<String>,
    /// What failed, with its causes.
    pub source: anyhow::Error,
}

impl Failure {
    /// A failure with `exit`, caused by `source`.
    pub fn new(exit: Exit, source: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            hint: None,
            source: source.into(),
        }
    }

    /// The same failure with the next action.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ascending_and_round_trip() {
        assert!(Exit::ALL.is_sorted());
        for exit in Exit::ALL {
            assert_eq!(Exit::from_code(exit.code().into()), Some(exit));
        }
        assert_eq!(Exit::from_code(255), None);
    }
}
