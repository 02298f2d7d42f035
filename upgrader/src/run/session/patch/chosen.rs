//! What a run about patches is to install or to take back: the attempts that a wish comes to.
//!
//! Nothing is changed here but the kept list of patches, which becomes the newest.

use std::sync::Arc;

use anyhow::anyhow;
use kato_shared::{
    Digest,
    release::{PatchList, Release},
};

use super::documents::documents;
use crate::{
    attempt::{Attempt, Target},
    exit::{Exit, Failure},
    installed::Installed,
    module::undo,
    patch::{
        act::Purpose,
        choice::{ChoiceError, Here, State, Wanted},
        document::KeptDocument,
        listed::Listed,
        local::{self, Verb, Wish},
        record::Patches,
    },
    run::{event::EventKind, goal, session::Session},
    source::Source,
};

impl Session {
    /// The attempt that the wish comes to; `None` when there is nothing to do.
    pub(super) async fn chosen(
        &mut self,
        wish: &Wish,
        installed: &Installed,
    ) -> Result<Option<Attempt>, Failure> {
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
        if !self.request.plan_only {
            local::choose_originals(&node, &mut attempt)?;
        }
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

fn not_installed(patches: &Patches, name: &str) -> ChoiceError {
    ChoiceError::NotInstalled {
        name: name.to_owned(),
        installed: patches.installed.iter().map(|patch| patch.name.clone()).collect(),
    }
}
