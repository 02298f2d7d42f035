//! What belongs to a command, found in the table of processes, whoever is its parent by now.
//!
//! Three ties hold a process to the command: it is in the command's process group; it descends from a process that is (also in a
//! session of its own, while its parents are there); or it carries the command's [`MARK`] in its environment and nothing else ties
//! it any more. The last has made itself independent, as services do: who looks decides what becomes of those.
//!
//! Deliberately absent: processes that have thrown the mark away (`env -i`, `sudo`) and left both group and parents. Nothing is
//! known of them.

use std::collections::BTreeSet;

use super::{
    name::{Name, Process},
    table::{self, Row},
};

/// The variable that holds the name of the command's note.
pub(super) const MARK: &str = "KATO_COMMAND";

/// The processes of a command that have not ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kin {
    /// Whether the command itself is there.
    pub(super) is_first_there: bool,
    /// Whether this process, or one that it was started by, is in the group: it cannot be signalled as a whole then.
    pub(super) is_ours: bool,
    /// Its process group, itself included.
    pub(super) group: Vec<Process>,
    /// What descends from the group and is not in it.
    pub(super) below: Vec<Process>,
    /// What has its mark and is neither.
    pub(super) detached: Vec<Process>,
}

impl Kin {
    /// Those of the command `name`, without this process and those that it was started by: a service that the command has started
    /// may be what runs `kato` now. What is `known` to belong to it does, whoever its parent is by now.
    pub(super) fn of(name: &Name, known: &[Process]) -> Self {
        let bare = Name {
            ending: None,
            ..name.clone()
        };
        let mark = format!("{MARK}={bare}");
        let is_marked = |process| table::has_variable(process, &mark);
        Self::among(&table::rows(), name, known, is_marked, std::process::id())
    }

    /// Pure part of [`Kin::of`].
    fn among(
        rows: &[Row],
        name: &Name,
        known: &[Process],
        is_marked: impl Fn(Process) -> bool,
        me: u32,
    ) -> Self {
        let (child, spared) = (name.child, line_of(rows, me));
        let is_first_there = rows.iter().any(|row| row.process == child);
        // While one of the group is there, nobody gets its number.
        let is_another_group = rows
            .iter()
            .any(|row| row.process.pid == child.pid && row.process != child);
        let is_ours = rows
            .iter()
            .any(|row| row.group == child.pid && spared.contains(&row.process.pid));
        let is_candidate =
            |row: &&Row| !spared.contains(&row.process.pid) && row.process.started >= child.started;
        let rows: Vec<Row> = rows.iter().filter(is_candidate).copied().collect();
        let marked = processes(&rows, |row| is_marked(row.process));
        // Without the first and without a mark, the number of a group is no proof for ever.
        let is_in_time = |row: &Row| match name.ending {
            Some(until) => row.process.started <= until,
            None => is_first_there,
        };
        let group = processes(&rows, |row| {
            let is_ours = is_in_time(row) || marked.contains(&row.process);
            row.group == child.pid && !is_another_group && is_ours
        });
        let below = below(&rows, &group, known);
        let detached = marked
            .into_iter()
            .filter(|process| !group.contains(process) && !below.contains(process))
            .collect();
        Self {
            is_first_there,
            is_ours,
            group,
            below,
            detached,
        }
    }
}

/// What descends from `group` or is `known`, or descends from that, without the group itself.
fn below(rows: &[Row], group: &[Process], known: &[Process]) -> Vec<Process> {
    let mut found = processes(rows, |row| {
        known.contains(&row.process) && !group.contains(&row.process)
    });
    let mut parents: BTreeSet<i32> = group.iter().chain(&found).map(|process| process.pid).collect();
    loop {
        let more = processes(rows, |row| {
            parents.contains(&row.parent) && !parents.contains(&row.process.pid)
        });
        if more.is_empty() {
            return found;
        }
        parents.extend(more.iter().map(|process| process.pid));
        found.extend(more);
    }
}

fn processes(rows: &[Row], is_wanted: impl Fn(&Row) -> bool) -> Vec<Process> {
    rows.iter()
        .filter(|row| is_wanted(row))
        .map(|row| row.process)
        .collect()
}

/// The process `pid` and those that it descends from.
fn line_of(rows: &[Row], pid: u32) -> BTreeSet<i32> {
    let mut line = BTreeSet::new();
    let mut next = i32::try_from(pid).ok();
    while let Some(pid) = next.filter(|pid| line.insert(*pid)) {
        next = rows
            .iter()
            .find(|row| row.process.pid == pid)
            .map(|row| row.parent);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{super::name::Place, *};

    const COMMAND: i32 = 20;

    fn process(pid: i32) -> Process {
        Process {
            pid,
            started: u64::try_from(pid).unwrap(),
        }
    }

    fn row(pid: i32, parent: i32, group: i32) -> Row {
        Row {
            process: process(pid),
            parent,
            group,
        }
    }

    fn kin(rows: &[Row], ending: Option<u64>, marked: &[i32]) -> Kin {
        let name = Name {
            child: process(COMMAND),
            kato: process(10),
            place: Place::new(None, "boot"),
            ending,
        };
        let known = [process(60)];
        Kin::among(rows, &name, &known, |process| marked.contains(&process.pid), 90)
    }

    fn pids(processes: &[Process]) -> Vec<i32> {
        processes.iter().map(|process| process.pid).collect()
    }

    #[test]
    fn a_command_has_its_group_what_descends_from_it_and_what_is_marked_besides() {
        let rows = [
            row(1, 0, 1),
            row(COMMAND, 1, COMMAND),
            row(21, COMMAND, COMMAND),
            // `setsid` below it, with a child.
            row(30, 21, 30),
            row(31, 30, 30),
            // A service, its parent is gone.
            row(40, 1, 40),
            // Somebody else, and somebody who was there before.
            row(50, 1, 50),
            row(5, 21, 5),
            // Known from before, with a child; its parent is gone.
            row(60, 1, 60),
            row(61, 60, 60),
        ];
        let found = kin(&rows, None, &[21, 30, 40]);
        assert!(found.is_first_there);
        assert_eq!(pids(&found.group), [COMMAND, 21]);
        assert_eq!(pids(&found.below), [60, 30, 61, 31]);
        assert_eq!(pids(&found.detached), [40]);
    }

    #[test]
    fn the_number_of_a_group_without_its_first_proves_nothing_without_a_mark_or_an_end_that_was_begun() {
        let rows = [row(21, 1, COMMAND), row(30, 21, 30)];
        assert_eq!(kin(&rows, None, &[]), Kin::default());
        assert_eq!(kin(&rows, Some(20), &[]), Kin::default());
        for found in [kin(&rows, None, &[21]), kin(&rows, Some(25), &[])] {
            assert!(!found.is_first_there);
            assert_eq!((pids(&found.group), pids(&found.below)), (vec![21], vec![30]));
        }
        // The number is somebody else's by now.
        let later = Row {
            process: Process {
                pid: COMMAND,
                started: 80,
            },
            ..row(COMMAND, 1, COMMAND)
        };
        assert_eq!(
            kin(&[later, row(81, COMMAND, COMMAND)], Some(99), &[]),
            Kin::default()
        );
    }

    #[test]
    fn whoever_looks_is_never_what_belongs_to_a_command_nor_is_what_started_it() {
        let rows = [row(40, 1, 40), row(80, 40, 80), row(90, 80, 90), row(91, 90, 90)];
        let found = kin(&rows, None, &[40, 80, 90]);
        assert_eq!(found, Kin::default());
        // Nor is it reached by a signal to all of a group.
        let rows = [row(COMMAND, 1, COMMAND), row(90, 1, COMMAND)];
        let found = kin(&rows, None, &[]);
        assert_eq!(pids(&found.group), [COMMAND]);
        assert!(found.is_ours);
    }
}
