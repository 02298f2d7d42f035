//! `kato node upgrade --node`: one node of the cluster, from Core.
//!
//! A node is upgraded as the whole cluster is, under the same lock, with the same findings, rules and plan, and the others are left out; what
//! only looks, or concerns `kato` alone, is a command on the node itself.

use std::time::Duration;

use super::{Context, node::UpgradeArgs};
use crate::{
    cluster::{self, elsewhere},
    exit::{Exit, Failure},
    plan::cluster::Choice,
    settings::Settings,
};

/// How long a node may take to download a `kato` and to try it.
const UPDATE: Duration = Duration::from_secs(900);
/// How long it may take to say how it is.
const SHORT: Duration = Duration::from_secs(30);

/// Upgrades the node whose id or address is `which`, or has it say how it is, or update its `kato`.
///
/// # Errors
/// [`Failure`]: 2 when the inventory has no such node, 20 off Core, else as `--cluster` or the node's own command ends.
pub(super) async fn upgrade(
    args: &UpgradeArgs,
    which: &str,
    settings: &Settings,
    context: &Context,
) -> Result<Exit, Failure> {
    if args.status || args.update_kato {
        let mut words = vec!["node".to_owned(), "upgrade".to_owned()];
        if args.status {
            words.push("--status".into());
        } else {
            words.push("--skip-confirmation".into());
            words.extend(args.wishes());
        }
        if context.json {
            words.push("--json".into());
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let limit = if args.status { SHORT } else { UPDATE };
        return elsewhere::run(settings, &context.config, which, &words, limit).await;
    }
    let inventory = cluster::load(settings, &context.config)?;
    let mut request = args.request(context);
    request.choice = Choice {
        only: vec![elsewhere::find(&inventory, which)?.id.clone()],
        exclude: Vec::new(),
    };
    Box::pin(cluster::run(request, settings, &context.config)).await
}
