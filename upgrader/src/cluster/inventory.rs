//! The inventory: which nodes the cluster has, how to reach them, and which of them is Core.
//!
//! Flow: `cluster.toml` (beside `kato.toml`, on Core) → fragment with unknown keys refused → checked [`Inventory`].
//!
//! Deliberately absent: versions, health and load. Those are facts, asked from the nodes at each run; a file that repeated
//! them would be wrong by tomorrow.
//!
//! Invariants of a value of [`Inventory`]: exactly one node has the Core role; ids are unique; no two nodes are the same
//! machine and root; roles are lower case, without repetition.

mod error;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use kato_shared::settings::{ByteSize, HumanDuration, range};
use serde::{Deserialize, Serialize};

use crate::plan::{
    policy::{Policies, RolloutFragment},
    preflight::Limits,
};

pub use self::error::InventoryError;

/// The nodes of a cluster and how to reach them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// The cluster's name, for people.
    pub name: String,
    /// The role of the Core node, `primary` by default.
    pub core_role: String,
    /// The role that every node has and that therefore says nothing, `base` by default.
    pub implicit_role: String,
    /// How long an orchestrator may be silent until its lock may be broken.
    pub lease: HumanDuration,
    /// Bytes a second that the line to the upgrade host is known to bring; only the plan's estimate uses it.
    pub line_speed: Option<ByteSize>,
    /// How nodes are reached.
    pub ssh: SshSettings,
    /// How carefully the nodes of each role are upgraded.
    pub rollout: Policies,
    /// What every node must be able to before anything is changed.
    pub preflight: Limits,
    /// The nodes, in the order of the file.
    pub nodes: Vec<InventoryNode>,
    /// Where Core is among them.
    #[serde(skip)]
    core: usize,
}

/// `[ssh]`: how nodes are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SshSettings {
    /// The account on the nodes; ssh's own choice when empty.
    pub user: String,
    /// Whether `kato` is run by `sudo -n` on the nodes.
    pub sudo: bool,
    /// Whether one password, asked once, is taken for all nodes; else each node's is asked for.
    pub one_password: bool,
    /// An `ssh_config` file used instead of the user's own (`ssh -F`).
    pub config: Option<PathBuf>,
    /// How long a connection may take to be made.
    #[serde(deserialize_with = "range::duration::<_, _, 1, 300>")]
    pub connect_timeout: HumanDuration,
    /// How long a node may be silent until its connection counts as lost; its work goes on. ssh asks thrice, once a second at most.
    #[serde(deserialize_with = "range::duration::<_, _, 3, 3600>")]
    pub keep_alive: HumanDuration,
    /// How long a node that was lost in the middle of its upgrade is called again before the run stops.
    #[serde(deserialize_with = "range::duration::<_, _, 0, 604_800>")]
    pub patience: HumanDuration,
}

impl Default for SshSettings {
    fn default() -> Self {
        Self {
            user: "stackato".into(),
            sudo: true,
            one_password: false,
            config: None,
            connect_timeout: HumanDuration::from_secs(10),
            keep_alive: HumanDuration::from_secs(15),
            patience: HumanDuration::from_secs(600),
        }
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InventoryNode {
    /// Its id, as in `[node] id` of its own settings.
    pub id: String,
    /// A name or an IP address that ssh understands.
    pub address: String,
    /// Its roles, in lower case.
    pub roles: Vec<String>,
    /// How it is reached.
    pub transport: Transport,
    /// Where its `kato` is; with [`Transport::Local`] and none given, the running program.
    pub kato: Option<PathBuf>,
    /// Its own settings file, passed to its `kato` as `--config`.
    pub config: PathBuf,
}

/// How a node is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// The system's OpenSSH.
    #[default]
    Ssh,
    /// Another root on this machine, or this machine itself.
    Local,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fragment {
    cluster: ClusterFragment,
    ssh: SshSettings,
    rollout: RolloutFragment,
    preflight: Limits,
    node: Vec<NodeFragment>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClusterFragment {
    name: String,
    core_role: String,
    implicit_role: String,
    #[serde(deserialize_with = "range::duration::<_, _, 2, 3600>")]
    lease: HumanDuration,
    #[serde(deserialize_with = "range::size::<_, _, 1024, TIB>")]
    line_speed: Option<ByteSize>,
}

/// More a second than any line brings.
const TIB: u64 = 1 << 40;

impl Default for ClusterFragment {
    fn default() -> Self {
        Self {
            name: String::new(),
            core_role: "primary".into(),
            implicit_role: "base".into(),
            lease: HumanDuration::from_secs(crate::lease::TERM.as_secs()),
            line_speed: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFragment {
    id: String,
    address: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    transport: Transport,
    #[serde(default)]
    kato: Option<PathBuf>,
    #[serde(default = "default_config")]
    config: PathBuf,
}

fn default_config() -> PathBuf {
    "/etc/kato/kato.toml".into()
}

impl From<NodeFragment> for InventoryNode {
    fn from(node: NodeFragment) -> Self {
        let mut roles: Vec<String> = Vec::new();
        for role in node.roles {
            let role = role.to_lowercase();
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        Self {
            id: node.id,
            address: node.address,
            roles,
            transport: node.transport,
            kato: node.kato,
            config: node.config,
        }
    }
}

impl InventoryNode {
    /// Whether the node has `role`, which is compared in lower case.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own.eq_ignore_ascii_case(role))
    }
}

impl Inventory {
    /// The inventory that belongs to the settings file `config`: `cluster.toml` in the same folder.
    pub fn path_beside(config: &Path) -> PathBuf {
        config.with_file_name("cluster.toml")
    }

    /// Reads and checks `path`.
    ///
    /// # Errors
    /// [`InventoryError`], one variant for each thing that can be wrong.
    pub fn load(path: &Path) -> Result<Self, InventoryError> {
        Self::check(path, kato_shared::settings::load(path)?)
    }

    /// [`Self::load`] for a text that was read already; `path` only names it in errors.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, InventoryError> {
        Self::check(path, kato_shared::settings::parse(path, text)?)
    }

    /// The Core node.
    pub fn core(&self) -> &InventoryNode {
        &self.nodes[self.core]
    }

    /// The digest of everything that it says, but for comments and the order of keys.
    pub fn digest(&self) -> kato_shared::Digest {
        // An inventory has only keys that JSON has as well.
        kato_shared::Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Every word that is a role here, in the inventory's rules and on the command line: what nodes have, what every node has, and Core's.
    pub fn roles(&self) -> BTreeSet<String> {
        let of_nodes = self.nodes.iter().flat_map(|node| &node.roles);
        of_nodes
            .chain([&self.implicit_role, &self.core_role])
            .cloned()
            .collect()
    }

    /// The roles of `node` for people: of one that has no other, the role that every node has.
    pub fn shown_roles(&self, node: &InventoryNode) -> String {
        if node.roles.is_empty() {
            self.implicit_role.clone()
        } else {
            node.roles.join(",")
        }
    }

    /// The node called `id`.
    pub fn node(&self, id: &str) -> Option<&InventoryNode> {
        self.nodes.iter().find(|node| node.id == id)
    }

    fn check(path: &Path, fragment: Fragment) -> Result<Self, InventoryError> {
        let mut inventory = Self {
            name: fragment.cluster.name,
            core_role: fragment.cluster.core_role.to_lowercase(),
            implicit_role: fragment.cluster.implicit_role.to_lowercase(),
            lease: fragment.cluster.lease,
            line_speed: fragment.cluster.line_speed,
            ssh: fragment.ssh,
            rollout: fragment.rollout.into(),
            preflight: fragment.preflight,
            nodes: fragment.node.into_iter().map(InventoryNode::from).collect(),
            core: 0,
        };
        for node in &inventory.nodes {
            word(path, "id", &node.id, "._-")?;
            word(path, "address", &node.address, "._-:[]%")?;
            for role in &node.roles {
                word(path, "role", role, "._-")?;
            }
        }
        if !inventory.ssh.user.is_empty() {
            word(path, "user", &inventory.ssh.user, "._-@+$\\")?;
        }
        inventory.check_unique(path)?;
        inventory.check_rollout(path)?;
        inventory.core = inventory.find_core(path)?;
        Ok(inventory)
    }

    fn check_unique(&self, path: &Path) -> Result<(), InventoryError> {
        unique(path, "id", self.nodes.iter().map(|node| (node, node.id.clone())))?;
        let ssh = self.nodes.iter().filter(|node| node.transport == Transport::Ssh);
        unique(path, "address", ssh.map(|node| (node, node.address.clone())))?;
        // Local nodes share the machine's address; what tells them apart is their own settings file with its root.
        let local = self
            .nodes
            .iter()
            .filter(|node| node.transport == Transport::Local);
        unique(
            path,
            "config",
            local.map(|node| (node, node.config.display().to_string())),
        )
    }

    /// Rules for a role that nobody has: a misspelt name would be no rule at all.
    fn check_rollout(&self, path: &Path) -> Result<(), InventoryError> {
        let known = self.roles();
        match self.rollout.role.keys().find(|role| !known.contains(*role)) {
            None => Ok(()),
            Some(role) => Err(InventoryError::RoleOfNobody {
                path: path.to_owned(),
                role: role.clone(),
            }),
        }
    }

    fn find_core(&self, path: &Path) -> Result<usize, InventoryError> {
        let (path, core_role) = (path.to_owned(), self.core_role.clone());
        let is_core = |at: &usize| self.nodes[*at].has_role(&core_role);
        let found: Vec<usize> = (0..self.nodes.len()).filter(is_core).collect();
        match found[..] {
            _ if self.nodes.is_empty() => Err(InventoryError::Empty { path, core_role }),
            [] => Err(InventoryError::NoCore { path, core_role }),
            [core] => Ok(core),
            _ => {
                let ids = found.iter().map(|at| self.nodes[*at].id.clone()).collect();
                Err(InventoryError::SeveralCores { path, core_role, ids })
            }
        }
    }
}

fn unique<'a>(
    path: &Path,
    what: &'static str,
    values: impl Iterator<Item = (&'a InventoryNode, String)>,
) -> Result<(), InventoryError> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for (node, value) in values {
        if let Some(first) = seen.insert(value.clone(), &node.id) {
            return Err(InventoryError::Duplicate {
                path: path.to_owned(),
                what,
                value,
                first: first.to_owned(),
                second: node.id.clone(),
            });
        }
    }
    Ok(())
}

/// Ids become file names and addresses become arguments of ssh, so neither may look like a path or an option.
fn word(path: &Path, what: &'static str, value: &str, allowed: &'static str) -> Result<(), InventoryError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || allowed.contains(c);
    let fine = !value.is_empty() && !value.starts_with(['-', '.']) && value.chars().all(plain);
    if fine {
        return Ok(());
    }
    Err(InventoryError::Word {
        path: path.to_owned(),
        what,
        value: value.to_owned(),
        allowed,
    })
}

#[cfg(test)]
mod tests;
