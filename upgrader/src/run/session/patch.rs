//! Runs about patches, and what upgrades have to do with them: the gate before a release, and patches on the way to it.

use std::sync::Arc;

use anyhow::anyhow;
use kato_shared::{
    Digest,
    release::{PatchEntry, PatchList, Release, Version},
};

use super::{Session, back::Way, early};
use crate::{
    attempt::{Attempt, Rollback, Target},
    exit::{Exit, Failure},
    installed::Installed,
    module::undo,
    patch::{
        act::Purpose,
        choice::{self, ChoiceError, Gate, Here, Missing, State, Wanted},
        document::KeptDocument,
        listed::Listed,
        local::{self, Verb, Wish},
        places,
        record::Patches,
    },
    run::{
        back as way_back,
        ending::Ending,
        engine::Stopped,
        event::{ErrorReport, EventKind},
        goal,
        steps::{self, record},
    },
    source::Source,
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
        let installed = local::installed(&self.node.paths).map_err(early)?;
        let mut put_aside = None;
        match self.unfinished(Some(&installed))? {
            None => {}
            Some(attempt) if !attempt.begun && attempt.is_of_patches() => put_aside = attempt.put_aside,
            Some(attempt) if !attempt.begun => put_aside = Some(Box::new(attempt)),
            Some(attempt) if !attempt.is_of_patches() => return Err(early(unfinished_upgrade(&attempt))),
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
        attempt
            .save(&self.node.paths)
            .map_err(|error| early(error.into()))?;
        self.go_on(attempt, &installed).await
    }

    /// The attempt and those that come after it, until one is no patch.
    async fn one_after_the_other(&mut self, first: Attempt, installed: Installed) -> Result<Ending, Stopped> {
        let last = first.then.last().map_or(&first.release, |last| &last.release);
        let name = last.patch.as_ref().map(|patch| patch.name.clone());
        self.to = format!("{}+{}", last.version, name.unwrap_or_default());
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

// === What to install or to take back ===

impl Session {
    /// The attempt that the wish comes to; `None` when there is nothing to do.
    async fn chosen(&mut self, wish: &Wish, installed: &Installed) -> Result<Option<Attempt>, Failure> {
        let patches = Patches::load(&self.node.paths)?;
        let node = Arc::clone(&self.node);
        let here = Here {
            version: &installed.version,
            roles: node.roles(),
            patches: &patches,
        };
        let mut attempt = match &wish.verb {
            Verb::Install(wanted) => {
                let (source, list) = self.fresh_list(wish).await?;
                let chosen = here.to_install(&list, wanted)?;
                self.tell_left_out(&here, &list, wanted);
                let targets = documents(source.as_ref(), &chosen, &here).await?;
                let Some(attempt) = self.first_of(targets, installed) else {
                    let text = "no patch is outstanding that was asked for".into();
                    self.tell(EventKind::Notice { text });
                    return Ok(None);
                };
                attempt
            }
            Verb::Reinstall(name) => {
                if patches.installed(name).is_none() {
                    return Err(not_installed(&patches, name).into());
                }
                let (source, list) = self.fresh_list(wish).await?;
                let entry = list.named(name).ok_or_else(|| not_installed(&patches, name))?;
                let targets = documents(source.as_ref(), &[entry], &here).await?;
                let Some(mut attempt) = self.first_of(targets, installed) else {
                    return Ok(None);
                };
                if let Some(act) = &mut attempt.patch {
                    act.keeps = !undo::is_put_by(&node.paths.patch_kept(name));
                }
                attempt
            }
            Verb::Revert(name) => {
                let name = here.to_revert(name.as_deref())?.name.clone();
                self.reverting(&name, installed).await?
            }
        };
        if let Some(act) = &mut attempt.patch {
            act.no_restart = wish.no_restart;
        }
        Ok(Some(attempt))
    }

    /// The newest list, which is kept, restricted as the wish says.
    async fn fresh_list(&mut self, wish: &Wish) -> Result<(Arc<dyn Source>, PatchList), Failure> {
        let source = goal::connect(&self.node, &self.request).await?;
        let list = source.patches().await?;
        let listed = Listed::keep(&self.node.paths, list, self.node.clock.now())?;
        self.source = Some(Arc::clone(&source));
        Ok((source, local::restricted(listed.list, wish.only.as_deref())?))
    }

    fn tell_left_out(&mut self, here: &Here<'_>, list: &PatchList, wanted: &Wanted) {
        if !matches!(wanted, Wanted::Outstanding(_)) {
            return;
        }
        for entry in here.outstanding(list) {
            if here.state(entry) == State::RolledBack {
                let text = format!(
                    "the patch `{}` was rolled back here before and is left out; `kato patch install {}` tries it again",
                    entry.name, entry.name
                );
                self.tell(EventKind::Warning { text });
            }
        }
    }

    /// A new attempt about the first of `targets`, with the others after it.
    fn first_of(&self, targets: Vec<Target>, installed: &Installed) -> Option<Attempt> {
        let mut targets = targets.into_iter();
        let first = targets.next()?;
        let (from, now) = (Some(installed.version.clone()), self.node.clock.now());
        let then: Vec<_> = targets.collect();
        Some(Attempt::new(from, first.release, first.digest, now).then(&then))
    }

    /// The way back of the installed patch `name`: by its own modules, else by what it replaced.
    async fn reverting(&mut self, name: &str, installed: &Installed) -> Result<Attempt, Failure> {
        let paths = &self.node.paths;
        let new = |release: Release, digest: Digest| {
            let from = Some(installed.version.clone());
            Attempt::new(from, release, digest, self.node.clock.now())
        };
        let kept = KeptDocument::load(paths, name)?;
        let own_way = kept
            .as_ref()
            .and_then(|kept| Some((kept.release.taken_back()?, kept.sha256)));
        if let Some((release, digest)) = own_way {
            let mut attempt = new(release, digest);
            if let Some(act) = &mut attempt.patch {
                act.purpose = Purpose::Revert;
            }
            self.source = Some(goal::connect(&self.node, &self.request).await?);
            return Ok(attempt);
        }
        match kept {
            Some(kept) if runs_its_own(&kept.release) => {
                let problem = anyhow!(
                    "the patch `{name}` runs commands of its own, and brings no modules that take it back"
                );
                Err(Failure::new(Exit::Preflight, problem).hint(format!(
                    "nothing was changed; take it back by hand, then run `kato patch mark --notinstalled {name}`"
                )))
            }
            Some(kept) if undo::is_put_by(&paths.patch_kept(name)) => {
                let mut attempt = new(kept.release, kept.sha256);
                self.given_back(&mut attempt);
                Ok(attempt)
            }
            _ => {
                let problem =
                    anyhow!("nothing that the patch `{name}` replaced was kept here: it was marked by hand");
                Err(Failure::new(Exit::Preflight, problem).hint(format!(
                    "nothing was changed; take it back by hand, then run `kato patch mark --notinstalled {name}`"
                )))
            }
        }
    }
}

/// Whether a patch runs programs of its archives, which are not on the node any more when it is taken back.
fn runs_its_own(release: &Release) -> bool {
    let mut modules = release.modules.iter();
    modules.any(|module| !module.install.own_programs().is_empty())
}

/// The verified documents of `entries`, as targets on the release of `here`.
async fn documents(
    source: &dyn Source,
    entries: &[&PatchEntry],
    here: &Here<'_>,
) -> Result<Vec<Target>, Failure> {
    let mut targets = Vec::with_capacity(entries.len());
    for entry in entries {
        let (mut release, digest) = source.patch(entry.id).await?;
        if digest != entry.sha256 {
            let problem = anyhow!(
                "the list of patches and the targets metadata disagree on the patch `{}`: {} and {digest}",
                entry.name,
                entry.sha256
            );
            return Err(Failure::new(Exit::Trust, problem)
                .hint("nothing was changed; ask the publisher to run `kato release verify`"));
        }
        in_order(entry, &release, here)?;
        // On this node it is a change of the release that is installed.
        release.version = here.version.clone();
        targets.push(Target { release, digest });
    }
    Ok(targets)
}

/// Refuses a patch that would put older content over that of a newer one.
fn in_order(entry: &PatchEntry, release: &Release, here: &Here<'_>) -> Result<(), Failure> {
    let changes = places::of(&release.modules, here.roles);
    let mut newer = here.patches.installed.iter().filter(|other| other.id > entry.id);
    let over = newer.find_map(|other| Some((other, other.overlaps(&changes)?)));
    let Some((other, path)) = over else {
        return Ok(());
    };
    let problem = anyhow!(
        "the patch `{}` changes {}, and so does `{}`, which is newer and installed",
        entry.name,
        path.display(),
        other.name
    );
    Err(Failure::new(Exit::Preflight, problem).hint(format!(
        "nothing was changed; run `kato patch revert {}` first, and install both again in their order",
        other.name
    )))
}

fn not_installed(patches: &Patches, name: &str) -> ChoiceError {
    ChoiceError::NotInstalled {
        name: name.to_owned(),
        installed: patches.installed.iter().map(|patch| patch.name.clone()).collect(),
    }
}

fn unfinished_upgrade(attempt: &Attempt) -> Failure {
    let problem = anyhow!(
        "the upgrade to {} is not finished on this node",
        attempt.ends_at()
    );
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

// === Upgrades and patches ===

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
    pub(super) fn unfinished_act(&self, attempt: Attempt) -> Result<Option<Attempt>, Stopped> {
        let paths = &self.node.paths;
        let patches = Patches::load(paths).map_err(|error| early(error.into()))?;
        if patches.ended.as_ref() != Some(&attempt.id) {
            return Ok(Some(attempt));
        }
        if attempt.rollback.is_none() {
            record::settle_patch(&self.node, &attempt).map_err(early)?;
        } else {
            steps::settle_back(&self.node, &attempt).map_err(early)?;
            if !attempt.is_taking_back() {
                return Err(way_back::rolled_back(&attempt));
            }
        }
        Attempt::load(paths).map_err(|error| early(error.into()))
    }

    /// The releases of `targets` with the patches that come before them; or why the node is not ready for the releases.
    ///
    /// # Errors
    /// [`Failure`] with 20 naming the patches that a release demands and the node lacks.
    pub(super) async fn with_patches(
        &mut self,
        targets: Vec<Target>,
        begun: Option<&Attempt>,
        installed: Option<&Installed>,
    ) -> Result<Vec<Target>, Failure> {
        let begun = begun.filter(|attempt| attempt.begun);
        let is_passed = begun.is_some_and(|attempt| attempt.patch.is_none());
        let has_patches = targets.iter().any(|target| target.release.patch.is_some());
        let (Some(installed), false) = (installed, is_passed || has_patches) else {
            return Ok(targets);
        };
        // The installed release once more demands nothing that it did not demand then.
        let way: Vec<&Release> = targets
            .iter()
            .map(|target| &target.release)
            .filter(|release| release.version != installed.version)
            .collect();
        let list = self.known_list().await?;
        let patches = Patches::load(&self.node.paths)?;
        let node = Arc::clone(&self.node);
        let here = Here {
            version: &installed.version,
            roles: node.roles(),
            patches: &patches,
        };
        let gate = choice::gate(&here, &list, &way);
        if !(self.request.apply_patches || begun.is_some()) {
            self.pass(&here, &gate)?;
            return Ok(targets);
        }
        refuse(
            &here,
            gate.missing.iter().filter(|missing| !missing.can_be_installed),
        )?;
        let first = choice::to_apply(&here, &list, &gate)?;
        let mut all = match &self.source {
            Some(source) => documents(source.as_ref(), &first, &here).await?,
            None => Vec::new(),
        };
        all.extend(targets);
        Ok(all)
    }

    /// The list of patches; without the network, as it was last seen.
    async fn known_list(&self) -> Result<PatchList, Failure> {
        let Some(source) = &self.source else {
            let listed = Listed::load(&self.node.paths)?;
            return Ok(listed.map(|listed| listed.list).unwrap_or_default());
        };
        let list = source.patches().await?;
        if self.request.plan_only {
            return Ok(list);
        }
        Ok(Listed::keep(&self.node.paths, list, self.node.clock.now())?.list)
    }

    /// Refuses what lacks a demanded patch, and tells of others that are outstanding.
    fn pass(&mut self, here: &Here<'_>, gate: &Gate<'_>) -> Result<(), Failure> {
        refuse(here, gate.missing.iter())?;
        if !gate.outstanding.is_empty() {
            let names: Vec<_> = gate.outstanding.iter().map(|entry| entry.name.as_str()).collect();
            let text = format!(
                "{} patches of {} are not installed ({}): {}; `kato patch install` or `--apply-patches` installs them",
                names.len(),
                here.version,
                choice::severities(&gate.outstanding),
                names.join(", ")
            );
            self.tell(EventKind::Warning { text });
        }
        Ok(())
    }
}

/// Refuses a way whose releases demand `missing`.
fn refuse<'a>(here: &Here<'_>, missing: impl Iterator<Item = &'a Missing>) -> Result<(), Failure> {
    let missing: Vec<_> = missing.collect();
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let names = |of: &[&&Missing]| -> Vec<String> { of.iter().map(|missing| missing.name.clone()).collect() };
    let all: Vec<_> = missing.iter().collect();
    let problem = anyhow!(
        "release {} needs patches that this node does not have: {}",
        first.release,
        names(&all).join(", ")
    );
    let (now, never): (Vec<_>, Vec<_>) = missing.iter().partition(|missing| missing.can_be_installed);
    let hint = if never.is_empty() {
        format!(
            "nothing was changed; run `kato patch install {}`, or add `--apply-patches` to the command",
            names(&now).join(" ")
        )
    } else {
        not_for(here.version, &names(&never))
    };
    Err(Failure::new(Exit::Preflight, problem).hint(hint))
}

fn not_for(version: &Version, names: &[String]) -> String {
    format!(
        "nothing was changed; {} cannot be installed on {version}: upgrade to a release in between with `--version` and install it there, or ask the publisher",
        names.join(", ")
    )
}
