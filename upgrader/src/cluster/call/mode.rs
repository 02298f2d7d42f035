//! The platform's maintenance mode around one call: begun before the first node is changed, ended behind the last one, and named
//! where the call ends in between.

use super::Call;
use crate::{
    exit::{Exit, Failure},
    maintenance::{self, Maintenance},
    plan::cluster::ClusterPlan,
    report::terminal,
};

impl Call<'_> {
    pub(super) fn maintenance(&self) -> Maintenance {
        Maintenance::of(self.settings, &self.clock)
    }

    pub(super) fn may_ask(&self) -> bool {
        !self.request.skip_confirmation && !self.request.resume && terminal::is_interactive()
    }

    pub(super) async fn begin_maintenance(&self, run: &str) -> Result<(), Failure> {
        let may_ask = self.may_ask();
        let agreed = || may_ask && terminal::confirm("maintenance mode is off; turn it on until the end?");
        self.maintenance().begin(run, agreed).await
    }

    /// Puts the maintenance mode back as it was, when the upgrade that it was turned on for has ended with `plan`, of which everything is
    /// done. The nodes are upgraded whatever becomes of it.
    pub(super) async fn end_maintenance(&self, plan: &ClusterPlan) -> Result<(), Failure> {
        if let Ok(Some(record)) = self.maintenance().ours() {
            let behind = plan.leaves_behind(&record.run, self.earlier()?.as_ref());
            if !behind.is_empty() {
                terminal::say(&format!(
                    "maintenance mode stays on: the upgrade {} that turned it on is not done with {}; its end turns it off, or `{}` at any time",
                    record.run,
                    behind.join(", "),
                    maintenance::OFF
                ));
                return Ok(());
            }
        }
        match self.maintenance().end().await {
            Ok(said) => {
                if let Some(line) = said {
                    terminal::say(&line);
                }
                Ok(())
            }
            Err(error) => {
                let what = anyhow::Error::new(error)
                    .context("every node is upgraded, and maintenance mode could not be turned off");
                Err(Failure::new(Exit::TryAgain, what).hint(format!("`{}` turns it off", maintenance::OFF)))
            }
        }
    }

    /// A failure that leaves the maintenance mode on says so.
    pub(super) fn with_maintenance(&self, failure: Failure) -> Failure {
        match (self.maintenance().left_on(), &failure.hint) {
            (Some(left), Some(hint)) => {
                let hint = format!("{hint}. {left}");
                failure.hint(hint)
            }
            (Some(left), None) => failure.hint(left),
            (None, _) => failure,
        }
    }
}
