//! Runs about patches, and what upgrades have to do with them.
//!
//! A patch in progress comes first, for a run about patches as for an upgrade that finds one; then what the wish comes to
//! ([`chosen`]) is done, one patch after the other. Before a release stands the [`gate`].

mod chosen;
mod documents;
mod gate;

use anyhow::anyhow;
use kato_shared::release::Version;

use super::{Session, back::Way, early};
use crate::{
    attempt::{Attempt, Rollback},
    exit::{Exit, Failure},
    installed::Installed,
    patch::{
        act::Purpose,
        local::{self, Verb, Wish},
        record::Patches,
    },
    report::terminal,
    run::{
        back as way_back,
        ending::Ending,
        engine::Stopped,
        event::ErrorReport,
        goal, lost,
        steps::{self, record},
    },
};

/// What becomes of an upgrade that finds a patch in progress.
pub(super) enum First {
    /// The run was about the patch, and this is how it ends.
    Ended(Ending),
    /// The patch had not begun; this was put aside for it.
    Goes(Option<Box<Attempt>>),
}

// === The wish of an operator ===

impl Session {
    /// Does what was asked for with patches.
    ///
    /// # Errors
    /// [`Stopped`] with the step that failed.
    pub(in crate::run) async fn work_on_patches(&mut self, wish: &Wish) -> Result<Ending, Stopped> {
        let installed = local::installed(&self.node.paths)
            .map_err(|none| lost::refuse(&self.node, None).err().unwrap_or(none))
            .map_err(early)?;
        let mut put_aside = None;
        let attempt = self.unfinished(Some(&installed))?;
        self.be_patient_after_restart(attempt.as_ref());
        match attempt {
            None => {
                if let Some(upgrade) = &self.taken_up {
                    return Err(early(unfinished_upgrade(&upgrade.target)));
                }
            }
            Some(attempt) if !attempt.begun && attempt.is_of_patches() => put_aside = attempt.put_aside,
            Some(attempt) if !attempt.begun => put_aside = Some(Box::new(attempt)),
            Some(attempt) if !attempt.is_of_patches() => {
                return Err(early(unfinished_upgrade(attempt.ends_at())));
            }
            Some(attempt) => {
                put_aside.clone_from(&attempt.put_aside);
                if let Some(ending) = Box::pin(self.with_begun(attempt, wish, &installed)).await? {
                    return Ok(ending);
                }
            }
        }
        let chosen = self.chosen(wish, &installed).await.map_err(early)?;
        let Some(mut attempt) = chosen else {
            return Ok(Ending::Done);
        };
        attempt.put_aside = put_aside;
        if attempt.is_taking_back() {
            return self.take_back(attempt, installed).await;
        }
        self.one_after_the_other(attempt, installed).await
    }

    /// What becomes of a patch in progress; `None` when the wish comes after it.
    async fn with_begun(
        &mut self,
        mut attempt: Attempt,
        wish: &Wish,
        installed: &Installed,
    ) -> Result<Option<Ending>, Stopped> {
        let Some(act) = attempt.patch.clone() else {
            return Ok(None);
        };
        let is_it = |name: &Option<String>| name.as_ref().is_none_or(|name| *name == act.name);
        let is_installing = act.purpose == Purpose::Install;
        let is_about_it = match &wish.verb {
            Verb::Install(_) => is_installing,
            Verb::Reinstall(name) => is_installing && *name == act.name,
            Verb::Revert(name) => is_it(name),
        };
        if let Some(act) = attempt
            .patch
            .as_mut()
            .filter(|act| is_about_it && wish.no_restart && !act.no_restart)
        {
            // Also on the way back: a restart that fails holds nobody for ever.
            act.no_restart = true;
            attempt
                .save(&self.node.paths)
                .map_err(|error| early(error.into()))?;
        }
        match &wish.verb {
            Verb::Install(_) if is_installing => {
                let ending = self.go_on(attempt, installed).await?;
                Ok((ending != Ending::Done).then_some(ending))
            }
            Verb::Reinstall(name) if is_installing && *name == act.name => {
                self.go_on(attempt, installed).await.map(Some)
            }
            Verb::Revert(name) if is_it(name) && is_installing && attempt.rollback.is_none() => {
                attempt.then.clear();
                self.given_back(&mut attempt);
                self.take_back(attempt, installed.clone()).await.map(Some)
            }
            Verb::Revert(name) if is_it(name) => self.go_on(attempt, installed).await.map(Some),
            Verb::Install(_) | Verb::Reinstall(_) | Verb::Revert(_) => Err(early(unfinished_patch(&attempt))),
        }
    }

    /// Turns an attempt into the way back that an operator asks for.
    fn given_back(&self, attempt: &mut Attempt) {
        attempt.begun = true;
        attempt.staged = true;
        attempt.rollback = Some(Rollback {
            since: self.node.clock.now(),
            run: self.id.clone(),
            error: ErrorReport {
                step: "revert".into(),
                message: "an operator took the patch back".into(),
                hint: None,
            },
        });
        if let Some(act) = &mut attempt.patch {
            act.purpose = Purpose::TakeBack;
        }
    }

    /// Goes on with a patch in progress, with those that come after it.
    async fn go_on(&mut self, attempt: Attempt, installed: &Installed) -> Result<Ending, Stopped> {
        if attempt.rollback.is_some() {
            return match self.on_the_way_back(attempt, Some(installed.clone())).await? {
                Way::Ended(ending) => Ok(ending),
                Way::Forward(again) => self.one_after_the_other(*again, installed.clone()).await,
            };
        }
        if !attempt.staged {
            let source = goal::connect(&self.node, &self.request).await.map_err(early)?;
            self.source = Some(source);
        }
        self.one_after_the_other(attempt, installed.clone()).await
    }

    async fn take_back(&mut self, attempt: Attempt, installed: Installed) -> Result<Ending, Stopped> {
        if !self.request.skip_confirmation {
            terminal::say(&format!("{}: {} is taken back", self.node.id, attempt.aim()));
            if !self.agreed("Change this node?").await? {
                return Ok(Ending::Declined);
            }
        }
        attempt
            .save(&self.node.paths)
            .map_err(|error| early(error.into()))?;
        self.go_on(attempt, &installed).await
    }

    /// The attempt and those that come after it, until one is no patch.
    async fn one_after_the_other(&mut self, first: Attempt, installed: Installed) -> Result<Ending, Stopped> {
        let then = first.then.iter().map(|then| &then.release);
        let all = std::iter::once(&first.release).chain(then);
        let names: Vec<&str> = all
            .filter_map(|release| release.patch.as_ref())
            .map(|patch| patch.name.as_str())
            .collect();
        // As a version: no name has a dot in it.
        self.to = format!("{}+{}", first.release.version, names.join("."));
        self.is_series = names.len() > 1;
        let (mut next, mut installed) = (Some(first), Some(installed));
        while let Some(attempt) = next.take() {
            match self.one(attempt, installed).await? {
                (Ending::Done, _) if self.request.download_only => return Ok(Ending::Done),
                (Ending::Done, recorded) => installed = recorded,
                (ending, _) => return Ok(ending),
            }
            let loaded = Attempt::load(&self.node.paths).map_err(|error| early(error.into()))?;
            next = loaded.filter(|next| next.patch.is_some());
        }
        Ok(Ending::Done)
    }
}

// === An upgrade that finds a patch in progress ===

impl Session {
    /// A patch in progress that an upgrade finds: `--resume` goes on with it, anything else waits for it.
    ///
    /// # Errors
    /// [`Stopped`] with 20 when it has begun.
    pub(super) async fn patches_first(
        &mut self,
        attempt: Attempt,
        installed: Option<&Installed>,
    ) -> Result<First, Stopped> {
        if !attempt.begun {
            return Ok(First::Goes(attempt.put_aside));
        }
        match installed {
            Some(installed) if self.request.resume => self.go_on(attempt, installed).await.map(First::Ended),
            _ => Err(early(unfinished_patch(&attempt))),
        }
    }

    /// A patch in progress whose record says that it is complete only needs to be cleaned up.
    ///
    /// # Errors
    /// [`Stopped`] with 22 when it was rolled back.
    pub(super) fn unfinished_act(&mut self, attempt: Attempt) -> Result<Option<Attempt>, Stopped> {
        let patches = Patches::load(&self.node.paths).map_err(|error| early(error.into()))?;
        if patches.ended.as_ref() != Some(&attempt.id) {
            return Ok(Some(attempt));
        }
        if attempt.rollback.is_none() {
            self.warn_of(record::settle_patch(&self.node, &attempt).map_err(early)?);
        } else {
            self.warn_of(steps::settle_back(&self.node, &attempt).map_err(early)?);
            if !attempt.is_taking_back() {
                return Err(way_back::rolled_back(&attempt));
            }
        }
        Attempt::load(&self.node.paths).map_err(|error| early(error.into()))
    }
}

fn unfinished_upgrade(target: &Version) -> Failure {
    let problem = anyhow!("the upgrade to {target} is not finished on this node");
    Failure::new(Exit::Preflight, problem).hint("finish it first with `kato node upgrade`")
}

fn unfinished_patch(attempt: &Attempt) -> Failure {
    let name = attempt.patch.as_ref().map_or("", |act| act.name.as_str());
    let problem = anyhow!("the patch `{name}` is not finished on this node");
    Failure::new(Exit::Preflight, problem).hint(format!(
        "go on with `{}`, or take it back with `kato patch revert {name}`",
        attempt.command()
    ))
}
