//! A run from the choice of the release to its last event. It may be about several releases, one after the other.

mod alone;
mod audited;
mod back;
mod patch;
mod target;

use std::sync::Arc;

use kato_shared::{chain::Chain, durable, release::NoticeWhen};
use tokio_util::sync::CancellationToken;

use self::{back::Way, patch::First, target::Goal};
use super::{
    Node, Run,
    ending::{self, Ending, kato_is_new, report_of, show_plans},
    engine::{self, Stopped},
    event::EventKind,
    look::make_plans,
    room,
    step::{Acted, Step},
    steps::{self, retire},
    stream::Stream,
    upgrade::Start,
};
use crate::{
    attempt::{Attempt, Target},
    cli::node::UpgradeRequest,
    exit::{Exit, Failure},
    fetch,
    installed::Installed,
    journal::{Act, Journal},
    marker,
    notify::Notifier,
    patch::{places, record::Patches},
    plan::node::NodePlan,
    platform::Words,
    report::{self, Output, terminal},
    resume::{self, ResumeUnit},
    source::Source,
    space::reserve,
};

/// A failure before the first step.
fn early(failure: Failure) -> Stopped {
    Stopped {
        step: "version-check".into(),
        failure,
    }
}

/// A run before and after it is about one release.
pub(super) struct Session {
    node: Arc<Node>,
    request: UpgradeRequest,
    start: Start,
    id: String,
    source: Option<Arc<dyn Source>>,
    /// Journal and stream; with the [`Run`] while it is about one release.
    desk: Option<(Journal, Stream)>,
    stop: CancellationToken,
    version: Option<String>,
    /// Where the run leads, once it has begun: it was confirmed, and its first event was told.
    begun: bool,
    to: String,
    notifier: Option<Notifier>,
}

impl Session {
    /// Opens journal and stream of the run `id`. The caller holds the lock.
    ///
    /// # Errors
    /// [`Failure`] when one of them cannot be read.
    pub(super) fn open(
        node: Arc<Node>,
        request: UpgradeRequest,
        start: Start,
        id: String,
    ) -> Result<Self, Failure> {
        durable::create_folder(&node.paths.staging())?;
        let output = if start.quiet {
            Output::Silent
        } else {
            Output::new(request.json && !request.plan_only)
        };
        let stream = Stream::open(&node.paths.events(), &node.id, &id, node.clock.clone(), output)?;
        // A look at the plan is nobody's news.
        let notifier = Notifier::start(&node, &id).filter(|_| !request.plan_only);
        let stream = stream.watched(notifier.as_ref().map(Notifier::watcher));
        let journal = Journal::open(&node.paths.journal(), &id, node.clock.clone())?;
        Ok(Self {
            node,
            request,
            id,
            source: None,
            desk: Some((journal, stream)),
            stop: CancellationToken::new(),
            version: None,
            begun: start.updated_to.is_some(),
            to: String::new(),
            notifier,
            start,
        })
    }

    /// Cancelled when the run is to stop.
    pub(super) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    fn tell(&mut self, kind: EventKind) {
        if let Some((_, stream)) = &mut self.desk {
            stream.tell(kind);
        }
    }

    /// Does what was asked for.
    ///
    /// # Errors
    /// [`Stopped`] with the step that failed.
    pub(super) async fn work(&mut self) -> Result<Ending, Stopped> {
        let mut installed = Installed::load(&self.node.paths).map_err(|error| early(error.into()))?;
        let mut attempt = self.unfinished(installed.as_ref())?;
        if let Some(of_patches) = attempt.take_if(|attempt| attempt.is_of_patches() && !self.start.kato_alone)
        {
            match self.patches_first(of_patches, installed.as_ref()).await? {
                First::Ended(ending) => return Ok(ending),
                First::Goes(put_aside) => attempt = put_aside.map(|put_aside| *put_aside),
            }
        }
        if let Some(back) = attempt.take_if(|attempt| attempt.rollback.is_some() && !self.start.kato_alone) {
            match self.on_the_way_back(back, installed.clone()).await? {
                Way::Forward(again) => attempt = Some(*again),
                Way::Ended(ending) => return Ok(ending),
            }
        }
        if self.request.resume && attempt.as_ref().is_none_or(|attempt| !attempt.begun) {
            let text = "there is no interrupted upgrade to resume".into();
            self.tell(EventKind::Notice { text });
            return Ok(Ending::Done);
        }
        let goal = self.goal_in_time(installed.as_ref(), attempt.as_ref()).await;
        let mut targets = match goal.map_err(early)? {
            Goal::AlreadyAt(version) if self.start.kato_alone => {
                vec![self.target(&version).await.map_err(early)?]
            }
            Goal::AlreadyAt(version) => {
                self.version = Some(version.to_string());
                let text = format!("already at {version}");
                self.tell(EventKind::Notice { text });
                return self.nothing_to_do().await.map_err(early);
            }
            Goal::Install(targets) => targets,
        };
        if self.start.kato_alone {
            // The newest kato is that of the last release on the way.
            targets.drain(..targets.len().saturating_sub(1));
        } else {
            let with_patches = self.with_patches(targets, attempt.as_ref(), installed.as_ref());
            targets = with_patches.await.map_err(early)?;
            self.admit(&targets).map_err(early)?;
            Box::pin(self.core_waits(&targets, installed.as_ref())).await.map_err(early)?;
        }
        self.to = targets
            .last()
            .map(|target| target.release.version.to_string())
            .unwrap_or_default();
        for (at, target) in targets.iter().enumerate() {
            let mine = self.attempt(target, &targets[at + 1..], attempt.take(), installed.as_ref());
            match self.one(mine, installed).await? {
                // Everything for the releases that come after it was downloaded with it.
                (Ending::Done, _) if self.request.download_only => return Ok(Ending::Done),
                (Ending::Done, recorded) => installed = recorded,
                (ending, _) => return Ok(ending),
            }
            attempt = Attempt::load(&self.node.paths).map_err(|error| early(error.into()))?;
        }
        Ok(Ending::Done)
    }

    /// What is to be done, unless somebody stops us first: a server may keep us waiting for longer than they do.
    async fn goal_in_time(
        &mut self,
        installed: Option<&Installed>,
        attempt: Option<&Attempt>,
    ) -> Result<Goal, Failure> {
        let stop = self.stop.clone();
        tokio::select! {
            goal = self.goal(installed, attempt) => goal,
            () = stop.cancelled() => Err(engine::stopped()),
        }
    }

    /// The upgrade to `target`: the one that the node is in the middle of, when it is that one.
    fn attempt(
        &self,
        target: &Target,
        then: &[Target],
        begun: Option<Attempt>,
        installed: Option<&Installed>,
    ) -> Attempt {
        match begun {
            Some(begun) if begun.is_to(&target.digest) => begun.then(then),
            other => {
                let from = installed.map(|installed| installed.version.clone());
                let now = self.node.clock.now();
                Attempt::new(from, target.release.clone(), target.digest, now)
                    .after(other.as_ref())
                    .then(then)
            }
        }
    }

    /// The node has the release: only what a killed run may have left is put right.
    async fn nothing_to_do(&mut self) -> Result<Ending, Failure> {
        retire::rejoin(&self.node, &Words::default()).await?;
        marker::clear(&self.node.paths)?;
        Ok(Ending::Done)
    }

    /// One upgrade to one release.
    async fn one(
        &mut self,
        attempt: Attempt,
        installed: Option<Installed>,
    ) -> Result<(Ending, Option<Installed>), Stopped> {
        let plans = make_plans(&self.node, &attempt, installed.as_ref())
            .await
            .map_err(early)?;
        if self.request.plan_only {
            show_plans(&plans, self.request.json);
            return Ok((Ending::Shown, installed));
        }
        if !self.confirmed(&plans).await? {
            return Ok((Ending::Declined, installed));
        }
        if !self.start.kato_alone {
            attempt
                .save(&self.node.paths)
                .map_err(|error| early(error.into()))?;
        }
        let mut run = self.run(attempt, installed, &plans)?;
        let outcome = match self.drive(&mut run).await {
            Err(_reason) if run.attempt.rollback.is_some() => self.lead_back(&mut run).await,
            outcome => outcome,
        };
        let recorded = self.put_away(run);
        Ok((outcome?, recorded))
    }

    /// A run about `attempt` by the first of `plans`, with journal and stream on loan.
    fn run(
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
            attempt,
            installed,
            plan: plan.clone(),
            later_space: later.iter().flat_map(|plan| plan.space.clone()).collect(),
            source: self.source.clone(),
            journal,
            stream,
            stop: self.stop.clone(),
            updated_to: self.start.updated_to,
            seen_version: None,
        })
    }

    /// Takes journal and stream back, and gives what is installed now.
    fn put_away(&mut self, run: Run) -> Option<Installed> {
        self.version = run.seen_version.or_else(|| self.version.take());
        self.desk = Some((run.journal, run.stream));
        run.installed
    }

    /// The first event. The second release on the way, or the program after its self-update, is the same run.
    fn announce(&mut self, run: &mut Run) -> Result<(), Stopped> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        let from = run.attempt.from.as_ref().map(ToString::to_string);
        let to = self.to.clone();
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
        let steps: Vec<Box<dyn Step>> = if self.start.kato_alone {
            steps::kato_alone()
        } else if self.request.download_only {
            steps::preparation(run)
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
        let is_yes = tokio::select! {
            is_yes = terminal::ask("Upgrade this node?") => is_yes,
            () = self.stop.cancelled() => return Err(early(engine::stopped())),
        };
        if !is_yes {
            terminal::say("nothing was changed");
        }
        Ok(is_yes)
    }

    /// The end of the run, however it came: what we took out of service is back, and the last event is written.
    ///
    /// # Errors
    /// The failure that ended the run.
    pub(super) async fn finish(mut self, outcome: Result<Ending, Stopped>) -> Result<Exit, Failure> {
        let outcome = outcome.map_err(|Stopped { step, failure }| Stopped {
            step,
            failure: room::explain(&self.node, [], failure),
        });
        let (exit, error) = match &outcome {
            Ok(Ending::Rebooting) => (Exit::TryAgain, None),
            Ok(Ending::Done | Ending::Shown) => (Exit::Done, None),
            Ok(Ending::Declined) => (Exit::Declined, None),
            Err(stopped) => {
                if let Err(failure) = retire::rejoin(&self.node, &Words::default()).await {
                    let text = terminal::describe(&failure);
                    self.tell(EventKind::Warning { text });
                }
                (stopped.failure.exit, Some(report_of(stopped)))
            }
        };
        let goes_on = self.unit_after(exit).await;
        self.give_space_back();
        self.audit_end(&outcome);
        let version = self.version.take();
        self.tell(EventKind::RunFinished { exit, version, error });
        if let Some((journal, _)) = &mut self.desk {
            // It must not hide how the run ended.
            if let Err(error) = journal.record(Act::Finished { exit }) {
                tracing::error!(error = %Chain(&error), "the end of the run could not be journalled");
            }
        }
        if let Some(notifier) = self.notifier.take() {
            notifier.close().await;
        }
        ending::exit(outcome, goes_on)
    }

    /// What was held for steps that did not come about.
    fn give_space_back(&mut self) {
        fetch::give_back(&self.node.paths.staging());
        if let Err(error) = reserve::give_all(&self.node.paths) {
            let text = format!("held space: {}", Chain(&error));
            self.tell(EventKind::Warning { text });
        }
    }

    /// The unit that goes on after a restart of the machine stays only while there is something to go on with; gives
    /// whether it does.
    async fn unit_after(&mut self, exit: Exit) -> bool {
        let Some(unit) = ResumeUnit::of(&self.node.paths) else {
            return false;
        };
        if exit != Exit::TryAgain
            && let Err(error) = unit.remove().await
        {
            let text = format!("{} was not removed: {}", resume::UNIT, Chain(&error));
            self.tell(EventKind::Warning { text });
        }
        unit.is_there()
    }
}
