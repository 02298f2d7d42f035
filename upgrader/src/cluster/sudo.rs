//! sudo's password, asked for and verified before anything else is done with a node: a wrong one must not be found out in the
//! middle of an upgrade.
//!
//! A rule without a password ([`crate::cli::sudoers`]) is always tried first; then nobody is asked anything.

use std::sync::Arc;

use super::remote::RemoteNode;
use crate::{report::terminal, ssh::askpass::Asker};

/// How often a password is asked for until the node is left to the preflight, which names it.
const ATTEMPTS: u32 = 3;

/// The node with what its sudo wants. One that cannot be reached, or whose sudo takes none of the passwords, is given back as it
/// is: its next call says what is wrong, in the words of everything else that may be.
pub(super) async fn authenticated(node: RemoteNode, asker: &Arc<Asker>) -> RemoteNode {
    if !node.is_by_sudo() || !node.wants_password().await.unwrap_or(false) {
        return node;
    }
    let (id, address) = (node.node.id.clone(), node.node.address.clone());
    let prompt = format!("password for sudo on {id} ({address}): ");
    for attempt in 0..ATTEMPTS {
        let Some(password) = asker.answer(&prompt, &[&id, &address], attempt > 0).await else {
            return node;
        };
        match node.takes(&password).await {
            Ok(true) => return node.with_password(password),
            Ok(false) => terminal::say(&format!("{id}: sudo does not take this password")),
            Err(_said_by_its_next_call) => return node,
        }
    }
    node
}
