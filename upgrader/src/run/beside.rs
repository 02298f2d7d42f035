//! What a run may do on a node that is in the middle of an upgrade.
//!
//! From its first change until it is recorded, rolled back or given up by a restoration, an upgrade owns its node: its record is what
//! leads on and back, and half a release is no place for work. A run that goes on with it, or that changes the node itself, decides. One
//! that was refused, only looks or downloads, or finds nothing to do leaves the record and the service of the node as they are. [`may`] is
//! the one place that says so.

/// Whether an upgrade has begun to change the node and is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begun {
    /// None.
    No,
    /// The one with this id.
    Upgrade(String),
    /// One has, and its record cannot be read or is lost.
    Unknown,
}

impl Begun {
    /// The upgrade `id`, if it `has` begun.
    pub(super) fn of(id: &str, has: bool) -> Self {
        if has {
            Self::Upgrade(id.to_owned())
        } else {
            Self::No
        }
    }
}

/// A run, as far as it matters here.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Doing<'a> {
    /// The upgrade that it is about, when it is about one.
    pub(super) about: Option<&'a str>,
    /// Whether the node is out of service for this very run, and not for an earlier one.
    pub(super) took_out: bool,
    /// Whether it has begun to change the node.
    pub(super) has_worked: bool,
}

/// What a run may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct May {
    /// Write the record of the upgrade that it is about.
    pub(super) write: bool,
    /// Put the node back into service when it fails.
    pub(super) put_back: bool,
    /// Say that the node has the release that is recorded.
    pub(super) be_done: bool,
}

/// What a run that is `doing` this may do on a node where an upgrade has `begun`.
pub(super) fn may(begun: &Begun, doing: Doing<'_>) -> May {
    let is_free = *begun == Begun::No;
    let is_kept = match begun {
        Begun::Upgrade(id) => doing.about != Some(id),
        // There is none to keep.
        Begun::No | Begun::Unknown => false,
    };
    May {
        write: doing.has_worked || !is_kept,
        put_back: is_free || doing.took_out || doing.has_worked,
        be_done: is_free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r56_a_run_beside_an_upgrade_that_has_begun_leaves_its_record_and_the_service_of_the_node() {
        let (no, one, unknown) = (Begun::No, Begun::of("one", true), Begun::Unknown);
        assert_eq!(Begun::of("one", false), no);
        let may_of = |begun: &Begun, about, took_out, has_worked| {
            let doing = Doing {
                about,
                took_out,
                has_worked,
            };
            let may = may(begun, doing);
            (may.write, may.put_back, may.be_done)
        };
        for (begun, about, took_out, has_worked, expected) in [
            // Nothing has begun: what a killed run has left is put right by any.
            (&no, None, false, false, (true, true, true)),
            (&no, Some("two"), false, false, (true, true, true)),
            (&no, Some("two"), true, true, (true, true, true)),
            // Refused before it was about anything, and with nothing to do.
            (&one, None, false, false, (false, false, false)),
            // Goes on with it, and fails before it changes anything: after the restart, too.
            (&one, Some("one"), false, false, (true, false, false)),
            // It took the node out itself: as it was found.
            (&one, Some("one"), true, false, (true, true, false)),
            // It changed the node, and failed.
            (&one, Some("one"), false, true, (true, true, false)),
            // Another release: downloads, looks, is refused in its first steps.
            (&one, Some("two"), false, false, (false, false, false)),
            (&one, Some("two"), true, false, (false, true, false)),
            // It takes the place of the one that has begun with its own first change.
            (&one, Some("two"), true, true, (true, true, false)),
            // Which one it is cannot be told.
            (&unknown, None, false, false, (true, false, false)),
            (&unknown, Some("two"), false, true, (true, true, false)),
        ] {
            let found = may_of(begun, about, took_out, has_worked);
            assert_eq!(found, expected, "{begun:?} {about:?} {took_out} {has_worked}");
        }
    }
}
