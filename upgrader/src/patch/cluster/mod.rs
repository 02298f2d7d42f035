//! The verbs on every node, from Core: the same command with `--local` on each, one node at a time, Core last.
//!
//! Short verbs are asked of all nodes at once. Installing and taking back are runs that belong to their node: started
//! detached, followed by number, found again after a lost connection; see [`drive`]. Every node fetches what it needs before
//! the first one is changed, and after the first failure no further node is touched.
//!
//! Deliberately absent: a record on Core. Nodes know which patches they have, so the same command again goes on.

mod drive;
mod roll;
mod scope;
mod short;

pub use self::scope::{Nodes, Scope, scope};
use crate::{
    cli::Context,
    cluster::{connect, remote::RemoteNode},
    exit::{Exit, Failure},
    settings::Settings,
};

/// The version of the JSON documents.
const SCHEMA: u32 = 1;

/// How a command goes about its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It asks for [`NodePatches`](super::status::NodePatches).
    Status,
    /// It is over in a moment.
    Short,
    /// It is a run of the engine.
    Run,
    /// It is a run, before which every node fetches what it needs.
    StagedRun,
}

/// The command for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// How it goes about its nodes.
    pub kind: Kind,
    /// The words behind `kato patch`.
    pub words: Vec<String>,
    /// Data is printed as JSON.
    pub json: bool,
}

impl Call {
    /// Whether it changes the nodes that it is for.
    pub const fn changes(&self) -> bool {
        matches!(self.kind, Kind::Run | Kind::StagedRun)
    }
}

/// Runs `call` on `nodes`.
///
/// # Errors
/// [`Failure`]: 20 when a node is not ready, 24 when some nodes did it and one failed, else that node's own code.
pub async fn run(nodes: &Nodes, call: Call, settings: &Settings, context: &Context) -> Result<Exit, Failure> {
    let all = connect::ready(&nodes.inventory, settings, &context.config).await?;
    let chosen: Vec<RemoteNode> = nodes.ids.iter().filter_map(|id| all.get(id)).cloned().collect();
    let outcome = match call.kind {
        Kind::Status | Kind::Short => short::short(nodes, &chosen, &call).await,
        Kind::Run | Kind::StagedRun => roll::roll(nodes, &chosen, &call, settings).await,
    };
    connect::close(&all).await;
    outcome
}
