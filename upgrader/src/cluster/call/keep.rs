//! The plan file on Core: written before the first node is touched, not changed afterwards, and taken up by the next call.

use kato_shared::{durable, release::Version};

use super::Call;
use crate::{
    cli::node::UpgradeRequest,
    cluster::{
        AGAIN,
        control::Wish,
        event::{ClusterEvent, Watcher},
        overview,
    },
    document,
    exit::{Exit, Failure},
    plan::{
        cluster::ClusterPlan,
        facts::NodeStatus,
        preflight::{NodeProblem, Problem},
    },
    report::terminal,
};
use std::{collections::BTreeMap, path::PathBuf};

impl Call<'_> {
    fn plan_path(&self) -> PathBuf {
        self.paths().state_dir().join("state/plan.json")
    }

    /// The plan of an earlier call; one that was given up is none.
    ///
    /// # Errors
    /// [`Failure`] with 27 when it is damaged: its target and a pause of it would be forgotten with it.
    pub(super) fn earlier(&self) -> Result<Option<ClusterPlan>, Failure> {
        let earlier =
            document::read::<ClusterPlan>(&self.plan_path(), "the plan of an upgrade of the cluster")?;
        Ok(earlier.filter(|plan| !self.is_given_up(plan)))
    }

    /// What was asked for; without a version, the target of the plan that was begun and is not done, whatever was published meanwhile.
    ///
    /// # Errors
    /// As [`Call::earlier`].
    pub(super) fn bound(&self, facts: &BTreeMap<String, NodeStatus>) -> Result<UpgradeRequest, Failure> {
        let mut request = self.request.clone();
        let earlier = self.earlier()?;
        if request.version.is_some() || request.force {
            return Ok(request);
        }
        if let Some(plan) = earlier.filter(|plan| plan.binds(facts)) {
            terminal::say(&format!(
                "going on to {} by plan {}; `--version` chooses another release, `kato cluster abort` gives the plan up",
                plan.target, plan.id
            ));
            request.version = Some(plan.target);
        }
        Ok(request)
    }

    /// An unfinished plan for the same target has nodes that the inventory does not have any more: who took their entries out may
    /// not know that they were left behind.
    pub(super) fn forgotten(
        &self,
        earlier: Option<&ClusterPlan>,
        facts: &BTreeMap<String, NodeStatus>,
    ) -> Option<NodeProblem> {
        let plan = earlier.filter(|plan| plan.binds(facts))?;
        let is_asked = |version: &Version| *version == plan.target;
        self.request.version.as_ref().is_none_or(is_asked).then_some(())?;
        let gone = overview::vanished(plan, &self.inventory);
        (!gone.is_empty()).then(|| NodeProblem {
            node: self.inventory.core().id.clone(),
            problem: Problem::Said {
                what: format!(
                    "the plan {} to {} is not done and has {}, which cluster.toml does not have any more",
                    plan.id,
                    plan.target,
                    gone.join(", ")
                ),
                remedy: "put the entry back (`--exclude` leaves a node out, and says so), or give the plan up with `kato cluster abort`".into(),
            },
        })
    }

    /// An unfinished plan was paused, and `plan` would take its place: who has paused it wanted no further node to be begun, whatever rules
    /// and nodes cluster.toml has by now. A pause is lifted by whoever set it, never by another plan.
    pub(super) fn paused(&self, earlier: Option<&ClusterPlan>, plan: &ClusterPlan) -> Option<NodeProblem> {
        let earlier = unfinished(earlier, plan)?;
        let wanted = self.control().wanted(&earlier.id);
        let wanted = wanted.filter(|wanted| wanted.wish == Wish::Pause)?;
        Some(NodeProblem {
            node: self.inventory.core().id.clone(),
            problem: Problem::Said {
                what: format!(
                    "the plan {} to {} is {}, and this call would replace it by another one, because the target, the nodes or their rules are others",
                    earlier.id,
                    earlier.target,
                    wanted.since_when()
                ),
                remedy: "`kato cluster resume` lifts the pause: the same command then makes the new plan; or give the old one up with `kato cluster abort`"
                    .into(),
            },
        })
    }

    /// The name that `plan` will go by: its own, or that of the plan that it continues.
    ///
    /// # Errors
    /// As [`Call::earlier`].
    pub(super) fn id_of(&self, plan: &ClusterPlan) -> Result<String, Failure> {
        let earlier = self.earlier()?.filter(|earlier| plan.continues(earlier));
        Ok(earlier.map_or_else(|| plan.id.clone(), |earlier| earlier.id))
    }

    /// The line about a plan that is not done and that `plan` replaces.
    pub(super) fn replaced(earlier: Option<&ClusterPlan>, plan: &ClusterPlan) -> Option<String> {
        let earlier = unfinished(earlier, plan)?;
        let (there, all) = plan.reached_of(earlier);
        Some(format!(
            "this replaces the plan {} to {}, which is not done: {there} of {} there",
            earlier.id,
            earlier.target,
            kato_shared::counted(all, "node is", "nodes are")
        ))
    }

    /// Writes the plan, or takes up the one that an earlier call wrote; and whether it did.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be written.
    pub(super) fn keep(
        &self,
        plan: ClusterPlan,
        watcher: &dyn Watcher,
    ) -> Result<(ClusterPlan, bool), Failure> {
        let (plan, continued) = match self.earlier()? {
            Some(earlier) if plan.continues(&earlier) => (plan.continuing(&earlier), true),
            _ => {
                durable::write_json(&self.plan_path(), &plan, 0o644).map_err(|error| {
                    Failure::new(Exit::Preflight, error).hint(format!(
                        "nothing was changed on any node; make room on Core, then run `{AGAIN}` again"
                    ))
                })?;
                (plan, false)
            }
        };
        watcher.on(&ClusterEvent::ClusterStarted {
            plan: Box::new(plan.clone()),
            continued,
        }
        .into());
        Ok((plan, continued))
    }

    fn is_given_up(&self, plan: &ClusterPlan) -> bool {
        let wanted = self.control().wanted(&plan.id);
        wanted.is_some_and(|wanted| wanted.wish == Wish::Abort)
    }
}

/// The earlier plan, where it is not done and `plan` does not continue it.
fn unfinished<'p>(earlier: Option<&'p ClusterPlan>, plan: &ClusterPlan) -> Option<&'p ClusterPlan> {
    let earlier = earlier.filter(|earlier| !plan.continues(earlier))?;
    let (there, all) = plan.reached_of(earlier);
    (there < all).then_some(earlier)
}
