//! Which nodes an operator wants upgraded: `--only` and `--exclude`, by id or by role.

use super::{Action, ClusterPlan};
use crate::cluster::inventory::{Inventory, InventoryNode};

/// The words of `--only` and `--exclude`. Without any, all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// These and no others; all when empty.
    pub only: Vec<String>,
    /// All but these.
    pub exclude: Vec<String>,
}

/// A word that means no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// It is neither a node nor a role.
    #[error("`{word}` is neither a node nor a role of this cluster: nodes are {}; roles are {}", nodes.join(", "), roles.join(", "))]
    Unknown {
        /// The word.
        word: String,
        /// The ids of all nodes.
        nodes: Vec<String>,
        /// All roles.
        roles: Vec<String>,
    },
    /// It is the role that every node has, and none has it alone.
    #[error("`{word}` means the nodes that have no other role, and every node of this cluster has one")]
    NobodyAlone {
        /// The word.
        word: String,
    },
}

impl Choice {
    /// Refuses words that mean nothing: a misspelt `--exclude` would exclude nobody.
    ///
    /// # Errors
    /// [`ChoiceError`] with the words that mean something.
    pub fn check(&self, inventory: &Inventory) -> Result<(), ChoiceError> {
        let implicit = &inventory.implicit_role;
        let means_nothing = |word: &&String| !inventory.nodes.iter().any(|node| means(word, node, implicit));
        let Some(word) = self.only.iter().chain(&self.exclude).find(means_nothing) else {
            return Ok(());
        };
        let word = word.trim().to_owned();
        if word.eq_ignore_ascii_case(implicit) {
            return Err(ChoiceError::NobodyAlone { word });
        }
        Err(ChoiceError::Unknown {
            word,
            nodes: inventory.nodes.iter().map(|node| node.id.clone()).collect(),
            roles: inventory.roles().into_iter().collect(),
        })
    }

    /// Whether `--only` names `node`.
    pub fn names(&self, node: &InventoryNode, implicit: &str) -> bool {
        self.only.iter().any(|word| means(word, node, implicit))
    }

    /// Whether `node` is wanted. The role `implicit`, which every node has, means those that have no other.
    pub fn wants(&self, node: &InventoryNode, implicit: &str) -> bool {
        let named = |words: &[String]| words.iter().any(|word| means(word, node, implicit));
        (self.only.is_empty() || named(&self.only)) && !named(&self.exclude)
    }
}

fn means(word: &str, node: &InventoryNode, implicit: &str) -> bool {
    let word = word.trim();
    if word.eq_ignore_ascii_case(implicit) && node.id != word {
        return node.roles.iter().all(|role| role.eq_ignore_ascii_case(implicit));
    }
    node.id == word || node.has_role(word)
}

/// Leaves Core out when others stay behind: an old node may not work with a new Core. Says so.
pub(super) fn spare_core(plan: &mut ClusterPlan) -> Option<String> {
    let behind: Vec<String> = plan
        .nodes
        .iter()
        .filter(|node| node.action == Action::LeftOut)
        .map(|node| node.id.clone())
        .collect();
    let core_role = plan.core_role.clone();
    let core = plan.nodes.iter_mut().find(|node| {
        node.action == Action::Upgrade
            && node
                .roles
                .iter()
                .any(|role| role.eq_ignore_ascii_case(&core_role))
    });
    let core = core.filter(|_| !behind.is_empty())?;
    core.action = Action::LeftOut;
    let (id, said) = (core.id.clone(), behind.join(", "));
    let verb = if behind.len() == 1 { "stays" } else { "stay" };
    plan.spared = behind;
    Some(format!(
        "Core ({id}) is left out as well: {said} {verb} behind, and Core is upgraded last"
    ))
}
