//! What `kato patch` takes: the verbs and their arguments.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};
use url::Url;

/// Arguments of `kato patch`.
#[derive(Debug, Args)]
pub struct PatchArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PatchCommand,
}

/// What can be done with patches.
#[derive(Debug, Subcommand)]
pub enum PatchCommand {
    /// Show the patches of the installed release, and which of them are installed.
    Status(StatusArgs),
    /// Install the named patches, or all that are outstanding; the same command again resumes.
    Install(Box<InstallArgs>),
    /// Forget the list of patches; installed patches stay installed.
    Reset(WhereArgs),
    /// Fetch the newest list of patches.
    Update(WhereArgs),
    /// Say by hand that a patch is installed or is not; no file is touched.
    Mark(MarkArgs),
    /// Install an installed patch once more.
    Reinstall(ReinstallArgs),
    /// Take back a patch: the named one, or the one that was installed last.
    Revert(RevertArgs),
}

/// Which nodes, and where lists and files come from.
#[derive(Debug, Clone, Args)]
pub struct WhereArgs {
    /// Only this node; on Core the whole cluster otherwise.
    #[arg(short, long, conflicts_with = "node")]
    pub local: bool,
    /// Only this node of the cluster, by its id or address; run it on Core.
    #[arg(short, long, value_name = "NODE")]
    pub node: Option<String>,
    /// The address of the node with the cache.
    #[arg(long, value_name = "IP", conflicts_with = "cache_url")]
    pub cache_ip: Option<IpAddr>,
    /// The cache, e.g. `http://10.0.0.1:3180/`.
    #[arg(long, value_name = "URL")]
    pub cache_url: Option<Url>,
    /// Any value: download without the cache.
    #[arg(
        long,
        hide = true,
        value_name = "ANY",
        env = "STACKATO_UPGRADE_SKIP_PROXY_CACHE"
    )]
    pub skip_cache: Option<String>,
}

/// Which patches count.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// A manifest of your own: only the patches that it names count. It adds nothing to the signed list.
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Fetch the newest list first.
    #[arg(short = 'u', long)]
    pub force_update: bool,
}

/// Arguments of `kato patch status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Also patches for other releases and roles, and those that the installed release contains.
    #[arg(short, long)]
    pub all: bool,
    /// Which patches count.
    #[command(flatten)]
    pub list: ListArgs,
    /// Which nodes.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// How patches are installed or taken back.
#[derive(Debug, Clone, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a bool here is a flag of the command line"
)]
pub struct RunArgs {
    /// Restart nothing; the status then says what must be restarted.
    #[arg(short = 'r', long)]
    pub no_restart: bool,
    /// Say nothing while all goes well.
    #[arg(short, long)]
    pub quiet: bool,
    /// Do not ask before the first change. Without a terminal nobody is asked.
    #[arg(long)]
    pub skip_confirmation: bool,
    /// Run detached from this session.
    #[arg(long, hide = true)]
    pub detach: bool,
    /// The id of the run.
    #[arg(long, hide = true, value_name = "ID", env = "KATO_RUN")]
    pub run: Option<String>,
    /// Which nodes.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// Arguments of `kato patch install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// The patches; all that are outstanding when absent.
    #[arg(value_name = "NAME", conflicts_with = "to_patch_id")]
    pub names: Vec<String>,
    /// Install what is outstanding up to this number.
    #[arg(long, value_name = "ID")]
    pub to_patch_id: Option<u32>,
    /// Install exactly the named patch, and not those that it requires.
    #[arg(short, long)]
    pub single: bool,
    /// Print what would be done on this node and change nothing.
    #[arg(long)]
    pub plan: bool,
    /// Download and check everything, and change nothing.
    #[arg(long)]
    pub download_only: bool,
    /// Which patches count.
    #[command(flatten)]
    pub list: ListArgs,
    /// How.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Arguments of `kato patch mark`.
#[derive(Debug, Args)]
pub struct MarkArgs {
    /// The patch.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// It is installed; what must be restarted for it was restarted.
    #[arg(
        short,
        long,
        required_unless_present = "notinstalled",
        conflicts_with = "notinstalled"
    )]
    pub installed: bool,
    /// It is not installed.
    #[arg(short = 'd', long)]
    pub notinstalled: bool,
    /// Which nodes.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// Arguments of `kato patch reinstall`.
#[derive(Debug, Args)]
pub struct ReinstallArgs {
    /// The patch.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// How.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Arguments of `kato patch revert`.
#[derive(Debug, Args)]
pub struct RevertArgs {
    /// The patch; the one that was installed last when absent.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// How.
    #[command(flatten)]
    pub run: RunArgs,
}
