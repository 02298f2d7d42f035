//! What a node measures when Core asks before an upgrade, and what follows from it for the plan: the document of
//! `kato node survey`, and pure functions over it.
//!
//! The node only measures; the release documents are Core's. So nothing has to be reachable from the node yet, and what it would
//! plan by itself is planned here by the same function ([`super::node::plan`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::{
    Digest,
    release::{Release, Version},
};
use serde::{Deserialize, Serialize};

use super::node::{self, NodeFacts, backup_paths, modules_for};
use crate::{
    patch::record::Patches,
    space::{Mount, Need},
};

/// The version of the document.
pub const SCHEMA: u32 = 1;

/// What a node measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// The version of this document; see [`SCHEMA`].
    pub schema: u32,
    /// The node's id.
    pub node: String,
    /// The time by its clock.
    pub time: Timestamp,
    /// Bytes of memory that programs can have without swapping; `None` where the kernel does not say.
    #[serde(default)]
    pub memory_available: Option<u64>,
    /// Artifacts that are on it already.
    #[serde(default)]
    pub staged: BTreeSet<Digest>,
    /// What it measured, by the paths that it was asked for.
    #[serde(default)]
    pub places: BTreeMap<PathBuf, Measured>,
    /// Where it downloads to.
    pub staging: PathBuf,
    /// Where it keeps backups.
    pub backups: PathBuf,
    /// Where modules without a folder of their own are unpacked.
    pub work: PathBuf,
    /// Whether an upgrade takes it out of service and moves its work away.
    #[serde(default)]
    pub is_drained: bool,
    /// How much work it has and could take; `None` where its platform does not say.
    #[serde(default)]
    pub capacity: Option<Capacity>,
    /// The patches that it has; `None` from a `kato` that does not tell.
    #[serde(default)]
    pub patches: Option<Patches>,
    /// Local changes that an upgrade may take away; `None` from a `kato` that does not tell.
    #[serde(default)]
    pub at_risk: Option<AtRisk>,
    /// What holds its lock, for people; `None` when nothing does.
    #[serde(default)]
    pub held_by: Option<String>,
    /// Why the machine of the cache cannot be reached from there; `None` when it can, and when nobody asked.
    #[serde(default)]
    pub cut_off: Option<String>,
}

/// Local changes of a node that are not in their place any more after an upgrade, or stand in its way, in the worst case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtRisk {
    /// How many there are.
    pub count: usize,
    /// The first of them by path, at most [`AtRisk::NAMED`].
    #[serde(with = "crate::path_text::many")]
    pub first: Vec<PathBuf>,
}

impl AtRisk {
    /// How many are named.
    pub const NAMED: usize = 10;

    /// Of `paths`, which are in order.
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut risk = Self::default();
        for path in paths {
            risk.count += 1;
            if risk.first.len() < Self::NAMED {
                risk.first.push(path);
            }
        }
        risk
    }
}

/// One path of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The bytes that are there; `None` when nothing is.
    pub bytes: Option<u64>,
    /// The device number of its file system.
    pub device: u64,
    /// Its mount point.
    pub mount: PathBuf,
    /// Bytes that are free there.
    pub free: u64,
    /// Inodes that are free there; `None` where the file system makes as many as are wanted.
    #[serde(default)]
    pub free_inodes: Option<u64>,
    /// The size of the file system's blocks in bytes; a `kato` that does not tell is taken to have the most common one.
    #[serde(default = "usual_block")]
    pub block: u64,
    /// Whether nothing can be written there.
    #[serde(default)]
    pub is_read_only: bool,
}

const fn usual_block() -> u64 {
    4096
}

/// How much work a node has and could take, in a unit that the platform chooses (megabytes, instances).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// What it has.
    pub used: u64,
    /// What it could take beside that.
    pub free: u64,
}

/// What a node's upgrade means, as the plan of the cluster shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeWork {
    /// The releases that it goes through, the last one is the target.
    pub hops: Vec<Version>,
    /// Bytes that it still has to fetch.
    pub download_bytes: u64,
    /// Bytes that it needs on its disks, downloads and backups included.
    pub space_bytes: u64,
    /// Whether it is taken out of service.
    pub is_drained: bool,
    /// The first step after which there is no way back, and why it is this one.
    pub point_of_no_return: String,
    /// Local changes that it may take away; `None` where they were not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_risk: Option<AtRisk>,
}

/// What is to be measured on a node with `roles` for the releases of its way.
pub fn places<'r>(way: impl IntoIterator<Item = &'r Release>, roles: &[String]) -> BTreeSet<PathBuf> {
    let mut places: BTreeSet<PathBuf> = [PathBuf::from("/")].into();
    for release in way {
        places.extend(backup_paths(release, roles));
        places.extend(release.backup.iter().cloned());
        let modules = modules_for(release, roles).into_iter();
        places.extend(modules.filter_map(|module| module.install.dest().map(Path::to_owned)));
    }
    places
}

impl Survey {
    /// What the way of the node means, and the space that it needs where. `installed` is what the node has.
    pub fn work(
        &self,
        roles: &[String],
        installed: Option<&Version>,
        way: &[(&Release, Digest)],
        now: Timestamp,
    ) -> (NodeWork, Vec<Need>) {
        let mut facts = self.facts(roles, installed);
        let (mut needs, mut bytes) = (Vec::new(), 0_u64);
        let mut no_return = None;
        for (release, digest) in way {
            let plan = node::plan(&facts, release, *digest, now);
            bytes = bytes.saturating_add(plan.download_bytes);
            let way_back = plan.way_back;
            no_return.get_or_insert_with(|| format!("{} ({})", way_back.point_of_no_return, way_back.reason));
            // What one release downloads is there for the next.
            facts
                .staged
                .extend(plan.modules.iter().map(|module| module.sha256));
            facts.installed = Some(release.version.clone());
            needs.extend(plan.space);
        }
        let work = NodeWork {
            hops: way.iter().map(|(release, _)| release.version.clone()).collect(),
            download_bytes: bytes,
            space_bytes: needs.iter().fold(0, |sum, need| sum.saturating_add(need.bytes)),
            is_drained: self.is_drained,
            point_of_no_return: no_return.unwrap_or_default(),
            at_risk: self.at_risk.clone(),
        };
        (work, needs)
    }

    fn facts(&self, roles: &[String], installed: Option<&Version>) -> NodeFacts {
        let measured = self.places.iter();
        let sizes = measured.filter_map(|(path, found)| Some((path.clone(), found.bytes?)));
        NodeFacts {
            node: self.node.clone(),
            roles: roles.to_vec(),
            installed: installed.cloned(),
            staged: self.staged.clone(),
            sizes: sizes.collect(),
            staging: self.staging.clone(),
            backups: self.backups.clone(),
            work: self.work.clone(),
            ..NodeFacts::default()
        }
    }

    /// Each of `needs` with the mount that it is on; a path that was not measured is left out.
    pub fn on_mounts<'n>(&self, needs: &'n [Need]) -> Vec<(&'n Need, Mount)> {
        let mount = |need: &'n Need| {
            let near = need.path.ancestors().find_map(|path| self.places.get(path))?;
            let mount = Mount {
                device: near.device,
                point: near.mount.clone(),
                free: near.free,
                free_inodes: near.free_inodes,
                block: near.block,
                is_read_only: near.is_read_only,
            };
            Some((need, mount))
        };
        needs.iter().filter_map(mount).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn survey(node: &str) -> Survey {
        let place = json!({"bytes": null, "device": 1, "mount": "/", "free": 1000});
        serde_json::from_value(json!({
            "schema": 1, "node": node, "time": "2026-01-01T00:00:00Z", "memory_available": 1 << 30,
            "staging": "/var/staging", "backups": "/var/backup", "work": "/var/work",
            "places": {
                "/": place, "/var/staging": place, "/var/work": place,
                "/var/backup": {"bytes": null, "device": 2, "mount": "/var/backup", "free": 10},
                "/s/web": {"bytes": 50, "device": 1, "mount": "/", "free": 1000},
            },
        }))
        .unwrap()
    }

    fn release(version: &str, artifact: &str) -> Release {
        let document = json!({
            "schema": 1, "product": "demo", "version": version, "published": "2026-01-01T00:00:00Z",
            "artifacts": {"a": {"target": "artifacts/a", "sha256": Digest::of(artifact.as_bytes()), "size": 100}},
            "modules": [{"name": "web", "artifact": "a", "roles": ["dea"], "unpacked_size": 300,
                         "install": {"policy": "replace", "dest": "/s/web"}}],
        });
        Release::from_json("r", &serde_json::to_vec(&document).unwrap()).unwrap()
    }

    #[test]
    fn c13_core_plans_from_what_a_node_measured_as_the_node_itself_would() {
        let roles = ["dea".to_owned()];
        let (two, three) = (release("2.0.0", "a"), release("3.0.0", "b"));
        assert_eq!(
            places([&two], &roles).into_iter().collect::<Vec<_>>(),
            [PathBuf::from("/"), PathBuf::from("/s/web")]
        );
        let mut survey = survey("w1");
        // Room for everything but the backup.
        for place in survey.places.values_mut().filter(|place| place.device == 1) {
            place.free = 1 << 20;
        }
        let way = [(&two, Digest::of(b"2")), (&three, Digest::of(b"3"))];
        let installed = Version::new(1, 0, 0);
        let work = |survey: &Survey| survey.work(&roles, Some(&installed), &way, Timestamp::UNIX_EPOCH);
        let (found, needs) = work(&survey);
        assert_eq!(found.download_bytes, 200);
        assert_eq!(found.hops, [Version::new(2, 0, 0), Version::new(3, 0, 0)]);
        assert_eq!(
            found.point_of_no_return,
            "record (then only its backup leads back to 1.0.0)"
        );
        // The backup of 50 bytes does not fit into the 10 of its own mount.
        let short = crate::space::judge(survey.on_mounts(&needs)).unwrap_err();
        assert_eq!(short.mount(), Path::new("/var/backup"));
        survey.staged.insert(Digest::of(b"a"));
        assert_eq!(work(&survey).0.download_bytes, 100);
    }
}
