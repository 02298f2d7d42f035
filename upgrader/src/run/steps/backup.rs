//! `backup`: before the first change; see [`crate::backup`].

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

use super::retire;
use crate::{
    backup::{self, Head},
    customizations::{
        archive::{self, Reason},
        outlook::{self, Basis},
        patched,
    },
    exit::{Exit, Failure},
    module::{self, tree::Kind},
    plan::node::modules_for,
    platform::{Verb, Words},
    run::{
        Run,
        event::EventKind,
        step::{Acted, Need, Step},
        taken_up::Traces,
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
        // Taken again for an upgrade that went on after another one, or that lost its backup: half of it is new.
        let traces = Traces::of(&run.node, run.installed.as_ref())?;
        // What leads back from a patch is in the undo journal, and the patch is whole.
        let amid = (traces.is_any() && !run.attempt.is_taking_back()).then_some(traces);
        let part = backup::begin(&run.node.paths, &run.attempt.id)?;
        if run.node.platform.knows(Verb::Backup) {
            let dir = part.join("platform");
            kato_shared::durable::create_folder(&dir)?;
            let words = Words {
                dir: dir.display().to_string(),
                ..run.words()
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
        save_local_changes(run, amid.as_ref())?;
        let attempt = &run.attempt;
        let head = Head {
            attempt: attempt.id.clone(),
            node: run.node.id.clone(),
            product: attempt.release.product.clone(),
            from: attempt.from.clone(),
            to: attempt.release.version.clone(),
            amid: amid.as_ref().map(Traces::name),
            time: run.node.clock.now(),
        };
        if let Some(begun) = &head.amid {
            let text = format!(
                "{begun} has changed this node already, so the backup {} holds half of a release; `kato node restore latest` takes \
                 the one from before",
                head.attempt
            );
            run.warn(text);
        }
        let manifest = backup::finish(&run.node.paths, &part, &what(run), head)?;
        for path in manifest.unsettled {
            run.warn(format!(
                "/{} changed while it was saved; its backup may be no whole file",
                path.display()
            ));
        }
        retire::recheck(run).await?;
        Ok(Acted::Done)
    }
}

/// What is saved: what the release names and its modules replace, behind links as well, and the node's own records.
fn what(run: &Run) -> BTreeSet<PathBuf> {
    let paths = &run.node.paths;
    let mut what = run.plan.backup.clone();
    let below = |path: &Path| path.strip_prefix(paths.root()).map(Path::to_owned);
    for path in &run.plan.backup {
        // A module writes behind a link that stands in the place of its folder.
        let behind = module::follow(paths, path).unwrap_or_else(|_outside| paths.on_node(path));
        let root = paths
            .root()
            .canonicalize()
            .unwrap_or_else(|_| paths.root().to_owned());
        if behind != paths.on_node(path)
            && let Ok(behind) = behind.strip_prefix(&root)
        {
            what.insert(Path::new("/").join(behind));
        }
    }
    what.extend(backup::records(paths).iter().filter_map(|path| below(path).ok()));
    what
}

/// Saves the local changes that the modules are going to take away. Those of modules that an unfinished upgrade has changed were
/// saved before that: what differs there is the new release's.
fn save_local_changes(run: &mut Run, amid: Option<&Traces>) -> Result<(), Failure> {
    let node = Arc::clone(&run.node);
    let Some(installed) = run
        .installed
        .as_ref()
        .filter(|_| node.settings.customizations.save)
    else {
        return Ok(());
    };
    let installed = &patched(&node.paths, installed)?;
    let release = &run.attempt.release;
    let mut modules = modules_for(release, node.roles());
    modules.retain(|module| amid.is_none_or(|traces| !traces.has_changed(&module.name)));
    let basis = Basis {
        installed: Some(installed),
        bases: &run.bases,
        before: &[],
    };
    let foreseen = outlook::foresee(&node.paths, basis, release, &modules)?;
    let (id, now) = (run.attempt.id.as_str(), node.clock.now());
    let changes = outlook::taken_away(&foreseen);
    let saved = archive::save(&node.paths, installed, &changes, (id, Reason::Upgrade, now))?;
    archive::retain(&node.paths, node.settings.customizations.keep)?;
    if let Some(saved) = saved {
        let files = saved.files.iter();
        let carried = files.filter(|file| file.local != Some(Kind::Special)).count();
        if carried == 0 {
            return Ok(());
        }
        let text = format!(
            "{carried} local changes that the upgrade takes away are saved as {}; `kato customizations reapply` puts them back",
            saved.id
        );
        run.stream.tell(EventKind::Notice { text });
    }
    Ok(())
}
