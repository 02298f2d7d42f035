//! What is cut off: one line a scenario. A new one needs nothing else than its line and, in `main.rs`, its tests.

use crate::site::Kind;

/// `kato` with arguments, and how it may end when it is not cut off. The first code is that of an undisturbed run; the others
/// are those of a run that finds what a killed one has done already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) arguments: &'static [&'static str],
    pub(crate) ends: &'static [i32],
}

/// Calls one after the other on a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) site: Kind,
    pub(crate) calls: &'static [Call],
    /// The release that the node has in the end.
    pub(crate) version: &'static str,
}

const UPGRADE: &[&str] = &["node", "upgrade", "--skip-confirmation"];
const DOWNLOAD: &[&str] = &["node", "upgrade", "--skip-confirmation", "--download-only"];
const OFFLINE: &[&str] = &["node", "upgrade", "--skip-confirmation", "--offline"];
const RESUME: &[&str] = &["node", "upgrade", "--skip-confirmation", "--resume"];
const UPDATE_KATO: &[&str] = &["node", "upgrade", "--skip-confirmation", "--update-kato"];

const fn call(arguments: &'static [&'static str], ends: &'static [i32]) -> Call {
    Call { arguments, ends }
}

/// All of them.
#[rustfmt::skip]
pub(crate) const ALL: &[Scenario] = &[
    Scenario { name: "upgrade", site: Kind::Plain, calls: &[call(UPGRADE, &[0])], version: "2.0.0" },
    // Killed after the way back was complete, the run finds nothing but a release that is not tried again.
    Scenario { name: "rollback", site: Kind::Failing, calls: &[call(UPGRADE, &[22, 20])], version: "1.0.0" },
    Scenario { name: "first", site: Kind::Fresh, calls: &[call(UPGRADE, &[0])], version: "2.0.0" },
    Scenario { name: "offline", site: Kind::Littered, calls: &[call(DOWNLOAD, &[0]), call(OFFLINE, &[0])], version: "2.0.0" },
    // Killed after the machine was restarted, the same command has only the rest to do.
    Scenario { name: "restart", site: Kind::Restarting, calls: &[call(UPGRADE, &[75, 0]), call(RESUME, &[0])], version: "2.0.0" },
    Scenario { name: "hops", site: Kind::Hops, calls: &[call(UPGRADE, &[0])], version: "2.0.0" },
    Scenario { name: "self-update", site: Kind::SelfUpdate, calls: &[call(UPGRADE, &[0])], version: "2.0.0" },
    Scenario { name: "kato-alone", site: Kind::SelfUpdate, calls: &[call(UPDATE_KATO, &[0])], version: "1.0.0" },
];

/// The scenario called `name`.
pub(crate) fn named(name: &str) -> anyhow::Result<&'static Scenario> {
    ALL.iter()
        .find(|scenario| scenario.name == name)
        .ok_or_else(|| anyhow::anyhow!("no scenario is called `{name}`"))
}
