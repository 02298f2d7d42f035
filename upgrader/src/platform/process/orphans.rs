//! Commands that outlive the run that started them: found by their notes, and ended as at their deadline.
//!
//! A command is an orphan when its `kato` is gone and it is still there itself, or somebody had begun to end it and a part of its
//! group is left. Of one that is gone by itself the group is left alone: a service that `restart` has left behind on purpose
//! is nobody's orphan.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Instant, sleep};

use super::{
    children::{Note, Text},
    name::{Name, Place, Process},
    running::{GRACE, LOOK},
    table,
};

/// How long what was killed may take until it is gone. Only what waits for a device or a file system on the network takes long.
const GONE: Duration = Duration::from_secs(10);

/// How long a `kato` may still be there that does not hold the lock any more: one that is killed gives it back a moment before it
/// is gone.
const DYING: Duration = Duration::from_secs(2);

/// What runs that were killed have left behind.
#[derive(Debug, Default)]
pub struct Left {
    /// Commands that are still at work.
    pub orphans: Vec<Orphan>,
    /// Commands whose processes cannot be seen from here (another container). Their notes are gone: it is said once.
    pub unseen: Vec<Orphan>,
    /// Commands whose `kato` is alive, although it does not hold the lock.
    pub minded: Vec<Orphan>,
    /// Files that are no notes.
    pub strange: Vec<PathBuf>,
}

/// A command of a run that was killed.
#[derive(Debug)]
pub struct Orphan {
    note: Note,
    text: Option<Text>,
}

/// A command that does not go away.
#[derive(Debug, thiserror::Error)]
#[error(
    "{orphan} is still there {} after it was killed",
    humantime::format_duration(GONE)
)]
pub struct StillThere {
    /// What it is.
    pub orphan: String,
    /// The process to look at.
    pub pid: i32,
}

/// What a note means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The command is gone, or the machine was started again.
    Over,
    /// Its `kato` is there.
    Minded,
    /// It is at work, and nobody minds it.
    Orphan,
    /// It cannot be told from here.
    Unseen,
}

/// Reads the notes in `folder` for the process `me`, which holds the lock. Removes those of commands that are over.
pub(super) async fn left(folder: &Path, me: Process, here: &Place) -> io::Result<Left> {
    let judged = |note: &Note| judge(&note.name, me, here, table::is_there, table::members);
    let deadline = Instant::now() + DYING;
    loop {
        let mut left = Left::default();
        let notes = notes(folder, &mut left.strange)?;
        if Instant::now() < deadline && notes.iter().any(|note| judged(note) == Standing::Minded) {
            sleep(LOOK).await;
            continue;
        }
        for note in notes {
            let standing = judged(&note);
            let text = note.text();
            match standing {
                Standing::Over => note.remove(),
                Standing::Minded => left.minded.push(Orphan { note, text }),
                Standing::Orphan => left.orphans.push(Orphan { note, text }),
                Standing::Unseen => {
                    note.clone().remove();
                    left.unseen.push(Orphan { note, text });
                }
            }
        }
        return Ok(left);
    }
}

/// The notes in `folder`, one for each command; what is none goes to `strange`.
fn notes(folder: &Path, strange: &mut Vec<PathBuf>) -> io::Result<Vec<Note>> {
    let mut notes: Vec<Note> = Vec::new();
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(notes),
        Err(error) => return Err(error),
    };
    for item in listing {
        let item = item?;
        let name = item.file_name();
        let Some(name) = name.to_str().and_then(|name| name.parse::<Name>().ok()) else {
            strange.push(item.path());
            continue;
        };
        match notes.iter_mut().find(|known| known.name.is_about_the_same(&name)) {
            // Two runs may have begun to end it: the later one knows of more.
            Some(known) => known.name.ending = known.name.ending.max(name.ending),
            None => notes.push(Note {
                folder: folder.to_owned(),
                name,
            }),
        }
    }
    Ok(notes)
}

/// Pure part of [`left`].
fn judge(
    name: &Name,
    me: Process,
    here: &Place,
    is_there: impl Fn(Process) -> bool,
    members: impl Fn(i32, u64) -> Vec<Process>,
) -> Standing {
    if !name.place.is_same_boot(here) {
        return Standing::Over;
    }
    if name.place.namespace != here.namespace {
        return Standing::Unseen;
    }
    // A kato that was started anew in the place of this one (a self-update) has nothing at work yet: what is there is left over.
    if name.kato != me && is_there(name.kato) {
        return Standing::Minded;
    }
    let is_at_work = is_there(name.child)
        || name
            .ending
            .is_some_and(|until| !members(name.child.pid, until).is_empty());
    if is_at_work {
        Standing::Orphan
    } else {
        Standing::Over
    }
}

impl Orphan {
    /// The number of its process, which is that of its group.
    pub const fn pid(&self) -> i32 {
        self.note.name.child.pid
    }

    /// The number of the `kato` that started it.
    pub const fn kato(&self) -> i32 {
        self.note.name.kato.pid
    }

    /// What it is, for people.
    pub fn described(&self) -> String {
        let pid = self.pid();
        match &self.text {
            Some(Text { argv, what, since }) => {
                let for_what = if what.is_empty() {
                    String::new()
                } else {
                    format!(" for {what}")
                };
                format!("`{}`{for_what} (process {pid}, started {since})", argv.join(" "))
            }
            None => format!("a command (process {pid}; which one was not noted)"),
        }
    }

    /// The command line, without secrets; empty when it was not noted.
    pub fn command(&self) -> String {
        self.text
            .as_ref()
            .map(|text| text.argv.join(" "))
            .unwrap_or_default()
    }

    /// Ends it and all that it started, and waits until they are gone.
    ///
    /// # Errors
    /// [`StillThere`]; its note stays.
    ///
    /// # Cancel safety
    /// Its note stays, and the same call goes on.
    pub async fn end(mut self) -> Result<(), StillThere> {
        let child = self.note.name.child;
        self.note.ending();
        let until = self.note.name.ending.unwrap_or_else(|| table::ticks(GRACE));
        let is_first_there = || table::is_there(child);
        let is_any_there = || is_first_there() || !table::members(child.pid, until).is_empty();
        signal(child.pid, Signal::TERM);
        gone(is_first_there, GRACE).await;
        // The group's number is nobody else's while one of it is there.
        if is_any_there() {
            signal(child.pid, Signal::KILL);
        }
        if gone(is_any_there, GONE).await {
            self.note.remove();
            return Ok(());
        }
        Err(StillThere {
            orphan: self.described(),
            pid: child.pid,
        })
    }
}

fn signal(group: i32, signal: Signal) {
    if let Some(group) = Pid::from_raw(group) {
        let _gone_already = kill_process_group(group, signal);
    }
}

/// Waits at most `limit` until what `is_there` looks at is gone.
async fn gone(is_there: impl Fn() -> bool, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while is_there() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_and_has_lost_its_kato_is_an_orphan() {
        let process = |pid| Process { pid, started: 7 };
        let here = Place::new(Some("pid:[1]"), "b1");
        let (child, kato, me) = (process(20), process(10), process(30));
        let name = Name {
            child,
            kato,
            place: here.clone(),
            ending: None,
        };
        let judged = |name: &Name, there: &[Process], members: &[Process]| {
            judge(
                name,
                me,
                &here,
                |one| there.contains(&one),
                |_group, _until| members.to_vec(),
            )
        };
        assert_eq!(judged(&name, &[child], &[]), Standing::Orphan);
        assert_eq!(judged(&name, &[child, kato], &[]), Standing::Minded);
        assert_eq!(judged(&name, &[], &[]), Standing::Over);
        // A service that it left behind on purpose.
        assert_eq!(judged(&name, &[], &[process(21)]), Standing::Over);
        let ending = Name {
            ending: Some(9),
            ..name.clone()
        };
        assert_eq!(judged(&ending, &[], &[process(21)]), Standing::Orphan);
        assert_eq!(judged(&ending, &[], &[]), Standing::Over);
        // The same numbers in another boot, or of other processes.
        let of_boot = |boot| Name {
            place: Place::new(Some("pid:[1]"), boot),
            ..name.clone()
        };
        assert_eq!(judged(&of_boot("b2"), &[child], &[]), Standing::Over);
        let later = Process { started: 8, ..child };
        assert_eq!(judged(&name, &[later], &[]), Standing::Over);
        // This process was started anew in its own place.
        let mine = Name {
            kato: me,
            ..name.clone()
        };
        assert_eq!(judged(&mine, &[child, me], &[]), Standing::Orphan);
        let elsewhere = Name {
            place: Place::new(Some("pid:[2]"), "b1"),
            ..name
        };
        assert_eq!(judged(&elsewhere, &[child], &[]), Standing::Unseen);
    }
}
