//! The names of a release's TUF targets. Publisher and nodes take them from here.

use semver::Version;

use crate::Digest;

/// The target with the ways between all releases.
pub const GRAPH: &str = "graph.json";

/// The target with the list of all patches.
pub const PATCHES: &str = "patches.json";

/// The target triple of the machines that this build is for; it chooses among [`upgrader`] targets.
pub const HOST_TRIPLE: &str = match (
    cfg!(target_arch = "x86_64"),
    cfg!(target_arch = "aarch64"),
    cfg!(target_env = "musl"),
) {
    (true, _, false) => "x86_64-unknown-linux-gnu",
    (true, _, true) => "x86_64-unknown-linux-musl",
    (_, true, false) => "aarch64-unknown-linux-gnu",
    (_, true, true) => "aarch64-unknown-linux-musl",
    _ => "unknown-unknown-linux-gnu",
};

/// The target of one release document.
pub fn release(version: &Version) -> String {
    format!("releases/{version}/release.json")
}

/// The version of a release document's target name; `None` for every other target.
pub fn version_of(target: &str) -> Option<Version> {
    target
        .strip_prefix("releases/")?
        .strip_suffix("/release.json")?
        .parse()
        .ok()
}

/// The target of one patch document.
pub fn patch(id: u32) -> String {
    format!("patches/{id}.json")
}

/// The number of a patch document's target name; `None` for every other target.
pub fn patch_of(target: &str) -> Option<u32> {
    let number = target.strip_prefix("patches/")?.strip_suffix(".json")?;
    number.parse().ok().filter(|id| patch(*id) == target)
}

/// The target of a module's archive. The digest makes names of different content differ.
pub fn artifact(digest: &Digest, name: &str) -> String {
    format!("artifacts/{}.{name}", digest.hex())
}

/// The target of the upgrader's program.
pub fn upgrader(version: &Version, triple: &str) -> String {
    format!("self/upgrader-{version}-{triple}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_found_by_its_name_and_nothing_else_is() {
        let version = Version::new(3, 2, 1);
        assert_eq!(version_of(&release(&version)), Some(version));
        for other in [
            "graph.json",
            "releases/3.2/release.json",
            "releases/3.2.1/other.json",
            "artifacts/a.b",
        ] {
            assert_eq!(version_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_patch_is_found_by_its_name_and_nothing_else_is() {
        assert_eq!(patch_of(&patch(7)), Some(7));
        for other in [
            PATCHES,
            "patches/07.json",
            "patches/x.json",
            "releases/3.2.1/release.json",
        ] {
            assert_eq!(patch_of(other), None, "{other}");
        }
    }
}
