//! A run from the choice of the release to its last event. It may be about several releases, one after the other.

mod alone;
mod audited;
mod back;
mod beside;
mod end;
mod one;
mod patch;
mod restarted;
mod shown;
mod target;

use std::sync::Arc;

use kato_shared::durable;
use tokio_util::sync::CancellationToken;

use self::{back::Way, patch::First, target::Goal};
use super::{
    Node,
    ending::Ending,
    engine::{self, Stopped},
    event::EventKind,
    stream::Stream,
    taken_up::TakenUp,
    upgrade::Start,
};
use crate::{
    attempt::{Attempt, Target},
    cli::node::UpgradeRequest,
    exit::Failure,
    installed::Installed,
    journal::Journal,
    marker,
    notify::Notifier,
    report::Output,
    source::Source,
};

/// A failure before the first step.
fn early(failure: Failure) -> Stopped {
    Stopped {
        step: "version-check".into(),
        failure,
    }
}

/// A run before and after it is about one release.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Session {
    node: Arc<Node>,
    request: UpgradeRequest,
    start: Start,
    id: String,
    source: Option<Arc<dyn Source>>,
    /// Journal and stream; with the [`Run`](super::Run) while it is about one release.
    desk: Option<(Journal, Stream)>,
    /// Cancelled when the run is to stop.
    stop: CancellationToken,
    version: Option<String>,
    /// Where the run leads, once it has begun: it was confirmed, and its first event was told.
    begun: bool,
    to: String,
    /// Whether it is about several patches, so that each is announced.
    is_series: bool,
    /// Whether this program has the node out of service, and it was seen empty.
    is_emptied: bool,
    /// Whether it has begun to change the node.
    has_worked: bool,
    /// Whether an upgrade has begun on the node that nothing tells the name of.
    is_amid_unknown: bool,
    /// What a look at the plan found before it was made.
    refusals: Vec<Failure>,
    notifier: Option<Notifier>,
    /// The upgrade that goes on by what it has left, because its record is lost.
    taken_up: Option<TakenUp>,
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
            stop: node.stop.token().clone(),
            node,
            request,
            id,
            source: None,
            desk: Some((journal, stream)),
            version: None,
            begun: start.updated_to.is_some(),
            to: String::new(),
            is_series: false,
            is_emptied: false,
            has_worked: false,
            is_amid_unknown: false,
            refusals: Vec::new(),
            notifier,
            taken_up: None,
            start,
        })
    }

    fn tell(&mut self, kind: EventKind) {
        if let Some((_, stream)) = &mut self.desk {
            stream.tell(kind);
        }
    }

    /// Warns of what was found when the lock was taken, or of what a clean-up has left.
    pub(super) fn warn_of(&mut self, texts: Vec<String>) {
        for text in texts {
            self.tell(EventKind::Warning { text });
        }
    }

    /// Does what was asked for.
    ///
    /// # Errors
    /// [`Stopped`] with the step that failed.
    pub(super) async fn work(&mut self) -> Result<Ending, Stopped> {
        let mut installed = Installed::load(&self.node.paths).map_err(|error| early(error.into()))?;
        let mut attempt = self.unfinished(installed.as_ref())?;
        self.be_patient_after_restart(attempt.as_ref());
        if let Some(ending) = self.kept_from_resuming(attempt.as_ref()) {
            return Ok(ending);
        }
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
        let goal = self.goal_in_time(installed.as_ref(), attempt.as_ref()).await;
        let mut targets = match goal.map_err(early)? {
            Goal::AlreadyAt(version) if self.start.kato_alone => {
                vec![self.target(&version).await.map_err(early)?]
            }
            Goal::AlreadyAt(version) => {
                self.refuse_amid(&version, attempt.as_ref()).map_err(early)?;
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
            let stop = self.stop.clone();
            let with_patches = self.with_patches(targets, attempt.as_ref(), installed.as_ref());
            let with_patches = engine::unless_stopped(&stop, true, with_patches);
            targets = with_patches.await.map_err(early)?;
            self.admit(&targets).map_err(early)?;
            let waiting = Box::pin(self.core_waits(&targets, installed.as_ref()));
            waiting.await.map_err(early)?;
        }
        self.leads_by(&targets);
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

    /// Notes where the run leads, and whether by several steps.
    fn leads_by(&mut self, targets: &[Target]) {
        self.to = targets
            .last()
            .map(|target| target.release.version.to_string())
            .unwrap_or_default();
        self.is_series = targets.len() > 1;
    }

    /// What is to be done, unless somebody stops us first: a server may keep us waiting for longer than they do.
    async fn goal_in_time(
        &mut self,
        installed: Option<&Installed>,
        attempt: Option<&Attempt>,
    ) -> Result<Goal, Failure> {
        let stop = self.stop.clone();
        engine::unless_stopped(&stop, true, self.goal(installed, attempt)).await
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
            // The same document, as this program reads it: an older kato may have begun.
            Some(mut begun) if begun.is_to(&target.digest) => {
                begun.release = target.release.clone();
                begun.then(then)
            }
            other => {
                let from = installed.map(|installed| installed.version.clone());
                let now = self.node.clock.now();
                let new = Attempt::new(from, target.release.clone(), target.digest, now)
                    .after(other.as_ref())
                    .then(then);
                match self.taken_up.as_ref().filter(|_| other.is_none()) {
                    Some(taken_up) => taken_up.continued(new),
                    None => new,
                }
            }
        }
    }

    /// The node has the release: only what a killed run may have left is put right.
    async fn nothing_to_do(&mut self) -> Result<Ending, Failure> {
        self.rejoined().await?;
        marker::clear(&self.node.paths)?;
        Ok(Ending::Done)
    }
}
