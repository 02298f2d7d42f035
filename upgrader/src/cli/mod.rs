//! The command line: arguments only. Each command's arguments and its call into the program are in one file.
//!
//! Flow: parse → [`Context`] → the command's `run` → exit code, with errors and their hint on stderr.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use kato_shared::clock::Clock;

use crate::{
    exit::{Exit, Failure},
    lease::fence,
    paths::NodePaths,
    report::terminal,
};

pub mod audit;
pub mod backup;
pub mod cluster;
pub mod customizations;
pub mod demo;
pub mod licence;
pub mod lock;
pub mod maintenance;
pub mod node;
pub mod patch;
pub mod prepare;
mod reason;
pub mod release;
pub mod service;
pub mod status;
pub mod sudoers;
mod there;

/// The settings file of a command that names none.
pub const DEFAULT_CONFIG: &str = "/etc/kato/kato.toml";

/// Upgrades this node, or from the Core node the whole cluster.
#[derive(Debug, Parser)]
#[command(name = "kato", version)]
pub struct Cli {
    /// The settings file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KATO_CONFIG",
        default_value = DEFAULT_CONFIG
    )]
    pub config: PathBuf,
    /// Print data as JSON on stdout.
    #[arg(short, long, global = true)]
    pub json: bool,
    /// What is logged to stderr, e.g. `info` or `warn,kato_upgrader=debug`.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "KATO_LOG",
        default_value = "warn"
    )]
    pub log: String,
    /// The token of the orchestrator that asks; a node that has seen a greater one refuses.
    #[arg(long, global = true, hide = true, value_name = "TOKEN")]
    pub fence: Option<u64>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `kato` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Upgrade nodes and look at them.
    Node(node::NodeArgs),
    /// Show how the cluster is and what its upgrade is doing; run it on Core.
    Status(status::StatusArgs),
    /// Say what stands in the way of a node's upgrade, and when that can change; run it on Core.
    Explain(status::ExplainArgs),
    /// Write plan, versions, events and audit logs of all nodes into one file; run it on Core.
    Report(status::ReportArgs),
    /// Pause, resume or abort the upgrade of the cluster that is under way.
    Cluster(cluster::ClusterArgs),
    /// Install patches of the installed release, and take them back.
    Patch(patch::PatchArgs),
    /// The cache on Core.
    Cache(prepare::CacheArgs),
    /// List, save, compare and put back what was changed on this node.
    #[command(alias = "customisations")]
    Customizations(customizations::CustomizationsArgs),
    /// The locks of this node.
    Lock(lock::LockArgs),
    /// The maintenance mode of the platform, which an upgrade of the cluster wants on.
    Maintenance(maintenance::MaintenanceArgs),
    /// The licence limits of the platform, which an upgrade of the cluster waives while it is at work.
    Licence(licence::LicenceArgs),
    /// What was done to this node, by whom.
    Audit(audit::AuditArgs),
    /// Print the narrow rule that lets Core run kato on a node without a password.
    PrintSudoers(sudoers::SudoersArgs),
    /// Make and publish releases.
    Release(Box<release::ReleaseArgs>),
    /// Show an upgrade of a throw-away cluster on this machine.
    Demo(demo::DemoArgs),
    /// Print the completions of a shell.
    Completions(CompletionsArgs),
}

/// What every command knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The settings file.
    pub config: PathBuf,
    /// Data is printed as JSON.
    pub json: bool,
}

/// Arguments of `kato completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

/// Runs the command line and gives the process's exit code; errors are printed to stderr with their hint.
pub fn main(cli: Cli) -> ExitCode {
    // What a release installs is for services of every user, however closed the shell is that we are called from; what is secret is
    // written with a mode of its own.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let exit = run(cli).unwrap_or_else(|failure| {
        terminal::failure(&failure);
        failure.exit
    });
    exit.into()
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    kato_shared::telemetry::start(kato_shared::telemetry::LogFormat::Human, &cli.log)
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    // A second installation in one process (tests) changes nothing.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime failed")
        .map_err(|error| Failure::new(Exit::Bug, error))?;
    let context = Context {
        config: cli.config,
        json: cli.json,
    };
    if let Some(token) = cli.fence {
        let settings = node::load(&context)?;
        let paths = NodePaths::new(&settings.node.root, &settings.node.state_dir);
        fence::admit(&paths, token, &Clock::system())?;
    }
    let outcome = runtime.block_on(dispatch(cli.command, &context));
    // A child or a request that outlives its deadline must not hold the program back.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Node(args) => Box::pin(node::run(args, context)).await,
        Command::Status(args) => Box::pin(status::run(&args, context)).await,
        Command::Explain(args) => Box::pin(status::explain(&args, context)).await,
        Command::Report(args) => Box::pin(status::report(args, context)).await,
        Command::Cluster(args) => cluster::run(args, context).await,
        Command::Patch(args) => Box::pin(patch::run(args, context)).await,
        Command::Cache(args) => prepare::run(args, context).await,
        Command::Customizations(args) => customizations::run(args, context).await,
        Command::Lock(args) => lock::run(&args, context).await,
        Command::Licence(args) => licence::run(&args, context).await,
        Command::Maintenance(args) => maintenance::run(&args, context).await,
        Command::PrintSudoers(args) => sudoers::run(&args, context),
        Command::Audit(args) => audit::run(&args, context),
        Command::Release(args) => release::run(*args, context).await,
        Command::Demo(args) => demo::run(args, context).await,
        Command::Completions(args) => {
            clap_complete::generate(args.shell, &mut Cli::command(), "kato", &mut std::io::stdout());
            Ok(Exit::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upgrade(words: &str) -> Result<Cli, clap::Error> {
        let words = words.split(' ').filter(|word| !word.is_empty());
        Cli::try_parse_from(["kato", "node", "upgrade"].into_iter().chain(words))
    }

    /// The option that comes last in `words`.
    fn last_option(words: &str) -> &str {
        words.split(' ').rfind(|word| word.starts_with("--")).unwrap()
    }

    const OF_CLUSTER: [&str; 3] = ["--only w1", "--exclude w1", "--role-order dea"];

    #[test]
    fn words_that_exclude_each_other_are_refused_by_name() {
        let with_resume = [
            "--version 2.0.0",
            "--force",
            "--download-only",
            "--update-kato",
            "--status",
        ];
        let with_plan = ["--download-only", "--update-kato", "--status", "--prepare"];
        let with_status = [
            "--plan",
            "--resume",
            "--force",
            "--download-only",
            "--update-kato",
            "--cluster",
        ];
        let excluding: [(&str, &[&str]); 4] = [
            ("--resume", &with_resume),
            ("--cluster --resume", &OF_CLUSTER),
            ("--plan", &with_plan),
            ("--status", &with_status),
        ];
        for (words, others) in excluding {
            for other in others {
                let refused = upgrade(&format!("{words} {other}")).unwrap_err();
                let said = refused.to_string();
                assert_eq!(refused.exit_code(), 2, "{words} {other}: {said}");
                let both = said.contains(last_option(words)) && said.contains(last_option(other));
                assert!(
                    both && said.contains("cannot be used with"),
                    "{words} {other}: {said}"
                );
            }
        }
        for alone in OF_CLUSTER {
            let said = upgrade(alone).unwrap_err().to_string();
            assert!(said.contains("--cluster"), "{alone}: {said}");
        }
    }

    #[test]
    fn words_that_go_together_are_taken() {
        for taken in [
            "--plan --resume",
            "--plan --skip-confirmation",
            "--plan --skip-confirmation --resume",
            "--resume --skip-confirmation --tolerant --offline",
            "--cluster --plan --resume",
            "--cluster --plan --skip-confirmation",
            "--cluster --plan --only w1 --exclude dea --role-order dea,base",
            "--cluster --resume --skip-confirmation --apply-patches",
            "--cluster --download-only --version 2.0.0 --force",
        ] {
            upgrade(taken).unwrap();
        }
    }

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
