//! The commands that a run has at work, known beyond the end of the run.
//!
//! Flow: the run takes the node's lock and begins to note ([`Children::begin`]) → each command waits at its [`gate`](super::gate)
//! until its note is written → the note goes when the command's end was seen. What a killed run leaves behind is found by the
//! next one ([`Children::left`]), before that does anything.
//!
//! A note is a file in `state/commands`, never flushed: it only means something within one boot of the machine, which a kill of
//! kato does not end. It needs no room on a full disk, since all that counts is in its name.
//!
//! Deliberately absent: notes of commands that only ask for somebody without the lock (`kato status`): they change nothing, and
//! whoever runs them may not be able to write there.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use kato_shared::{clock::Clock, durable};
use serde::{Deserialize, Serialize};

use super::{
    name::{Name, Place, Process},
    orphans::{self, Left},
    running::GRACE,
    table,
};
use crate::{audit::redact, lock, paths::NodePaths};

/// The commands of one node, and what they are for. The default notes nothing.
#[derive(Debug, Clone, Default)]
pub struct Children {
    noting: Option<Arc<Noting>>,
    what: Arc<str>,
    services: Services,
}

/// Which of a command's processes may be services that it has started on purpose, and that go on without it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Services {
    /// None: the command starts no services.
    None,
    /// Those that have left its process group and its parents, as a service does that is well made.
    #[default]
    Detached,
    /// All that is there when the command itself has ended: starting services is what it is for.
    Any,
}

impl Services {
    /// The same, but a service that has detached itself is one.
    pub(super) const fn sparing_detached(self) -> Self {
        match self {
            Self::None => Self::Detached,
            Self::Detached | Self::Any => self,
        }
    }
}

#[derive(Debug)]
struct Noting {
    folder: PathBuf,
    root: PathBuf,
    clock: Clock,
    /// This process; set when it begins to note.
    kato: OnceLock<(Process, Place)>,
}

/// What people want to know of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Text {
    /// Program and arguments, without secrets.
    pub(super) argv: Vec<String>,
    /// What it is for, e.g. ``the platform's `retire` ``.
    pub(super) what: String,
    /// When it was started.
    pub(super) since: Timestamp,
    /// Which of its processes may be services.
    #[serde(default)]
    pub(super) services: Services,
}

impl Children {
    /// Those of the node with `paths`. None is noted before [`Children::begin`].
    pub fn of(paths: &NodePaths, clock: Clock) -> Self {
        Self {
            noting: Some(Arc::new(Noting {
                folder: paths.commands(),
                root: paths.root().to_owned(),
                clock,
                kato: OnceLock::new(),
            })),
            what: Arc::default(),
            services: Services::default(),
        }
    }

    /// Those that Core with `paths` runs for the whole cluster. None is noted before [`Children::begin`].
    pub fn of_core(paths: &NodePaths, clock: Clock) -> Self {
        Self {
            noting: Some(Arc::new(Noting {
                folder: paths.core_commands(),
                root: paths.root().to_owned(),
                clock,
                kato: OnceLock::new(),
            })),
            ..Self::default()
        }
    }

    /// The same, for commands that are run for `what`, e.g. ``the platform's `retire` ``.
    #[must_use]
    pub fn on(&self, what: &str) -> Self {
        Self {
            what: what.into(),
            ..self.clone()
        }
    }

    /// The same, for commands of whose processes `services` may be services.
    #[must_use]
    pub fn with(&self, services: Services) -> Self {
        Self {
            services,
            ..self.clone()
        }
    }

    /// From now on every command is noted. The caller holds the node's lock.
    ///
    /// # Errors
    /// When the folder of the notes cannot be made, or this process is not in `/proc`.
    pub fn begin(&self) -> io::Result<()> {
        let Some(noting) = &self.noting else {
            return Ok(());
        };
        durable::create_folder(&noting.folder).map_err(|error| error.source)?;
        let here = noting
            .here()
            .ok_or_else(|| io::Error::other("`/proc` does not show this process"))?;
        noting.kato.get_or_init(|| here);
        Ok(())
    }

    /// What runs that were killed have left at work; the notes of what has ended by itself are removed. The caller holds the
    /// node's lock.
    ///
    /// # Errors
    /// When the folder of the notes cannot be read.
    pub async fn left(&self) -> io::Result<Left> {
        let Some((noting, (me, here))) = self
            .noting
            .as_ref()
            .and_then(|noting| Some((noting, noting.here()?)))
        else {
            return Ok(Left::default());
        };
        orphans::left(&noting.folder, me, &here).await
    }

    /// Whether the next command is noted.
    pub(super) fn is_noting(&self) -> bool {
        self.noting
            .as_ref()
            .is_some_and(|noting| noting.kato.get().is_some())
    }

    /// Writes down that the command `argv`, which waits at its gate, is the process `pid`; `None` when nothing is noted.
    ///
    /// # Errors
    /// When the note cannot be written; the gate must then stay shut.
    pub(super) fn note(&self, pid: Option<u32>, argv: &[String]) -> io::Result<Option<Note>> {
        let Some((noting, (kato, place))) = self
            .noting
            .as_ref()
            .and_then(|noting| Some((noting, noting.kato.get()?)))
        else {
            return Ok(None);
        };
        let child = pid
            .and_then(|pid| table::process(i32::try_from(pid).ok()?))
            .ok_or_else(|| io::Error::other("`/proc` does not show the command"))?;
        let name = Name {
            child,
            kato: *kato,
            place: place.clone(),
            ending: None,
        };
        let note = Note {
            folder: noting.folder.clone(),
            name,
            services: self.services,
        };
        let mut file = create(&note.path(&note.name))?;
        let text = Text {
            argv: redact::command_line(argv.iter().map(Into::into)),
            what: self.what.to_string(),
            since: noting.clock.now(),
            services: self.services,
        };
        // For people. On a full disk the name must do.
        let _written = serde_json::to_vec(&text).map(|text| file.write_all(&text));
        Ok(Some(note))
    }
}

impl Noting {
    /// This process, and where it is.
    fn here(&self) -> Option<(Process, Place)> {
        let me = table::process(i32::try_from(std::process::id()).ok()?)?;
        let place = Place::new(lock::pid_namespace().as_deref(), &lock::boot_id(&self.root));
        Some((me, place))
    }
}

fn create(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// The note of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) folder: PathBuf,
    pub(super) name: Name,
    /// Which of the command's processes may be services.
    pub(super) services: Services,
}

impl Note {
    /// The note called `name` that is in `folder`. Where a full disk took its text, nothing that may be a service is touched.
    pub(super) fn found(folder: &Path, name: Name) -> Self {
        let mut note = Self {
            folder: folder.to_owned(),
            name,
            services: Services::Any,
        };
        if let Some(text) = note.text() {
            note.services = text.services;
        }
        note
    }

    pub(super) fn path(&self, name: &Name) -> PathBuf {
        self.folder.join(name.to_string())
    }

    /// What people want to know of the command; `None` when that was not written, or cannot be read.
    pub(super) fn text(&self) -> Option<Text> {
        let name = Name {
            ending: None,
            ..self.name.clone()
        };
        serde_json::from_slice(&fs::read(self.path(&name)).ok()?).ok()
    }

    /// Notes that the command is being ended with all of its group: whoever comes next must go on with that also when the first
    /// of the group is gone already.
    pub(super) fn ending(&mut self) {
        if self.name.ending.is_some() {
            return;
        }
        let ending = Name {
            // What it starts while it puts its things in order goes with it.
            ending: Some(table::ticks(GRACE + GRACE)),
            ..self.name.clone()
        };
        match create(&self.path(&ending)) {
            Ok(_empty) => self.name = ending,
            // It is ended all the same; a second kill within the next seconds would leave a part of it.
            Err(error) => tracing::warn!(%error, "that a command is ended could not be noted"),
        }
    }

    /// Removes the note: the end of the command was seen.
    pub(super) fn remove(self) {
        let bare = Name {
            ending: None,
            ..self.name.clone()
        };
        let names = [Some(&bare), self.name.ending.map(|_| &self.name)];
        for path in names.into_iter().flatten().map(|name| self.path(name)) {
            // What stays is about a process that is gone, and is removed by the next run.
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "a note stays");
            }
        }
    }
}
