//! `kato node …`: the arguments of everything that concerns nodes.

use std::{net::IpAddr, path::PathBuf, sync::Once};

use clap::{Args, Subcommand};
use kato_shared::{Digest, release::Version};
use url::Url;

use super::{
    Context,
    backup::{self, BackupArgs, RestoreArgs},
    service::{self, RejoinArgs, RetireArgs},
    there,
};
use crate::{
    exit::{Exit, Failure},
    failpoint,
    installed::Installed,
    plan::cluster::Choice,
    report::terminal,
    run::{
        Node, cordon, detach, follow, status, survey,
        upgrade::{self, Start},
    },
    self_update,
    settings::Settings,
};

/// How long another node may take to say something that it has at hand.
const SHORT: std::time::Duration = std::time::Duration::from_secs(30);

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
    /// List the nodes of the cluster with their versions; run it on Core.
    List,
    /// Print the release that this node has, or from Core another node.
    Version {
        /// The node, by its id or address in the inventory; run it on Core. This node when absent.
        #[arg(short, long, value_name = "ID|ADDRESS")]
        node: Option<String>,
    },
    /// Take a node out of service until `kato node rejoin`; an upgrade leaves it so.
    Retire(RetireArgs),
    /// List and verify the backups that upgrades have made on this node.
    Backup(BackupArgs),
    /// Bring a backup back, as a whole or single paths of it; the same command again resumes.
    Restore(RestoreArgs),
    /// Put a node back into service.
    Rejoin(RejoinArgs),
    /// Print the events of this node as JSON lines.
    #[command(hide = true)]
    Events {
        /// Only those with a larger number.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Go on until the run ends.
        #[arg(long)]
        follow: bool,
    },
    /// Take this node out of service with the others of its batch; its run goes on from there.
    #[command(hide = true)]
    Cordon {
        /// What it is taken out for.
        #[arg(long, required_unless_present = "undo", default_value = "")]
        run: String,
        /// Put it back, if no run has begun to change it.
        #[arg(long)]
        undo: bool,
    },
    /// Measure what Core wants to know before an upgrade, and print it as JSON.
    #[command(hide = true)]
    Survey {
        /// A path as releases name it.
        #[arg(long, value_name = "PATH")]
        measure: Vec<PathBuf>,
        /// Look for local changes as well.
        #[arg(long)]
        local_changes: bool,
        /// The cache that must be reachable from here.
        #[arg(long, value_name = "HOST:PORT")]
        cache: Option<String>,
    },
    /// Say by the exit code whether the platform finds this node healthy.
    #[command(hide = true)]
    Health,
    /// Check that this program works on this node.
    #[command(hide = true)]
    SelfTest {
        /// The journal that it must be able to read.
        #[arg(long)]
        journal: PathBuf,
    },
    /// List the places where a test may kill the program.
    #[command(hide = true)]
    KillPoints,
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
    /// Upgrade this node of the cluster, by its id or address, as `--cluster` would and no other; run it on Core. With `--status` or
    /// `--update-kato` the node itself does it.
    #[arg(short, long, value_name = "ID|ADDRESS", conflicts_with_all = ["cluster", "prepare", "resume", "role_order"])]
    pub node: Option<String>,
    /// Upgrade all nodes of the inventory, by default one at a time, Core last; run it on Core.
    #[arg(long, conflicts_with_all = ["prepare", "status", "update_kato"])]
    pub cluster: bool,
    /// Start the cache on this Core node and fill it with everything that the release needs.
    #[arg(long, conflicts_with_all = ["status", "plan", "download_only", "resume", "force", "update_kato"])]
    pub prepare: bool,
    /// Print what would be done and change nothing. With `--skip-confirmation`, as it would be where nobody can be asked; with `--resume`, what
    /// is left of the interrupted upgrade.
    #[arg(long, conflicts_with_all = ["download_only", "update_kato"])]
    pub plan: bool,
    /// Download and check everything; nothing is changed but `kato` itself.
    #[arg(long)]
    pub download_only: bool,
    /// Print the state of the upgrade on this node.
    #[arg(long, conflicts_with_all = ["plan", "download_only", "resume", "force", "update_kato"])]
    pub status: bool,
    /// Continue the interrupted upgrade as it was begun, and do nothing when there is none. Nobody is asked. With `--cluster`, the plan that was
    /// begun from here: its release, nodes and order.
    #[arg(long, conflicts_with_all = ["version", "force", "download_only", "update_kato", "role_order", "only", "exclude"])]
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
    #[arg(long, value_name = "ROLE,…", value_delimiter = ',', requires = "cluster")]
    pub role_order: Option<Vec<String>>,
    /// Upgrade these nodes and no others: ids or roles, comma separated (with `--cluster`).
    #[arg(long, value_name = "NODE|ROLE,…", value_delimiter = ',', requires = "cluster")]
    pub only: Vec<String>,
    /// Upgrade all nodes but these: ids or roles, comma separated (with `--cluster`).
    #[arg(long, value_name = "NODE|ROLE,…", value_delimiter = ',', requires = "cluster")]
    pub exclude: Vec<String>,
    /// The address of the node with the cache.
    #[arg(long, value_name = "IP", conflicts_with = "cache_url")]
    pub cache_ip: Option<IpAddr>,
    /// The cache, e.g. `http://10.0.0.1:3180/`.
    #[arg(long, value_name = "URL")]
    pub cache_url: Option<Url>,
    /// Use only what was downloaded before; with `--cluster` or `--prepare`, what the cache on Core holds: it asks nobody.
    #[arg(long)]
    pub offline: bool,
    /// Do not take the node out of service: what runs on it is interrupted. This is recorded.
    #[arg(long, conflicts_with_all = ["cluster", "node"])]
    pub skip_drain: bool,
    /// Take an unhealthy platform and missing paths as warnings, as after an upgrade that failed. The node must be healthy at the end;
    /// no signature and no digest is relaxed. This is recorded.
    #[arg(long, conflicts_with_all = ["prepare", "status", "update_kato"])]
    pub tolerant: bool,
    /// Take releases of the channel `development`.
    #[arg(long)]
    pub development: bool,
    /// Install all outstanding patches of the installed release first.
    #[arg(long, conflicts_with_all = ["prepare", "status", "update_kato"])]
    pub apply_patches: bool,
    /// Run detached from this session.
    #[arg(long, hide = true)]
    pub detach: bool,
    /// The id of the run.
    #[arg(long, hide = true, value_name = "ID", env = "KATO_RUN")]
    pub run: Option<String>,
    /// The digest that a self-update started this program as.
    #[arg(long, hide = true, value_name = "DIGEST", env = "KATO_SELF_UPDATED")]
    pub self_updated: Option<Digest>,
    /// Any value: download without the cache.
    #[arg(
        long,
        hide = true,
        value_name = "ANY",
        env = "STACKATO_UPGRADE_SKIP_PROXY_CACHE"
    )]
    pub skip_cache: Option<String>,
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
    /// Download and check everything; nothing is changed but `kato` itself.
    pub download_only: bool,
    /// Continue the interrupted run, and only that.
    pub resume: bool,
    /// The order of roles, over the release's own.
    pub role_order: Option<Vec<String>>,
    /// Which nodes of the cluster.
    pub choice: Choice,
    /// The address of the node with the cache.
    pub cache_ip: Option<IpAddr>,
    /// The cache.
    pub cache_url: Option<Url>,
    /// Use only what was downloaded before.
    pub offline: bool,
    /// Do not take the node out of service.
    pub skip_drain: bool,
    /// Take an unhealthy platform and missing paths as warnings.
    pub tolerant: bool,
    /// Take releases of the channel `development`.
    pub development: bool,
    /// Install all outstanding patches of the installed release first.
    pub apply_patches: bool,
    /// The value of `STACKATO_UPGRADE_SKIP_PROXY_CACHE`: any that is not empty skips the cache.
    pub skip_cache: Option<String>,
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
            choice: Choice {
                only: self.only.clone(),
                exclude: self.exclude.clone(),
            },
            cache_ip: self.cache_ip,
            cache_url: self.cache_url.clone(),
            offline: self.offline,
            skip_drain: self.skip_drain,
            tolerant: self.tolerant,
            development: self.development,
            apply_patches: self.apply_patches,
            skip_cache: self.skip_cache.clone().filter(|value| !value.is_empty()),
        }
    }
}

/// Runs a `kato node` command.
///
/// # Errors
/// [`Failure`] with the exit code and what to do next.
pub async fn run(args: NodeArgs, context: &Context) -> Result<Exit, Failure> {
    match args.command {
        NodeCommand::Upgrade(args) => Box::pin(upgrade(&args, context)).await,
        NodeCommand::List => {
            crate::cluster::overview::list(&load(context)?, &context.config, context.json).await
        }
        NodeCommand::Version { node: None } => version(&node(context)?, context.json),
        NodeCommand::Version { node: Some(which) } => {
            let mut words = vec!["node", "version"];
            if context.json {
                words.push("--json");
            }
            crate::cluster::elsewhere::run(&load(context)?, &context.config, &which, &words, SHORT).await
        }
        NodeCommand::Backup(args) => backup::run(&args, context),
        NodeCommand::Restore(args) => backup::restore(args, context).await,
        NodeCommand::Retire(args) => service::retire(args, context).await,
        NodeCommand::Rejoin(args) => service::rejoin(args, context).await,
        NodeCommand::Events { after, follow } => follow::events(&node(context)?, after, follow).await,
        NodeCommand::Cordon { undo: true, .. } => cordon::undo(node(context)?).await,
        NodeCommand::Cordon { run, .. } => cordon::cordon(node(context)?, run).await,
        NodeCommand::Survey {
            measure: places,
            local_changes,
            cache,
        } => {
            let asked = survey::Asked {
                places,
                local_changes,
                cache,
            };
            survey::survey(&node(context)?, &asked).await
        }
        NodeCommand::Health => cordon::health(node(context)?).await,
        NodeCommand::SelfTest { journal } => self_update::self_test(&journal, &context.config),
        NodeCommand::KillPoints => {
            for name in failpoint::POINTS {
                terminal::data(name);
            }
            Ok(Exit::Done)
        }
    }
}

async fn upgrade(args: &UpgradeArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = load(context)?;
    if let Some(which) = &args.node {
        return Box::pin(there::upgrade(args, which, &settings, context)).await;
    }
    let request = args.request(context);
    if args.cluster {
        return Box::pin(crate::cluster::run(request, &settings, &context.config)).await;
    }
    if args.prepare {
        return crate::prepare::run(request, &settings, &context.config).await;
    }
    let node = Node::new(settings);
    if args.status {
        let status = status::read(&node)?;
        if context.json {
            terminal::json(&status);
        } else {
            terminal::data(&status::text(&status));
        }
        return Ok(Exit::Done);
    }
    if args.detach {
        let run = args.run.clone().ok_or_else(|| {
            Failure::new(Exit::Usage, anyhow::anyhow!("`--detach` needs the id of the run"))
                .hint("add `--run ID`")
        })?;
        return detach::start(&node, &run, &args.attached(context, &run)).await;
    }
    let start = Start {
        run: args.run.clone(),
        kato_alone: args.update_kato,
        config: std::path::absolute(&context.config).unwrap_or_else(|_| context.config.clone()),
        updated_to: args.self_updated,
        quiet: false,
    };
    upgrade::upgrade(request, start, node).await
}

impl UpgradeArgs {
    /// The same command without `--detach`, for the detached program.
    fn attached(&self, context: &Context, run: &str) -> Vec<String> {
        let mut words: Vec<String> = vec![
            "--config".into(),
            context.config.display().to_string(),
            "node".into(),
            "upgrade".into(),
            "--run".into(),
            run.to_owned(),
            // Nobody can be asked over there.
            "--skip-confirmation".into(),
        ];
        words.extend(self.wishes());
        words
    }

    /// What is wanted of a node, as words of a command.
    pub(super) fn wishes(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut with = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.extend([format!("--{name}"), value]);
            }
        };
        with("version", self.version.as_ref().map(ToString::to_string));
        with("cache-ip", self.cache_ip.map(|ip| ip.to_string()));
        with("cache-url", self.cache_url.as_ref().map(ToString::to_string));
        with("skip-cache", self.skip_cache.clone());
        let flags = [
            ("download-only", self.download_only),
            ("resume", self.resume),
            ("force", self.force),
            ("update-kato", self.update_kato),
            ("offline", self.offline),
            ("skip-drain", self.skip_drain),
            ("tolerant", self.tolerant),
            ("development", self.development),
            ("apply-patches", self.apply_patches),
        ];
        words.extend(
            flags
                .into_iter()
                .filter(|(_, set)| *set)
                .map(|(name, _)| format!("--{name}")),
        );
        words
    }
}

fn version(node: &Node, json: bool) -> Result<Exit, Failure> {
    let version = Installed::load(&node.paths)?.map(|installed| installed.version);
    if json {
        terminal::json(&serde_json::json!({"schema": 1, "node": node.id, "version": version}));
    } else {
        terminal::data(&version.map_or_else(|| "none".into(), |version| version.to_string()));
    }
    Ok(Exit::Done)
}

fn node(context: &Context) -> Result<Node, Failure> {
    load(context).map(Node::new)
}

pub(super) fn load(context: &Context) -> Result<Settings, Failure> {
    // A command may read its settings twice.
    static TOLD: Once = Once::new();
    let (settings, told) = Settings::load_told(&context.config).map_err(|error| {
        Failure::new(Exit::Usage, error).hint(format!(
            "every key is explained in config/kato.toml; the file in use is {}",
            context.config.display()
        ))
    })?;
    TOLD.call_once(|| {
        for warning in told {
            terminal::say(&format!("warning: {warning}"));
        }
    });
    Ok(settings)
}
