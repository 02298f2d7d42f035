//! Commands that outlive the run that started them: found by their notes, and ended as at their deadline.
//!
//! A command is an orphan when its `kato` is gone and it is still at work: it is there itself, or a part of its group is although it
//! was killed from outside, or somebody had begun to end it. With it ends what belongs to it ([`kin`](super::kin)), wherever
//! that is. What may be a service that the command has started on purpose ([`Services`]) is nobody's orphan: it is left alone,
//! and told with its number.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Instant, sleep};

use super::{
    children::{Note, Services, Text},
    kin::Kin,
    name::{Name, Place, Process},
    running::{GRACE, LOOK},
    table,
};

/// How long what was killed may take until it is gone. Only what waits for a device or a file system on the network takes long.
const GONE: Duration = Duration::from_secs(10);

/// How long a `kato` may still be there that does not hold the lock any more: one that is killed gives it back a moment before it
/// is gone.
const DYING: Duration = Duration::from_secs(2);

/// How long is waited for what was killed until it is looked for more, and killed again.
const AGAIN: Duration = Duration::from_millis(100);

/// What runs that were killed have left behind.
#[derive(Debug, Default)]
pub struct Left {
    /// Commands that are still at work.
    pub orphans: Vec<Orphan>,
    /// Commands that are over, and have left processes that may be services. Their notes are gone: it is said once.
    pub over: Vec<Orphan>,
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
    found: Found,
}

/// What was found of a command.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// What is to end.
    at_work: Vec<Process>,
    /// What may be services, and is left alone.
    services: Vec<Process>,
    /// Whether one of those that are to end is in the command's group, so that nobody else has its number; and nothing else is.
    is_group_there: bool,
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
    /// What is there of it is nobody's.
    Alone,
    /// It cannot be told from here.
    Unseen,
}

/// Reads the notes in `folder` for the process `me`, which holds the lock. Removes those of commands that are over.
pub(super) async fn left(folder: &Path, me: Process, here: &Place) -> io::Result<Left> {
    let judged = |note: &Note| judge(&note.name, me, here, table::is_there);
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
            let found = match standing {
                Standing::Alone => found(&note, note.name.ending.is_some()),
                Standing::Over | Standing::Minded | Standing::Unseen => Found::default(),
            };
            let is_at_work = !found.at_work.is_empty();
            let orphan = Orphan {
                text: note.text(),
                note,
                found,
            };
            match standing {
                Standing::Minded => left.minded.push(orphan),
                Standing::Alone if is_at_work => left.orphans.push(orphan),
                Standing::Alone if !orphan.found.services.is_empty() => {
                    orphan.note.clone().remove();
                    left.over.push(orphan);
                }
                Standing::Over | Standing::Alone => orphan.note.remove(),
                Standing::Unseen => {
                    orphan.note.clone().remove();
                    left.unseen.push(orphan);
                }
            }
        }
        return Ok(left);
    }
}

/// Looks what is there of the command of `note`, which is being ended or not.
fn found(note: &Note, is_ending: bool) -> Found {
    parted(Kin::of(&note.name, &[]), note.services, is_ending)
}

/// What belongs to the command of `note` and is to end with it, outside of its group.
pub(super) fn beyond_the_group(note: &Note) -> Vec<Process> {
    let mut kin = Kin::of(&note.name, &[]);
    kin.group.clear();
    parted(kin, note.services, true).at_work
}

/// What of `kin` is at work, and what may be services. A group that is there without the first of it lost that to somebody who
/// killed it, or is what a command left that starts services for a living.
fn parted(kin: Kin, services: Services, is_ending: bool) -> Found {
    let is_at_work = kin.is_first_there || is_ending;
    let is_tied_at_work = is_at_work || services != Services::Any;
    let is_detached_at_work = is_at_work && services == Services::None;
    let mut found = Found {
        is_group_there: is_tied_at_work && !kin.group.is_empty() && !kin.is_ours,
        ..Found::default()
    };
    let mut put = |processes: Vec<Process>, is_at_work: bool| {
        if is_at_work {
            found.at_work.extend(processes);
        } else {
            found.services.extend(processes);
        }
    };
    put(kin.group, is_tied_at_work);
    put(kin.below, is_tied_at_work);
    put(kin.detached, is_detached_at_work);
    found
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
            None => notes.push(Note::found(folder, name)),
        }
    }
    Ok(notes)
}

/// Pure part of [`left`].
fn judge(name: &Name, me: Process, here: &Place, is_there: impl Fn(Process) -> bool) -> Standing {
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
    Standing::Alone
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
            Some(Text {
                argv, what, since, ..
            }) => {
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

    /// The processes that end with it, beside its own, for people.
    pub fn others(&self) -> Vec<String> {
        let child = self.note.name.child;
        let others = self.found.at_work.iter().filter(|process| **process != child);
        others.copied().map(table::described).collect()
    }

    /// The processes that may be services that it has started, for people.
    pub fn services(&self) -> Vec<String> {
        self.found
            .services
            .iter()
            .copied()
            .map(table::described)
            .collect()
    }

    /// Ends it and all that belongs to it, and waits until they are gone.
    ///
    /// # Errors
    /// [`StillThere`]; its note stays.
    ///
    /// # Cancel safety
    /// Its note stays, and the same call goes on.
    pub async fn end(mut self) -> Result<(), StillThere> {
        // What is a service and what is not was told; it stays so while the first of the group goes.
        let is_ending = self.note.name.ending.is_some() || self.found.at_work.contains(&self.note.name.child);
        let services = if is_ending {
            self.note.services
        } else {
            self.note.services.sparing_detached()
        };
        self.note.ending();
        self.found.signal(&self.note, Signal::TERM);
        gone(&self.found.at_work, GRACE).await;
        let deadline = Instant::now() + GONE;
        loop {
            // Looked for anew: it may have started more. What lost its parents meanwhile is known.
            let kin = Kin::of(&self.note.name, &self.found.at_work);
            self.found = parted(kin, services, true);
            let Some(first) = self.found.at_work.first() else {
                self.note.remove();
                return Ok(());
            };
            if Instant::now() >= deadline {
                return Err(StillThere {
                    orphan: self.described(),
                    pid: first.pid,
                });
            }
            self.found.signal(&self.note, Signal::KILL);
            gone(&self.found.at_work, AGAIN).await;
        }
    }
}

impl Found {
    fn signal(&self, note: &Note, signal: Signal) {
        // All of it at once, also what is being started in this moment.
        if let Some(group) = Pid::from_raw(note.name.child.pid).filter(|_| self.is_group_there) {
            let _gone_already = kill_process_group(group, signal);
        }
        for process in &self.at_work {
            table::signal(*process, signal);
        }
    }
}

/// Waits at most `limit` until all of `processes` are gone.
async fn gone(processes: &[Process], limit: Duration) {
    let deadline = Instant::now() + limit;
    while processes.iter().any(|process| table::is_there(*process)) && Instant::now() < deadline {
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32) -> Process {
        Process { pid, started: 7 }
    }

    #[test]
    fn only_what_has_lost_its_kato_may_be_an_orphan() {
        let here = Place::new(Some("pid:[1]"), "b1");
        let (child, kato, me) = (process(20), process(10), process(30));
        let name = Name {
            child,
            kato,
            place: here.clone(),
            ending: None,
        };
        let judged = |name: &Name, there: &[Process]| judge(name, me, &here, |one| there.contains(&one));
        assert_eq!(judged(&name, &[child]), Standing::Alone);
        assert_eq!(judged(&name, &[child, kato]), Standing::Minded);
        // A later process with the number of its kato.
        let later = Process { started: 8, ..kato };
        assert_eq!(judged(&name, &[child, later]), Standing::Alone);
        // The same numbers in another boot.
        let of_boot = |boot| Name {
            place: Place::new(Some("pid:[1]"), boot),
            ..name.clone()
        };
        assert_eq!(judged(&of_boot("b2"), &[child]), Standing::Over);
        // This process was started anew in its own place.
        let mine = Name {
            kato: me,
            ..name.clone()
        };
        assert_eq!(judged(&mine, &[child, me]), Standing::Alone);
        let elsewhere = Name {
            place: Place::new(Some("pid:[2]"), "b1"),
            ..name
        };
        assert_eq!(judged(&elsewhere, &[child]), Standing::Unseen);
    }

    #[test]
    fn what_may_be_a_service_is_never_ended_and_all_else_is() {
        // Whether the first is there, whether somebody has begun to end it, what may be services: the group of it (21) and a
        // daemon (40), each ended or not.
        let table = [
            (true, false, Services::None, [true, true]),
            (true, false, Services::Detached, [true, false]),
            (true, false, Services::Any, [true, false]),
            (false, false, Services::None, [true, false]),
            (false, false, Services::Detached, [true, false]),
            (false, false, Services::Any, [false, false]),
            (false, true, Services::None, [true, true]),
            (false, true, Services::Detached, [true, false]),
            (false, true, Services::Any, [true, false]),
        ];
        for (is_first_there, is_ending, services, expected) in table {
            let kin = Kin {
                is_first_there,
                is_ours: false,
                group: vec![process(21)],
                below: vec![process(30)],
                detached: vec![process(40)],
            };
            let found = parted(kin, services, is_ending);
            let ends = |pid| found.at_work.contains(&process(pid));
            let case = (is_first_there, is_ending, services);
            assert_eq!([ends(21), ends(40)], expected, "{case:?}");
            assert_eq!(ends(30), expected[0], "{case:?}");
            assert_eq!(found.is_group_there, expected[0], "{case:?}");
            assert_eq!(found.at_work.len() + found.services.len(), 3, "{case:?}");
        }
    }
}
