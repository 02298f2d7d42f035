//! `backup`: before the first change; see [`crate::backup`].

use std::sync::Arc;

use async_trait::async_trait;

use super::retire;
use crate::{
    backup::{self, Manifest},
    customizations::{
        archive::{self, Reason},
        outlook,
    },
    exit::{Exit, Failure},
    plan::node::modules_for,
    platform::{Verb, Words},
    run::{
        Run,
        event::EventKind,
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
        save_local_changes(run)?;
        let mut what = run.plan.backup.clone();
        let paths = &run.node.paths;
        what.insert(below_root(run, paths.installed()));
        what.insert(below_root(run, paths.patches()));
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

/// Saves the local changes that the modules are going to take away.
fn save_local_changes(run: &mut Run) -> Result<(), Failure> {
    let node = Arc::clone(&run.node);
    let Some(installed) = run
        .installed
        .as_ref()
        .filter(|_| node.settings.customizations.save)
    else {
        return Ok(());
    };
    let release = &run.attempt.release;
    let modules = modules_for(release, node.roles());
    let foreseen = outlook::foresee(&node.paths, Some(installed), release, &modules)?;
    let (id, now) = (run.attempt.id.as_str(), node.clock.now());
    let changes = outlook::taken_away(&foreseen);
    let saved = archive::save(&node.paths, installed, &changes, (id, Reason::Upgrade, now))?;
    archive::retain(&node.paths, node.settings.customizations.keep)?;
    if let Some(saved) = saved {
        let text = format!(
            "{} local changes that the upgrade takes away are saved as {}; `kato customizations reapply` puts them back",
            saved.files.len(),
            saved.id
        );
        run.stream.tell(EventKind::Notice { text });
    }
    Ok(())
}

/// A record of the node's state, as a path below the node's root.
fn below_root(run: &Run, record: std::path::PathBuf) -> std::path::PathBuf {
    match record.strip_prefix(run.node.paths.root()) {
        Ok(below) => below.to_owned(),
        Err(_elsewhere) => record,
    }
}
