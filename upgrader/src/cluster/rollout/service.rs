//! Who is in service, asked from the nodes right before a batch: since the plan was made, or the batch before ended, a pause may have
//! lasted for days and a machine may have died.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    cluster::{facts, remote::RemoteNode},
    plan::{
        absence,
        batch::{self, Member, Turn},
        policy::Policies,
    },
};

/// How often nodes are asked before their silence stops a rollout, and how long in between: one lost packet is no dead machine.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// The turn of those whose turn is that of `ids`, decided anew with what the nodes say now.
pub(super) async fn turn(
    members: &mut [Member],
    policies: &Policies,
    nodes: &BTreeMap<String, RemoteNode>,
    ids: &[String],
) -> Turn {
    let asked = absence::peers(members, ids);
    for look in 0..LOOKS {
        if asked.is_empty() {
            break;
        }
        if look > 0 {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        let answers = facts::gather(asked.iter().filter_map(|id| nodes.get(id))).await;
        absence::note(members, &asked, &answers.facts);
        let turn = batch::next(members, policies);
        if matches!(turn, Turn::Begin(_)) {
            return turn;
        }
    }
    batch::next(members, policies)
}
