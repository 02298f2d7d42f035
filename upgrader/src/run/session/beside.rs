//! A run on a node that is in the middle of an upgrade which it is not about, or not yet.

use anyhow::anyhow;
use kato_shared::release::Version;

use super::Session;
use crate::{
    attempt::Attempt,
    backup,
    exit::{Exit, Failure},
    run::{
        Run,
        beside::{Begun, Doing, May, may},
        steps::retire,
    },
};

impl Session {
    /// What this run may do now; `about` is the upgrade that it is about, when it is about one. Asked when it matters: the record changes.
    pub(super) fn may(&self, about: Option<&str>) -> May {
        let doing = Doing {
            about,
            // A record that cannot be read is nobody's, and the platform is asked nothing by it.
            took_out: retire::took_out(&self.node, &self.id).unwrap_or(false),
            has_worked: self.has_worked,
        };
        may(&self.begun_here(), doing)
    }

    /// The upgrade that has begun on this node.
    fn begun_here(&self) -> Begun {
        match Attempt::load(&self.node.paths) {
            Ok(Some(attempt)) => Begun::of(&attempt.id, attempt.begun),
            Ok(None) => match &self.taken_up {
                Some(taken_up) => Begun::of(&taken_up.id, true),
                None if self.is_amid_unknown => Begun::Unknown,
                None => Begun::No,
            },
            Err(_said_by_the_run) => Begun::Unknown,
        }
    }

    /// What is said about a run to another release than the one that has begun.
    pub(super) fn told_beside(&self, run: &Run) -> String {
        let attempt = Attempt::load(&self.node.paths).ok().flatten();
        let taken_up = self.taken_up.as_ref().map(|taken_up| taken_up.target.to_string());
        let begun = attempt
            .map(|attempt| attempt.aim())
            .or(taken_up)
            .unwrap_or_default();
        let to = run.attempt.aim();
        let until = if run.request.download_only {
            format!("{to} is only downloaded")
        } else {
            format!("until {to} changes the node")
        };
        format!(
            "the upgrade to {begun} has begun on this node and is what `kato node upgrade` goes on with: {until}"
        )
    }

    /// Refuses to call the node done with `recorded` while half of another release is on it.
    ///
    /// # Errors
    /// [`Failure`] with 20 and both ways on.
    pub(super) fn refuse_amid(&self, recorded: &Version, attempt: Option<&Attempt>) -> Result<(), Failure> {
        if self.may(None).be_done {
            return Ok(());
        }
        let (id, aim) = match (attempt, &self.taken_up) {
            (Some(attempt), _) => (attempt.id.as_str(), attempt.ends_at().to_string()),
            (None, Some(taken_up)) => (taken_up.id.as_str(), taken_up.target.to_string()),
            (None, None) => return Ok(()),
        };
        let problem =
            anyhow!("the upgrade to {aim} is half done on this node, which is not at {recorded} any more");
        let id = backup::leads_back(&self.node.paths, id);
        let is_there = backup::folder(&self.node.paths, &id)
            .join("manifest.json")
            .exists();
        let back = is_there.then(|| {
            format!(
                "; the way back is `kato node restore {id}`, which brings the whole node back to {recorded}"
            )
        });
        Err(Failure::new(Exit::Preflight, problem).hint(format!(
            "nothing was changed; the same command without `--version` goes on with it{}",
            back.unwrap_or_default()
        )))
    }
}
