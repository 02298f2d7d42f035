//! The ways between releases: which versions exist, and the hops from the installed one to the wanted one.
//!
//! The graph is a signed target of its own, so that a node can choose without fetching every release document.

use std::collections::BTreeMap;

use semver::Version;
use serde::{Deserialize, Serialize};

use super::document::{Release, Sources};

/// All releases of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// The schema version of this document; see [`super::SCHEMA`].
    pub schema: u32,
    /// The product.
    pub product: String,
    /// The releases, in no order.
    pub releases: Vec<GraphEntry>,
}

/// What the graph knows of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphEntry {
    /// Its version.
    pub version: Version,
    /// Its channel.
    pub channel: String,
    /// Which versions may upgrade to it directly.
    #[serde(default)]
    pub from: Sources,
    /// Whether a way from below to above must stop here.
    #[serde(default)]
    pub floor: bool,
}

/// Why there is no way to a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    /// No such release.
    #[error("release {version} is not published; published: {}", list(published))]
    NotPublished {
        /// The wanted version.
        version: Version,
        /// What there is, ascending.
        published: Vec<Version>,
    },
    /// The wanted version is older than the installed one.
    #[error("release {target} is older than the installed {installed}; downgrades are refused")]
    Downgrade {
        /// The installed version.
        installed: Version,
        /// The wanted version.
        target: Version,
    },
    /// No sequence of releases leads there.
    #[error("no way from {installed} to {target}{}", reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    NoWay {
        /// The installed version.
        installed: Version,
        /// The wanted version.
        target: Version,
        /// Why the direct way is closed, when the release says so.
        reason: Option<String>,
    },
}

fn list(versions: &[Version]) -> String {
    let texts: Vec<_> = versions.iter().map(Version::to_string).collect();
    if texts.is_empty() {
        "none".into()
    } else {
        texts.join(", ")
    }
}

impl From<&Release> for GraphEntry {
    fn from(release: &Release) -> Self {
        Self {
            version: release.version.clone(),
            channel: release.channel.clone(),
            from: release.from.clone(),
            floor: release.floor,
        }
    }
}

impl Sources {
    /// Whether `installed` may upgrade directly; the reason when it is blocked by name.
    ///
    /// # Errors
    /// `Some(reason)` when the version is blocked by name, `None` when it is simply not among the sources.
    pub fn admit(&self, installed: &Version) -> Result<(), Option<String>> {
        if let Some(blocked) = self.blocked.iter().find(|blocked| blocked.version == *installed) {
            return Err(Some(blocked.reason.clone()));
        }
        let listed = self.edges.is_empty() || self.edges.contains(installed);
        let new_enough = self.min.as_ref().is_none_or(|min| installed >= min);
        if listed && new_enough { Ok(()) } else { Err(None) }
    }
}

impl Graph {
    /// The newest version in `channel` that can be reached from `installed`; `None` when there is nothing newer.
    pub fn newest(&self, installed: &Version, channel: &str) -> Option<Version> {
        let mut candidates: Vec<_> = self
            .releases
            .iter()
            .filter(|entry| entry.channel == channel && entry.version > *installed)
            .map(|entry| &entry.version)
            .collect();
        candidates.sort_unstable();
        candidates
            .into_iter()
            .rev()
            .find(|version| self.hops(installed, version).is_ok())
            .cloned()
    }

    /// The newest version in `channel`, for a node without a release; `None` when nothing is published there.
    pub fn newest_in(&self, channel: &str) -> Option<Version> {
        let in_channel = self.releases.iter().filter(|entry| entry.channel == channel);
        in_channel.map(|entry| &entry.version).max().cloned()
    }

    /// The versions to install one after the other to get from `installed` to `target`; empty when it is installed.
    ///
    /// The way with the fewest hops is taken; a release marked as floor between the two is never jumped over.
    ///
    /// # Errors
    /// [`HopError`] with the reason.
    pub fn hops(&self, installed: &Version, target: &Version) -> Result<Vec<Version>, HopError> {
        if installed == target {
            return Ok(Vec::new());
        }
        if !self.releases.iter().any(|entry| entry.version == *target) {
            return Err(HopError::NotPublished {
                version: target.clone(),
                published: self.versions(),
            });
        }
        if target < installed {
            return Err(HopError::Downgrade {
                installed: installed.clone(),
                target: target.clone(),
            });
        }
        self.shortest(installed, target).ok_or_else(|| HopError::NoWay {
            installed: installed.clone(),
            target: target.clone(),
            reason: self.refusal(installed, target),
        })
    }

    /// All versions, ascending.
    pub fn versions(&self) -> Vec<Version> {
        let mut versions: Vec<_> = self.releases.iter().map(|entry| entry.version.clone()).collect();
        versions.sort_unstable();
        versions
    }

    /// Whether one hop may lead from `from` to `entry`.
    fn is_edge(&self, from: &Version, entry: &GraphEntry) -> bool {
        let jumps_floor = self
            .releases
            .iter()
            .any(|e| e.floor && e.version > *from && e.version < entry.version);
        entry.version > *from && entry.from.admit(from).is_ok() && !jumps_floor
    }

    /// Breadth first, so the first way found has the fewest hops; newer releases first among equals.
    fn shortest(&self, installed: &Version, target: &Version) -> Option<Vec<Version>> {
        let mut newest_first: Vec<_> = self
            .releases
            .iter()
            .filter(|entry| entry.version <= *target)
            .collect();
        newest_first.sort_unstable_by(|a, b| b.version.cmp(&a.version));
        let mut came_from: BTreeMap<&Version, &Version> = BTreeMap::new();
        let mut frontier = vec![installed];
        while !frontier.is_empty() && !came_from.contains_key(target) {
            let mut next = Vec::new();
            for from in frontier {
                for entry in newest_first.iter().filter(|entry| self.is_edge(from, entry)) {
                    if !came_from.contains_key(&entry.version) {
                        came_from.insert(&entry.version, from);
                        next.push(&entry.version);
                    }
                }
            }
            frontier = next;
        }
        let mut way = vec![target.clone()];
        let mut at = *came_from.get(target)?;
        while at != installed {
            way.push(at.clone());
            at = came_from.get(at)?;
        }
        way.reverse();
        Some(way)
    }

    fn refusal(&self, installed: &Version, target: &Version) -> Option<String> {
        let entry = self.releases.iter().find(|entry| entry.version == *target)?;
        match entry.from.admit(installed) {
            Err(Some(reason)) => Some(format!("{target} blocks upgrades from {installed}: {reason}")),
            Err(None) if !entry.from.edges.is_empty() => {
                Some(format!("{target} upgrades from {}", list(&entry.from.edges)))
            }
            Err(None) => entry
                .from
                .min
                .as_ref()
                .map(|min| format!("{target} upgrades from {min} or newer")),
            Ok(()) => Some("a release between them must be installed first and cannot be reached".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::document::Blocked;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn entry(version: &str, min: &str, floor: bool) -> GraphEntry {
        let from = Sources {
            min: Some(v(min)),
            ..Sources::default()
        };
        GraphEntry {
            version: v(version),
            channel: "stable".into(),
            from,
            floor,
        }
    }

    fn graph() -> Graph {
        let releases = vec![
            entry("2.0.0", "1.0.0", true),
            entry("1.5.0", "1.0.0", false),
            entry("3.0.0", "1.5.0", false),
        ];
        Graph {
            schema: 1,
            product: "demo".into(),
            releases,
        }
    }

    #[test]
    fn r01_a_floor_is_never_jumped_over() {
        assert_eq!(
            graph().hops(&v("1.5.0"), &v("3.0.0")),
            Ok(vec![v("2.0.0"), v("3.0.0")])
        );
        assert_eq!(graph().hops(&v("2.0.0"), &v("3.0.0")), Ok(vec![v("3.0.0")]));
    }

    #[test]
    fn r35_the_newest_reachable_release_is_the_default_and_equal_is_nothing_to_do() {
        assert_eq!(graph().newest(&v("1.0.0"), "stable"), Some(v("3.0.0")));
        assert_eq!(graph().newest(&v("3.0.0"), "stable"), None);
        assert_eq!(graph().newest(&v("1.0.0"), "development"), None);
        assert_eq!(graph().newest_in("stable"), Some(v("3.0.0")));
        assert_eq!(graph().newest_in("development"), None);
        assert_eq!(graph().hops(&v("3.0.0"), &v("3.0.0")), Ok(vec![]));
    }

    #[test]
    fn r35_an_older_or_unknown_release_is_refused() {
        assert!(matches!(
            graph().hops(&v("3.0.0"), &v("2.0.0")),
            Err(HopError::Downgrade { .. })
        ));
        let unknown = graph().hops(&v("1.0.0"), &v("9.0.0")).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "release 9.0.0 is not published; published: 1.5.0, 2.0.0, 3.0.0"
        );
    }

    #[test]
    fn r01_a_blocked_version_is_refused_with_the_reason_of_the_release() {
        let mut graph = graph();
        graph.releases.truncate(1);
        graph.releases[0].from.blocked = vec![Blocked {
            version: v("1.0.0"),
            reason: "loses its sessions".into(),
        }];
        let error = graph.hops(&v("1.0.0"), &v("2.0.0")).unwrap_err().to_string();
        assert_eq!(
            error,
            "no way from 1.0.0 to 2.0.0: 2.0.0 blocks upgrades from 1.0.0: loses its sessions"
        );
        let error = graph.hops(&v("0.9.0"), &v("2.0.0")).unwrap_err().to_string();
        assert!(error.ends_with("2.0.0 upgrades from 1.0.0 or newer"), "{error}");
    }
}
