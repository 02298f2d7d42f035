//! `self-update`: this program before anything of the node; see [`crate::self_update`]. Its copy was staged with everything else, except
//! for `--update-kato`.

use async_trait::async_trait;
use kato_shared::release::{Upgrader, layout};

use crate::{
    exit::{Exit, Failure},
    report::terminal,
    run::{
        Run,
        step::{Acted, Need, Step},
    },
    self_update::{self, SelfUpdateError},
    source::Wanted,
};

pub(super) struct SelfUpdate;

#[async_trait]
impl Step for SelfUpdate {
    fn name(&self) -> String {
        "self-update".into()
    }

    async fn precheck(&self, run: &mut Run) -> Result<Need, Failure> {
        let running = self_update::running_digest()?;
        if let Some(expected) = run.updated_to.filter(|expected| *expected != running) {
            return Err(SelfUpdateError::Loop { expected, running }.into());
        }
        Ok(match offered(run, &running)? {
            None => Need::Skip("this is the release's kato".into()),
            Some(_) => Need::Act,
        })
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        let running = self_update::running_digest()?;
        let Some(offered) = offered(run, &running)? else {
            return Ok(Acted::Done);
        };
        match replace(run, &offered).await {
            Ok(()) => Ok(Acted::Done),
            Err(failure) if failure.exit == Exit::Trust => Err(failure),
            // The first of its commands would end at them, after a restart of the machine as well. A node that is half upgraded is finished by
            // this program.
            Err(failure) if is_about_settings(&failure) && !run.attempt.begun => Err(failure),
            // The release can be installed by this program; kato is not worth more than the upgrade.
            Err(failure) if self_update::suffices(&run.attempt.release) => {
                run.warn(format!(
                    "kato was not updated, the upgrade goes on with this one: {}",
                    terminal::describe(&failure)
                ));
                Ok(Acted::Done)
            }
            Err(failure) => Err(failure),
        }
    }
}

fn is_about_settings(failure: &Failure) -> bool {
    matches!(
        failure.source.downcast_ref(),
        Some(SelfUpdateError::Settings { .. })
    )
}

fn offered(run: &Run, running: &kato_shared::Digest) -> Result<Option<Upgrader>, Failure> {
    let own = self_update::own_version();
    Ok(self_update::decide(&run.attempt.release, layout::HOST_TRIPLE, &own, running)?.cloned())
}

/// Downloads and installs the program, and becomes it; returns only when that fails.
async fn replace(run: &mut Run, offered: &Upgrader) -> Result<(), Failure> {
    let wanted = Wanted {
        target: offered.target.clone(),
        sha256: offered.sha256,
        size: offered.size,
    };
    let copy = super::stage::download(run, &wanted, "self-update", "kato").await?;
    let link = run.node.kato_link();
    let program = self_update::install(
        &run.node.paths,
        &run.node.children,
        &copy,
        offered,
        &link,
        &run.config,
    )
    .await?;
    let error = self_update::restart_as(&program, &offered.sha256, &run.id);
    Err(SelfUpdateError::Io {
        action: "starting",
        path: program,
        source: error,
    }
    .into())
}
