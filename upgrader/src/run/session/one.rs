//! One release of a run: planned, confirmed, announced, and driven through its steps.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use kato_shared::release::{NoticeWhen, Version};

use super::{Session, early};
use crate::{
    attempt::Attempt,
    customizations::Fate,
    exit::{Exit, Failure},
    installed::Installed,
    journal::Act,
    patch::{act::Purpose, places, record::Patches},
    plan::node::NodePlan,
    report::{self, terminal},
    run::{
        Run,
        ending::{Ending, kato_is_new},
        engine::{self, Stopped},
        event::EventKind,
        look::make_plans,
        step::{Acted, Step},
        steps,
    },
};

impl Session {
    /// One upgrade to one release.
    pub(super) async fn one(
        &mut self,
        mut attempt: Attempt,
        installed: Option<Installed>,
    ) -> Result<(Ending, Option<Installed>), Stopped> {
        attempt.tolerant |= self.request.tolerant;
        // Container runtimes and package managers are asked for what they have.
        let looking = Box::pin(make_plans(&self.node, &attempt, installed.as_ref()));
        let plans = engine::unless_stopped(&self.stop, true, looking)
            .await
            .map_err(early)?;
        self.passed_before(&mut attempt, &plans);
        if self.request.plan_only {
            let ending = Box::pin(self.show(attempt, installed.clone(), &plans)).await?;
            return Ok((ending, installed));
        }
        if !self.confirmed(&plans).await? {
            return Ok((Ending::Declined, installed));
        }
        let mut run = self.run(attempt, installed, &plans)?;
        if !self.start.kato_alone
            && let Err(error) = run.save()
        {
            self.put_away(run);
            return Err(early(error.into()));
        }
        let outcome = match self.drive(&mut run).await {
            Err(_reason) if run.attempt.rollback.is_some() => self.lead_back(&mut run).await,
            outcome => outcome,
        };
        let recorded = self.put_away(run);
        Ok((outcome?, recorded))
    }

    /// Reads from the journal whether an upgrade whose record is lost went beyond the point of no return.
    fn passed_before(&self, attempt: &mut Attempt, plans: &[NodePlan]) {
        let taken_up = self.taken_up.as_ref().filter(|one| one.id == attempt.id);
        if let (Some(taken_up), Some((journal, _)), Some(plan)) = (taken_up, &self.desk, plans.first()) {
            let point = &plan.way_back.point_of_no_return;
            if attempt.point_passed.is_none() && journal.has_begun(point, taken_up.began()) {
                attempt.point_passed = Some(point.clone());
            }
        }
    }

    /// A run about `attempt` by the first of `plans`, with journal and stream on loan.
    pub(super) fn run(
        &mut self,
        attempt: Attempt,
        installed: Option<Installed>,
        plans: &[NodePlan],
    ) -> Result<Run, Stopped> {
        let patches = Patches::load(&self.node.paths).map_err(|error| early(error.into()))?;
        let bases = places::bases(
            &attempt.release,
            attempt.patch.as_ref(),
            installed.as_ref(),
            &patches,
        );
        let (Some((journal, stream)), Some((plan, later))) = (self.desk.take(), plans.split_first()) else {
            let problem = anyhow::anyhow!("two upgrades in one run at a time, or one without a plan");
            return Err(early(Failure::new(Exit::Bug, problem)));
        };
        Ok(Run {
            bases,
            node: Arc::clone(&self.node),
            config: self.start.config.clone(),
            request: self.request.clone(),
            id: self.id.clone(),
            installed,
            plan: plan.clone(),
            later_conflicts: later.iter().flat_map(conflicts).collect(),
            later_space: later.iter().flat_map(|plan| plan.space.clone()).collect(),
            source: self.source.clone(),
            journal,
            stream,
            stop: self.stop.clone(),
            updated_to: self.start.updated_to,
            // One patch after the other is one interruption; a release is shown to work before the next one begins.
            stays_out: attempt.patch.is_some() && later.iter().any(|plan| plan.retire.is_some()),
            is_emptied: self.is_emptied,
            is_beside: !self.may(Some(&attempt.id)).write,
            has_worked: false,
            attempt,
            not_back: BTreeMap::new(),
            seen_version: None,
        })
    }

    /// Takes journal and stream back, and gives what is installed now.
    pub(super) fn put_away(&mut self, run: Run) -> Option<Installed> {
        self.version = run.seen_version.or_else(|| self.version.take());
        self.is_emptied = run.is_emptied;
        self.has_worked |= run.has_worked;
        self.desk = Some((run.journal, run.stream));
        run.installed
    }

    /// The first event. The second release on the way, or the program after its self-update, is the same run.
    pub(super) fn announce(&mut self, run: &mut Run) -> Result<(), Stopped> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        let mut from = run.attempt.from.as_ref().map(ToString::to_string);
        let mut to = self.to.clone();
        let purpose = run.attempt.patch.as_ref().map(|act| act.purpose);
        if purpose.is_some_and(|purpose| purpose != Purpose::Install) {
            // From the release with the patch to the one without.
            from = Some(std::mem::replace(
                &mut to,
                run.attempt.release.version.to_string(),
            ));
            self.to.clone_from(&to);
        }
        self.audit_begin(from.as_deref())
            .map_err(|error| early(error.into()))?;
        let journalled = run.journal.record(Act::Started {
            from: from.clone(),
            to: to.clone(),
        });
        journalled.map_err(|error| early(error.into()))?;
        run.stream.tell(EventKind::RunStarted { from, to });
        Ok(())
    }

    async fn drive(&mut self, run: &mut Run) -> Result<Ending, Stopped> {
        self.announce(run)?;
        if let Some(act) = run.attempt.patch.as_ref().filter(|_| self.is_series) {
            let step = format!("patch:{}", act.name);
            run.stream.tell(EventKind::StepStarted { step });
        }
        if run.is_beside && !self.start.kato_alone {
            let text = self.told_beside(run);
            run.stream.tell(EventKind::Notice { text });
        }
        let steps: Vec<Box<dyn Step>> = if self.start.kato_alone {
            steps::kato_alone()
        } else if self.request.download_only {
            steps::download(run)
        } else {
            steps::all(run)
        };
        match engine::drive(run, &steps).await? {
            Acted::Rebooting => return Ok(Ending::Rebooting),
            Acted::Done if self.start.kato_alone => kato_is_new(run)?,
            Acted::Done => {}
        }
        if run.seen_version.is_some() {
            let notices = run.attempt.release.notices.clone();
            for notice in notices
                .into_iter()
                .filter(|notice| notice.when == NoticeWhen::Success)
            {
                run.stream.tell(EventKind::Notice { text: notice.text });
            }
        }
        Ok(Ending::Done)
    }

    /// Shows the plans and asks, unless that was answered before.
    async fn confirmed(&self, plans: &[NodePlan]) -> Result<bool, Stopped> {
        let request = &self.request;
        if request.skip_confirmation || request.resume || request.download_only || self.begun {
            return Ok(true);
        }
        terminal::say(&report::plan::way(plans));
        let is_patch = plans.first().is_some_and(|plan| plan.patch.is_some());
        self.agreed(if is_patch {
            "Patch this node?"
        } else {
            "Upgrade this node?"
        })
        .await
    }

    /// Asks, until the answer comes or somebody stops the run.
    pub(super) async fn agreed(&self, question: &'static str) -> Result<bool, Stopped> {
        let is_yes = tokio::select! {
            is_yes = terminal::ask(question) => is_yes,
            () = self.stop.cancelled() => return Err(early(engine::stopped())),
        };
        if !is_yes {
            terminal::say("nothing was changed");
        }
        Ok(is_yes)
    }
}

/// The local changes that a release refuses, with its version.
fn conflicts(plan: &NodePlan) -> Vec<(Version, PathBuf)> {
    let files = plan.local_changes.iter().flat_map(|module| &module.files);
    files
        .filter(|file| file.fate == Fate::Refused)
        .map(|file| (plan.to.clone(), file.path.clone()))
        .collect()
}
