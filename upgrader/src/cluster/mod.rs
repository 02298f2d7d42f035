//! The whole cluster, upgraded from Core: as many nodes at a time as the rules of their roles allow (by default one), Core last, by
//! the same node upgrade that a person would run there.
//!
//! Flow: [`inventory`] → [`facts`] from all nodes → preflight ([`crate::plan::preflight`]) → [`target`] → plan
//! ([`crate::plan::cluster`]) → the operator's yes → the cache ([`crate::prepare`]) → every node fetches → [`rollout`] → table.
//!
//! What holds it together: nodes do their work by themselves, detached, and know what they have. Core starts, watches and
//! decides about the next one. It may be killed or cut off at any time; the same command again asks the nodes and goes on.
//!
//! Deliberately absent: a record of progress on Core (the plan says what was decided, the nodes say what is done).
//!
//! Invariants: nothing is changed on any node before all nodes passed preflight and hold all that they need, verified; after more
//! failures than the rules allow (by default one) no further node is touched, and Core never; a node counts as upgraded only when it
//! was asked and said so.

pub mod alone;
mod call;
pub mod conflicts;
pub mod connect;
pub mod control;
pub mod drive;
pub mod elsewhere;
pub mod errand;
pub mod event;
pub mod evidence;
pub mod examine;
pub mod explain;
pub mod facts;
pub mod inventory;
pub mod next;
pub mod overview;
pub mod remote;
pub mod report;
pub mod rollout;
mod sudo;
pub mod target;
pub mod watch;

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use kato_shared::clock::Clock;

use self::{
    call::Call,
    inventory::{Inventory, InventoryError},
};
use crate::{
    cli::node::UpgradeRequest,
    exit::{Exit, Failure},
    report::terminal,
    settings::Settings,
};

/// The command again, as the operator types it.
pub(crate) const AGAIN: &str = "kato node upgrade --cluster";

/// `kato node upgrade --cluster`.
///
/// # Errors
/// [`Failure`]: 20 when this is not Core or a node is not ready, 25 when another run is at work, 26 when the release is refused,
/// 75 when the upgrade host or a node cannot be reached, 24 when some nodes are upgraded and one failed, else that node's code.
pub async fn run(request: UpgradeRequest, settings: &Settings, config: &Path) -> Result<Exit, Failure> {
    let inventory = load(settings, config)?;
    refuse_off_core(settings, &inventory)?;
    let call = Call {
        request,
        settings,
        inventory,
        clock: Clock::system(),
    };
    let Some(call) = call.resumed()? else {
        terminal::say("there is no interrupted upgrade of the cluster to resume");
        return Ok(Exit::Done);
    };
    let nodes = connect::ready(&call.inventory, settings, config).await?;
    let outcome = Box::pin(call.upgrade(nodes.clone())).await;
    connect::close(&nodes).await;
    outcome
}

/// Reads the inventory beside `config`. A node that is not Core need not have one.
///
/// # Errors
/// [`Failure`]: 2 when the file is wrong, 20 when this is plainly not Core.
pub fn load(settings: &Settings, config: &Path) -> Result<Inventory, Failure> {
    let path: PathBuf = Inventory::path_beside(config);
    Inventory::load(&path).map_err(|error| {
        let is_missing = matches!(
            &error,
            InventoryError::Settings(kato_shared::settings::SettingsError::Read { .. })
        );
        let core_role = crate::plan::order::OrderRules::default().core_role;
        let is_core = settings
            .node
            .roles
            .iter()
            .any(|role| role.eq_ignore_ascii_case(&core_role));
        if is_missing && !is_core {
            let cache = settings.cache.url.as_ref().and_then(url::Url::host_str);
            let place = cache.map_or_else(String::new, |host| format!(" at {host}"));
            let what = anyhow!(
                "this node has no inventory and not the role {core_role}: a cluster is upgraded from its Core node{place}"
            );
            return Failure::new(Exit::Preflight, what).hint(format!("on Core, run `{AGAIN}`"));
        }
        Failure::new(Exit::Usage, error).hint("every key of the inventory is explained in config/cluster.toml")
    })
}

/// This node's id: of its settings, else the host name.
pub(crate) fn own_id(settings: &Settings) -> String {
    if settings.node.id.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        settings.node.id.clone()
    }
}

/// The cluster is upgraded from Core and nowhere else (R24).
fn refuse_off_core(settings: &Settings, inventory: &Inventory) -> Result<(), Failure> {
    let (core, own) = (inventory.core(), own_id(settings));
    if own == core.id {
        return Ok(());
    }
    let what = anyhow!(
        "this is `{own}`, and the cluster is upgraded from its Core node `{}` at {}",
        core.id,
        core.address
    );
    Err(Failure::new(Exit::Preflight, what).hint(format!("on {}, run `{AGAIN}`", core.address)))
}
