//! Why patches cannot be installed, or not be taken back, as it was asked for.

use kato_shared::release::Version;

/// A choice that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// No such patch.
    #[error("no patch is named `{name}`; known are {}", or_none(known))]
    Unknown {
        /// The name.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No patch has this number.
    #[error("no patch has the number {id}; known are {}", or_none(known))]
    UnknownId {
        /// The number.
        id: u32,
        /// The numbers that there are, with the names.
        known: Vec<String>,
    },
    /// It is for other releases.
    #[error("the patch `{name}` is not for {version}")]
    OtherRelease {
        /// The patch.
        name: String,
        /// The installed release.
        version: Version,
    },
    /// It needs others first.
    #[error("the patch `{name}` needs {} first", missing.join(", "))]
    Requires {
        /// The patch.
        name: String,
        /// What is missing.
        missing: Vec<String>,
    },
    /// No patch is installed, so none can be taken back.
    #[error("no patch is installed on this node")]
    NoneInstalled,
    /// It is not installed.
    #[error(
        "the patch `{name}` is not installed here; installed are {}",
        or_none(installed)
    )]
    NotInstalled {
        /// The patch.
        name: String,
        /// What is.
        installed: Vec<String>,
    },
    /// Others build on it.
    #[error("the patch `{name}` cannot be taken back before {}: {why}", later.join(", "))]
    Needed {
        /// The patch.
        name: String,
        /// The patches that build on it, the newest first.
        later: Vec<String>,
        /// Why.
        why: &'static str,
    },
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}
