//! `kato patch …`: everything that concerns patches, on this node or, from Core, on all.

mod args;
mod words;

pub use self::args::{
    InstallArgs, ListArgs, MarkArgs, PatchArgs, PatchCommand, ReinstallArgs, RevertArgs, RunArgs, StatusArgs,
    WhereArgs,
};
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

/// Runs a `kato patch` command.
///
/// # Errors
/// [`Failure`] with the exit code and what to do next.
pub async fn run(args: PatchArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = super::node::load(context)?;
    let (place, call) = (args.command.place(), args.command.call(context));
    let scope = cluster::scope(&settings, &context.config, place.local, place.node.as_deref())?;
    if let Scope::Nodes(nodes) = scope {
        if call.changes() && args.command.asks() && !agreed(&nodes.ids).await {
            return Ok(Exit::Declined);
        }
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
            let count = kato_shared::counted(listed.list.patches.len(), "patch", "patches");
            Ok(done(&node, context, &format!("the newest list has {count}")))
        }
        PatchCommand::Mark(args) => mark(&args, &node, context).await,
        PatchCommand::Reinstall(args) => {
            let wish = args.run.wish(Verb::Reinstall(args.name), None);
            args.run
                .start(wish, args.run.request(context), node, call, context)
                .await
        }
        PatchCommand::Revert(args) => {
            let wish = args.run.wish(Verb::Revert(args.name), None);
            args.run
                .start(wish, args.run.request(context), node, call, context)
                .await
        }
    }
}

impl WhereArgs {
    /// Where lists and files come from.
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
}

impl ListArgs {
    fn only(&self) -> Result<Option<Vec<String>>, Failure> {
        self.manifest.as_deref().map(local::manifest).transpose()
    }
}

/// Asks for all nodes at once.
async fn agreed(nodes: &[String]) -> bool {
    terminal::say(&format!("one after the other: {}", nodes.join(", ")));
    let is_yes = terminal::ask("Change these nodes?").await;
    if !is_yes {
        terminal::say("nothing was changed");
    }
    is_yes
}

impl PatchCommand {
    /// Whether a person is asked before the first change: where there is one, who has not said yes already.
    fn asks(&self) -> bool {
        match self {
            Self::Install(args) => args.run.asks(),
            Self::Reinstall(args) => args.run.asks(),
            Self::Revert(args) => args.run.asks(),
            Self::Status(_) | Self::Reset(_) | Self::Update(_) | Self::Mark(_) => false,
        }
    }
}

impl RunArgs {
    fn asks(&self) -> bool {
        !(self.skip_confirmation || self.detach) && terminal::is_interactive()
    }

    fn request(&self, context: &Context) -> UpgradeRequest {
        UpgradeRequest {
            skip_confirmation: !self.asks(),
            ..self.place.request(context)
        }
    }

    fn wish(&self, verb: Verb, only: Option<Vec<String>>) -> Wish {
        Wish {
            verb,
            no_restart: self.no_restart,
            only,
        }
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

impl InstallArgs {
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
        status::text(&patches).lines().for_each(terminal::data);
    }
    Ok(Exit::Done)
}

async fn install(args: &InstallArgs, call: Call, node: Node, context: &Context) -> Result<Exit, Failure> {
    let wish = args.run.wish(Verb::Install(args.wanted()?), args.list.only()?);
    let request = UpgradeRequest {
        plan_only: args.plan,
        download_only: args.download_only,
        ..args.run.request(context)
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
