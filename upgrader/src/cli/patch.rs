//! `kato patch …`: the arguments of everything that concerns patches.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};
use url::Url;

use super::{Context, node::UpgradeRequest};
use crate::{
    exit::{Exit, Failure},
    patch::{
        choice::Wanted,
        cluster::{self, Call, Scope},
        listed::Listed,
        local::{self, Verb, Wish},
        status,
    },
    report::terminal,
    run::{
        Node, detach,
        upgrade::{self, Start},
    },
};

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
pub struct RunArgs {
    /// Restart nothing; the status then says what must be restarted.
    #[arg(short = 'r', long)]
    pub no_restart: bool,
    /// Say nothing while all goes well.
    #[arg(short, long)]
    pub quiet: bool,
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

/// Runs a `kato patch` command.
///
/// # Errors
/// [`Failure`] with the exit code and what to do next.
pub async fn run(args: PatchArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = super::node::load(context)?;
    let (place, call) = (args.command.place(), args.command.call(context));
    let scope = cluster::scope(&settings, &context.config, place.local, place.node.as_deref())?;
    if let Scope::Nodes(nodes) = scope {
        return cluster::run(&nodes, call, &settings, context).await;
    }
    let node = Node::new(settings);
    match args.command {
        PatchCommand::Status(args) => show(&args, &node, context).await,
        PatchCommand::Install(args) => install(&args, call, node, context).await,
        PatchCommand::Reset(_) => {
            let _held = upgrade::hold(&node).await?;
            Listed::forget(&node.paths)?;
            Ok(done(&node, context, "the list of patches is forgotten"))
        }
        PatchCommand::Update(place) => {
            let listed = local::update(&node, &place.request(context)).await?;
            let count = listed.list.patches.len();
            Ok(done(
                &node,
                context,
                &format!("the newest list has {count} patches"),
            ))
        }
        PatchCommand::Mark(args) => mark(&args, &node, context).await,
        PatchCommand::Reinstall(args) => {
            let wish = args.run.wish(Verb::Reinstall(args.name), None);
            args.run
                .start(wish, args.run.place.request(context), node, call, context)
                .await
        }
        PatchCommand::Revert(args) => {
            let wish = args.run.wish(Verb::Revert(args.name), None);
            args.run
                .start(wish, args.run.place.request(context), node, call, context)
                .await
        }
    }
}

impl PatchCommand {
    /// Which nodes it is for.
    const fn place(&self) -> &WhereArgs {
        match self {
            Self::Status(args) => &args.place,
            Self::Install(args) => &args.run.place,
            Self::Reset(place) | Self::Update(place) => place,
            Self::Mark(args) => &args.place,
            Self::Reinstall(args) => &args.run.place,
            Self::Revert(args) => &args.run.place,
        }
    }

    /// The same command for one node, there.
    fn call(&self, context: &Context) -> Call {
        let (verb, mut words) = match self {
            Self::Status(args) => (cluster::Kind::Status, args.words()),
            Self::Install(args) => (args.kind(), args.words()),
            Self::Reset(_) => (cluster::Kind::Short, vec!["reset".to_owned()]),
            Self::Update(_) => (cluster::Kind::Short, vec!["update".to_owned()]),
            Self::Mark(args) => (cluster::Kind::Short, args.words()),
            Self::Reinstall(args) => {
                let mut words = vec!["reinstall".to_owned(), args.name.clone()];
                words.extend(args.run.words());
                (cluster::Kind::Run, words)
            }
            Self::Revert(args) => {
                let mut words = vec!["revert".to_owned()];
                words.extend(args.name.clone());
                words.extend(args.run.words());
                (cluster::Kind::Run, words)
            }
        };
        words.push("--local".into());
        words.extend(self.place().words());
        Call {
            kind: verb,
            words,
            json: context.json,
        }
    }
}

impl WhereArgs {
    /// Where lists and files come from. Nobody is asked: an installation of patches is confirmed by its command.
    fn request(&self, context: &Context) -> UpgradeRequest {
        UpgradeRequest {
            skip_confirmation: true,
            json: context.json,
            cache_ip: self.cache_ip,
            cache_url: self.cache_url.clone(),
            skip_cache: self.skip_cache.clone().filter(|value| !value.is_empty()),
            ..UpgradeRequest::default()
        }
    }

    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(ip) = self.cache_ip {
            words.extend(["--cache-ip".into(), ip.to_string()]);
        }
        if let Some(url) = &self.cache_url {
            words.extend(["--cache-url".into(), url.to_string()]);
        }
        if let Some(value) = self.skip_cache.as_ref().filter(|value| !value.is_empty()) {
            words.extend(["--skip-cache".into(), value.clone()]);
        }
        words
    }
}

impl ListArgs {
    fn only(&self) -> Result<Option<Vec<String>>, Failure> {
        self.manifest.as_deref().map(local::manifest).transpose()
    }

    /// A manifest must be at the same path on every node that it is for.
    fn words(&self) -> Vec<String> {
        let path = self.manifest.as_ref().map(|path| path.display().to_string());
        path.map(|path| vec!["--manifest".into(), path])
            .unwrap_or_default()
    }
}

impl RunArgs {
    fn wish(&self, verb: Verb, only: Option<Vec<String>>) -> Wish {
        Wish {
            verb,
            no_restart: self.no_restart,
            only,
        }
    }

    fn words(&self) -> Vec<String> {
        let flags = [("--no-restart", self.no_restart), ("--quiet", self.quiet)];
        let set = flags.into_iter().filter(|(_, set)| *set);
        set.map(|(name, _)| name.to_owned()).collect()
    }

    /// Runs it here, or detached from here.
    async fn start(
        &self,
        wish: Wish,
        request: UpgradeRequest,
        node: Node,
        call: Call,
        context: &Context,
    ) -> Result<Exit, Failure> {
        if self.detach {
            let run = self.run.clone().ok_or_else(|| {
                Failure::new(Exit::Usage, anyhow::anyhow!("`--detach` needs the id of the run"))
                    .hint("add `--run ID`")
            })?;
            let mut words = vec![
                "--config".to_owned(),
                context.config.display().to_string(),
                "patch".into(),
            ];
            words.extend(call.words);
            words.extend(["--run".into(), run.clone()]);
            return detach::start(&node, &run, &words).await;
        }
        let start = Start {
            run: self.run.clone(),
            config: std::path::absolute(&context.config).unwrap_or_else(|_| context.config.clone()),
            quiet: self.quiet,
            ..Start::default()
        };
        upgrade::patches(request, &wish, start, node).await
    }
}

impl StatusArgs {
    fn words(&self) -> Vec<String> {
        let mut words = vec!["status".to_owned()];
        words.extend(self.all.then(|| "--all".into()));
        words.extend(self.list.force_update.then(|| "--force-update".into()));
        words.extend(self.list.words());
        words
    }
}

impl InstallArgs {
    /// Nodes fetch before the first of them is changed; a plan is shown by each.
    const fn kind(&self) -> cluster::Kind {
        match (self.plan, self.download_only) {
            (true, _) => cluster::Kind::Short,
            (false, true) => cluster::Kind::Run,
            (false, false) => cluster::Kind::StagedRun,
        }
    }

    fn wanted(&self) -> Result<Wanted, Failure> {
        if !self.single {
            return Ok(if self.names.is_empty() {
                Wanted::Outstanding(self.to_patch_id)
            } else {
                Wanted::Named(self.names.clone())
            });
        }
        match self.names.as_slice() {
            [name] => Ok(Wanted::Single(name.clone())),
            names => {
                let problem = anyhow::anyhow!("`--single` is about one patch, and {} are named", names.len());
                Err(Failure::new(Exit::Usage, problem).hint("name one patch"))
            }
        }
    }

    fn words(&self) -> Vec<String> {
        let mut words = vec!["install".to_owned()];
        words.extend(self.names.clone());
        if let Some(id) = self.to_patch_id {
            words.extend(["--to-patch-id".into(), id.to_string()]);
        }
        words.extend(self.single.then(|| "--single".into()));
        words.extend(self.plan.then(|| "--plan".into()));
        words.extend(self.download_only.then(|| "--download-only".into()));
        words.extend(self.list.words());
        words.extend(self.run.words());
        words
    }
}

impl MarkArgs {
    fn words(&self) -> Vec<String> {
        let how = if self.installed {
            "--installed"
        } else {
            "--notinstalled"
        };
        vec!["mark".into(), self.name.clone(), how.into()]
    }
}

async fn show(args: &StatusArgs, node: &Node, context: &Context) -> Result<Exit, Failure> {
    let request = args.place.request(context);
    let listed = local::list(node, &request, args.list.force_update).await?;
    let only = args.list.only()?;
    let list = local::restricted(listed.list.clone(), only.as_deref())?;
    let patches = status::read(node, Some(&listed), &list, args.all)?;
    if context.json {
        terminal::json(&patches);
    } else {
        terminal::data(&status::text(&patches));
    }
    Ok(Exit::Done)
}

async fn install(args: &InstallArgs, call: Call, node: Node, context: &Context) -> Result<Exit, Failure> {
    let wish = args.run.wish(Verb::Install(args.wanted()?), args.list.only()?);
    let request = UpgradeRequest {
        plan_only: args.plan,
        download_only: args.download_only,
        ..args.run.place.request(context)
    };
    args.run.start(wish, request, node, call, context).await
}

async fn mark(args: &MarkArgs, node: &Node, context: &Context) -> Result<Exit, Failure> {
    let _held = upgrade::hold(node).await?;
    let name = &args.name;
    if args.notinstalled {
        local::mark_missing(node, name)?;
        return Ok(done(node, context, &format!("{name} is marked as not installed")));
    }
    let listed = local::list(node, &args.place.request(context), false).await?;
    local::mark_installed(node, &listed.list, name)?;
    Ok(done(node, context, &format!("{name} is marked as installed")))
}

/// Says what was done.
fn done(node: &Node, context: &Context, text: &str) -> Exit {
    if context.json {
        terminal::json(&serde_json::json!({"schema": 1, "node": node.id, "done": text}));
    } else {
        terminal::say(text);
    }
    Exit::Done
}
