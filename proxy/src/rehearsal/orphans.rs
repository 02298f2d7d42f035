//! What a command leaves behind, also in process groups and sessions of its own: it becomes a child of ours, since we are the first process of the
//! namespace, and ends.
//!
//! `/proc` may be that of this namespace or the one of the machine, which numbers processes differently: parents are compared by its numbers, signals
//! are sent by ours.

use std::fs;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

use super::{RehearsalError, io_error};

/// Generations that are ended: what ends leaves its own children to us.
const MOST_GENERATIONS: usize = 1000;

/// From here on whoever loses its parent among our descendants is a child of ours.
pub(super) fn adopt() -> Result<(), RehearsalError> {
    set_child_subreaper(Some(getpid()))
        .map_err(std::io::Error::from)
        .map_err(io_error("becoming the parent of what commands leave behind"))
}

/// Ends all children of ours but `spared`, and theirs.
pub(super) fn end(spared: Option<Pid>) {
    for _ in 0..MOST_GENERATIONS {
        let mut left = children();
        left.retain(|child| Some(*child) != spared);
        if left.is_empty() {
            return;
        }
        for child in left {
            // Who is gone meanwhile needs neither.
            let _gone = kill_process(child, Signal::KILL);
            let _reaped = waitpid(Some(child), WaitOptions::empty());
        }
    }
}

/// The children of this process, by the numbers that they have for it.
fn children() -> Vec<Pid> {
    let Some(own) = Seen::at("/proc/self") else {
        return Vec::new();
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let seen = processes.filter_map(|entry| {
        let name = entry.file_name();
        let number = name.to_str()?.parse::<u32>().ok()?;
        Seen::at(&format!("/proc/{number}"))
    });
    seen.filter_map(|process| process.child_of(&own))
        .filter_map(Pid::from_raw)
        .collect()
}

/// A process as `/proc` shows it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// The number of its parent there.
    parent: i32,
    /// Its numbers: there, and in each namespace from there inwards.
    numbers: Vec<i32>,
}

impl Seen {
    fn at(folder: &str) -> Option<Self> {
        Self::of(&fs::read_to_string(format!("{folder}/status")).ok()?)
    }

    /// By the text of `status`.
    fn of(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = status.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        let numbers = field("NSpid")?.split_ascii_whitespace();
        Some(Self {
            parent: field("PPid")?.trim().parse().ok()?,
            numbers: numbers.map(|number| number.parse().ok()).collect::<Option<_>>()?,
        })
    }

    /// The number that this has in the namespace of `own`, if it is a child of it.
    fn child_of(&self, own: &Self) -> Option<i32> {
        let is_child = own.numbers.first() == Some(&self.parent);
        let within = own.numbers.len().checked_sub(1)?;
        is_child.then(|| self.numbers.get(within).copied())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_a_number_for_its_parent_in_whichever_namespace_it_is() {
        let of = |parent: i32, numbers: &str| {
            Seen::of(&format!(
                "Name:\tsh\nPid:\t9\nPPid:\t{parent}\nNStgid:\t{numbers}\nNSpid:\t{numbers}\n"
            ))
            .unwrap()
        };
        // By the `/proc` of the machine, and by that of the namespace.
        let (outside, inside) = (of(700, "800\t1"), of(0, "1"));
        assert_eq!(of(800, "812\t3").child_of(&outside), Some(3));
        assert_eq!(of(1, "3").child_of(&inside), Some(3));
        // A namespace of its own in there.
        assert_eq!(of(800, "813\t4\t1").child_of(&outside), Some(4));
        assert_eq!(of(812, "814\t5").child_of(&outside), None);
        assert_eq!(Seen::of("Pid:\t9\nPPid:\t1\n"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let own = Seen::at("/proc/self").unwrap();
        assert_eq!(
            own.numbers.last().copied().and_then(Pid::from_raw),
            Some(getpid())
        );
    }
}
