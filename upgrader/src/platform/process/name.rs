//! What is known of a running command by the name of its note alone.
//!
//! All that decides whether a command is still at work is in the name: an empty file needs no room on a full disk, and is
//! there whole or not at all. What people want to know besides is inside the file, and may be missing.
//!
//! The form is `<pid>-<start>-<kato's pid>-<kato's start>-<namespace>-<boot>`, with `-ending-<until>` behind it once the
//! command is being ended. Starts are in clock ticks after the boot, as in field 22 of `/proc/<pid>/stat`.

use std::{fmt, str::FromStr};

use kato_shared::Digest;

/// How many digits of the boot's digest are in a name. A boot's id may hold anything, and is only compared.
const BOOT_DIGITS: usize = 12;

/// A process: its number, and its start, which tells it from a later one with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) started: u64,
}

/// Where processes can be compared: one boot of the machine, one namespace of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The inode of the namespace; 0 where that cannot be read.
    pub(super) namespace: u64,
    boot: String,
}

impl Place {
    pub(super) fn new(namespace: Option<&str>, boot: &str) -> Self {
        // `pid:[4026531836]`, see namespaces(7).
        let inode = namespace.and_then(|name| name.split(['[', ']']).nth(1)?.parse().ok());
        Self {
            namespace: inode.unwrap_or(0),
            boot: Digest::of(boot.as_bytes()).hex()[..BOOT_DIGITS].to_owned(),
        }
    }

    pub(super) fn is_same_boot(&self, other: &Self) -> bool {
        self.boot == other.boot
    }
}

/// The name of the note of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// The command, which is the first of its process group.
    pub(super) child: Process,
    /// The `kato` that started it.
    pub(super) kato: Process,
    pub(super) place: Place,
    /// Once somebody has begun to end it: all of its group that was started until then is to go, also without the first.
    pub(super) ending: Option<u64>,
}

impl Name {
    /// Whether both are about the same command.
    pub(super) fn is_about_the_same(&self, other: &Self) -> bool {
        self.child == other.child && self.kato == other.kato && self.place == other.place
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            child, kato, place, ..
        } = self;
        write!(
            f,
            "{}-{}-{}-{}-{}-{}",
            child.pid, child.started, kato.pid, kato.started, place.namespace, place.boot
        )?;
        self.ending.map_or(Ok(()), |until| write!(f, "-ending-{until}"))
    }
}

/// A name that is none of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strange;

impl FromStr for Name {
    type Err = Strange;

    fn from_str(text: &str) -> Result<Self, Strange> {
        fn number<T: FromStr>(part: Option<&str>) -> Result<T, Strange> {
            part.and_then(|part| part.parse().ok()).ok_or(Strange)
        }
        let mut parts = text.split('-');
        let mut process = || {
            let process = Process {
                pid: number(parts.next())?,
                started: number(parts.next())?,
            };
            // 0 and 1 are never a command: a signal to their "group" would reach kato's own, or everybody.
            (process.pid > 1).then_some(process).ok_or(Strange)
        };
        let (child, kato) = (process()?, process()?);
        let namespace = number(parts.next())?;
        let boot = parts
            .next()
            .filter(|boot| boot.len() == BOOT_DIGITS)
            .ok_or(Strange)?;
        let ending = match (parts.next(), parts.next()) {
            (None, None) => None,
            (Some("ending"), until) => Some(number(until)?),
            _ => return Err(Strange),
        };
        let name = Self {
            child,
            kato,
            place: Place {
                namespace,
                boot: boot.to_owned(),
            },
            ending,
        };
        // Nothing behind it, and no other spelling of it.
        (name.to_string() == text).then_some(name).ok_or(Strange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written_and_nothing_else_is_one() {
        let process = |pid, started| Process { pid, started };
        let name = Name {
            child: process(4711, 99),
            kato: process(4700, 98),
            place: Place::new(Some("pid:[4026531836]"), "a boot/with anything"),
            ending: None,
        };
        assert_eq!(name.to_string().parse(), Ok(name.clone()));
        let ending = Name {
            ending: Some(123),
            ..name.clone()
        };
        assert_eq!(ending.to_string().parse(), Ok(ending.clone()));
        assert!(ending.is_about_the_same(&name) && ending != name);
        let text = name.to_string();
        for strange in [
            String::new(),
            "notes.txt".into(),
            text.replace("4711", "1"),
            text.replace("4711", "-1"),
            text.replace("4700", "0"),
            text.replace("4711", "04711"),
            format!("{text}-"),
            format!("{text}-ending"),
            format!("{text}-ending-5-6"),
            text[..text.len() - 1].to_owned(),
        ] {
            assert_eq!(strange.parse::<Name>(), Err(Strange), "{strange}");
        }
    }
}
