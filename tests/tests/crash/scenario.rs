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
    /// The first call that is cut off; those before it only prepare the node, each node anew.
    pub(crate) from: usize,
    /// The release that the node has in the end.
    pub(crate) version: &'static str,
}

const UPGRADE: &[&str] = &["node", "upgrade", "--skip-confirmation"];
const DOWNLOAD: &[&str] = &["node", "upgrade", "--skip-confirmation", "--download-only"];
const OFFLINE: &[&str] = &["node", "upgrade", "--skip-confirmation", "--offline"];
const RESUME: &[&str] = &["node", "upgrade", "--skip-confirmation", "--resume"];
const UPDATE_KATO: &[&str] = &["node", "upgrade", "--skip-confirmation", "--update-kato"];

const PATCH: &[&str] = &["patch", "install", "broad", "--local"];
const REVERT: &[&str] = &["patch", "revert", "broad", "--local"];
const RESTORE: &[&str] = &["node", "restore", "--skip-confirmation", "latest"];
const UNDO: &[&str] = &["node", "restore", "--skip-confirmation", "--undo"];
const REAPPLY: &[&str] = &["customizations", "reapply"];

const fn call(arguments: &'static [&'static str], ends: &'static [i32]) -> Call {
    Call { arguments, ends }
}

/// All of them.
#[rustfmt::skip]
pub(crate) const ALL: &[Scenario] = &[
    Scenario { name: "upgrade", site: Kind::Plain, calls: &[call(UPGRADE, &[0])], from: 0, version: "2.0.0" },
    // Killed after the way back was complete, the run finds nothing but a release that is not tried again.
    Scenario { name: "rollback", site: Kind::Failing, calls: &[call(UPGRADE, &[22, 20])], from: 0, version: "1.0.0" },
    Scenario { name: "first", site: Kind::Fresh, calls: &[call(UPGRADE, &[0])], from: 0, version: "2.0.0" },
    // Killed after the upgrade was complete, nothing is there any more that could be installed without the network.
    Scenario { name: "offline", site: Kind::Littered, calls: &[call(DOWNLOAD, &[0]), call(OFFLINE, &[0, 75])], from: 0, version: "2.0.0" },
    // Killed after the machine was restarted, the same command has only the rest to do.
    Scenario { name: "restart", site: Kind::Restarting, calls: &[call(UPGRADE, &[75, 0]), call(RESUME, &[0])], from: 0, version: "2.0.0" },
    Scenario { name: "hops", site: Kind::Hops, calls: &[call(UPGRADE, &[0])], from: 0, version: "2.0.0" },
    Scenario { name: "self-update", site: Kind::SelfUpdate, calls: &[call(UPGRADE, &[0])], from: 0, version: "2.0.0" },
    Scenario { name: "kato-alone", site: Kind::SelfUpdate, calls: &[call(UPDATE_KATO, &[0])], from: 0, version: "1.0.0" },
    Scenario { name: "policies", site: Kind::Policies, calls: &[call(UPGRADE, &[0])], from: 0, version: "2.0.0" },
    Scenario { name: "policies-back", site: Kind::PoliciesFailing, calls: &[call(UPGRADE, &[22, 20])], from: 0, version: "1.0.0" },
    Scenario { name: "patch", site: Kind::Patch, calls: &[call(PATCH, &[0])], from: 0, version: "1.0.0" },
    // Killed after the record, there is no patch any more to take back.
    Scenario { name: "patch-back", site: Kind::Patch, calls: &[call(PATCH, &[0]), call(REVERT, &[0, 20])], from: 1, version: "1.0.0" },
    Scenario { name: "restore", site: Kind::Plain, calls: &[call(UPGRADE, &[0]), call(RESTORE, &[0])], from: 1, version: "1.0.0" },
    // Killed after it was taken back, there is nothing to take back.
    Scenario { name: "restore-back", site: Kind::Plain, calls: &[call(UPGRADE, &[0]), call(RESTORE, &[0]), call(UNDO, &[0, 2])], from: 2, version: "2.0.0" },
    // Some of what was saved is for a person to look at, which is exit 11.
    Scenario { name: "reapply", site: Kind::Plain, calls: &[call(UPGRADE, &[0]), call(REAPPLY, &[11, 0])], from: 1, version: "2.0.0" },
];

/// Those that need root: dpkg does.
#[rustfmt::skip]
pub(crate) const AS_ROOT: &[Scenario] = &[
    Scenario { name: "packages", site: Kind::Packages, calls: &[call(UPGRADE, &[0])], from: 0, version: "2.0.0" },
    Scenario { name: "first-package", site: Kind::FirstPackage, calls: &[call(UPGRADE, &[0])], from: 0, version: "2.0.0" },
    Scenario { name: "packages-back", site: Kind::PackagesFailing, calls: &[call(UPGRADE, &[22, 20])], from: 0, version: "1.0.0" },
];

/// The scenario called `name`.
pub(crate) fn named(name: &str) -> anyhow::Result<&'static Scenario> {
    ALL.iter()
        .chain(AS_ROOT)
        .find(|scenario| scenario.name == name)
        .ok_or_else(|| anyhow::anyhow!("no scenario is called `{name}`"))
}
