//! `--resume`: the plan that was begun from this Core and not given up, with its release, its nodes and its order, and nothing else.

use anyhow::anyhow;

use super::Call;
use crate::{
    cluster::AGAIN,
    exit::{Exit, Failure},
    plan::cluster::{Action, Choice, ClusterPlan},
};

impl Call<'_> {
    /// The call; with `--resume`, as the plan that was begun has it, and `None` where none was.
    ///
    /// # Errors
    /// As [`Call::earlier`].
    pub(in crate::cluster) fn resumed(mut self) -> Result<Option<Self>, Failure> {
        if !self.request.resume {
            return Ok(Some(self));
        }
        let Some(begun) = self.earlier()? else {
            return Ok(None);
        };
        let left_out = begun.nodes.iter().filter(|node| node.action == Action::LeftOut);
        self.request.choice = Choice {
            only: Vec::new(),
            exclude: left_out.map(|node| node.id.clone()).collect(),
        };
        self.request.version = Some(begun.target);
        self.request.role_order = begun.role_order;
        Ok(Some(self))
    }

    /// What is to be resumed and came out as another plan is not begun: the inventory or a node is not what it was.
    ///
    /// # Errors
    /// [`Failure`] with 20; as [`Call::earlier`].
    pub(super) fn refuse_another(&self, plan: &ClusterPlan) -> Result<(), Failure> {
        let has_work = plan.upgrades().next().is_some();
        let earlier = self.earlier()?.filter(|_| self.request.resume && has_work);
        let Some(begun) = earlier.filter(|begun| !plan.continues(begun)) else {
            return Ok(());
        };
        let what = anyhow!(
            "the plan {} to {} cannot be resumed: it was begun with `--force`, or the inventory, its rules, the release or a node is not as it was",
            begun.id,
            begun.target
        );
        Err(Failure::new(Exit::Preflight, what).hint(format!(
            "`{AGAIN} --version {} --plan` shows a new plan; without `--plan` it is followed",
            begun.target
        )))
    }
}
