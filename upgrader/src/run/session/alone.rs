//! A run that somebody started on this node by itself: Core waits for the others.

use super::Session;
use crate::{
    attempt::Target,
    cluster::alone,
    exit::{Exit, Failure},
    installed::Installed,
    run::engine,
};

impl Session {
    /// Refuses an upgrade of Core alone while other nodes are behind where it leads, unless it is forced. A run that Core started
    /// itself for the whole cluster has a name and is not asked; one that only looks is told with its plan. The first installation leaves
    /// nobody behind who was level before.
    ///
    /// # Errors
    /// [`Failure`] with 20, naming the nodes.
    pub(super) async fn core_waits(
        &mut self,
        targets: &[Target],
        installed: Option<&Installed>,
    ) -> Result<(), Failure> {
        let request = &self.request;
        let is_of_the_cluster = self.start.run.is_some() || self.start.updated_to.is_some();
        if request.force || request.resume || request.download_only || is_of_the_cluster {
            return Ok(());
        }
        let (Some(target), Some(_)) = (targets.last(), installed) else {
            return Ok(());
        };
        let (settings, config) = (&self.node.settings, &self.start.config);
        let asking = alone::refuse_core(settings, config, &target.release.version);
        match engine::unless_stopped(&self.stop, true, asking).await {
            Err(failure) if failure.exit == Exit::Preflight && self.request.plan_only => {
                self.refusals.push(failure);
                Ok(())
            }
            other => other,
        }
    }
}
