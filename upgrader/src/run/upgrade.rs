//! `kato node upgrade` on this node: one run at a time, stopped in order by the first signal.

use std::sync::Arc;

use kato_shared::shutdown;

use super::{
    Node,
    engine::{self, Stopped},
    orphans::{self, Taken},
    room,
    session::Session,
};
use crate::{
    cli::node::UpgradeRequest,
    exit::{Exit, Failure},
    lock::Lock,
    patch::local::Wish,
    report::terminal,
};

/// How a run was started, beside what was asked for.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The run's id; a new one when `None`.
    pub run: Option<String>,
    /// Only `kato` itself.
    pub kato_alone: bool,
    /// The settings file, for the program that goes on after a restart of the machine.
    pub config: std::path::PathBuf,
    /// The digest that a self-update started this program as.
    pub updated_to: Option<kato_shared::Digest>,
    /// Events are only written to the node's stream.
    pub quiet: bool,
}

/// Upgrades this node.
///
/// # Errors
/// [`Failure`]; everything that must not stay was taken back, and the same command goes on later.
pub async fn upgrade(request: UpgradeRequest, start: Start, node: Node) -> Result<Exit, Failure> {
    let node = Arc::new(node);
    // Also what fails before the first step and after the last may be a full disk.
    Box::pin(run(request, start, Arc::clone(&node)))
        .await
        .map_err(|failure| room::explain(&node, [], failure))
}

async fn run(request: UpgradeRequest, start: Start, node: Arc<Node>) -> Result<Exit, Failure> {
    let id = start.run.clone().unwrap_or_else(|| new_run_id(&node));
    refuse_unasked(&request, &start)?;
    let taken = if request.plan_only {
        orphans::look(&node, &id).await?
    } else {
        orphans::lock(&node, &id).await?
    };
    let (_lock, mut session) = open(taken, &node, request, start, id)?;
    let signals = node.stop.clone();
    let stop = signals.token().clone();
    let outcome = tokio::select! {
        outcome = Box::pin(session.work()) => outcome,
        // A second signal ends the program at once, as a kill would; the next run goes on.
        _signals = shutdown::on_signals(stop) => Err(Stopped { step: "run".into(), failure: engine::stopped() }),
    };
    session.finish(outcome).await
}

/// The session of the run `id` that has `taken` the lock, unless a restoration comes first.
fn open(
    taken: Taken,
    node: &Arc<Node>,
    request: UpgradeRequest,
    start: Start,
    id: String,
) -> Result<(Lock, Session), Failure> {
    if let Err(failure) = crate::restore::refuse_upgrade(&node.paths) {
        let _given_back = taken.said();
        return Err(failure);
    }
    let mut session = Session::open(Arc::clone(node), request, start, id)?;
    session.warn_of(taken.told);
    Ok((taken.lock, session))
}

/// Does with patches of this node what is wished. `request` says where they come from.
///
/// # Errors
/// As [`upgrade`].
pub async fn patches(
    request: UpgradeRequest,
    wish: &Wish,
    start: Start,
    node: Node,
) -> Result<Exit, Failure> {
    let node = Arc::new(node);
    Box::pin(run_patches(request, wish, start, Arc::clone(&node)))
        .await
        .map_err(|failure| room::explain(&node, [], failure))
}

async fn run_patches(
    request: UpgradeRequest,
    wish: &Wish,
    start: Start,
    node: Arc<Node>,
) -> Result<Exit, Failure> {
    let id = start.run.clone().unwrap_or_else(|| new_run_id(&node));
    let taken = orphans::lock(&node, &id).await?;
    let (_lock, mut session) = open(taken, &node, request, start, id)?;
    let signals = node.stop.clone();
    let stop = signals.token().clone();
    let outcome = tokio::select! {
        outcome = Box::pin(session.work_on_patches(wish)) => outcome,
        _signals = shutdown::on_signals(stop) => Err(Stopped { step: "run".into(), failure: engine::stopped() }),
    };
    session.finish(outcome).await
}

/// Takes the lock of the node for something short that is no run.
///
/// # Errors
/// [`Failure`] with 25 and the holder when a run is at work.
pub async fn hold(node: &Node) -> Result<Lock, Failure> {
    let lock = orphans::lock(node, &new_run_id(node)).await?.said();
    crate::restore::settle(&node.paths)?;
    Ok(lock)
}

pub(crate) fn new_run_id(node: &Node) -> String {
    format!(
        "{}-{}",
        node.clock.now().strftime("%Y%m%dT%H%M%S"),
        std::process::id()
    )
}

/// Nobody can be asked, and nobody said that asking is not needed.
fn refuse_unasked(request: &UpgradeRequest, start: &Start) -> Result<(), Failure> {
    let asks = !(request.skip_confirmation
        || request.plan_only
        || request.download_only
        || request.resume
        || start.updated_to.is_some());
    if asks && !terminal::is_interactive() {
        return Err(Failure::new(
            Exit::Usage,
            anyhow::anyhow!("an upgrade asks before it starts, and there is no terminal to ask on"),
        )
        .hint("add `--skip-confirmation`"));
    }
    Ok(())
}
