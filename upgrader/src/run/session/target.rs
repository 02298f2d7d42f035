//! Which releases the run is about, with their verified documents; and what the node may have been left with.

use kato_shared::{
    Digest,
    release::{Release, Version, layout},
    trust::TrustError,
};

use super::{Session, early};
use crate::{
    attempt::{Attempt, Target},
    exit::{Exit, Failure},
    installed::Installed,
    quarantine::Quarantine,
    report::terminal,
    run::{
        back,
        engine::Stopped,
        event::EventKind,
        goal, kept, lost,
        steps::{self, record},
        taken_up::{self, Left, TakenUp},
    },
    self_update,
};

/// Releases that everything was downloaded for.
struct Staged {
    /// At least one.
    targets: Vec<Target>,
    /// Whether the upgrade to them has begun to change the node.
    begun: bool,
}

impl Staged {
    fn of(attempt: &Attempt) -> Self {
        let first = Target {
            release: attempt.release.clone(),
            digest: attempt.release_digest,
        };
        Self {
            targets: std::iter::once(first).chain(attempt.then.clone()).collect(),
            begun: attempt.begun,
        }
    }

    /// The version at the end of the way, for people.
    fn ends_at(&self) -> String {
        let last = self.targets.last();
        last.map(|last| last.release.version.to_string())
            .unwrap_or_default()
    }
}

/// What the run is about.
pub(super) enum Goal {
    /// The node has the release already.
    AlreadyAt(Version),
    /// These releases, one after the other.
    Install(Vec<Target>),
}

impl Session {
    /// The upgrade that the node is in the middle of. One that is recorded already, in either direction, only needs to be
    /// cleaned up.
    ///
    /// # Errors
    /// [`Stopped`] with 22 when it was rolled back.
    pub(super) fn unfinished(&mut self, installed: Option<&Installed>) -> Result<Option<Attempt>, Stopped> {
        let paths = self.node.paths.clone();
        let load = || Attempt::load(&paths).map_err(|error| early(error.into()));
        let attempt = load()?;
        if installed.is_none() && !self.request.force {
            lost::refuse(&self.node, attempt.as_ref()).map_err(early)?;
        }
        let Some(attempt) = attempt else {
            self.taken_up = self.left(installed).map_err(early)?;
            return Ok(None);
        };
        if attempt.patch.is_some() {
            return self.unfinished_act(attempt);
        }
        if installed.is_some_and(|installed| installed.attempt == attempt.id) {
            self.warn_of(record::settle(&self.node, &attempt).map_err(early)?);
            return load();
        }
        let quarantine = Quarantine::load(&paths).map_err(|error| early(error.into()))?;
        if attempt.rollback.is_some() && quarantine.has_attempt(&attempt.id) {
            self.warn_of(steps::settle_back(&self.node, &attempt).map_err(early)?);
            return Err(back::rolled_back(&attempt));
        }
        Ok(Some(attempt))
    }

    /// The upgrade that the node is in the middle of when its record is lost.
    ///
    /// # Errors
    /// [`Failure`] with 27 when it cannot be told which one it is.
    fn left(&mut self, installed: Option<&Installed>) -> Result<Option<TakenUp>, Failure> {
        if self.start.kato_alone {
            return Ok(None);
        }
        match taken_up::look(&self.node, installed)? {
            Left::Nothing => Ok(None),
            Left::Over if self.request.plan_only => Ok(None),
            Left::Over => {
                self.warn_of(steps::settle_lost(&self.node)?);
                Ok(None)
            }
            Left::Known(known) => {
                self.warn_of(vec![known.told(&self.node)]);
                Ok(Some(known))
            }
            Left::Unknown(_) if self.request.force => Ok(None),
            Left::Unknown(trace) => {
                self.is_amid_unknown = true;
                Err(taken_up::refuse(&self.node, installed, &trace))
            }
        }
    }

    /// What the run is about; of an upgrade that has begun when the network is not there, or what it serves has expired: all of
    /// it was signed, in time and verified when it was downloaded, and half an upgrade is worse than a whole one of last week.
    pub(super) async fn goal(
        &mut self,
        installed: Option<&Installed>,
        attempt: Option<&Attempt>,
    ) -> Result<Goal, Failure> {
        let version = installed.map(|installed| &installed.version);
        let staged = attempt.filter(|attempt| {
            let wanted = self.request.version.as_ref();
            attempt.staged && wanted.is_none_or(|wanted| wanted == attempt.ends_at())
        });
        let staged = match staged {
            Some(staged) => Some(Staged::of(staged)),
            None => self.rolled_back(version, attempt)?,
        };
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
                let begun = attempt.filter(|attempt| attempt.begun).map(Attempt::ends_at);
                let begun = begun.or(self.taken_up.as_ref().map(|taken_up| &taken_up.target));
                let channel = goal::channel(&self.node, &self.request);
                let goal =
                    goal::choose(&graph, version, begun, &self.request, channel).map_err(goal::no_way)?;
                self.with_documents(goal).await
            }
            (Err(failure), Some(staged))
                if failure.exit == Exit::TryAgain || staged.begun && is_expired(&failure) =>
            {
                if !self.request.offline {
                    let text = format!(
                        "{}; everything for {} was downloaded and verified before, so the upgrade goes on without the network",
                        terminal::describe(&failure),
                        staged.ends_at()
                    );
                    self.tell(EventKind::Warning { text });
                }
                let targets = staged.targets.into_iter();
                Ok(Goal::Install(
                    targets.map(|target| self.read_again(target)).collect(),
                ))
            }
            (Err(failure), _) => Err(failure),
        }
    }

    /// The way that was rolled back last, for a node that nothing can be downloaded to. It is refused later where nobody forces it.
    fn rolled_back(
        &self,
        installed: Option<&Version>,
        attempt: Option<&Attempt>,
    ) -> Result<Option<Staged>, Failure> {
        let may = self.request.offline || self.request.force;
        let is_free = self.taken_up.is_none() && attempt.is_none_or(|attempt| !attempt.begun);
        if !may || !is_free || self.start.kato_alone {
            return Ok(None);
        }
        let targets = kept::way(&self.node.paths, installed, self.request.version.as_ref())?;
        Ok(targets.map(|targets| Staged {
            targets,
            begun: false,
        }))
    }

    /// `target` as this program reads its staged document: an older kato may have staged it, and written down what it understood of it.
    /// What was verified then is good enough where there is no document.
    fn read_again(&self, mut target: Target) -> Target {
        let staged = self.node.paths.staging().join(target.digest.hex());
        let bytes = std::fs::read(staged).unwrap_or_default();
        if target.release.patch.is_none() && target.digest == Digest::of(&bytes) {
            let subject = layout::release(&target.release.version);
            if let Ok(release) = Release::from_json(&subject, &bytes) {
                target.release = release;
            }
        }
        target
    }

    /// Every release on the way is read before the first is installed: one that cannot be installed is found out now.
    async fn with_documents(&self, goal: goal::Goal) -> Result<Goal, Failure> {
        let versions = match goal {
            goal::Goal::AlreadyAt(version) => return Ok(Goal::AlreadyAt(version)),
            goal::Goal::Install(versions) => versions,
        };
        let mut targets = Vec::with_capacity(versions.len());
        for version in &versions {
            targets.push(self.target(version).await?);
        }
        Ok(Goal::Install(targets))
    }

    pub(super) async fn target(&self, version: &Version) -> Result<Target, Failure> {
        let source = self.source.as_ref().ok_or_else(|| {
            Failure::new(
                Exit::TryAgain,
                anyhow::anyhow!("release {version} was not downloaded before"),
            )
        })?;
        let (release, digest) = source.release(version).await?;
        Ok(Target { release, digest })
    }

    /// Refuses a way with a release that was rolled back here, or that needs a newer `kato` than there will be by then.
    pub(super) fn admit(&self, targets: &[Target]) -> Result<(), Failure> {
        let quarantine = Quarantine::load(&self.node.paths)?;
        let running = self_update::running_digest()?;
        let mut kato = self_update::own_version();
        for target in targets {
            if !self.request.force {
                quarantine.admit(&target.digest)?;
            }
            let offered = self_update::decide(&target.release, layout::HOST_TRIPLE, &kato, &running)?;
            if let Some(offered) = offered {
                kato = offered.version.clone();
            }
        }
        Ok(())
    }
}

/// Whether the repository was refused for its age alone.
fn is_expired(failure: &Failure) -> bool {
    matches!(
        failure.source.downcast_ref::<TrustError>(),
        Some(TrustError::Expired { .. })
    )
}
