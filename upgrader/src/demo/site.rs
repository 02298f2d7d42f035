//! The demonstration's cluster on the disk: three node roots with their settings, and the inventory on Core.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use kato_shared::durable::{self, DurableError};
use serde::Serialize;
use url::Url;

use super::payload::{EDITS, ETC, EXPECTED, Programs, VERSION_FILE};
use crate::{
    cluster::inventory::Transport,
    paths::NodePaths,
    settings::{CacheSettings, NodeSettings, PlatformCommand, PlatformSettings, ReleaseSettings, Settings},
};

/// The id of the Core node.
pub(super) const CORE: &str = "core";

/// The node whose overlay an operator has customised.
pub(super) const CUSTOMISED: &str = "dea";

/// The nodes, in no particular order.
const NODES: [(&str, &str); 3] = [
    (CORE, "primary"),
    ("controller", "controller"),
    (CUSTOMISED, "dea"),
];

/// One node.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) settings: Settings,
    /// Its settings file.
    pub(super) config: PathBuf,
}

impl Node {
    pub(super) fn id(&self) -> &str {
        &self.settings.node.id
    }

    pub(super) fn roles(&self) -> &[String] {
        &self.settings.node.roles
    }

    pub(super) fn root(&self) -> &Path {
        &self.settings.node.root
    }

    pub(super) fn paths(&self) -> NodePaths {
        NodePaths::new(&self.settings.node.root, &self.settings.node.state_dir)
    }
}

/// The whole cluster.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) nodes: Vec<Node>,
}

#[derive(Serialize)]
struct InventoryFile {
    cluster: Cluster,
    ssh: Ssh,
    node: Vec<InventoryNode>,
}

#[derive(Serialize)]
struct Cluster {
    name: &'static str,
}

/// The nodes belong to whoever runs the demonstration.
#[derive(Serialize)]
struct Ssh {
    sudo: bool,
}

#[derive(Serialize)]
struct InventoryNode {
    id: String,
    address: Ipv4Addr,
    roles: Vec<String>,
    transport: Transport,
    kato: PathBuf,
    config: PathBuf,
}

impl Site {
    /// Makes the nodes' folders below `folder`, each with settings that know the upgrade host and its root metadata.
    pub(super) fn create(
        folder: &Path,
        release: &Url,
        root: &Path,
        programs: &Programs,
    ) -> anyhow::Result<Self> {
        let ports = free_ports()?;
        let pinned = fs::read(root)?;
        let mut nodes = Vec::new();
        for (id, role) in NODES {
            let node = node(
                &folder.join("nodes").join(id),
                id,
                role,
                (release, ports),
                programs,
            );
            let etc = node.config.parent().unwrap_or(folder);
            durable::create_folder(etc)?;
            durable::create_folder(&node.root().join("run"))?;
            durable::write(&node.settings.release.trusted_root, &pinned, 0o644)?;
            durable::write(&node.config, toml::to_string(&node.settings)?.as_bytes(), 0o644)?;
            nodes.push(node);
        }
        let site = Self { nodes };
        site.write_inventory(programs)?;
        Ok(site)
    }

    pub(super) fn core(&self) -> &Node {
        self.nodes
            .iter()
            .find(|node| node.id() == CORE)
            .unwrap_or(&self.nodes[0])
    }

    fn customised(&self) -> &Node {
        self.nodes
            .iter()
            .find(|node| node.id() == CUSTOMISED)
            .unwrap_or(&self.nodes[0])
    }

    fn write_inventory(&self, programs: &Programs) -> anyhow::Result<()> {
        let node = |node: &Node| InventoryNode {
            id: node.id().to_owned(),
            address: Ipv4Addr::LOCALHOST,
            roles: node.roles().to_owned(),
            transport: Transport::Local,
            kato: programs.kato.clone(),
            config: node.config.clone(),
        };
        let file = InventoryFile {
            cluster: Cluster { name: "demo" },
            ssh: Ssh { sudo: false },
            node: self.nodes.iter().map(node).collect(),
        };
        let path = crate::cluster::inventory::Inventory::path_beside(&self.core().config);
        durable::write(&path, toml::to_string(&file)?.as_bytes(), 0o644)?;
        Ok(())
    }

    /// Edits the overlay of one node as an operator would.
    pub(super) fn customise(&self) -> Result<(), DurableError> {
        let etc = self.customised().root().join(ETC);
        EDITS
            .iter()
            .try_for_each(|(name, text)| durable::write(&etc.join(name), text.as_bytes(), 0o644))
    }

    /// Whether the operator's edits are where they should be after the upgrade: the path of the saved copy below the
    /// node's root, or what is wrong.
    pub(super) fn check_customised(&self) -> Result<PathBuf, String> {
        let node = self.customised();
        for (name, expected) in EXPECTED {
            let path = node.root().join(ETC).join(name);
            let found = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            if found != expected {
                return Err(format!(
                    "{} holds {found:?}, expected {expected:?}",
                    path.display()
                ));
            }
        }
        let (name, edited) = EDITS[0];
        let backups = node.paths().backups();
        let attempts = fs::read_dir(&backups).map_err(|error| format!("{}: {error}", backups.display()))?;
        let mut saved = attempts
            .flatten()
            .map(|attempt| attempt.path().join("saved/etc").join(name));
        let is_it = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text == edited);
        let missing = || {
            format!(
                "the edited {name} of {} was not saved below {}",
                node.id(),
                backups.display()
            )
        };
        let found = saved.find(is_it).ok_or_else(missing)?;
        // The root itself is gone in a moment, unless it is kept.
        Ok(found.strip_prefix(node.root()).unwrap_or(&found).to_owned())
    }
}

fn node(
    root: &Path,
    id: &str,
    role: &str,
    (release, ports): (&Url, (u16, u16)),
    programs: &Programs,
) -> Node {
    let etc = root.join("etc/kato");
    let settings = Settings {
        node: NodeSettings {
            id: id.to_owned(),
            roles: vec![role.to_owned()],
            root: root.to_owned(),
            ..NodeSettings::default()
        },
        release: ReleaseSettings {
            url: release.clone(),
            trusted_root: etc.join("root.json"),
            ..ReleaseSettings::default()
        },
        cache: CacheSettings {
            port: ports.0,
            admin_port: ports.1,
            program: programs.proxy.clone(),
            ..CacheSettings::default()
        },
        platform: platform(),
        ..Settings::default()
    };
    Node {
        settings,
        config: etc.join("kato.toml"),
    }
}

/// A platform of files: being out of service is a folder, and the running version is the one in the installed files.
fn platform() -> PlatformSettings {
    let command = |argv: &[&str]| {
        Some(PlatformCommand {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            timeout: kato_shared::settings::HumanDuration::from_secs(30),
        })
    };
    PlatformSettings {
        retire: command(&["mkdir", "-p", "{root}/run/retired"]),
        resident: command(&["echo", "{\"count\": 0, \"blockers\": []}"]),
        rejoin: command(&["rm", "-rf", "{root}/run/retired"]),
        restart: command(&["touch", "{root}/run/restarted"]),
        health: command(&["test", "-d", "{root}/run"]),
        version: command(&["cat", &format!("{{root}}/{VERSION_FILE}")]),
        ..PlatformSettings::default()
    }
}

/// Two ports that nobody listens on. They are free again until the cache takes them; if another program is faster, the
/// cache says so.
fn free_ports() -> io::Result<(u16, u16)> {
    let one = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok((one.local_addr()?.port(), other.local_addr()?.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::inventory::Inventory;

    #[test]
    fn the_files_are_read_back_as_they_were_meant() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("1.root.json");
        durable::write(&root, b"{}", 0o644).unwrap();
        let programs = Programs {
            kato: "/opt/kato".into(),
            proxy: "/opt/kato-proxy".into(),
        };
        let url = Url::parse("http://127.0.0.1:1/").unwrap();
        let site = Site::create(folder.path(), &url, &root, &programs).unwrap();
        for node in &site.nodes {
            assert_eq!(Settings::load(&node.config).unwrap(), node.settings);
        }
        let inventory = Inventory::load(&Inventory::path_beside(&site.core().config)).unwrap();
        assert_eq!(inventory.core().id, CORE);
        assert_eq!(inventory.nodes.len(), NODES.len());
        assert_eq!(site.check_customised().unwrap_err().lines().count(), 1);
    }
}
