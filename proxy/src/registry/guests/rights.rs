//! What a guest may pull. Pure.

use std::{collections::BTreeMap, sync::Arc};

/// Stands for the users that are not named.
const OTHERS: &str = "*";

/// The rights of the settings (see `settings::Registry::rights`).
#[derive(Debug, Clone, Default)]
pub(super) struct Rights(BTreeMap<String, Arc<[String]>>);

/// How far somebody may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everywhere.
    All,
    /// To these repositories, as `UPSTREAM/REPOSITORY`, and below these beginnings, which end with a slash.
    These(Arc<[String]>),
}

impl Rights {
    pub(super) fn new(rights: &BTreeMap<String, Vec<String>>) -> Self {
        let rights = rights.iter();
        Self(
            rights
                .map(|(user, may)| (user.clone(), may.as_slice().into()))
                .collect(),
        )
    }

    /// Whether anybody may less than another.
    pub(super) fn is_restricted(&self) -> bool {
        !self.0.is_empty()
    }

    /// How far `user` may go.
    pub(super) fn of(&self, user: &str) -> Reach {
        let may = self.0.get(user).or_else(|| self.0.get(OTHERS));
        may.map_or(Reach::All, |may| Reach::These(Arc::clone(may)))
    }
}

impl Reach {
    /// Whether it covers `repository`, as `UPSTREAM/REPOSITORY`.
    pub(super) fn covers(&self, repository: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(may) => may.iter().any(|one| {
                if one.ends_with('/') {
                    repository.starts_with(one.as_str())
                } else {
                    repository == one
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_repositories_or_beginnings_and_who_is_not_named_is_one_of_the_others() {
        let of = |pairs: &[(&str, &[&str])]| {
            let owned = pairs
                .iter()
                .map(|(user, may)| ((*user).to_owned(), may.iter().map(ToString::to_string).collect()));
            Rights::new(&owned.collect())
        };
        let rights = of(&[("ci", &["hub/library/", "lab/team/app"])]);
        for (user, repository, expected) in [
            ("ci", "hub/library/app", true),
            ("ci", "hub/libraryx/app", false),
            ("ci", "lab/team/app", true),
            ("ci", "lab/team/app2", false),
            ("ci", "lab/team/app/x", false),
            ("ada", "lab/team/app2", true),
        ] {
            assert_eq!(
                rights.of(user).covers(repository),
                expected,
                "{user} {repository}"
            );
        }
        let closed = of(&[("*", &[]), ("ci", &["hub/"])]);
        assert!(closed.of("ci").covers("hub/a") && !closed.of("ada").covers("hub/a"));
        assert!(closed.is_restricted() && !Rights::default().is_restricted());
    }
}
