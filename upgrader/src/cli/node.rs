//! `kato node …`: the arguments of everything that concerns nodes.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use kato_shared::release::Version;
use url::Url;

use super::Context;
use crate::{
    exit::{Exit, Failure},
    settings::Settings,
};

/// Arguments of `kato node`.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: NodeCommand,
}

/// What can be done with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Upgrade this node, or with `--cluster` all nodes; the same command again resumes.
    Upgrade(Box<UpgradeArgs>),
}

/// Arguments of `kato node upgrade`.
#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a bool here is a flag of the command line"
)]
pub struct UpgradeArgs {
    /// The version to upgrade to; the newest that can be reached when absent.
    #[arg(short = 'v', long, value_name = "VERSION")]
    pub version: Option<Version>,
    /// Upgrade all nodes of the inventory, one at a time, Core last; run it on Core.
    #[arg(long, conflicts_with_all = ["prepare", "status"])]
    pub cluster: bool,
    /// Start the cache on this Core node and fill it with everything that the release needs.
    #[arg(long, conflicts_with = "status")]
    pub prepare: bool,
    /// Print what would be done and change nothing.
    #[arg(long)]
    pub plan: bool,
    /// Download and check everything, and change nothing.
    #[arg(long)]
    pub download_only: bool,
    /// Print the state of the upgrade on this node.
    #[arg(long)]
    pub status: bool,
    /// Continue the interrupted run; refuses when there is none.
    #[arg(long)]
    pub resume: bool,
    /// Install the installed version once more; never relaxes a check.
    #[arg(long)]
    pub force: bool,
    /// Update only `kato` itself.
    #[arg(short = 'u', long)]
    pub update_kato: bool,
    /// Do not ask before starting.
    #[arg(long)]
    pub skip_confirmation: bool,
    /// The order in which roles are upgraded, comma separated (with `--cluster`).
    #[arg(long, value_name = "ROLE,…", value_delimiter = ',')]
    pub role_order: Option<Vec<String>>,
    /// The address of the node with the cache.
    #[arg(long, value_name = "IP", conflicts_with = "cache_url")]
    pub cache_ip: Option<IpAddr>,
    /// The cache, e.g. `http://10.0.0.1:3180/`.
    #[arg(long, value_name = "URL")]
    pub cache_url: Option<Url>,
    /// Use only what was downloaded before.
    #[arg(long)]
    pub offline: bool,
    /// Take releases of the channel `development`.
    #[arg(long)]
    pub development: bool,
    /// Run detached from this session.
    #[arg(long, hide = true)]
    pub detach: bool,
    /// The id of the run.
    #[arg(long, hide = true, value_name = "ID")]
    pub run: Option<String>,
}

/// What an operator asked of an upgrade, of this node or of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a bool here is a flag of the command line"
)]
pub struct UpgradeRequest {
    /// The wanted version; the newest reachable one when `None`.
    pub version: Option<Version>,
    /// Install the installed version once more.
    pub force: bool,
    /// Do not ask before starting.
    pub skip_confirmation: bool,
    /// Data is printed as JSON.
    pub json: bool,
    /// Print the plan and change nothing.
    pub plan_only: bool,
    /// Download and check everything and change nothing.
    pub download_only: bool,
    /// Continue the interrupted run, and only that.
    pub resume: bool,
    /// The order of roles, over the release's own.
    pub role_order: Option<Vec<String>>,
    /// The address of the node with the cache.
    pub cache_ip: Option<IpAddr>,
    /// The cache.
    pub cache_url: Option<Url>,
    /// Use only what was downloaded before.
    pub offline: bool,
    /// Take releases of the channel `development`.
    pub development: bool,
}

impl UpgradeArgs {
    /// The request behind the flags.
    pub fn request(&self, context: &Context) -> UpgradeRequest {
        UpgradeRequest {
            version: self.version.clone(),
            force: self.force,
            skip_confirmation: self.skip_confirmation,
            json: context.json,
            plan_only: self.plan,
            download_only: self.download_only,
            resume: self.resume,
            role_order: self.role_order.clone(),
            cache_ip: self.cache_ip,
            cache_url: self.cache_url.clone(),
            offline: self.offline,
            development: self.development,
        }
    }
}

/// Runs a `kato node` command.
///
/// # Errors
/// [`Failure`] with the exit code and what to do next.
pub async fn run(args: NodeArgs, context: &Context) -> Result<Exit, Failure> {
    match args.command {
        NodeCommand::Upgrade(args) => upgrade(&args, context).await,
    }
}

async fn upgrade(args: &UpgradeArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = load(context)?;
    let request = args.request(context);
    if args.cluster {
        return crate::cluster::run(request, &settings, &context.config).await;
    }
    if args.prepare {
        return crate::prepare::run(request, &settings, &context.config).await;
    }
    std::future::ready(drop((request, settings))).await;
    Ok(Exit::Done)
}

pub(super) fn load(context: &Context) -> Result<Settings, Failure> {
    Settings::load(&context.config).map_err(|error| {
        Failure::new(Exit::Usage, error).hint(format!(
            "every key is explained in config/kato.toml; the file in use is {}",
            context.config.display()
        ))
    })
}
