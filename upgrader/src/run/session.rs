//! A run from the choice of the release to its last event. It may be about several releases, one after the other.

use std::sync::Arc;

use kato_shared::{
    chain::Chain,
    durable,
    release::{NoticeWhen, Version},
};
use tokio_util::sync::CancellationToken;

use super::{
    Node, Run,
    ending::{self, Ending, kato_is_new, report_of, show_plan},
    engine::{self, Stopped},
    event::EventKind,
    goal::{self, Goal, Target},
    look::make_plan,
    step::{Acted, Step},
    steps::{self, record, retire},
    stream::Stream,
    upgrade::Start,
};
use crate::{
    attempt::Attempt,
    cli::node::UpgradeRequest,
    exit::{Exit, Failure},
    installed::Installed,
    journal::{Act, Journal},
    marker,
    plan::node::NodePlan,
    platform::Words,
    report::{self, Output, terminal},
    source::Source,
};

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
        let output = Output::new(request.json && !request.plan_only);
        let stream = Stream::open(&node.paths.events(), &node.id, &id, node.clock.clone(), output)?;
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
        let early = |failure| Stopped {
            step: "version-check".into(),
            failure,
        };
        let mut installed = Installed::load(&self.node.paths).map_err(|error| early(error.into()))?;
        let attempt = self.unfinished(installed.as_ref()).map_err(early)?;
        if self.request.resume && attempt.as_ref().is_none_or(|attempt| !attempt.begun) {
            self.tell(EventKind::Notice {
                text: "there is no interrupted upgrade to resume".into(),
            });
            return Ok(Ending::Done);
        }
        let (goal, kept) = self
            .goal(installed.as_ref(), attempt.as_ref())
            .await
            .map_err(early)?;
        let versions = match goal {
            Goal::AlreadyAt(version) if self.start.kato_alone => vec![version],
            Goal::AlreadyAt(version) => {
                self.version = Some(version.to_string());
                let text = format!("already at {version}");
                self.tell(EventKind::Notice { text });
                return self.nothing_to_do().await.map_err(early);
            }
            // The newest kato is that of the last release on the way.
            Goal::Install(mut versions) if self.start.kato_alone => {
                versions.split_off(versions.len().saturating_sub(1))
            }
            Goal::Install(versions) => versions,
        };
        self.to = versions.last().map(ToString::to_string).unwrap_or_default();
        let mut attempt = attempt;
        for version in versions {
            let target = match &kept {
                Some(kept) if kept.release.version == version => Target::from(kept),
                _ => self.target(&version).await.map_err(early)?,
            };
            let reused = attempt.take().filter(|attempt| attempt.is_to(&target.digest));
            let from = installed.as_ref().map(|installed| installed.version.clone());
            let now = self.node.clock.now();
            let attempt = reused.unwrap_or_else(|| Attempt::new(from, target.release, target.digest, now));
            match self.one(attempt, installed).await? {
                (Ending::Done, recorded) => installed = recorded,
                (ending, _) => return Ok(ending),
            }
        }
        Ok(Ending::Done)
    }

    /// The upgrade that the node is in the middle of. One that is recorded already only needs to be cleaned up.
    fn unfinished(&self, installed: Option<&Installed>) -> Result<Option<Attempt>, Failure> {
        let attempt = Attempt::load(&self.node.paths)?;
        match attempt {
            Some(attempt) if installed.is_some_and(|installed| installed.attempt == attempt.id) => {
                record::settle(&self.node, &attempt)?;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    /// What the run is about, and the begun upgrade when it goes on without the network.
    async fn goal(
        &mut self,
        installed: Option<&Installed>,
        attempt: Option<&Attempt>,
    ) -> Result<(Goal, Option<Attempt>), Failure> {
        let version = installed.map(|installed| &installed.version);
        let staged = attempt.filter(|attempt| {
            let wanted = self.request.version.as_ref();
            attempt.staged && wanted.is_none_or(|wanted| *wanted == attempt.release.version)
        });
        let connected = if self.request.offline {
            Err(Failure::new(
                Exit::TryAgain,
                anyhow::anyhow!("nothing was downloaded before, and `--offline` is given"),
            )
            .hint("run `kato node upgrade --download-only` first, or leave out `--offline`"))
        } else {
            goal::connect(&self.node, &self.request).await
        };
        match (connected, staged) {
            (Ok(source), _) => {
                let graph = source.graph().await?;
                self.source = Some(source);
                let begun = attempt
                    .filter(|attempt| attempt.begun)
                    .map(|attempt| &attempt.release.version);
                let channel = goal::channel(&self.node, &self.request);
                let goal =
                    goal::choose(&graph, version, begun, &self.request, channel).map_err(goal::no_way)?;
                Ok((goal, None))
            }
            (Err(failure), Some(staged)) if failure.exit == Exit::TryAgain => {
                if !self.request.offline {
                    let text = format!(
                        "{}; everything for {} was downloaded and verified before, so the upgrade goes on without the network",
                        terminal::describe(&failure),
                        staged.release.version
                    );
                    self.tell(EventKind::Warning { text });
                }
                Ok((
                    Goal::Install(vec![staged.release.version.clone()]),
                    Some(staged.clone()),
                ))
            }
            (Err(failure), _) => Err(failure),
        }
    }

    async fn target(&self, version: &Version) -> Result<Target, Failure> {
        let source = self.source.as_ref().ok_or_else(|| {
            Failure::new(
                Exit::TryAgain,
                anyhow::anyhow!("release {version} was not downloaded before"),
            )
        })?;
        let (release, digest) = source.release(version).await?;
        Ok(Target { release, digest })
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
        let early = |failure| Stopped {
            step: "version-check".into(),
            failure,
        };
        let plan = make_plan(&self.node, &attempt, installed.as_ref()).map_err(early)?;
        if self.request.plan_only {
            show_plan(&plan, self.request.json);
            return Ok((Ending::Declined, installed));
        }
        if !self.confirmed(&plan) {
            return Ok((Ending::Declined, installed));
        }
        if !self.start.kato_alone {
            attempt
                .save(&self.node.paths)
                .map_err(|error| early(error.into()))?;
        }
        let Some((journal, stream)) = self.desk.take() else {
            return Err(early(Failure::new(
                Exit::Bug,
                anyhow::anyhow!("two upgrades in one run at a time"),
            )));
        };
        let mut run = Run {
            node: Arc::clone(&self.node),
            request: self.request.clone(),
            id: self.id.clone(),
            attempt,
            installed,
            plan,
            source: self.source.clone(),
            journal,
            stream,
            stop: self.stop.clone(),
            updated_to: self.start.updated_to,
            seen_version: None,
        };
        let outcome = self.drive(&mut run).await;
        self.version = run.seen_version.take().or_else(|| self.version.take());
        let recorded = run.installed.take();
        self.desk = Some((run.journal, run.stream));
        Ok((outcome?, recorded))
    }

    async fn drive(&mut self, run: &mut Run) -> Result<Ending, Stopped> {
        // The second release on the way, or the program after its self-update, is the same run.
        if !self.begun {
            self.begun = true;
            let from = run.attempt.from.as_ref().map(ToString::to_string);
            let to = self.to.clone();
            let journalled = run.journal.record(Act::Started {
                from: from.clone(),
                to: to.clone(),
            });
            journalled.map_err(|error| Stopped {
                step: "version-check".into(),
                failure: error.into(),
            })?;
            run.stream.tell(EventKind::RunStarted { from, to });
        }
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

    /// Shows the plan and asks, unless that was answered before.
    fn confirmed(&self, plan: &NodePlan) -> bool {
        let request = &self.request;
        if request.skip_confirmation || request.resume || request.download_only || self.begun {
            return true;
        }
        terminal::say(&report::plan::text(plan));
        terminal::confirm("Upgrade this node?")
    }

    /// The end of the run, however it came: what we took out of service is back, and the last event is written.
    ///
    /// # Errors
    /// The failure that ended the run.
    pub(super) async fn finish(mut self, outcome: Result<Ending, Stopped>) -> Result<Exit, Failure> {
        let (exit, error) = match &outcome {
            Ok(Ending::Rebooting) => (Exit::TryAgain, None),
            Ok(Ending::Done | Ending::Declined) => (Exit::Done, None),
            Err(stopped) => {
                if let Err(failure) = retire::rejoin(&self.node, &Words::default()).await {
                    let text = terminal::describe(&failure);
                    self.tell(EventKind::Warning { text });
                }
                (stopped.failure.exit, Some(report_of(stopped)))
            }
        };
        let version = self.version.take();
        self.tell(EventKind::RunFinished { exit, version, error });
        if let Some((journal, _)) = &mut self.desk {
            // It must not hide how the run ended.
            if let Err(error) = journal.record(Act::Finished { exit }) {
                tracing::error!(error = %Chain(&error), "the end of the run could not be journalled");
            }
        }
        ending::exit(outcome)
    }
}
