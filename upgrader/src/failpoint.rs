//! Places where a test may kill the program, one after every durable act.
//!
//! With the cargo feature `test-util` the variable `KATO_KILL_AT=<name>[:<n>]` sends SIGKILL to the program at the n-th
//! visit of a place, and `KATO_KILL_TRACE=<file>` writes every visit to a file, from which a test learns what there is to
//! kill. Without the feature nothing of this is in the program: [`hit`] is empty and no variable is read.

/// The names of all places, in the order of a run.
pub const POINTS: &[&str] = &[
    "lock.taken",
    "attempt.written",
    "journal.before",
    "journal.appended",
    "stage.file",
    "recover.written",
    "self_update.slot",
    "self_update.linked",
    "retire.owned",
    "retire.acted",
    "backup.archive",
    "backup.manifest",
    "backup.committed",
    "module.cleaned",
    "module.unpacked",
    "module.noted",
    "module.placed",
    "module.exchanged",
    "module.set_aside",
    "module.linked",
    "package.configured",
    "package.installed",
    "image.pulled",
    "image.tagged",
    "exec.acted",
    "overlay.saved",
    "overlay.file",
    "overlay.removed",
    "undo.noted",
    "undo.kept",
    "latch.written",
    "resume.enabled",
    "restart.acted",
    "rejoin.acted",
    "rejoin.disowned",
    "rollback.decided",
    "undo.acted",
    "undo.out",
    "undo.back",
    "undo.away",
    "undo.cleaned",
    "rollback.recorded",
    "record.installed",
    "patch.recorded",
    "patch.kept",
    "patch.taken_out",
    "patch.settled",
    "record.marker",
    "record.latch",
    "record.settled",
    "record.attempt",
    "restore.noted",
    "restore.staged",
    "restore.exchanged",
    "restore.recorded",
    "restore.done",
];

/// A visit of the place `name`.
#[cfg(not(feature = "test-util"))]
#[inline]
pub const fn hit(_name: &'static str) {}

/// A visit of the place `name`: noted in the trace, and the end of the program when it was asked for.
#[cfg(feature = "test-util")]
pub fn hit(name: &'static str) {
    armed::hit(name);
}

#[cfg(feature = "test-util")]
mod armed {
    use std::{
        collections::BTreeMap,
        path::Path,
        sync::{Mutex, PoisonError},
    };

    static VISITS: Mutex<BTreeMap<&'static str, u32>> = Mutex::new(BTreeMap::new());

    #[expect(clippy::disallowed_methods, reason = "a switch for tests, not a setting")]
    fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    pub(super) fn hit(name: &'static str) {
        debug_assert!(super::POINTS.contains(&name), "{name} is not listed");
        let visit = {
            let mut visits = VISITS.lock().unwrap_or_else(PoisonError::into_inner);
            let visit = visits.entry(name).or_default();
            *visit += 1;
            *visit
        };
        if let Some(trace) = variable("KATO_KILL_TRACE") {
            // A trace that cannot be written shows up as a place that is never visited.
            let _untraced = kato_shared::durable::append_line(Path::new(&trace), &format!("{name}:{visit}"));
        }
        let Some(wanted) = variable("KATO_KILL_AT") else {
            return;
        };
        if wanted == name || wanted == format!("{name}:{visit}") {
            let _dead =
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_place_is_listed_twice() {
        let names: std::collections::BTreeSet<_> = super::POINTS.iter().collect();
        assert_eq!(names.len(), super::POINTS.len());
    }
}
