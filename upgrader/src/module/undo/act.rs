//! What is done to take back what no folder holds: packages, tags of images, commands.
//!
//! An act is noted before its first change, with the state that it leads back to. Whether it was taken back is written into
//! the note after its effect was looked at, so that everybody after that needs no child process to know.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Note;
use crate::{
    failpoint,
    module::{ModuleError, child::Line, image, package},
    paths::NodePaths,
    platform::{Children, Services},
};

/// One act that leads back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// Packages get the versions that they had.
    Packages {
        /// What there was, one entry for each package.
        before: Vec<package::Before>,
        /// dpkg's root.
        root: PathBuf,
    },
    /// A tag means the image again that it meant.
    Tag(image::Moved),
    /// The module's own command.
    Command {
        /// The command.
        line: Line,
        /// Its probe, which must not say afterwards that the module's command was run.
        probe: Line,
    },
}

/// An act of a note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// The act.
    #[serde(flatten)]
    pub act: Act,
    /// How long it may take, in seconds.
    pub limit_secs: u64,
    /// Whether it was taken back.
    pub undone: bool,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages { before, .. } => {
                let names: Vec<_> = before.iter().map(|package| package.name.as_str()).collect();
                write!(f, "the packages {}", names.join(", "))
            }
            Self::Tag(moved) => write!(f, "the tag {}", moved.tagged),
            Self::Command { line, .. } => write!(f, "`{}`", line.argv.join(" ")),
        }
    }
}

impl Act {
    /// Whether both are about the same thing, so that the first one noted stays.
    fn is_about_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Packages { .. }, Self::Packages { .. }) => true,
            (Self::Tag(one), Self::Tag(two)) => one.tagged == two.tagged,
            (Self::Command { line: one, .. }, Self::Command { line: two, .. }) => one == two,
            (Self::Packages { .. } | Self::Tag(_) | Self::Command { .. }, _) => false,
        }
    }

    async fn take_back(&self, children: &Children, deadline: Instant) -> Result<(), ModuleError> {
        match self {
            Self::Packages { before, root } => package::take_back(root, before, children, deadline).await,
            Self::Tag(moved) => image::take_back(moved, children, deadline).await,
            Self::Command { line, probe } => {
                let children = &children.with(Services::None);
                line.run(children, "taking the command back", deadline).await?;
                let limit = deadline.saturating_duration_since(Instant::now());
                match probe
                    .ask(&children.on("the probe of what was taken back"), limit)
                    .await
                {
                    Ok(_) => Err(ModuleError::NotBack {
                        what: format!(
                            "`{}` says after `{}` that the module's command was run",
                            probe.argv.join(" "),
                            line.argv.join(" ")
                        ),
                    }),
                    Err(_) => Ok(()),
                }
            }
        }
    }
}

impl Note {
    /// Notes an act that will be needed to go back, unless one about the same thing was noted before the first change.
    pub(in crate::module) fn act(&mut self, act: Act, limit: Duration) {
        let known = self
            .acts
            .iter_mut()
            .find(|noted| noted.act.is_about_the_same(&act));
        match known {
            // It was taken back and is now done again: what it leads back to is the same.
            Some(noted) if noted.undone => noted.undone = false,
            Some(_) => return,
            None => self.acts.push(Noted {
                act,
                limit_secs: limit.as_secs(),
                undone: false,
            }),
        }
        self.saved = false;
    }
}

/// Takes back every act of the note, the last one first.
///
/// # Errors
/// [`ModuleError`]; what was taken back before stays so, and the same call goes on.
pub async fn take_back(paths: &NodePaths, children: &Children, note: &mut Note) -> Result<(), ModuleError> {
    for nth in (0..note.acts.len()).rev() {
        let Noted {
            act,
            limit_secs,
            undone,
        } = &note.acts[nth];
        if *undone {
            continue;
        }
        act.take_back(children, Instant::now() + Duration::from_secs(*limit_secs))
            .await?;
        failpoint::hit("undo.acted");
        note.acts[nth].undone = true;
        note.saved = false;
        note.save(paths)?;
    }
    Ok(())
}
