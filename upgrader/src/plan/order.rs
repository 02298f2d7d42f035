//! The order in which the nodes of a cluster are upgraded, and why each node stands where it stands.
//!
//! | Place | Nodes |
//! |---|---|
//! | by the list of roles | a node stands at the first role of the list that it has |
//! | `base` in the list | only nodes with no other role: every node has `base`, so it says nothing about the others |
//! | after the list | nodes that match nothing in it, such as data services |
//! | last | Core, whatever the list says: it runs the cache that the others need |
//!
//! Nodes at the same place are upgraded by their id; behind the list each set of roles is a place of its own. Roles are compared in lower case.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

/// The order when neither the release nor the operator gives one.
pub const DEFAULT_ROLE_ORDER: [&str; 5] = ["dea", "controller", "router", "base", "primary"];

/// A node as far as its place is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderNode<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its roles.
    pub roles: &'a [String],
}

/// What decides about places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRules {
    /// Roles, first upgraded first.
    pub list: Vec<String>,
    /// The role of Core.
    pub core_role: String,
    /// The role that every node has.
    pub implicit_role: String,
}

impl Default for OrderRules {
    fn default() -> Self {
        Self {
            list: DEFAULT_ROLE_ORDER.map(String::from).to_vec(),
            core_role: "primary".into(),
            implicit_role: "base".into(),
        }
    }
}

impl OrderRules {
    /// The same rules in the words of a cluster that calls its special roles so, also in the list.
    #[must_use]
    pub fn called(mut self, core_role: &str, implicit_role: &str) -> Self {
        for role in &mut self.list {
            if role.eq_ignore_ascii_case(&self.core_role) {
                core_role.clone_into(role);
            } else if role.eq_ignore_ascii_case(&self.implicit_role) {
                implicit_role.clone_into(role);
            }
        }
        core_role.clone_into(&mut self.core_role);
        implicit_role.clone_into(&mut self.implicit_role);
        self
    }
}

/// Why a node stands where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Place {
    /// It has a role of the list.
    Role {
        /// The first role of the list that it has.
        role: String,
    },
    /// It has no role but the one that every node has.
    ImplicitAlone {
        /// That role.
        role: String,
    },
    /// None of its roles is in the list. Nodes with other roles than these are never upgraded together with it.
    Unlisted {
        /// Its roles, sorted.
        roles: Vec<String>,
    },
    /// It is Core.
    Core,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role { role } => write!(f, "has the role {role}"),
            Self::ImplicitAlone { role } => write!(f, "has no role but {role}"),
            Self::Unlisted { roles } if roles.is_empty() => f.write_str("has no role of the order"),
            Self::Unlisted { roles } => write!(f, "{} is not in the order", roles.join(", ")),
            Self::Core => f.write_str("Core, always last"),
        }
    }
}

/// A node at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The node's id.
    pub id: String,
    /// Why it stands there.
    pub place: Place,
}

/// The order, and what the operator should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The nodes, first upgraded first.
    pub nodes: Vec<Placed>,
    /// What was asked for and is not done as asked.
    pub warnings: Vec<String>,
}

/// A list of roles that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleOrderError {
    /// The list has no role.
    #[error("the role order is empty: expected roles separated by commas, e.g. `{}`", valid.join(","))]
    Empty {
        /// The roles that could stand there.
        valid: Vec<String>,
    },
    /// The list has a word that is no role.
    #[error("`{role}` in the role order is no role of this cluster: valid are {}", valid.join(", "))]
    Unknown {
        /// The word.
        role: String,
        /// The roles that could stand there.
        valid: Vec<String>,
    },
}

/// Reads the operator's list of roles: in lower case, each role once, blanks around it removed.
///
/// `known` are the roles that the release or its modules name; the roles of the nodes, those that `rules` give a meaning to, and the default
/// order are valid too.
///
/// # Errors
/// [`RoleOrderError`] with the valid roles.
pub fn read_role_order(
    asked: &[String],
    nodes: &[OrderNode<'_>],
    known: &[String],
    rules: &OrderRules,
) -> Result<Vec<String>, RoleOrderError> {
    let default = OrderRules::default().called(&rules.core_role, &rules.implicit_role);
    let valid: BTreeSet<String> = nodes
        .iter()
        .flat_map(|node| node.roles)
        .chain(known)
        .chain(&rules.list)
        .chain(&default.list)
        .map(|role| role.to_lowercase())
        .filter(|role| role != "*")
        .collect();
    let listed = || valid.iter().cloned().collect();
    let mut list: Vec<String> = Vec::new();
    for role in asked.iter().map(|role| role.trim().to_lowercase()) {
        if !valid.contains(&role) {
            return Err(RoleOrderError::Unknown {
                role,
                valid: listed(),
            });
        }
        if !list.contains(&role) {
            list.push(role);
        }
    }
    if list.is_empty() {
        return Err(RoleOrderError::Empty { valid: listed() });
    }
    Ok(list)
}

/// Puts `nodes` in order.
pub fn order(nodes: &[OrderNode<'_>], rules: &OrderRules) -> Order {
    let mut ranked: Vec<(usize, &str, Place)> = nodes
        .iter()
        .map(|node| {
            let (rank, place) = place(node, rules);
            (rank, node.id, place)
        })
        .collect();
    ranked.sort_unstable_by_key(|(rank, id, _)| (*rank, *id));
    // What is upgraded together stands together: nodes with the same unlisted roles, at the first of them.
    let places: Vec<Place> = ranked.iter().map(|(_, _, place)| place.clone()).collect();
    let first = |(rank, _, place): &(usize, &str, Place)| match place {
        Place::Unlisted { .. } => (*rank, places.iter().position(|other| other == place)),
        Place::Role { .. } | Place::ImplicitAlone { .. } | Place::Core => (*rank, None),
    };
    ranked.sort_by_cached_key(first);
    let nodes = ranked
        .into_iter()
        .map(|(_, id, place)| Placed {
            id: id.to_owned(),
            place,
        })
        .collect();
    Order {
        nodes,
        warnings: core_warning(rules).into_iter().collect(),
    }
}

/// The node's place as a rank (smaller first) and in words.
fn place(node: &OrderNode<'_>, rules: &OrderRules) -> (usize, Place) {
    let is = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let has = |role: &str| node.roles.iter().any(|own| is(own, role));
    let unlisted = rules.list.len();
    if has(&rules.core_role) {
        return (unlisted + 1, Place::Core);
    }
    let own = node.roles.iter().filter(|role| !is(role, &rules.implicit_role));
    let mut own: Vec<String> = own.cloned().collect();
    own.sort_unstable();
    for (rank, listed) in rules.list.iter().enumerate() {
        let role = listed.clone();
        if is(listed, &rules.implicit_role) {
            if own.is_empty() {
                return (rank, Place::ImplicitAlone { role });
            }
        } else if has(listed) {
            return (rank, Place::Role { role });
        }
    }
    (unlisted, Place::Unlisted { roles: own })
}

/// A list that puts Core's role before others is not followed, and the operator is told so.
fn core_warning(rules: &OrderRules) -> Option<String> {
    let at = rules
        .list
        .iter()
        .position(|role| role.eq_ignore_ascii_case(&rules.core_role))?;
    (at + 1 < rules.list.len()).then(|| {
        format!(
            "the role order names {} before {}; Core is upgraded last all the same",
            rules.core_role,
            rules.list[at + 1..].join(", ")
        )
    })
}

#[cfg(test)]
mod tests;
