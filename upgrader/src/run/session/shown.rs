//! A look at the plan: what would be done, and what the checks before the first change would say to it. Nothing is changed.

use super::Session;
use crate::{
    attempt::Attempt,
    exit::Failure,
    installed::Installed,
    plan::node::NodePlan,
    report::terminal,
    run::{
        ending::{Ending, show_plans},
        engine::{self, Stopped},
        steps::{self, Finding},
    },
};

impl Session {
    /// Shows the plans with what was found.
    ///
    /// # Errors
    /// [`Stopped`] with what the upgrade would be refused for; the plans are shown in any case.
    pub(super) async fn show(
        &mut self,
        attempt: Attempt,
        installed: Option<Installed>,
        plans: &[NodePlan],
    ) -> Result<Ending, Stopped> {
        let mut found: Vec<Finding> = self.refusals.drain(..).map(Finding::Refused).collect();
        let run = self.run(attempt, installed, plans)?;
        let looking = async { Ok(steps::look_ahead(&run).await) };
        let ahead = engine::unless_stopped(&self.stop, true, looking).await;
        self.put_away(run);
        found.extend(ahead.map_err(refused)?);
        show_plans(plans, &found, self.request.json);
        let refusals = found.into_iter().filter_map(Finding::refusal).collect();
        one_of(refusals).map_or(Ok(Ending::Shown), |failure| Err(refused(failure)))
    }
}

fn refused(failure: Failure) -> Stopped {
    Stopped {
        step: "preflight".into(),
        failure,
    }
}

/// All refusals as one; `None` when there is none.
fn one_of(mut refusals: Vec<Failure>) -> Option<Failure> {
    if refusals.len() < 2 {
        return refusals.pop();
    }
    let exit = refusals.first()?.exit;
    let texts: Vec<String> = refusals.iter().map(terminal::describe).collect();
    let problem = anyhow::anyhow!(
        "{} things would stop the upgrade: {}",
        texts.len(),
        texts.join("; ")
    );
    Some(Failure::new(exit, problem).hint("nothing was changed; the plan names a remedy for each"))
}
