//! `preflight`: what must be so before anything is changed. After a failed run these are warnings.

use async_trait::async_trait;
use kato_shared::release::RestartScope;

use crate::{
    exit::{Exit, Failure},
    platform::Verb,
    report::terminal,
    run::{
        Run,
        step::{Acted, Step},
    },
};

pub(super) struct Preflight;

#[async_trait]
impl Step for Preflight {
    fn name(&self) -> String {
        "preflight".into()
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        let words = run.words();
        if let Err(error) = run.node.platform.call(Verb::Health, &words).await {
            let mut failure = Failure::from(error);
            failure.exit = Exit::Preflight;
            if run.installed.is_some() {
                refuse(run, failure)?;
            } else {
                // What is not installed yet cannot be healthy.
                run.warn(terminal::describe(&failure));
            }
        }
        if run.plan.restart == RestartScope::Reboot && !run.node.platform.knows(Verb::Reboot) {
            let problem =
                anyhow::anyhow!("the release restarts the machine, and `[platform].reboot` is not set");
            let failure = Failure::new(Exit::Preflight, problem)
                .hint("nothing was changed; set the command and run the same command again");
            refuse(run, failure)?;
        }
        // A node that never had a release has no state to save.
        if run.installed.is_some() {
            for path in run.plan.missing.clone() {
                let problem = anyhow::anyhow!(
                    "the release wants `{}` saved, and it is not on this node",
                    run.node.paths.on_node(&path).display()
                );
                let failure = Failure::new(Exit::Preflight, problem)
                    .hint("nothing was changed; put the path back, or ask the publisher of the release");
                refuse(run, failure)?;
            }
        }
        for name in run.plan.dropped.clone() {
            run.warn(format!(
                "the module `{name}` is not in {}; its files stay",
                run.attempt.release.version
            ));
        }
        Ok(Acted::Done)
    }
}

fn refuse(run: &mut Run, failure: Failure) -> Result<(), Failure> {
    if run.plan.is_tolerant {
        run.warn(format!(
            "{} (the last run failed, so this is no reason to stop)",
            terminal::describe(&failure)
        ));
        Ok(())
    } else {
        Err(failure)
    }
}
