//! A restoration from the command to its end, and the way back from it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::anyhow;
use kato_shared::{chain::Chain, durable};
use tokio::time::{Instant, sleep};

use super::{
    Phase, Restoration, admit, forget,
    record::{put_record, record},
    settle, show,
};
use crate::{
    audit::{AuditLog, Deed, Subject},
    backup::Found,
    customizations::{Change, Class, patched, scan},
    exit::{Exit, Failure},
    failpoint,
    installed::Installed,
    module::{self, ModuleError},
    ownership::{By, Ownership},
    paths::NodePaths,
    platform::{
        self, Resident, Verb, Words,
        evacuate::{Rules, evacuate},
    },
    report::terminal,
    run::{Node, orphans, room, steps::retire, upgrade::new_run_id},
};

/// How often is looked whether the node is healthy after its services were restarted.
const POLL: Duration = Duration::from_millis(500);

/// What an operator asked for.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a bool here is a flag of the command line"
)]
pub struct Request {
    /// The backup: its id, its folder, or `latest`; that of the restoration in progress when `None`.
    pub backup: Option<String>,
    /// Only these paths.
    pub only: Vec<PathBuf>,
    /// Say what would be done and change nothing.
    pub plan_only: bool,
    /// Take a backup of another node.
    pub force: bool,
    /// Take the last restoration back.
    pub undo: bool,
    /// Do not take the node out of service.
    pub skip_drain: bool,
    /// Do not ask.
    pub skip_confirmation: bool,
    /// Data is printed as JSON.
    pub json: bool,
}

/// `kato node restore`.
///
/// # Errors
/// [`Failure`]: 2 for a wrong command, 20 refused before anything was changed, 21 not complete (the same command goes on), 25
/// while another run is at work, 26 when the backup is not what its manifest says.
pub async fn run(node: Node, request: Request) -> Result<Exit, Failure> {
    let node = Arc::new(node);
    Box::pin(restored(&node, request))
        .await
        .map_err(|failure| room::explain(&node, [], failure))
}

async fn restored(node: &Arc<Node>, request: Request) -> Result<Exit, Failure> {
    let id = new_run_id(node);
    let _lock = if request.plan_only {
        None
    } else {
        Some(orphans::lock(node, &id).await?.said())
    };
    if !request.plan_only {
        settle(&node.paths)?;
    }
    let begun = Restoration::load(&node.paths)?;
    if request.undo {
        let begun = begun.ok_or_else(|| {
            Failure::new(Exit::Usage, anyhow!("there is no restoration to take back"))
                .hint("a later upgrade or restoration has forgotten it; `kato node backup list` shows what can be restored")
        })?;
        let deed = Deed::new(Subject::Restore, begun.backup.clone())
            .run(id)
            .reason("taken back");
        let work = node.stop.on_signals(take_back(node, begun));
        return AuditLog::of(node).around(deed, work).await;
    }
    let in_progress = begun.filter(|one| one.phase != Phase::Done);
    if let Some(one) = in_progress.as_ref().filter(|one| one.phase == Phase::Undoing) {
        let problem = anyhow!("the restoration of {} is being taken back", one.backup);
        return Err(
            Failure::new(Exit::Preflight, problem).hint("finish that with `kato node restore --undo`")
        );
    }
    let (backup, restoration) = admit::chosen(node, &request, in_progress)?;
    if request.plan_only {
        show::show(node, &backup, &restoration, request.json);
        return Ok(Exit::Done);
    }
    show::confirm(&backup, &restoration, &request)?;
    let deed = Deed::new(Subject::Restore, restoration.backup.clone())
        .run(id.clone())
        .forced(request.force);
    let work = bring_back(node, &backup, restoration, &request, &id);
    AuditLog::of(node).around(deed, work).await
}

/// From the verified backup to the restored node.
async fn bring_back(
    node: &Arc<Node>,
    backup: &Found,
    mut restoration: Restoration,
    request: &Request,
    run: &str,
) -> Result<Exit, Failure> {
    if restoration.phase == Phase::Staging {
        admit::room(&backup.verify()?, &restoration)?;
        forget(&node.paths)?;
        restoration.save(&node.paths)?;
        failpoint::hit("restore.noted");
        if let Err(error) = restoration.stage(&node.paths, backup) {
            // Nothing was changed, and nothing is to go on with.
            restoration.clear(&node.paths)?;
            durable::remove(&node.paths.restoration())?;
            return Err(error.into());
        }
        restoration.phase = Phase::Exchanging;
        restoration.save(&node.paths)?;
        failpoint::hit("restore.staged");
    }
    let signals = node.stop.clone();
    let work = async {
        let outcome = exchanged(node, backup, &mut restoration, request, run).await;
        // Whatever happened: a node that we took out of service is put back.
        let words = words(node, backup, &restoration);
        let back = retire::rejoin(node, &words, &mut |text| terminal::say(&text)).await;
        if let (Err(_), Err(also)) = (&outcome, &back) {
            terminal::say(&format!("warning: {}", terminal::describe(also)));
        }
        outcome.and(back)
    };
    signals.on_signals(work).await?;
    let installed = Installed::load(&node.paths)?;
    if let Some(installed) = installed.as_ref().filter(|_| restoration.whole) {
        compare(node, installed)?;
    }
    let version = installed.map(|installed| installed.version.to_string());
    if request.json {
        terminal::json(&serde_json::json!({
            "schema": 1, "node": node.id, "backup": restoration.backup, "version": version, "whole": restoration.whole,
        }));
    } else {
        terminal::data(&format!(
            "{} was restored; the node's record says {}",
            restoration.backup,
            version.as_deref().unwrap_or("no release")
        ));
        terminal::say("`kato node restore --undo` takes it back, until the next upgrade or restoration");
    }
    Ok(Exit::Done)
}

/// Compares what is on the disk now with what the record says of each file, and warns of what differs: changes that were made on
/// this node before the backup, or a backup that is not of that release alone.
fn compare(node: &Node, installed: &Installed) -> Result<(), Failure> {
    let found = scan(&node.paths, &patched(&node.paths, installed)?)?;
    let differs = |change: &&Change| change.class != Class::Safe;
    let paths: Vec<_> = found
        .changes
        .iter()
        .filter(differs)
        .map(|change| change.path.display().to_string())
        .collect();
    if let Some(first) = paths.first() {
        terminal::say(&format!(
            "warning: {} from what {} installed, `{first}` is the first: the backup has it so; `kato customizations scan` \
             lists all, and `kato node upgrade --force` installs the release again",
            kato_shared::counted(paths.len(), "file differs", "files differ"),
            installed.version
        ));
    }
    Ok(())
}

/// Out of service, exchanged, recorded, restarted.
async fn exchanged(
    node: &Arc<Node>,
    backup: &Found,
    restoration: &mut Restoration,
    request: &Request,
    run: &str,
) -> Result<(), Failure> {
    if !request.skip_drain {
        out_of_service(node, run).await?;
    }
    restoration.exchange()?;
    let words = words(node, backup, restoration);
    if restoration.whole && backup.platform().is_dir() {
        if node.platform.knows(Verb::Restore) {
            let asking = async { Ok(node.platform.call(Verb::Restore, &words).await?) };
            node.stop.at_once(asking).await?;
        } else {
            terminal::say(&format!(
                "warning: what the platform has saved is not brought back, because `[platform].restore` is not set; it is in {}",
                words.dir
            ));
        }
    }
    record(node, backup, restoration)?;
    failpoint::hit("restore.recorded");
    node.stop.at_once(restarted(node, &words)).await?;
    tidy(&node.paths)?;
    restoration.phase = Phase::Done;
    restoration.save(&node.paths)?;
    failpoint::hit("restore.done");
    if let Err(error) = restoration.put_away(&node.paths) {
        // The node is restored; the next command tries again.
        let text = format!("warning: what was replaced is still beside it: {}", Chain(&error));
        terminal::say(&text);
    }
    Ok(())
}

/// The words for the platform's commands from the exchange on: what is to run then is what the backup has.
fn words(node: &Node, backup: &Found, restoration: &Restoration) -> Words {
    let mut words = node.words();
    if restoration.whole {
        let from = backup.manifest.from.as_ref();
        words.version = from.map(ToString::to_string).unwrap_or_default();
    }
    words.dir = backup.platform().display().to_string();
    words
}

/// Removes what a killed run left of a record that it was writing.
fn tidy(paths: &NodePaths) -> Result<(), ModuleError> {
    let record = paths.restoration();
    record.parent().map_or(Ok(()), module::remove_temporary_files)
}

/// Restarts the services, and has the node show that it runs what it should.
async fn restarted(node: &Node, words: &Words) -> Result<(), Failure> {
    node.platform.call(Verb::Restart, words).await?;
    let deadline = Instant::now() + node.settings.upgrade.settle.get();
    while let Err(failure) = shows(node, words).await {
        if Instant::now() >= deadline {
            return Err(failure.hint(
                "the same command tries again; `kato node restore --undo` takes the restoration back",
            ));
        }
        sleep(POLL).await;
    }
    Ok(())
}

async fn shows(node: &Node, words: &Words) -> Result<(), Failure> {
    node.platform.call(Verb::Health, words).await?;
    match platform::version(node.platform.as_ref(), words).await? {
        Some(found) if !words.version.is_empty() && found != words.version => Err(Failure::new(
            Exit::Failed,
            anyhow!("the node runs version {found}, expected {}", words.version),
        )),
        _ => Ok(()),
    }
}

/// Takes the node out of service, as an upgrade would, unless it is not of a role that is.
async fn out_of_service(node: &Arc<Node>, run: &str) -> Result<(), Failure> {
    let settings = &node.settings.upgrade;
    let is_retired = |role: &String| {
        settings
            .retire_roles
            .iter()
            .any(|one| one.eq_ignore_ascii_case(role))
    };
    if !node.roles().iter().any(is_retired) || !node.platform.knows(Verb::Retire) {
        return Ok(());
    }
    let words = node.words();
    match Ownership::load(&node.paths)? {
        Some(ownership) if ownership.by == By::Hand => return Ok(()),
        Some(_ours) => {}
        None => {
            let found = platform::resident(node.platform.as_ref(), &words).await;
            if matches!(
                &found,
                Ok(Some(Resident {
                    retired: Some(true),
                    count: 0,
                    ..
                }))
            ) {
                return Ok(());
            }
            let ownership = Ownership {
                run: run.to_owned(),
                since: node.clock.now(),
                by: By::Run,
            };
            ownership.save(&node.paths)?;
        }
    }
    let rules = Rules {
        limit: settings.retire_timeout,
        on_timeout: settings.retire_on_timeout,
    };
    let mut tell = |found: &Resident| terminal::say(&format!("retire: {}", retire::progress(found)));
    let stop = node.stop.token();
    let outcome = evacuate(node.platform.as_ref(), &words, rules, stop, &mut tell).await;
    outcome.map(drop).map_err(retire::failure)
}

/// Takes a restoration back: every path and record is what it was before it.
async fn take_back(node: &Arc<Node>, mut restoration: Restoration) -> Result<Exit, Failure> {
    if restoration.phase != Phase::Staging {
        restoration.phase = Phase::Undoing;
        restoration.save(&node.paths)?;
        restoration.undo(&node.paths)?;
        for (path, text) in &restoration.records {
            put_record(path, text.as_deref())?;
        }
        failpoint::hit("restore.recorded");
        let words = node.words();
        let restart = async { Ok(node.platform.call(Verb::Restart, &words).await?) };
        node.stop.at_once(restart).await?;
    }
    restoration.clear(&node.paths)?;
    tidy(&node.paths)?;
    durable::remove(&node.paths.restoration())?;
    retire::rejoin(node, &node.words(), &mut |text| terminal::say(&text)).await?;
    terminal::data(&format!(
        "the restoration of {} was taken back",
        restoration.backup
    ));
    if restoration.whole && node.platform.knows(Verb::Restore) {
        terminal::say("warning: what the platform's own `restore` did stays");
    }
    Ok(Exit::Done)
}
