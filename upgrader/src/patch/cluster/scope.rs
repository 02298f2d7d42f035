//! Which nodes a command is for: this one, or from Core those of the cluster.

use std::path::Path;

use anyhow::anyhow;

use crate::{
    cluster::{
        self,
        inventory::{Inventory, InventoryNode},
    },
    exit::{Exit, Failure},
    plan::order::{self, OrderNode, OrderRules},
    settings::Settings,
};

/// Which nodes a command is for.
#[derive(Debug, Clone)]
pub enum Scope {
    /// This one.
    Here,
    /// Those of the cluster.
    Nodes(Box<Nodes>),
}

/// Nodes of a cluster.
#[derive(Debug, Clone)]
pub struct Nodes {
    pub(super) inventory: Inventory,
    /// Their ids, first one first.
    pub ids: Vec<String>,
}

/// Decides which nodes a command is for: with `local` this one, with `node` that one, else on Core all.
///
/// # Errors
/// [`Failure`] with 20 elsewhere than on Core, with what to do; with 2 for a node that the inventory does not have.
pub fn scope(settings: &Settings, config: &Path, local: bool, node: Option<&str>) -> Result<Scope, Failure> {
    let own = cluster::own_id(settings);
    if local || node == Some(own.as_str()) {
        return Ok(Scope::Here);
    }
    let core_role = OrderRules::default().core_role;
    if !Inventory::path_beside(config).exists() {
        let is_core = settings
            .node
            .roles
            .iter()
            .any(|role| role.eq_ignore_ascii_case(&core_role));
        if is_core && node.is_none() {
            return Ok(Scope::Here);
        }
        return Err(off_core(&own, None));
    }
    let inventory = cluster::load(settings, config)?;
    let core = inventory.core().clone();
    if own != core.id {
        return Err(off_core(&own, Some(&core)));
    }
    let ids = match node {
        Some(wanted) => {
            let found = inventory
                .nodes
                .iter()
                .find(|node| node.id == wanted || node.address == wanted);
            let found = found.ok_or_else(|| unknown(wanted, &inventory))?;
            if found.id == own {
                return Ok(Scope::Here);
            }
            vec![found.id.clone()]
        }
        None => in_order(&inventory),
    };
    Ok(Scope::Nodes(Box::new(Nodes { inventory, ids })))
}

fn off_core(own: &str, core: Option<&InventoryNode>) -> Failure {
    let place = core.map_or_else(String::new, |core| {
        format!(" (`{}` at {})", core.id, core.address)
    });
    let problem =
        anyhow!("this is `{own}`, and patches of the whole cluster are a matter of its Core node{place}");
    Failure::new(Exit::Preflight, problem)
        .hint("add `--local` for this node alone, or run the command on Core")
}

fn unknown(wanted: &str, inventory: &Inventory) -> Failure {
    let ids: Vec<_> = inventory.nodes.iter().map(|node| node.id.as_str()).collect();
    let problem = anyhow!("no node of the inventory has the id or address `{wanted}`");
    Failure::new(Exit::Usage, problem).hint(format!("the nodes are {}", ids.join(", ")))
}

/// The ids of all nodes in the order of roles, Core last.
fn in_order(inventory: &Inventory) -> Vec<String> {
    let nodes: Vec<_> = inventory
        .nodes
        .iter()
        .map(|node| OrderNode {
            id: &node.id,
            roles: &node.roles,
        })
        .collect();
    let rules = OrderRules::default().called(&inventory.core_role, &inventory.implicit_role);
    let order = order::order(&nodes, &rules);
    order.nodes.into_iter().map(|placed| placed.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(id: &str, roles: &[&str]) -> Settings {
        let mut settings = Settings::default();
        settings.node.id = id.into();
        settings.node.roles = roles.iter().map(ToString::to_string).collect();
        settings
    }

    fn hint(scope: Result<Scope, Failure>) -> String {
        let failure = scope.unwrap_err();
        assert_eq!(failure.exit, Exit::Preflight);
        format!("{failure}; {}", failure.hint.as_deref().unwrap_or_default())
    }

    #[test]
    fn r70_core_means_the_whole_cluster_in_role_order_and_other_nodes_only_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("kato.toml");
        let lone = |roles: &[&str], local| scope(&settings("n1", roles), &config, local, None);
        assert!(matches!(lone(&["primary"], false), Ok(Scope::Here)));
        assert!(matches!(lone(&["dea"], true), Ok(Scope::Here)));
        assert!(hint(lone(&["dea"], false)).contains("`--local`"));

        let text = "[[node]]\nid = \"core\"\naddress = \"10.0.0.1\"\nroles = [\"primary\"]\n\
                    [[node]]\nid = \"c1\"\naddress = \"10.0.0.2\"\nroles = [\"controller\"]\n\
                    [[node]]\nid = \"w1\"\naddress = \"10.0.0.3\"\nroles = [\"dea\"]\n";
        kato_shared::durable::write(&folder.path().join("cluster.toml"), text.as_bytes(), 0o644).unwrap();
        let ids = |node: Option<&str>| match scope(&settings("core", &["primary"]), &config, false, node)
            .unwrap()
        {
            Scope::Nodes(nodes) => nodes.ids.join(" "),
            Scope::Here => "here".into(),
        };
        assert_eq!(ids(None), "w1 c1 core");
        assert_eq!(ids(Some("10.0.0.2")), "c1");
        assert_eq!(ids(Some("core")), "here");
        let elsewhere = scope(&settings("w1", &["dea"]), &config, false, None);
        assert!(hint(elsewhere).contains("`core` at 10.0.0.1"));
        let unknown = scope(&settings("core", &["primary"]), &config, false, Some("x"));
        assert_eq!(unknown.unwrap_err().exit, Exit::Usage);
    }
}
