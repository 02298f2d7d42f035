//! Which nodes there are, and where: written once by the test, read by everything inside.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use kato_shared::durable;
use serde::{Deserialize, Serialize};

use crate::binaries;

/// The last octet of the first node's address.
const FIRST: u8 = 11;
/// Addresses .11 to .250.
const MOST: usize = 240;

/// A node to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeSpec {
    name: String,
    disk_bytes: Option<u64>,
}

impl NodeSpec {
    /// A node with this hostname and a disk as large as memory allows.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            disk_bytes: None,
        }
    }

    /// Limits what the node may write, in bytes: `24 << 20` is full soon.
    #[must_use]
    pub fn disk_bytes(mut self, bytes: u64) -> Self {
        self.disk_bytes = Some(bytes);
        self
    }

    /// The hostname.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The whole lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    folder: PathBuf,
    /// Bound read-only into each node at its own path: it may stand on a mount that the node's lower layer does not show.
    binaries: PathBuf,
    program: PathBuf,
    nodes: Vec<Place>,
}

/// One node and its place in the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place {
    spec: NodeSpec,
    octet: u8,
}

impl Plan {
    /// Gives each node its address.
    ///
    /// # Errors
    /// When names repeat or are no hostnames, or there are too many.
    pub(crate) fn new(folder: &Path, specs: &[NodeSpec]) -> Result<Self> {
        ensure!(
            specs.len() <= MOST,
            "{} nodes: expected at most {MOST}",
            specs.len()
        );
        for (at, spec) in specs.iter().enumerate() {
            let name = &spec.name;
            // The name of the host's end of the link is `v` and the name, and Linux allows 15 characters.
            let valid = (1..=14).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            ensure!(
                valid,
                "`{name}` is no node name: expected up to 14 of a-z, 0-9 and -"
            );
            let first = specs.iter().position(|other| other.name == *name);
            ensure!(first == Some(at), "two nodes are called `{name}`");
        }
        let nodes = specs
            .iter()
            .zip(FIRST..)
            .map(|(spec, octet)| Place {
                spec: spec.clone(),
                octet,
            })
            .collect();
        Ok(Self {
            folder: folder.to_owned(),
            binaries: binaries::folder()?,
            program: binaries::built("lab")?,
            nodes,
        })
    }

    pub(crate) fn save(&self) -> Result<()> {
        durable::write_json(&self.file(), self, 0o600).context("cannot write the plan of the lab")
    }

    pub(crate) fn load(file: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("`{}` is no plan of a lab", file.display()))
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("plan.json")
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn binaries(&self) -> &Path {
        &self.binaries
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Place> {
        self.nodes.iter()
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Place> {
        self.nodes.iter().find(|place| place.name() == name)
    }

    /// The folder of one node: `layer` (its disk), `root` (where it is mounted), its host key.
    pub(crate) fn node_folder(&self, place: &Place) -> PathBuf {
        self.folder.join(place.name())
    }
}

impl Place {
    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, self.octet)
    }

    /// Fixed, because with a new one a rebooted node stays unreachable until the neighbours' ARP entries expire.
    pub(crate) fn mac(&self) -> String {
        format!("02:00:00:00:00:{:02x}", self.octet)
    }

    /// The host's end of the link.
    pub(crate) fn link(&self) -> String {
        format!("v{}", self.name())
    }

    pub(crate) fn disk_bytes(&self) -> Option<u64> {
        self.spec.disk_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Result<Plan> {
        let specs: Vec<_> = names.iter().map(|name| NodeSpec::new(name)).collect();
        Plan::new(Path::new("/tmp"), &specs)
    }

    #[test]
    fn names_that_cannot_be_hosts_or_links_are_refused() {
        for bad in [
            &["n1", "n1"][..],
            &[""],
            &["UPPER"],
            &["a/b"],
            &["fifteen-letters"],
        ] {
            assert!(names(bad).is_err(), "{bad:?}");
        }
    }
}
