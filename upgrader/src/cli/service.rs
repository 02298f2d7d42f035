//! `kato node retire` and `kato node rejoin`: arguments, and the way to another node.

use std::time::Duration;

use clap::Args;
use kato_shared::settings::HumanDuration;

use super::{Context, node::load};
use crate::{
    cluster::elsewhere,
    exit::{Exit, Failure},
    platform::evacuate::Rules,
    run::{Node, by_hand},
    settings::OnTimeout,
};

/// Arguments of `kato node retire`.
#[derive(Debug, Args)]
pub struct RetireArgs {
    /// The node, by its id or address in the inventory; run it on Core. This node when absent.
    #[arg(short, long, value_name = "ID|ADDRESS")]
    pub node: Option<String>,
    /// How long it may take to become empty; the settings' `retire_timeout` when absent.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<HumanDuration>,
    /// What happens when it is not empty by then; the settings' `retire_on_timeout` when absent.
    #[arg(long, value_name = "WHAT")]
    pub on_timeout: Option<OnTimeout>,
}

/// Arguments of `kato node rejoin`.
#[derive(Debug, Args)]
pub struct RejoinArgs {
    /// The node, by its id or address in the inventory; run it on Core. This node when absent.
    #[arg(short, long, value_name = "ID|ADDRESS")]
    pub node: Option<String>,
    /// Also a node that waits for the restart of the machine in the middle of an upgrade, as it is.
    #[arg(long)]
    pub force: bool,
}

/// How long a node may take beyond the time to become empty: its commands have deadlines of their own.
const AROUND: Duration = Duration::from_secs(900);

/// `kato node retire`.
///
/// # Errors
/// [`Failure`].
pub(super) async fn retire(args: RetireArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = load(context)?;
    let limit = args.timeout.unwrap_or(settings.upgrade.retire_timeout);
    let Some(which) = &args.node else {
        let rules = Rules {
            limit,
            on_timeout: args.on_timeout.unwrap_or(settings.upgrade.retire_on_timeout),
        };
        return by_hand::retire(Node::new(settings), rules, context.json).await;
    };
    let timeout = args.timeout.map(|timeout| timeout.to_string());
    let mut arguments = vec!["node", "retire"];
    if let Some(timeout) = &timeout {
        arguments.extend(["--timeout", timeout]);
    }
    match args.on_timeout {
        None => {}
        Some(OnTimeout::Fail) => arguments.extend(["--on-timeout", "fail"]),
        Some(OnTimeout::Proceed) => arguments.extend(["--on-timeout", "proceed"]),
        Some(OnTimeout::Force) => arguments.extend(["--on-timeout", "force"]),
    }
    there(&settings, which, arguments, context, limit.get() + AROUND).await
}

/// `kato node rejoin`.
///
/// # Errors
/// [`Failure`].
pub(super) async fn rejoin(args: RejoinArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = load(context)?;
    match &args.node {
        None => by_hand::rejoin(Node::new(settings), args.force, context.json).await,
        Some(which) => {
            let mut words = vec!["node", "rejoin"];
            words.extend(args.force.then_some("--force"));
            there(&settings, which, words, context, AROUND).await
        }
    }
}

async fn there(
    settings: &crate::settings::Settings,
    which: &str,
    mut arguments: Vec<&str>,
    context: &Context,
    limit: Duration,
) -> Result<Exit, Failure> {
    if context.json {
        arguments.push("--json");
    }
    elsewhere::run(settings, &context.config, which, &arguments, limit).await
}
