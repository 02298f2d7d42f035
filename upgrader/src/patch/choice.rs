//! Which patches are outstanding, may be installed, may be taken back, and what a release demands before it. Pure.

mod error;

use std::collections::BTreeSet;

use kato_shared::release::{PatchEntry, PatchList, Release, Severity, Version};
use serde::{Deserialize, Serialize};

pub use self::error::ChoiceError;
use super::record::{InstalledPatch, Patches};

/// The node, as far as patches are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// The installed release.
    pub version: &'a Version,
    /// The node's roles.
    pub roles: &'a [String],
    /// The patches that it has.
    pub patches: &'a Patches,
}

/// What a patch is to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is installed.
    Installed,
    /// It is for this node, and not installed.
    Outstanding,
    /// Its installation failed here and was led back; it is outstanding, and only installed when it is named.
    RolledBack,
    /// The installed release contains it.
    Superseded,
    /// It is for other releases.
    OtherRelease,
    /// It is for nodes with other roles.
    OtherRoles,
}

impl Here<'_> {
    /// What the patch `entry` is to this node.
    pub fn state(&self, entry: &PatchEntry) -> State {
        let is_rolled_back = |entry: &PatchEntry| {
            let same = |other: &super::record::RolledBack| other.sha256 == entry.sha256;
            self.patches.rolled_back.iter().any(same)
        };
        if self.patches.installed(&entry.name).is_some() {
            State::Installed
        } else if self.patches.superseded.contains_key(&entry.name) {
            State::Superseded
        } else if !entry.is_for(self.version) {
            State::OtherRelease
        } else if !entry.affects(self.roles) {
            State::OtherRoles
        } else if is_rolled_back(entry) {
            State::RolledBack
        } else {
            State::Outstanding
        }
    }

    /// The patches that are for this node and not installed, by number.
    pub fn outstanding<'l>(&self, list: &'l PatchList) -> Vec<&'l PatchEntry> {
        let is_outstanding =
            |entry: &&PatchEntry| matches!(self.state(entry), State::Outstanding | State::RolledBack);
        sorted(list.patches.iter().filter(is_outstanding).collect())
    }
}

fn sorted(mut entries: Vec<&PatchEntry>) -> Vec<&PatchEntry> {
    entries.sort_unstable_by_key(|entry| entry.id);
    entries.dedup_by_key(|entry| entry.id);
    entries
}

/// Which patches are to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All that are outstanding, up to this number where one is given.
    Outstanding(Option<u32>),
    /// These, with those that they require.
    Named(Vec<String>),
    /// This one, and nothing else.
    Single(String),
}

fn unknown_id(list: &PatchList, id: u32) -> ChoiceError {
    let mut entries: Vec<&PatchEntry> = list.patches.iter().collect();
    entries.sort_unstable_by_key(|entry| entry.id);
    let known = entries
        .iter()
        .map(|entry| format!("{} ({})", entry.id, entry.name));
    ChoiceError::UnknownId {
        id,
        known: known.collect(),
    }
}

impl Here<'_> {
    /// The patches to install, by number. What is installed already, or not for the node's roles, is left out.
    ///
    /// # Errors
    /// [`ChoiceError`].
    pub fn to_install<'l>(
        &self,
        list: &'l PatchList,
        wanted: &Wanted,
    ) -> Result<Vec<&'l PatchEntry>, ChoiceError> {
        match wanted {
            Wanted::Outstanding(up_to) => {
                if let Some(id) = up_to.filter(|id| list.patches.iter().all(|entry| entry.id != *id)) {
                    return Err(unknown_id(list, id));
                }
                let is_wanted = |entry: &&PatchEntry| {
                    self.state(entry) == State::Outstanding && up_to.is_none_or(|last| entry.id <= last)
                };
                let chosen: Vec<_> = self.outstanding(list).into_iter().filter(is_wanted).collect();
                self.complete(list, &chosen)?;
                Ok(chosen)
            }
            Wanted::Named(names) => {
                let mut chosen = Vec::new();
                for name in names {
                    self.with_required(list, name, &mut chosen)?;
                }
                Ok(sorted(chosen))
            }
            Wanted::Single(name) => {
                let entry = self.admitted(list, name)?;
                let chosen: Vec<_> = entry.into_iter().collect();
                self.complete(list, &chosen)?;
                Ok(chosen)
            }
        }
    }

    /// The patch `name`, unless there is nothing to install.
    fn admitted<'l>(&self, list: &'l PatchList, name: &str) -> Result<Option<&'l PatchEntry>, ChoiceError> {
        let entry = list.named(name).ok_or_else(|| ChoiceError::Unknown {
            name: name.to_owned(),
            known: list.patches.iter().map(|entry| entry.name.clone()).collect(),
        })?;
        match self.state(entry) {
            State::Outstanding | State::RolledBack => Ok(Some(entry)),
            State::Installed | State::Superseded | State::OtherRoles => Ok(None),
            State::OtherRelease => Err(ChoiceError::OtherRelease {
                name: name.to_owned(),
                version: self.version.clone(),
            }),
        }
    }

    /// Adds the patch `name` and those that it requires.
    fn with_required<'l>(
        &self,
        list: &'l PatchList,
        name: &str,
        chosen: &mut Vec<&'l PatchEntry>,
    ) -> Result<(), ChoiceError> {
        // A patch requires only older ones, so this ends.
        if let Some(entry) = self.admitted(list, name)?.filter(|entry| !chosen.contains(entry)) {
            for required in &entry.requires {
                self.with_required(list, required, chosen)?;
            }
            chosen.push(entry);
        }
        Ok(())
    }

    /// That what `chosen` requires is installed, or chosen as well.
    fn complete(&self, list: &PatchList, chosen: &[&PatchEntry]) -> Result<(), ChoiceError> {
        for entry in chosen {
            let is_met = |name: &&String| {
                self.patches.has(name)
                    || chosen.iter().any(|other| other.name == **name)
                    || list.named(name).is_some_and(|other| !other.affects(self.roles))
            };
            let missing: Vec<_> = entry
                .requires
                .iter()
                .filter(|name| !is_met(name))
                .cloned()
                .collect();
            if !missing.is_empty() {
                return Err(ChoiceError::Requires {
                    name: entry.name.clone(),
                    missing,
                });
            }
        }
        Ok(())
    }

    /// The patch to take back: `name`, else the one that was installed last. Nothing that was installed after it may build
    /// on it.
    ///
    /// # Errors
    /// [`ChoiceError`].
    pub fn to_revert(&self, name: Option<&str>) -> Result<&InstalledPatch, ChoiceError> {
        let installed = &self.patches.installed;
        let Some(newest) = installed.last() else {
            return Err(ChoiceError::NoneInstalled);
        };
        let name = name.unwrap_or(&newest.name);
        let at = installed.iter().position(|patch| patch.name == name);
        let Some((patch, later)) = at.and_then(|at| installed.get(at..)?.split_first()) else {
            return Err(ChoiceError::NotInstalled {
                name: name.to_owned(),
                installed: installed.iter().map(|patch| patch.name.clone()).collect(),
            });
        };
        let newest_first = || later.iter().rev();
        let require = newest_first().filter(|later| later.requires.contains(&patch.name));
        let cover = newest_first().filter(|later| later.overlaps(&patch.places).is_some());
        let names = |of: Vec<&InstalledPatch>| -> Vec<String> {
            of.into_iter().map(|patch| patch.name.clone()).collect()
        };
        for (why, later) in [
            ("they require it", names(require.collect())),
            ("they changed the same files after it", names(cover.collect())),
        ] {
            if !later.is_empty() {
                return Err(ChoiceError::Needed {
                    name: name.to_owned(),
                    later,
                    why,
                });
            }
        }
        Ok(patch)
    }
}

/// What the releases on a way demand of a node, and what else is outstanding there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gate<'l> {
    /// Patches that a release demands and the node lacks.
    pub missing: Vec<Missing>,
    /// Those of them, and all others that are outstanding and that no release on the way contains, by number.
    pub outstanding: Vec<&'l PatchEntry>,
}

/// A patch that a release demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The patch.
    pub name: String,
    /// The release that demands it.
    pub release: Version,
    /// Whether it can be installed on the node as it is.
    pub can_be_installed: bool,
}

/// What the releases `way`, first to last, demand of the node.
pub fn gate<'l>(here: &Here<'_>, list: &'l PatchList, way: &[&Release]) -> Gate<'l> {
    let mut gate = Gate::default();
    let mut contained: BTreeSet<&str> = BTreeSet::new();
    let outstanding = here.outstanding(list);
    for release in way {
        for name in &release.required_patches {
            let is_for_others = list.named(name).is_some_and(|entry| !entry.affects(here.roles));
            let is_known = gate.missing.iter().any(|missing| missing.name == *name);
            if here.patches.has(name) || contained.contains(name.as_str()) || is_for_others || is_known {
                continue;
            }
            gate.missing.push(Missing {
                name: name.clone(),
                release: release.version.clone(),
                can_be_installed: outstanding.iter().any(|entry| entry.name == *name),
            });
        }
        contained.extend(release.supersedes_patches.iter().map(String::as_str));
    }
    let is_missing = |entry: &&PatchEntry| gate.missing.iter().any(|missing| missing.name == entry.name);
    gate.outstanding = outstanding
        .into_iter()
        .filter(|entry| is_missing(entry) || !contained.contains(entry.name.as_str()))
        .collect();
    gate
}

/// The patches that `--apply-patches` installs before an upgrade: what is demanded and what is outstanding, with what those
/// require, by number. One that was led back here before only when it is demanded.
///
/// # Errors
/// [`ChoiceError`].
pub fn to_apply<'l>(
    here: &Here<'_>,
    list: &'l PatchList,
    gate: &Gate<'_>,
) -> Result<Vec<&'l PatchEntry>, ChoiceError> {
    let is_missing = |entry: &PatchEntry| gate.missing.iter().any(|missing| missing.name == entry.name);
    let is_wanted = |entry: &&&PatchEntry| here.state(entry) == State::Outstanding || is_missing(entry);
    let names = gate
        .outstanding
        .iter()
        .filter(is_wanted)
        .map(|entry| entry.name.clone());
    here.to_install(list, &Wanted::Named(names.collect()))
}

/// How many of `entries` are of each severity, in words.
pub fn severities(entries: &[&PatchEntry]) -> String {
    let counted = [Severity::Required, Severity::Recommended, Severity::Optional].map(|severity| {
        let count = entries.iter().filter(|entry| entry.severity == severity).count();
        (count, severity.name())
    });
    let words: Vec<_> = counted
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kato_shared::{Digest, release::Sources};
    use serde_json::json;

    use super::*;

    fn entry(id: u32, name: &str, roles: &[&str], requires: &[&str]) -> PatchEntry {
        PatchEntry {
            id,
            name: name.into(),
            summary: String::new(),
            severity: Severity::Required,
            roles: roles.iter().map(ToString::to_string).collect(),
            requires: requires.iter().map(ToString::to_string).collect(),
            version: Version::new(1, 0, 0),
            from: Sources {
                edges: vec![Version::new(1, 0, 0)],
                ..Sources::default()
            },
            sha256: Digest::of(name.as_bytes()),
        }
    }

    fn list() -> PatchList {
        let mut later = entry(5, "later", &["*"], &[]);
        later.version = Version::new(2, 0, 0);
        later.from.edges = vec![Version::new(2, 0, 0)];
        PatchList {
            schema: 1,
            product: "demo".into(),
            patches: vec![
                entry(3, "three", &["*"], &["one"]),
                entry(1, "one", &["*"], &[]),
                entry(2, "router-only", &["router"], &[]),
                later,
            ],
        }
    }

    fn names(entries: &[&PatchEntry]) -> String {
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        names.join(" ")
    }

    fn with(patches: &Patches, test: impl FnOnce(&Here<'_>)) {
        test(&Here {
            version: &Version::new(1, 0, 0),
            roles: &["dea".to_owned()],
            patches,
        });
    }

    fn having(names: &[&str]) -> Patches {
        let mut patches = Patches::default();
        for name in names {
            let found = list();
            let entry = found.named(name).unwrap();
            patches.put(InstalledPatch::by_hand(
                entry,
                &Version::new(1, 0, 0),
                Timestamp::UNIX_EPOCH,
            ));
        }
        patches
    }

    #[test]
    fn r70_patches_are_installed_by_number_with_what_they_require() {
        with(&having(&[]), |here| {
            let list = list();
            let chosen = |wanted| here.to_install(&list, &wanted).map(|found| names(&found));
            assert_eq!(chosen(Wanted::Outstanding(None)).unwrap(), "one three");
            assert_eq!(chosen(Wanted::Outstanding(Some(2))).unwrap(), "one");
            assert_eq!(chosen(Wanted::Named(vec!["three".into()])).unwrap(), "one three");
            // Not for this node's roles: nothing to do, and no error for a whole cluster.
            assert_eq!(chosen(Wanted::Named(vec!["router-only".into()])).unwrap(), "");
            assert_eq!(
                chosen(Wanted::Single("three".into())).unwrap_err().to_string(),
                "the patch `three` needs one first"
            );
            assert!(matches!(
                chosen(Wanted::Named(vec!["later".into()])),
                Err(ChoiceError::OtherRelease { .. })
            ));
            assert!(matches!(
                chosen(Wanted::Named(vec!["x".into()])),
                Err(ChoiceError::Unknown { .. })
            ));
        });
    }

    #[test]
    fn r70_only_what_nothing_builds_on_is_taken_back() {
        with(&having(&[]), |here| {
            assert_eq!(here.to_revert(None).unwrap_err(), ChoiceError::NoneInstalled);
        });
        let mut patches = having(&["one", "three"]);
        with(&patches, |here| {
            assert_eq!(here.to_revert(None).unwrap().name, "three");
            let error = here.to_revert(Some("one")).unwrap_err().to_string();
            assert!(error.contains("before three: they require it"), "{error}");
        });
        patches.installed[1].requires.clear();
        with(&patches, |here| {
            assert_eq!(here.to_revert(Some("one")).unwrap().name, "one");
        });
        patches.installed[0].places = vec!["/s/etc".into()];
        patches.installed[1].places = vec!["/s/etc/a".into()];
        with(&patches, |here| {
            let error = here.to_revert(Some("one")).unwrap_err().to_string();
            assert!(error.contains("changed the same files"), "{error}");
        });
    }

    fn release(version: &str, required: &[&str], supersedes: &[&str]) -> Release {
        serde_json::from_value(json!({
            "schema": 1, "product": "demo", "version": version, "published": "2026-01-01T00:00:00Z", "modules": [],
            "required_patches": required, "supersedes_patches": supersedes,
        }))
        .unwrap()
    }

    #[test]
    fn r02_every_release_on_the_way_may_demand_patches_and_may_bring_those_of_the_next() {
        let list = list();
        let two = release("2.0.0", &["one", "router-only"], &["three"]);
        let three = release("3.0.0", &["three", "later"], &[]);
        with(&having(&[]), |here| {
            let found = gate(here, &list, &[&two, &three]);
            let missing: Vec<_> = found
                .missing
                .iter()
                .map(|missing| (missing.name.as_str(), missing.can_be_installed))
                .collect();
            // `three` comes with 2.0.0, `router-only` is for others, `later` can only be installed on 2.0.0.
            assert_eq!(missing, [("one", true), ("later", false)]);
            assert_eq!(names(&found.outstanding), "one");
            assert_eq!(names(&to_apply(here, &list, &found).unwrap()), "one");
        });
        with(&having(&["one"]), |here| {
            let found = gate(here, &list, &[&release("2.0.0", &["one"], &[])]);
            assert_eq!(found.missing, []);
            assert_eq!(names(&found.outstanding), "three");
        });
    }
}
