//! The plan shown, and the operator's yes.

use anyhow::anyhow;

use super::Call;
use crate::{
    cluster::{AGAIN, report},
    exit::{Exit, Failure},
    plan::cluster::{Action, ClusterPlan},
    report::terminal,
};

impl Call<'_> {
    pub(super) fn print_plan(&self, plan: &ClusterPlan) {
        if self.request.json {
            terminal::json(plan);
        } else {
            for line in report::plan_lines(plan) {
                terminal::data(&line);
            }
        }
    }

    pub(super) fn confirm(&self, plan: &ClusterPlan) -> Result<(), Failure> {
        if !self.request.json {
            for line in report::plan_lines(plan) {
                terminal::say(&line);
            }
        }
        // What is resumed was said yes to.
        if self.request.skip_confirmation || self.request.resume {
            return Ok(());
        }
        if !terminal::is_interactive() {
            let what = anyhow!(
                "nobody is here to confirm the upgrade of the cluster to {}",
                plan.target
            );
            return Err(Failure::new(Exit::Usage, what).hint(format!(
                "look at the plan with `{AGAIN} --plan`, then add `--skip-confirmation`"
            )));
        }
        let count = kato_shared::counted(plan.upgrades().count(), "node", "nodes");
        if terminal::confirm(&format!("upgrade {count} to {}?", plan.target)) {
            Ok(())
        } else {
            Err(Failure::new(
                Exit::Declined,
                anyhow!("not confirmed; nothing was changed on any node"),
            ))
        }
    }
}

/// Why there is nothing to do.
pub(super) fn nothing_to_do(plan: &ClusterPlan) -> String {
    let with = |action: Action| {
        let nodes = plan.nodes.iter().filter(move |node| node.action == action);
        nodes.map(|node| node.id.as_str()).collect::<Vec<_>>()
    };
    let (there, left_out) = (with(Action::None), with(Action::LeftOut));
    let target = &plan.target;
    match (there.is_empty(), left_out.is_empty()) {
        (_, true) => format!("every node is at {target} already"),
        (true, false) => format!("nothing to do: left out: {}", left_out.join(", ")),
        (false, false) => format!(
            "nothing to do: at {target} already: {}; left out: {}",
            there.join(", "),
            left_out.join(", ")
        ),
    }
}
