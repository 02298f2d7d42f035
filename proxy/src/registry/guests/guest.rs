//! Somebody who may use the door, and what for. Pure.

use super::rights::Reach;

/// Somebody who may use the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(super) reach: Reach,
    /// With a token: the repositories that it is for, and whether lists of repositories may be read.
    pub(super) token: Option<(Vec<String>, bool)>,
}

/// Whether a guest may do what it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It may.
    Granted,
    /// With another token it might.
    OtherToken,
    /// It may not.
    Denied,
}

impl Guest {
    /// Whether it may pull from `repository`, as `UPSTREAM/REPOSITORY`; `None` stands for the lists of repositories.
    pub(crate) fn leave(&self, repository: Option<&str>) -> Leave {
        let (is_allowed, is_in_token) = match repository {
            Some(repository) => (
                self.reach.covers(repository),
                self.token
                    .as_ref()
                    .is_none_or(|(may, _)| may.iter().any(|one| one == repository)),
            ),
            None => (
                self.reach == Reach::All,
                self.token.as_ref().is_none_or(|(_, list)| *list),
            ),
        };
        match (is_allowed, is_in_token) {
            (false, _) => Leave::Denied,
            (true, false) => Leave::OtherToken,
            (true, true) => Leave::Granted,
        }
    }
}
