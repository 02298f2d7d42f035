//! `backup`: before the first change; see [`crate::backup`].

use async_trait::async_trait;

use super::retire;
use crate::{
    backup::{self, Manifest},
    exit::{Exit, Failure},
    platform::{Verb, Words},
    run::{
        Run,
        step::{Acted, Need, Step},
    },
};

pub(super) struct Backup;

#[async_trait]
impl Step for Backup {
    fn name(&self) -> String {
        "backup".into()
    }

    async fn precheck(&self, run: &mut Run) -> Result<Need, Failure> {
        let taken = backup::folder(&run.node.paths, &run.attempt.id);
        Ok(if taken.join("manifest.json").exists() {
            Need::Skip(format!(
                "an earlier run of this upgrade took it: {}",
                taken.display()
            ))
        } else {
            Need::Act
        })
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        let part = backup::begin(&run.node.paths, &run.attempt.id)?;
        if run.node.platform.knows(Verb::Backup) {
            let dir = part.join("platform");
            kato_shared::durable::create_folder(&dir)?;
            let words = Words {
                dir: dir.display().to_string(),
                version: run
                    .attempt
                    .from
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                ..Words::default()
            };
            let mut failed = None;
            if let Err(error) = run.node.platform.call(Verb::Backup, &words).await {
                let mut failure = Failure::from(error);
                failure.exit = Exit::Preflight;
                failed = Some(failure);
            }
            if let Some(failure) = failed {
                return Err(failure);
            }
        }
        let mut what = run.plan.backup.clone();
        what.insert(below_root(run));
        let attempt = &run.attempt;
        let now = run.node.clock.now();
        backup::finish(&run.node.paths, &part, &what, |archive, entries| Manifest {
            schema: backup::SCHEMA,
            attempt: attempt.id.clone(),
            from: attempt.from.clone(),
            to: attempt.release.version.clone(),
            time: now,
            archive,
            entries,
        })?;
        retire::recheck(run).await?;
        Ok(Acted::Done)
    }
}

/// The record of the installed release, as a path below the node's root.
fn below_root(run: &Run) -> std::path::PathBuf {
    let record = run.node.paths.installed();
    record
        .strip_prefix(run.node.paths.root())
        .map_or_else(|_elsewhere| record.clone(), std::path::Path::to_owned)
}
