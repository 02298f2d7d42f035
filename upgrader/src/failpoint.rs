//! Places where a test may kill the program between its own acts, one after every act that means something to an operator.
//!
//! They are beside those that every durable operation has by itself, and work like them: see [`kato_shared::durable::place`].
//! Without the cargo feature `test-util` [`hit`] is empty.

/// The names of all places, in the order of a run.
pub const POINTS: &[&str] = &[
    "lock.taken",
    "lease.taken",
    "maintenance.owned",
    "maintenance.on",
    "maintenance.off",
    "child.spawned",
    "child.noted",
    "child.started",
    "child.ended",
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
    "restore.kept",
    "restore.cleared",
];

/// A visit of the place `name`.
#[cfg(not(feature = "test-util"))]
#[inline]
pub const fn hit(_name: &'static str) {}

/// A visit of the place `name`: noted in the trace, and the end of the program when it was asked for.
#[cfg(feature = "test-util")]
pub fn hit(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is not listed");
    kato_shared::durable::place::visit(name);
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_place_is_listed_twice() {
        let names: std::collections::BTreeSet<_> = super::POINTS.iter().collect();
        assert_eq!(names.len(), super::POINTS.len());
    }
}
