//! What an upgrade of the cluster must not leave behind unsaid: waived licence limits, and the way in that was opened for it.

use std::collections::BTreeMap;

use super::Call;
use crate::{
    audit::AuditLog,
    cluster::{facts, remote::RemoteNode},
    exit::{Exit, Failure},
    licence::{self, Licence},
    plan::{
        absence,
        cluster::ClusterPlan,
        facts::NodeStatus,
        preflight::{NodeProblem, Problem},
    },
    report::terminal,
};

impl Call<'_> {
    pub(super) fn audit_log(&self) -> AuditLog {
        let core = &self.inventory.core().id;
        AuditLog::in_folder(&self.paths().audit(), core, self.clock.clone())
    }

    /// Limits that could not be restored are a finding before they are waived.
    pub(super) fn unlicensed(&self) -> Option<NodeProblem> {
        Licence::check(self.settings).map(|what| NodeProblem {
            node: self.inventory.core().id.clone(),
            problem: Problem::Said {
                what: what.to_owned(),
                remedy: "set both, or neither".to_owned(),
            },
        })
    }

    pub(super) async fn waive_limits(&self, plan: &ClusterPlan) -> Result<(), Failure> {
        let log = self.audit_log();
        if Licence::of(self.settings, &log)
            .waive(&plan.id, self.clock.now())
            .await?
        {
            terminal::say(
                "the platform's licence limits are waived until this call ends and no node is at work any more",
            );
        }
        Ok(())
    }

    /// Has the limits kept again that this call waived, or one that was killed, whatever the `outcome`; unless the upgrade of a node goes on
    /// by itself, for which they were waived.
    pub(super) async fn with_limits_restored(
        &self,
        outcome: Result<Exit, Failure>,
        nodes: &BTreeMap<String, RemoteNode>,
    ) -> Result<Exit, Failure> {
        let Some(left) = licence::left_waived(self.settings) else {
            return outcome;
        };
        let answers = facts::gather(nodes.values()).await;
        let is_busy = |(_, status): &(&String, &NodeStatus)| absence::is_busy(Some(*status));
        let busy: Vec<&str> = answers
            .facts
            .iter()
            .filter(is_busy)
            .map(|(id, _)| id.as_str())
            .collect();
        if !busy.is_empty() {
            terminal::say(&format!(
                "warning: a run is at work on {}, and {left}",
                busy.join(", ")
            ));
            return outcome;
        }
        let log = self.audit_log();
        match (Licence::of(self.settings, &log).restore().await, outcome) {
            (Ok(true), outcome) => {
                terminal::say("the platform's licence limits hold again");
                outcome
            }
            (Ok(false), outcome) => outcome,
            (Err(failure), Ok(_upgraded)) => Err(failure),
            (Err(also), Err(failure)) => {
                terminal::say(&format!("warning: {}", terminal::describe(&also)));
                Err(failure)
            }
        }
    }

    /// Names the nodes on which sudo lets Core in without a password when everything is done (R19). Kato has made none of these rules, and
    /// takes none away.
    pub(super) fn remind_of_rules(nodes: &BTreeMap<String, RemoteNode>) {
        let open = nodes.values().filter(|node| node.is_let_in());
        let open: Vec<&str> = open.map(|node| node.node.id.as_str()).collect();
        if !open.is_empty() {
            terminal::say(&format!(
                "sudo still lets Core in without a password on {}: where that was for this upgrade alone, take the rule away there \
                 (`/etc/sudoers.d/kato`, if it is the one of `kato print-sudoers`)",
                open.join(", ")
            ));
        }
    }
}
