//! One local change: what differs from the installed release, and what an upgrade makes of it.

use std::path::PathBuf;

use kato_shared::release::{Install, OnConflict};
use serde::{Deserialize, Serialize};

use crate::module::tree::Kind;

/// How the place of a change is treated by upgrades.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The whole folder is exchanged: local changes leave it.
    Replace,
    /// File by file, by the three-way table.
    Overlay,
    /// Every version has a folder of its own: local changes stay behind in the old one.
    Versioned,
    /// No upgrade touches it.
    Safe,
}

impl Class {
    /// The class of the folder that a module installs to; `None` for a policy without one.
    pub const fn of(install: &Install) -> Option<Self> {
        if matches!(install, Install::Replace { .. }) {
            Some(Self::Replace)
        } else if matches!(install, Install::Overlay { .. }) {
            Some(Self::Overlay)
        } else if matches!(install, Install::Versioned { .. }) {
            Some(Self::Versioned)
        } else {
            None
        }
    }

    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Overlay => "overlay",
            Self::Versioned => "versioned",
            Self::Safe => "safe",
        }
    }
}

/// How a file differs from the installed release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Its content, or where the link points.
    Changed,
    /// Only the node has it.
    Added,
    /// Only the release has it.
    Deleted,
    /// It is a file here and a link or folder there, or the like.
    Type,
    /// Its permission bits.
    Mode,
    /// Its user or group.
    Owner,
}

impl What {
    /// One word for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Deleted => "deleted",
            Self::Type => "other type",
            Self::Mode => "mode",
            Self::Owner => "owner",
        }
    }
}

/// What an upgrade makes of a change, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The module is refused because of it.
    Refused,
    /// It is no file, so it is neither carried over nor saved.
    Dropped,
    /// It leaves its place with the folder; a copy is saved.
    Lost,
    /// The release's takes its place; a copy is saved.
    Saved,
    /// Both changes are made where they do not contradict each other, else as with [`Self::Saved`].
    Merged,
    /// It was deleted here and comes back.
    Back,
    /// It stays in the folder of the old version and is not used any more; a copy is saved.
    LeftBehind,
    /// It stays, and the release's is put beside it as `….new`.
    Beside,
    /// It stays as it is.
    Kept,
}

impl Fate {
    /// Whether the change is not in its place any more afterwards, so that it is worth saving.
    pub const fn takes_away(self) -> bool {
        !matches!(self, Self::Refused | Self::Beside | Self::Kept)
    }

    /// What a person reads.
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Refused => "stands in the way: the module is refused",
            Self::Dropped => "a pipe, socket or device: neither carried over nor saved",
            Self::Lost => "leaves the folder; saved",
            Self::Saved => "replaced by the release's; saved",
            Self::Merged => "merged with the release's, else replaced; saved",
            Self::Back => "comes back",
            Self::LeftBehind => "stays in the old version's folder; saved",
            Self::Beside => "stays; the release's is put beside it as .new",
            Self::Kept => "stays",
        }
    }

    /// What becomes of a file that both sides changed.
    pub const fn by(rule: OnConflict) -> Self {
        match rule {
            OnConflict::VendorSave => Self::Saved,
            OnConflict::Keep => Self::Beside,
            OnConflict::Merge => Self::Merged,
            OnConflict::Fail => Self::Refused,
        }
    }
}

/// One local change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its path on the node, below the root, absolute.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// The module whose folder it is in; `None` for a safe path outside all modules.
    pub module: Option<String>,
    /// How upgrades treat the place.
    pub class: Class,
    /// How it differs; several of these only for content, mode and owner together.
    pub what: Vec<What>,
    /// The worst that the next upgrade makes of it, whatever the release brings.
    pub at_worst: Fate,
    /// What the release installed; `None` where it has nothing.
    pub pristine: Option<Kind>,
    /// What is there; `None` when nothing is, and for added files, which are not read.
    pub local: Option<Kind>,
    /// Its user and group.
    pub owner: Option<(u32, u32)>,
    /// Its size in bytes; 0 for what is no file.
    pub bytes: u64,
}

impl Change {
    /// Whether it differs in this way.
    pub fn is(&self, what: What) -> bool {
        self.what.contains(&what)
    }
}
