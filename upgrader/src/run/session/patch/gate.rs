//! The gate before a release: the patches that it demands are on the node, are installed first, or the upgrade is refused.

use std::sync::Arc;

use anyhow::anyhow;
use kato_shared::release::{PatchList, Release, Version};

use super::documents::documents;
use crate::{
    attempt::{Attempt, Target},
    exit::{Exit, Failure},
    installed::Installed,
    patch::{
        choice::{self, Gate, Here, Missing},
        listed::Listed,
        record::Patches,
    },
    run::{event::EventKind, session::Session},
};

impl Session {
    /// The releases of `targets` with the patches that come before them; or why the node is not ready for the releases.
    ///
    /// # Errors
    /// [`Failure`] with 20 naming the patches that a release demands and the node lacks.
    pub(in crate::run::session) async fn with_patches(
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
                "{} of {} {} not installed ({}): {}; `kato patch install` and `--apply-patches` install what is outstanding",
                kato_shared::counted(names.len(), "patch", "patches"),
                here.version,
                if names.len() == 1 { "is" } else { "are" },
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
