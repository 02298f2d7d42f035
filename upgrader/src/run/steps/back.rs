//! The steps of the way back: `undo:<module>`, the old release's `verify`, and `record-rollback`.

use async_trait::async_trait;

use super::{notes, record, verify};
use crate::{
    attempt::Attempt,
    exit::{Exit, Failure},
    failpoint,
    module::{
        ModuleError, tree,
        undo::{self, Found, Note},
    },
    patch::{
        act::{PatchAct, Purpose},
        local,
        record::{Patches, RolledBack},
    },
    quarantine::{Quarantine, Quarantined},
    recover,
    report::terminal,
    run::{
        Run,
        context::Node,
        kept,
        step::{Acted, Need, Step},
    },
};

/// Puts back what one module changed.
pub(super) struct UndoModule {
    module: String,
    recovery: bool,
    /// Its note; `None` when it is lost.
    note: Option<Note>,
}

impl UndoModule {
    /// The step of each module, in their order: those whose note is lost as early as the others let it, `kato` itself last.
    pub(super) fn all(attempt: &Attempt, found: Found) -> Vec<Self> {
        let recovery = |name: &str| {
            let mut modules = attempt.release.modules.iter();
            modules.any(|module| module.name == name && module.recovery)
        };
        let lost = found.unreadable.into_iter().map(|(module, _)| Self {
            recovery: recovery(&module),
            module,
            note: None,
        });
        let noted = found.notes.into_iter().map(|note| Self {
            module: note.module.clone(),
            recovery: note.recovery,
            note: Some(note),
        });
        let mut steps: Vec<Self> = lost.chain(noted).collect();
        steps.sort_by_key(|step| step.recovery);
        steps
    }
}

#[async_trait]
impl Step for UndoModule {
    fn name(&self) -> String {
        format!("undo:{}", self.module)
    }

    fn changes_node(&self) -> bool {
        true
    }

    /// What can be put back is, whatever becomes of the others. `kato` is not: with it the way back is gone on with.
    fn is_independent(&self) -> bool {
        !self.recovery
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        // Read again: what an earlier try has taken back is in the note on the disk.
        let mut note = undo::read(&run.node.paths, &self.module)?
            .or_else(|| self.note.clone())
            .ok_or_else(|| notes::no_note(&run.node, &self.module))?;
        if note.recovery {
            script_for_the_old_kato(run, &note)?;
        }
        undo::take_back(&run.node.paths, &run.node.children, &mut note).await?;
        undo::undo(&run.node.paths, &mut note)?;
        Ok(Acted::Done)
    }

    async fn verify(&self, run: &mut Run) -> Result<(), Failure> {
        let note = undo::read(&run.node.paths, &self.module)?;
        Ok(note.as_ref().map_or(Ok(()), undo::check)?)
    }
}

/// While the link of `kato` moves, `fix-kato.sh` must bring back the program that it moves to.
fn script_for_the_old_kato(run: &Run, note: &Note) -> Result<(), Failure> {
    for (link, place) in &note.places {
        let Some(tree::Kind::Link { to }) = place.was.as_ref().map(|was| &was.kind) else {
            continue;
        };
        let program = link.parent().unwrap_or(link).join(to);
        if program.is_file() {
            let sha256 = tree::digest(&program).map_err(ModuleError::io("reading", &program))?;
            recover::write(&run.node.paths, &program, &program, &sha256, link)?;
        }
    }
    Ok(())
}

/// The node shows that it runs the old release: everything is as it was, and the old release's checks are good.
pub(super) struct VerifyBack;

#[async_trait]
impl Step for VerifyBack {
    fn name(&self) -> String {
        "verify".into()
    }

    fn changes_node(&self) -> bool {
        true
    }

    /// It only looks, and what it starts is started again.
    fn is_interruptible(&self) -> bool {
        true
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        for note in undo::all(&run.node.paths)? {
            undo::check(&note)?;
        }
        let checks = run.installed.as_ref().map(|installed| installed.checks.clone());
        let shown = verify::shows(run, &checks.unwrap_or_default()).await;
        if let Err(failure) = shown {
            // As it was is what the way back leads to.
            if !run.attempt.was_unhealthy || failure.exit != Exit::Failed {
                return Err(failure);
            }
            verify::runs_the_version(run).await?;
            run.warn(format!(
                "{} (the node was not healthy before the upgrade either)",
                terminal::describe(&failure)
            ));
        }
        Ok(Acted::Done)
    }
}

/// The rollback is complete: the entry in the quarantine is its commit point, everything after it only cleans up.
pub(super) struct RecordBack;

#[async_trait]
impl Step for RecordBack {
    fn name(&self) -> String {
        "record-rollback".into()
    }

    fn changes_node(&self) -> bool {
        true
    }

    async fn precheck(&self, run: &mut Run) -> Result<Need, Failure> {
        Ok(match run.attempt.rollback {
            Some(_) => Need::Act,
            None => Need::Skip("the upgrade was not given up".into()),
        })
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        match &run.attempt.patch {
            Some(act) => of_patch(run, act)?,
            None => of_release(run)?,
        }
        for text in settle(&run.node, &run.attempt)? {
            run.warn(text);
        }
        Ok(Acted::Done)
    }
}

fn of_release(run: &Run) -> Result<(), Failure> {
    let paths = &run.node.paths;
    if let Some(rollback) = &run.attempt.rollback {
        let entry = Quarantined {
            version: run.attempt.release.version.clone(),
            release_digest: run.attempt.release_digest,
            attempt: run.attempt.id.clone(),
            from: run.attempt.from.clone(),
            then: run.attempt.then.iter().map(|target| target.digest).collect(),
            since: rollback.since,
            error: rollback.error.clone(),
        };
        Quarantine::load(paths)?.add(paths, entry)?;
    }
    Ok(())
}

/// A patch that was taken back is not installed any more; one that failed is not tried again by itself.
fn of_patch(run: &Run, act: &PatchAct) -> Result<(), Failure> {
    let mut patches = Patches::load(&run.node.paths)?;
    match (&run.attempt.rollback, act.purpose) {
        (_, Purpose::TakeBack) => {
            patches.remove(&act.name);
        }
        (Some(rollback), Purpose::Install) if patches.installed(&act.name).is_none() => {
            patches.rolled_back.retain(|other| other.name != act.name);
            patches.rolled_back.push(RolledBack {
                name: act.name.clone(),
                sha256: run.attempt.release_digest,
                since: rollback.since,
                error: rollback.error.clone(),
            });
        }
        // Installed before and installed still.
        (_, Purpose::Install | Purpose::Revert) => {}
    }
    patches.ended = Some(run.attempt.id.clone());
    patches.save(&run.node.paths)?;
    failpoint::hit("patch.recorded");
    Ok(())
}

/// Cleans up after a recorded rollback; gives what stays of marker and latches, a line each. May be killed anywhere and called again.
///
/// # Errors
/// [`Failure`] with the first thing that cannot be removed.
pub(super) fn settle(node: &Node, attempt: &Attempt) -> Result<Vec<String>, Failure> {
    notes::sweep(node, attempt)?;
    let left = record::clear_notes(&node.paths);
    // While an operator's way back is cleaned up, its originals are in their places again.
    if let Some(act) = attempt.patch.as_ref().filter(|_| attempt.is_taking_back()) {
        local::forget_kept(&node.paths, &act.name)?;
        failpoint::hit("patch.settled");
    }
    let kept = kept::targets(&node.paths)?;
    record::close(node, attempt.put_aside.as_deref().cloned(), &kept)?;
    Ok(left)
}
