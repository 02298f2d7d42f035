//! The steps of an upgrade, one file each, in the order of the plan.

mod back;
mod backup;
mod module;
pub mod notes;
mod preflight;
pub mod record;
mod restart;
pub mod retire;
mod self_update;
mod stage;
mod verify;

pub(super) use self::preflight::Finding;
use super::{Node, Run, kept, step::Step};
use crate::{attempt::Attempt, exit::Failure, module::undo::Found, plan::node::modules_for};

/// All steps of the run's upgrade.
pub fn all(run: &Run) -> Vec<Box<dyn Step>> {
    let mut steps = preparation(run);
    steps.push(Box::new(preflight::Preflight));
    if run.plan.retire.is_some() {
        steps.push(Box::new(retire::Retire));
    }
    steps.push(Box::new(backup::Backup));
    for module in modules_for(&run.attempt.release, run.node.roles()) {
        steps.push(Box::new(module::InstallModule(module.clone())));
    }
    steps.push(Box::new(restart::Restart));
    steps.push(Box::new(verify::Verify));
    if run.plan.retire.is_some() {
        steps.push(Box::new(retire::Rejoin));
    }
    steps.push(Box::new(record::Record));
    steps
}

/// The steps of the way back, given the undo journal as it was found.
pub fn back(run: &Run, found: Found) -> Vec<Box<dyn Step>> {
    let mut steps: Vec<Box<dyn Step>> = Vec::new();
    if run.attempt.is_taking_back() {
        // What was changed here since the patch was installed goes with it.
        steps.push(Box::new(backup::Backup));
    }
    if run.plan.retire.is_some() {
        steps.push(Box::new(retire::Retire));
    }
    for undo in back::UndoModule::all(&run.attempt, found) {
        steps.push(Box::new(undo));
    }
    steps.push(Box::new(restart::Restart));
    steps.push(Box::new(back::VerifyBack));
    if run.plan.retire.is_some() {
        steps.push(Box::new(retire::Rejoin));
    }
    steps.push(Box::new(back::RecordBack));
    steps
}

/// Cleans up after a rollback that is recorded; see [`record::settle`] for the other direction.
///
/// # Errors
/// [`Failure`] with the first thing that cannot be removed.
pub fn settle_back(node: &Node, attempt: &Attempt) -> Result<Vec<String>, Failure> {
    back::settle(node, attempt)
}

/// Cleans up after an upgrade whose record is lost, when the node is on one side all the same; gives what stays, a line each.
///
/// # Errors
/// [`Failure`] with the first thing that cannot be removed.
pub fn settle_lost(node: &Node) -> Result<Vec<String>, Failure> {
    let left = record::clear_notes(&node.paths);
    record::close(node, None, &kept::targets(&node.paths)?)?;
    Ok(left)
}

/// The steps that change nothing of what runs on the node. `kato` is replaced when everything is staged: whoever is cut off
/// while it is, goes on without the network.
pub fn preparation(_run: &Run) -> Vec<Box<dyn Step>> {
    vec![Box::new(stage::Stage), Box::new(self_update::SelfUpdate)]
}

/// What would stop the run before it changes anything, in every step up to that; a look, which changes nothing.
pub async fn look_ahead(run: &Run) -> Vec<Finding> {
    let mut found: Vec<Finding> = stage::room_ahead(run).into_iter().collect();
    found.extend(preflight::standing(run));
    found.extend(preflight::of_platform(run).await);
    found
}

/// The steps of `--download-only`: everything that can be found out before anything is changed is found out now.
pub fn download(run: &Run) -> Vec<Box<dyn Step>> {
    let mut steps = preparation(run);
    steps.push(Box::new(preflight::Preflight));
    steps
}

/// The one step of `--update-kato`.
pub fn kato_alone() -> Vec<Box<dyn Step>> {
    vec![Box::new(self_update::SelfUpdate)]
}
