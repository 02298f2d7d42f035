//! `kato node upgrade` on this node, from the lock to the last event.

use std::{collections::BTreeMap, sync::Arc};

use kato_shared::{
    durable,
    release::{NoticeWhen, Version},
    shutdown,
};
use tokio_util::sync::CancellationToken;

use super::{
    Node, Run,
    engine::{self, Stopped},
    event::{ErrorReport, EventKind},
    goal::{self, Goal, Target},
    step::{Acted, Step},
    steps::{self, record, retire},
    stream::Stream,
};
use crate::{
    attempt::Attempt,
    backup,
    cli::node::UpgradeRequest,
    exit::{Exit, Failure},
    installed::Installed,
    journal::{Act, Journal},
    latch::Latches,
    lock::{self, Holder, Lock},
    marker,
    module::tree,
    plan::node::{self as planner, NodeFacts, NodePlan, modules_for},
    platform::{Verb, Words},
    report::{self, Output, terminal},
    source::Source,
};

/// How a run was started, beside what was asked for.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The run's id; a new one when `None`.
    pub run: Option<String>,
    /// Only `kato` itself.
    pub kato_alone: bool,
    /// The digest that a self-update started this program as.
    pub updated_to: Option<kato_shared::Digest>,
}

/// Upgrades this node.
///
/// # Errors
/// [`Failure`]; everything that must not stay was taken back, and the same command goes on later.
pub async fn upgrade(request: UpgradeRequest, start: Start, node: Node) -> Result<Exit, Failure> {
    let node = Arc::new(node);
    let id = start.run.clone().unwrap_or_else(|| new_run_id(&node));
    refuse_unasked(&request, &start)?;
    let _lock = Lock::take(&node.paths.lock(), &holder(&node, &id)).await?;
    durable::create_folder(&node.paths.staging())?;
    let output = Output::new(request.json && !request.plan_only);
    let events = node.paths.events();
    let stream = Stream::open(&events, &node.id, &id, node.clock.clone(), output)?;
    let journal = Journal::open(&node.paths.journal(), &id, node.clock.clone())?;
    let stop = CancellationToken::new();
    let mut session = Session {
        node,
        request,
        start,
        id,
        source: None,
        desk: Some((journal, stream)),
        stop: stop.clone(),
        version: None,
    };
    let outcome = tokio::select! {
        outcome = session.work() => outcome,
        // A second signal ends the program at once, as a kill would; the next run goes on.
        _signals = shutdown::on_signals(stop) => Err(Stopped { step: "run".into(), failure: engine::stopped() }),
    };
    session.finish(outcome).await
}

fn new_run_id(node: &Node) -> String {
    format!(
        "{}-{}",
        node.clock.now().strftime("%Y%m%dT%H%M%S"),
        std::process::id()
    )
}

fn holder(node: &Node, id: &str) -> Holder {
    Holder {
        run: id.to_owned(),
        pid: std::process::id(),
        boot_id: lock::boot_id(node.paths.root()),
        started: node.clock.now(),
    }
}

/// Nobody can be asked, and nobody said that asking is not needed.
fn refuse_unasked(request: &UpgradeRequest, start: &Start) -> Result<(), Failure> {
    let asks = !(request.skip_confirmation
        || request.plan_only
        || request.download_only
        || request.resume
        || start.updated_to.is_some());
    if asks && !terminal::is_interactive() {
        return Err(Failure::new(
            Exit::Usage,
            anyhow::anyhow!("an upgrade asks before it starts, and there is no terminal to ask on"),
        )
        .hint("add `--skip-confirmation`"));
    }
    Ok(())
}

/// A run before and after it is about one release.
struct Session {
    node: Arc<Node>,
    request: UpgradeRequest,
    start: Start,
    id: String,
    source: Option<Arc<dyn Source>>,
    /// Journal and stream; with the [`Run`] while it is about one release.
    desk: Option<(Journal, Stream)>,
    stop: CancellationToken,
    version: Option<String>,
}

/// What the run comes to.
enum Ending {
    Done,
    Declined,
    Rebooting,
}

impl Session {
    fn tell(&mut self, kind: EventKind) {
        if let Some((_, stream)) = &mut self.desk {
            stream.tell(kind);
        }
    }

    async fn work(&mut self) -> Result<Ending, Stopped> {
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
            Goal::AlreadyAt(version) => {
                self.version = Some(version.to_string());
                let text = format!("already at {version}");
                self.tell(EventKind::Notice { text });
                return self.nothing_to_do().await.map_err(early);
            }
            Goal::Install(versions) => versions,
        };
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
        attempt
            .save(&self.node.paths)
            .map_err(|error| early(error.into()))?;
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

    async fn drive(&self, run: &mut Run) -> Result<Ending, Stopped> {
        let (from, to) = (
            run.attempt.from.as_ref().map(ToString::to_string),
            run.attempt.release.version.to_string(),
        );
        // After a self-update the run has begun already.
        if run.updated_to.is_none() {
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
        if request.skip_confirmation
            || request.resume
            || request.download_only
            || self.start.updated_to.is_some()
        {
            return true;
        }
        terminal::say(&report::plan::text(plan));
        terminal::confirm("Upgrade this node?")
    }

    /// The end of the run, however it came: what we took out of service is back, and the last event is written.
    async fn finish(mut self, outcome: Result<Ending, Stopped>) -> Result<Exit, Failure> {
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
            journal.record(Act::Finished { exit })?;
        }
        match outcome {
            Err(stopped) => Err(stopped.failure),
            Ok(Ending::Rebooting) => Err(Failure::new(
                Exit::TryAgain,
                anyhow::anyhow!("the machine restarts now; the upgrade is not complete"),
            )
            .hint("when it is up again, run `kato node upgrade --resume`")),
            Ok(Ending::Done | Ending::Declined) => Ok(Exit::Done),
        }
    }
}

fn report_of(stopped: &Stopped) -> ErrorReport {
    ErrorReport {
        step: stopped.step.clone(),
        message: terminal::describe(&stopped.failure),
        hint: stopped.failure.hint.clone(),
    }
}

fn show_plan(plan: &NodePlan, json: bool) {
    if json {
        terminal::json(plan);
    } else {
        terminal::data(&report::plan::text(plan));
    }
}

/// Looks at the node and makes the plan.
fn make_plan(node: &Node, attempt: &Attempt, installed: Option<&Installed>) -> Result<NodePlan, Failure> {
    let release = &attempt.release;
    let latches = Latches::in_folder(node.paths.latches());
    let mut verdicts = BTreeMap::new();
    for module in modules_for(release, node.roles()) {
        if let Some(artifact) = release.artifacts.get(&module.artifact) {
            let verdict = latches.verdict(&module.name, &release.version, &artifact.sha256)?;
            verdicts.insert(module.name.clone(), verdict);
        }
    }
    let mut sizes = BTreeMap::new();
    for path in planner::backup_paths(release, node.roles())
        .into_iter()
        .chain(release.backup.clone())
    {
        let here = node.paths.on_node(&path);
        if here.symlink_metadata().is_ok() {
            let bytes = tree::size(&here).map_err(crate::module::ModuleError::io("reading", &here))?;
            sizes.insert(path, bytes);
        }
    }
    let staged = release
        .artifacts
        .values()
        .map(|artifact| artifact.sha256)
        .filter(|digest| node.paths.staging().join(digest.hex()).exists())
        .collect();
    let facts = NodeFacts {
        node: node.id.clone(),
        roles: node.roles().to_vec(),
        installed: installed.map(|installed| installed.version.clone()),
        installed_modules: installed
            .map(|installed| installed.modules.keys().cloned().collect())
            .unwrap_or_default(),
        is_tolerant: marker::is_set(&node.paths),
        latches: verdicts,
        staged,
        sizes,
        is_backed_up: backup::folder(&node.paths, &attempt.id).exists(),
        retire_roles: node.settings.upgrade.retire_roles.clone(),
        can_retire: node.platform.knows(Verb::Retire),
        staging: node.paths.staging(),
        backups: node.paths.backups(),
    };
    Ok(planner::plan(
        &facts,
        release,
        attempt.release_digest,
        node.clock.now(),
    ))
}
