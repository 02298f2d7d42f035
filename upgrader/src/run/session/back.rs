//! The part of a run that leads back to the old release; [`crate::run::back`] decides that it does.

use super::{Session, early};
use crate::{
    attempt::Attempt,
    exit::{Exit, Failure},
    installed::Installed,
    latch::Latches,
    module::{ModuleError, undo},
    run::{
        Run, back,
        ending::Ending,
        engine::{self, Stopped},
        event::EventKind,
        look::make_plans,
        step::Acted,
        steps,
    },
};

/// Where a node goes that was found on its way back.
pub(super) enum Way {
    /// Forward again, with this upgrade.
    Forward(Box<Attempt>),
    /// Back, and this is how the run ends.
    Ended(Ending),
}

impl Session {
    /// Goes on with a way back that an earlier run began. `--force` gives it up and goes forward with everything again.
    ///
    /// # Errors
    /// [`Stopped`], also when the node is back: the upgrade is not what was asked for.
    pub(super) async fn on_the_way_back(
        &mut self,
        mut attempt: Attempt,
        installed: Option<Installed>,
    ) -> Result<Way, Stopped> {
        let version = attempt.leads_to().to_string();
        // Core has every node fetch before the first is changed. What this one needs next, it has; its turn brings it back.
        if self.request.download_only && self.start.run.is_some() {
            let text = format!(
                "the node is on its way back to {version}, and goes on with it in its turn; nothing is fetched before"
            );
            self.tell(EventKind::Warning { text });
            return Ok(Way::Ended(Ending::Done));
        }
        if self.request.plan_only || self.request.download_only {
            let problem = anyhow::anyhow!("the node is on its way back to {version}");
            let failure = Failure::new(Exit::Preflight, problem).hint(format!(
                "finish it with `{}`, or go forward with `kato node upgrade --force`",
                attempt.command()
            ));
            return Err(early(failure));
        }
        if self.request.force {
            let text = format!("the way back to {version} is given up; every module is installed again");
            self.tell(EventKind::Warning { text });
            Latches::in_folder(self.node.paths.latches())
                .clear()
                .map_err(|error| early(error.into()))?;
            attempt.rollback = None;
            attempt.failures.clear();
            attempt
                .save(&self.node.paths)
                .map_err(|error| early(error.into()))?;
            return Ok(Way::Forward(Box::new(attempt)));
        }
        let plans = make_plans(&self.node, &attempt, installed.as_ref())
            .await
            .map_err(early)?;
        self.to = attempt.aim();
        let mut run = self.run(attempt, installed, &plans)?;
        let outcome = match self.announce(&mut run) {
            Ok(()) => self.lead_back(&mut run).await,
            Err(stopped) => Err(stopped),
        };
        self.put_away(run);
        outcome.map(Way::Ended)
    }

    /// Takes the steps of the way back.
    ///
    /// # Errors
    /// [`Stopped`] with 22 when the node is back, with 23 when it is not.
    pub(super) async fn lead_back(&mut self, run: &mut Run) -> Result<Ending, Stopped> {
        run.plan.is_tolerant = true;
        if let Some(act) = run
            .attempt
            .patch
            .as_ref()
            .filter(|_| run.attempt.is_taking_back())
        {
            let kept = run.node.paths.patch_kept(&act.name);
            if undo::is_put_by(&kept) {
                undo::take_out(&run.node.paths, &kept).map_err(|error| back::failed(run, undoing(error)))?;
            }
        }
        let found =
            steps::notes::of(&run.node, &run.attempt).map_err(|error| back::failed(run, undoing(error)))?;
        let steps = steps::back(run, found);
        match engine::drive(run, &steps).await {
            Ok(Acted::Rebooting) => Ok(Ending::Rebooting),
            Ok(Acted::Done) if run.attempt.is_taking_back() => Ok(Ending::Done),
            Ok(Acted::Done) => Err(back::rolled_back(&run.attempt)),
            Err(stopped) => Err(back::failed(run, stopped)),
        }
    }
}

/// What fails before the first module goes back, but about it.
fn undoing(error: ModuleError) -> Stopped {
    Stopped {
        step: "undo".into(),
        failure: error.into(),
    }
}
