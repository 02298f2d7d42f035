//! `kato cache …`: what is done with the cache on Core beside preparing it (`kato node upgrade --prepare`).

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Context, node::load};
use crate::{
    exit::{Exit, Failure},
    prepare::{
        self, start,
        supervise::{self, Files, SuperviseError},
    },
    report::terminal,
};

/// Arguments of `kato cache`.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// What can be done with the cache on Core.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Stop the cache that `kato node upgrade --prepare` started; what it stored stays.
    Stop,
    /// Run the cache and start it again when it dies.
    #[command(hide = true)]
    Supervise {
        /// The folder with its settings, record and log.
        #[arg(long)]
        folder: PathBuf,
        /// Its program.
        #[arg(long)]
        program: PathBuf,
    },
}

/// Runs a `kato cache` command.
///
/// # Errors
/// [`Failure`] with the exit code and what to do next.
pub async fn run(args: CacheArgs, context: &Context) -> Result<Exit, Failure> {
    match args.command {
        CacheCommand::Stop => stop(context).await,
        CacheCommand::Supervise { folder, program } => {
            let outcome = supervise::run(&Files::below(folder), &program).await;
            outcome.map(|()| Exit::Done).map_err(supervise_failure)
        }
    }
}

async fn stop(context: &Context) -> Result<Exit, Failure> {
    let settings = load(context)?;
    let systemd = prepare::service_manager(&settings);
    let stopped = start::stop(&prepare::files(&settings), systemd.as_ref())
        .await
        .map_err(|error| {
            let hint = error.hint();
            Failure::new(error.exit(), error).hint(hint)
        })?;
    if context.json {
        terminal::json(&serde_json::json!({ "schema": 1, "stopped": stopped }));
    } else {
        terminal::say(if stopped {
            "the cache was stopped"
        } else {
            "no cache of this node runs"
        });
    }
    Ok(Exit::Done)
}

fn supervise_failure(error: SuperviseError) -> Failure {
    let exit = match &error {
        SuperviseError::Supervised { .. } => Exit::LockHeld,
        SuperviseError::File { .. }
        | SuperviseError::Start { .. }
        | SuperviseError::Settings { .. }
        | SuperviseError::Durable(_)
        | SuperviseError::System { .. } => Exit::Preflight,
    };
    Failure::new(exit, error)
        .hint("`kato node upgrade --prepare` starts the cache; this command is its own helper")
}
