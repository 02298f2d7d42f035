//! Commands that a killed run left at work: ended before the next run does anything.
//!
//! Flow, for whoever takes the node's lock to change the node ([`lock`]): look for such commands → record in the audit log that
//! each is ended → end it as its deadline would have, and wait until it is gone → note one's own commands from then on.
//! A `retire` that went on would take the node out after this run said "done"; a migration would have a second one beside it. What
//! such a command had half done is looked at afterwards like everything else a killed run leaves: by the record of ownership,
//! by the probe of the module, by what the package manager says.
//!
//! Deliberately absent: waiting for such a command to come to its end. Its run had a deadline for it, which nobody keeps now.

use std::path::Path;

use kato_shared::clock::Clock;

use super::{Node, room};
use crate::{
    audit::{AuditLog, Deed, Subject},
    exit::{Exit, Failure},
    lock::{Holder, Lock},
    paths::NodePaths,
    platform::process::{Children, Left, Orphan, StillThere},
    report::terminal,
};

/// The node's lock, and what was found when it was taken, for the operator.
#[derive(Debug)]
#[must_use = "the lock is given back when it is dropped"]
pub(crate) struct Taken {
    /// The lock.
    pub(crate) lock: Lock,
    /// What an operator should read, one line each.
    pub(crate) told: Vec<String>,
}

impl Taken {
    /// The lock; what is to say is said on the terminal.
    pub(crate) fn said(self) -> Lock {
        for text in &self.told {
            terminal::say(&format!("warning: {text}"));
        }
        self.lock
    }
}

/// Takes the node's lock for `run`, which will change the node, and ends what killed runs have left at work.
///
/// # Errors
/// [`Failure`]: 25 with the holder while another run is at work, with the lock or without, 75 when a command of a killed run cannot be ended.
pub(crate) async fn lock(node: &Node, run: &str) -> Result<Taken, Failure> {
    let lock = take(node, run).await?;
    let told = end(node, run).await?;
    node.children.begin().map_err(unusable(
        "noting the commands of this run in",
        &node.paths.commands(),
    ))?;
    Ok(Taken { lock, told })
}

/// Takes the node's lock for `run`, which only looks: it ends nothing, and notes nothing.
///
/// # Errors
/// [`Failure`] with 25 and the holder while another run is at work.
pub(crate) async fn look(node: &Node, run: &str) -> Result<Taken, Failure> {
    let told = Vec::new();
    Ok(Taken {
        lock: take(node, run).await?,
        told,
    })
}

async fn take(node: &Node, run: &str) -> Result<Lock, Failure> {
    if let Some(folder) = node.paths.linked_folder() {
        let problem = anyhow::anyhow!(
            "`{}` is a symbolic link, expected a folder of kato's own: what is behind it would be cleaned up",
            folder.display()
        );
        return Err(Failure::new(Exit::Preflight, problem).hint(
            "nothing was changed; remove the link and mount a file system there instead (a bind mount will do), or move the whole state folder and set `[node].state_dir` in kato.toml",
        ));
    }
    let holder = Holder::here(run, node.paths.root(), node.clock.now());
    let taken = Lock::take(&node.paths.lock(), &holder).await;
    taken.map_err(|error| room::explain(node, [], error.into()))
}

/// Ends what killed runs have left at work; gives what is to say about it.
async fn end(node: &Node, run: &str) -> Result<Vec<String>, Failure> {
    let left = node.children.left().await.map_err(unusable(
        "looking for commands of killed runs in",
        &node.paths.commands(),
    ))?;
    if let Some(minded) = left.minded.first() {
        return Err(still_minded(minded, node));
    }
    ended(left, &AuditLog::of(node), run).await
}

/// Notes the commands that Core runs for the whole cluster as `run`, and ends first what killed runs have left of them. The caller has
/// the lock of the cluster, or is an operator who switches by hand: commands of another `kato` that is there are left to it.
///
/// What cannot be noted is run all the same, and what cannot be ended holds nobody up: the way out of the maintenance mode is never
/// locked.
pub(crate) async fn of_core(paths: &NodePaths, clock: &Clock, log: &AuditLog, run: &str) -> Children {
    let children = Children::of_core(paths, clock.clone());
    let ended = match children.left().await {
        Ok(left) => ended(left, log, run).await,
        Err(error) => Err(unusable(
            "looking for commands of killed runs in",
            &paths.core_commands(),
        )(error)),
    };
    let begun = children
        .begin()
        .map_err(unusable("noting the commands of Core in", &paths.core_commands()));
    let told = ended.unwrap_or_else(|failure| vec![terminal::describe(&failure)]);
    for text in told
        .into_iter()
        .chain(begun.err().map(|failure| terminal::describe(&failure)))
    {
        terminal::say(&format!("warning: {text}"));
    }
    children
}

/// Ends what is `left` at work; gives what is to say about all of it.
async fn ended(left: Left, log: &AuditLog, run: &str) -> Result<Vec<String>, Failure> {
    let mut told: Vec<String> = left.strange.iter().map(|path| strange(path)).collect();
    told.extend(left.unseen.iter().map(unseen));
    told.extend(left.over.iter().filter_map(services));
    for orphan in left.orphans {
        let others = orphan.others();
        let with = match others.as_slice() {
            [] => String::new(),
            some => format!(", with what it has started: {}", some.join(", ")),
        };
        let text = format!(
            "{} was left at work by a run that was killed; it is ended{with}",
            orphan.described()
        );
        let services = services(&orphan);
        let mut deed = Deed::new(Subject::EndCommand, orphan.command())
            .run(run)
            .reason("left at work by a run that was killed")
            .detail("pid", orphan.pid().to_string());
        if !others.is_empty() {
            deed = deed.detail("with", others.join(", "));
        }
        let work = async { orphan.end().await.map_err(Failure::from) };
        log.around(deed, work).await?;
        told.push(text);
        told.extend(services);
    }
    Ok(told)
}

fn still_minded(minded: &Orphan, node: &Node) -> Failure {
    let problem = anyhow::anyhow!(
        "{} is at work for another kato (process {}), which does not hold the lock `{}` any more",
        minded.described(),
        minded.kato(),
        node.paths.lock().display()
    );
    Failure::new(Exit::LockHeld, problem)
        .hint("somebody took the lock's file away; wait for that kato, or end it")
}

fn strange(path: &Path) -> String {
    format!(
        "`{}` is no note of a command, so whether a killed run has left one at work cannot be told from it; look with `ps`, then \
         remove the file",
        path.display()
    )
}

fn unseen(orphan: &Orphan) -> String {
    format!(
        "{} was started by a run that cannot be seen from here (another container); look there whether it is still at work",
        orphan.described()
    )
}

/// What a command has left that may be a service: nobody can tell by looking at it, so nobody ends it but the operator.
fn services(orphan: &Orphan) -> Option<String> {
    let services = orphan.services();
    (!services.is_empty()).then(|| {
        format!(
            "{} was at work when its run was killed, and has left processes behind that are taken for services: {}; they go on; \
             look with `ps`, and end those that are none",
            orphan.described(),
            services.join(", ")
        )
    })
}

fn unusable(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.to_owned();
    move |error| {
        let hint = super::remedy::of_io(&error);
        let problem = anyhow::Error::new(error).context(format!("{action} `{}` failed", path.display()));
        Failure::new(Exit::Preflight, problem).hint(hint)
    }
}

impl From<StillThere> for Failure {
    fn from(error: StillThere) -> Self {
        let pid = error.pid;
        Self::new(Exit::TryAgain, error).hint(format!(
            "nothing was changed; `ps -o pid,stat,wchan,args -p {pid}` shows what it waits for (state D: a device or a file system on \
             the network) and whose it is; when it is gone, or after a restart of the machine, run the same command again"
        ))
    }
}
