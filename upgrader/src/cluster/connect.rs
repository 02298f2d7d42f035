//! From the inventory to nodes that can be called: who is reached how, with which program and which settings file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;

use super::{
    inventory::{Inventory, InventoryNode, Transport},
    remote::RemoteNode,
    sudo,
};
use crate::{
    exit::{Exit, Failure},
    paths::NodePaths,
    report::terminal,
    settings::{NodeSettings, Settings},
    ssh::{Host, LocalHost, SshHost, SshOptions, askpass::Asker},
};

/// What a login gives a command on this machine: ssh gives the same on another one.
const LOGIN_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All nodes of `inventory`, ready to be called: where a person is at the terminal, the passwords that logins and sudo want were
/// asked for, once, and verified. Without a terminal nothing is ever read from one.
///
/// # Errors
/// As [`connect`].
pub async fn ready(
    inventory: &Inventory,
    settings: &Settings,
    config: &Path,
) -> Result<BTreeMap<String, RemoteNode>, Failure> {
    let asker = terminal::is_interactive().then(|| Asker::new(terminal::secret, inventory.ssh.one_password));
    let nodes = with_asker(inventory, settings, config, asker.as_ref())?;
    let Some(asker) = &asker else { return Ok(nodes) };
    let waiting = nodes
        .into_values()
        .map(|node| async { sudo::authenticated(node, asker).await });
    let nodes = futures_util::future::join_all(waiting).await;
    Ok(nodes
        .into_iter()
        .map(|node| (node.node.id.clone(), node))
        .collect())
}

/// All nodes of `inventory`; nothing is connected before the first call, and nobody is asked for a password. `config` is the
/// settings file of Core, where this runs. Core itself is always local, whatever its `transport` says: it is upgraded by a process beside this one.
///
/// # Errors
/// [`Failure`] with exit code 20 when this program or a folder for control sockets is not to be had.
pub fn connect(
    inventory: &Inventory,
    settings: &Settings,
    config: &Path,
) -> Result<BTreeMap<String, RemoteNode>, Failure> {
    with_asker(inventory, settings, config, None)
}

fn with_asker(
    inventory: &Inventory,
    settings: &Settings,
    config: &Path,
    asker: Option<&Arc<Asker>>,
) -> Result<BTreeMap<String, RemoteNode>, Failure> {
    let own = std::env::current_exe()
        .context("the path of the running program is not known")
        .map_err(|error| Failure::new(Exit::Bug, error))?;
    let options = SshOptions {
        settings: inventory.ssh.clone(),
        asking: asker.cloned(),
        program: "ssh".into(),
    };
    let local_sudo = inventory.ssh.sudo && !rustix::process::geteuid().is_root();
    let mut nodes = BTreeMap::new();
    for node in &inventory.nodes {
        let remote = if node.id == inventory.core().id {
            let core = InventoryNode {
                config: std::path::absolute(config).unwrap_or_else(|_no_folder| config.to_owned()),
                ..node.clone()
            };
            let program = core.kato.clone().unwrap_or_else(|| core_program(settings, &own));
            RemoteNode::new(core, local(node), program, local_sudo)
        } else if node.transport == Transport::Local {
            let program = node.kato.clone().unwrap_or_else(|| own.clone());
            RemoteNode::new(node.clone(), local(node), program, local_sudo)
        } else {
            let program = node
                .kato
                .clone()
                .unwrap_or_else(|| NodeSettings::default().kato_link);
            let host = SshHost::new(&node.id, &node.address, options.clone())
                .context("no private folder for ssh's control socket")
                .map_err(|error| Failure::new(Exit::Preflight, error))?;
            RemoteNode::new(node.clone(), Arc::new(host), program, inventory.ssh.sudo)
        };
        nodes.insert(node.id.clone(), remote);
    }
    Ok(nodes)
}

/// Ends all connections, each in its own time.
pub async fn close(nodes: &BTreeMap<String, RemoteNode>) {
    futures_util::future::join_all(nodes.values().map(RemoteNode::close)).await;
}

fn local(node: &InventoryNode) -> Arc<dyn Host> {
    let env = vec![("PATH".to_owned(), LOGIN_PATH.to_owned())];
    Arc::new(LocalHost::new(&node.id, env))
}

/// Where operators call `kato` on Core, so that its own update is seen; before there is a link, this program.
fn core_program(settings: &Settings, own: &Path) -> PathBuf {
    let link =
        NodePaths::new(&settings.node.root, &settings.node.state_dir).on_node(&settings.node.kato_link);
    if link.is_file() { link } else { own.to_owned() }
}
