//! `module:<name>`: installs one module and writes its latch.

use async_trait::async_trait;
use kato_shared::release::Module;

use crate::{
    exit::Failure,
    latch::{Latch, Verdict},
    module::{self, Work},
    plan::node::skip_reason,
    run::{
        Run,
        step::{Acted, Need, Step},
    },
};

pub(super) struct InstallModule(pub(super) Module);

#[async_trait]
impl Step for InstallModule {
    fn name(&self) -> String {
        format!("module:{}", self.0.name)
    }

    fn changes_node(&self) -> bool {
        true
    }

    /// The latch is read now and not when the plan was made: it may have been deleted since.
    async fn precheck(&self, run: &mut Run) -> Result<Need, Failure> {
        let job = run.job(&self.0)?;
        let target = &run.attempt.release.version;
        let verdict = run
            .latches()
            .verdict(&self.0.name, target, &job.artifact.sha256)?;
        if verdict == Verdict::ByHand {
            run.warn(format!(
                "the latch of `{}` was made by hand: the module is taken as installed without a look",
                self.0.name
            ));
        }
        let Some(reason) = skip_reason(verdict) else {
            return Ok(Need::Act);
        };
        Work::close(&run.node.paths, &self.0.name)?;
        Ok(Need::Skip(reason.into()))
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        let report = module::install(&run.job(&self.0)?).await?;
        for line in report.lines {
            run.warn(format!("{}: {line}", self.0.name));
        }
        Ok(Acted::Done)
    }

    async fn verify(&self, run: &mut Run) -> Result<(), Failure> {
        let job = run.job(&self.0)?;
        let checked = module::check(&job).await;
        if checked.is_err() {
            // What stands there is not what was unpacked: the next try must unpack again.
            Work::close(&run.node.paths, &self.0.name)?;
        }
        checked?;
        let latch = Latch {
            module: self.0.name.clone(),
            version: self.0.version.clone(),
            sha256: job.artifact.sha256,
            target: run.attempt.release.version.clone(),
            run: run.id.clone(),
            time: run.node.clock.now(),
        };
        run.latches().write(&latch)?;
        Ok(Work::close(&run.node.paths, &self.0.name)?)
    }
}
