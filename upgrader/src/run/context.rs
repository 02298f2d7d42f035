//! What every step of a run has at hand.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use kato_shared::{
    clock::Clock,
    durable::DurableError,
    release::{Artifact, Module, Version},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{event::EventKind, patience::Patience, stop::Stop, stream::Stream};
use crate::{
    attempt::Attempt,
    cli::node::UpgradeRequest,
    exit::{Exit, Failure},
    installed::{Installed, InstalledModule},
    journal::Journal,
    latch::Latches,
    lock,
    module::Job,
    paths::NodePaths,
    plan::node::NodePlan,
    platform::{self, Children, Platform, Words},
    settings::Settings,
    source::Source,
    space::Need,
};

/// This node.
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its settings.
    pub settings: Settings,
    /// Its folders.
    pub paths: NodePaths,
    /// Its platform.
    pub platform: Box<dyn Platform>,
    /// The commands that are at work on it for this program.
    pub children: Children,
    /// Its clock.
    pub clock: Clock,
    /// The operator's signal to the command that is at work on it.
    pub stop: Stop,
    /// How long a platform that is starting may be silent.
    pub patience: Patience,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// The node that `settings` describe.
    pub fn new(settings: Settings) -> Self {
        let paths = NodePaths::new(&settings.node.root, &settings.node.state_dir);
        let id = id(&settings);
        let children = Children::of(&paths, Clock::system());
        let platform = platform::of(&settings, &id, &paths, &children);
        Self {
            id,
            paths,
            platform,
            children,
            clock: Clock::system(),
            stop: Stop::default(),
            patience: Patience::default(),
            settings,
        }
    }

    /// The node's roles.
    pub fn roles(&self) -> &[String] {
        &self.settings.node.roles
    }

    /// The words for the platform's commands, by what is recorded on the node. A record that cannot be read keeps nobody from
    /// putting a node back.
    pub fn words(&self) -> Words {
        let attempt = Attempt::load(&self.paths).ok().flatten();
        let installed = Installed::load(&self.paths).ok().flatten();
        words(attempt.as_ref(), installed.as_ref())
    }

    /// Where operators call `kato` on this node.
    pub fn kato_link(&self) -> PathBuf {
        self.paths.on_node(&self.settings.node.kato_link)
    }
}

/// The one place that decides what `{version}` is.
fn words(attempt: Option<&Attempt>, installed: Option<&Installed>) -> Words {
    let version = Attempt::version_to_run(attempt, installed.map(|installed| &installed.version));
    Words {
        version: version.map(ToString::to_string).unwrap_or_default(),
        ..Words::default()
    }
}

/// The id of the node of `settings`: the machine's name, unless it has another.
pub(crate) fn id(settings: &Settings) -> String {
    if settings.node.id.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        settings.node.id.clone()
    }
}

/// One run: an upgrade to one release, and what it needs.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Run {
    /// The node.
    pub node: Arc<Node>,
    /// The settings file that the program was started with.
    pub config: PathBuf,
    /// What was asked for.
    pub request: UpgradeRequest,
    /// The run's id.
    pub id: String,
    /// The upgrade; it outlives runs.
    pub attempt: Attempt,
    /// The installed release.
    pub installed: Option<Installed>,
    /// The pristine state of each module's files, patches included, by the module's name.
    pub bases: BTreeMap<String, InstalledModule>,
    /// What will be done.
    pub plan: NodePlan,
    /// Free space that the releases after this one need; asked for together with its own.
    pub later_space: Vec<Need>,
    /// Local changes that the releases after this one refuse, with the release that does.
    pub later_conflicts: Vec<(Version, PathBuf)>,
    /// Where files come from; `None` when everything is staged and the network is not used.
    pub source: Option<Arc<dyn Source>>,
    /// The journal.
    pub journal: Journal,
    /// The event stream.
    pub stream: Stream,
    /// Cancelled when the operator stops the run.
    pub stop: CancellationToken,
    /// The digest that this program was started as by a self-update.
    pub updated_to: Option<kato_shared::Digest>,
    /// Whether the node stays out of service when this is done, because what comes next would take it out again.
    pub stays_out: bool,
    /// Whether another upgrade has begun on the node, whose record stays until this one changes anything.
    pub is_beside: bool,
    /// Whether it has begun to change the node.
    pub has_worked: bool,
    /// Whether this program has taken the node out of service and emptied it, also for what came before.
    pub is_emptied: bool,
    /// The steps of the way back that failed in this run, with why.
    pub not_back: BTreeMap<String, String>,
    /// The version that was read back from the node.
    pub seen_version: Option<String>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("id", &self.id)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Run {
    /// Tells the operator something to read.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.stream.tell(EventKind::Warning { text: text.into() });
    }

    /// The node's latches.
    pub fn latches(&self) -> Latches {
        Latches::in_folder(self.node.paths.latches())
    }

    /// The job of installing `module` in this upgrade.
    ///
    /// # Errors
    /// [`Exit::Bug`] when the release does not list the module's artifact, which was checked when it was read.
    pub fn job<'a>(&'a self, module: &'a Module) -> Result<Job<'a>, Failure> {
        let artifact = self
            .attempt
            .release
            .artifacts
            .get(&module.artifact)
            .ok_or_else(|| {
                Failure::new(
                    Exit::Bug,
                    anyhow::anyhow!("the artifact `{}` is not listed", module.artifact),
                )
            })?;
        Ok(self.job_with(module, artifact))
    }

    /// The job of `module` with its `artifact`, also of a release that comes later.
    pub fn job_with<'a>(&'a self, module: &'a Module, artifact: &'a Artifact) -> Job<'a> {
        Job {
            module,
            artifact,
            attempt: &self.attempt,
            node: &self.node.id,
            paths: &self.node.paths,
            settings: &self.node.settings,
            children: &self.node.children,
            base: self.bases.get(&module.name),
            deadline: Instant::now() + module.timeout.get(),
        }
    }

    /// Whether the machine was restarted for the way that the upgrade is on.
    pub fn is_restarted(&self) -> bool {
        let ended = self.journal.rebooted_in(&self.attempt.restart_id());
        ended.is_some_and(|ended| ended != lock::boot_id(self.node.paths.root()))
    }

    /// Tells what a step works on or waits for.
    pub fn progress(&mut self, step: &str, subject: String) {
        self.stream.tell(EventKind::Progress {
            step: step.to_owned(),
            subject,
            done: 0,
            total: 0,
        });
    }

    /// The words for the platform's commands.
    pub fn words(&self) -> Words {
        words(Some(&self.attempt), self.installed.as_ref())
    }

    /// Writes down that the upgrade changes the node from now on.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be written.
    pub fn begin(&mut self) -> Result<(), Failure> {
        if self.is_beside || !self.attempt.begun || !self.attempt.changed {
            self.attempt.begun = true;
            self.attempt.changed = true;
            self.attempt.save(&self.node.paths)?;
            self.is_beside = false;
        }
        self.has_worked = true;
        Ok(())
    }

    /// Writes the upgrade down, unless the record is still another's.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn save(&self) -> Result<(), DurableError> {
        if self.is_beside {
            return Ok(());
        }
        self.attempt.save(&self.node.paths)
    }
}
