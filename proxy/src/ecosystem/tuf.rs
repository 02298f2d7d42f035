//! Repositories of The Update Framework ([specification]): what the names of metadata say about how long they last.
//!
//! | name | what it is |
//! |---|---|
//! | `3.root.json`, `7.snapshot.json` | one version of a role: never changes (§3.6.1, consistent snapshots) |
//! | `timestamp.json` | says what is current: "clients … frequently download" it (§2.1.4) |
//! | `root.json`, `snapshot.json`, `targets.json`, without a version | change in place, all together |
//!
//! Targets with the digest in their name stand in `paths`. What is said here holds for the kind `release`, whoever publishes it.
//!
//! Deliberately absent: reading metadata. Clients verify signatures, versions and expiry; a mixture of old and new is an attack that TUF has
//! them notice, and short lives keep us from looking like one.
//!
//! [specification]: https://theupdateframework.github.io/specification/latest/

use jiff::SignedDuration;

/// What changes in place is at most this long fresh, whatever the server says: a release is seen a minute after it was published, and
/// nodes that all ask at once still cost one request.
pub const CURRENT: SignedDuration = SignedDuration::from_secs(60);

/// The roles of every repository. Delegated ones have names of their own, and always a version where names have any.
const TOP_LEVEL: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// How long metadata lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// One version: its content never changes.
    Forever,
    /// The current one, in place of another.
    Current,
}

/// What the name of the file at `path` says; `None` for what is no metadata of a kind that is known by its name.
pub fn lasting(path: &str) -> Option<Lasting> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.strip_suffix(".json")?;
    if TOP_LEVEL.contains(&stem) {
        return Some(Lasting::Current);
    }
    let (version, role) = stem.split_once('.')?;
    // "non-negative" in the written form of JSON: no leading zero, so that a version has one name.
    let is_version = version.bytes().all(|byte| byte.is_ascii_digit()) && !version.starts_with('0');
    // There is no version of the timestamp in a name (§5.3).
    (is_version && !version.is_empty() && !role.is_empty() && role != "timestamp").then_some(Lasting::Forever)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_in_the_name_is_for_ever_and_no_version_is_for_now() {
        for (path, expected) in [
            ("metadata/1.root.json", Some(Lasting::Forever)),
            ("12.snapshot.json", Some(Lasting::Forever)),
            ("metadata/3.delegated.role.json", Some(Lasting::Forever)),
            ("timestamp.json", Some(Lasting::Current)),
            ("metadata/root.json", Some(Lasting::Current)),
            ("metadata/1.timestamp.json", None),
            ("metadata/01.root.json", None),
            ("metadata/.root.json", None),
            ("targets/release.json", None),
            ("targets/1.tar.gz", None),
            ("1.root.json/other", None),
        ] {
            assert_eq!(lasting(path), expected, "{path}");
        }
    }
}
