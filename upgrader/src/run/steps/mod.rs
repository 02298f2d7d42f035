//! The steps of an upgrade, one file each, in the order of the plan.

mod backup;
mod module;
mod preflight;
pub mod record;
mod restart;
pub mod retire;
mod self_update;
mod stage;
mod verify;

use super::{Run, step::Step};
use crate::plan::node::modules_for;

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

/// The steps that change nothing of what runs on the node.
pub fn preparation(_run: &Run) -> Vec<Box<dyn Step>> {
    vec![Box::new(self_update::SelfUpdate), Box::new(stage::Stage)]
}

/// The one step of `--update-kato`.
pub fn kato_alone() -> Vec<Box<dyn Step>> {
    vec![Box::new(self_update::SelfUpdate)]
}
