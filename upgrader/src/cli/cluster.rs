//! `kato cluster …`: a word to the rollout that is under way.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use kato_shared::clock::Clock;

use super::{Context, node::load};
use crate::{
    audit::{AuditLog, Deed, Subject},
    cluster::{
        control::{Control, Wish},
        own_id,
    },
    document,
    exit::{Exit, Failure},
    paths::NodePaths,
    plan::cluster::ClusterPlan,
    report::terminal,
};

/// Arguments of `kato cluster`.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// What can be wanted of a rollout. Nodes that are at work are never interrupted.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Begin no further node until `kato cluster resume`; run it on Core.
    Pause(WhyArgs),
    /// Go on after a pause.
    Resume,
    /// Begin no further node and give the plan up; the next upgrade makes a new one.
    Abort(WhyArgs),
}

/// Why something is wanted.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Why, for whoever reads the status.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Runs a `kato cluster` command.
///
/// # Errors
/// [`Failure`] with the exit code and what to do next.
pub async fn run(args: ClusterArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = load(context)?;
    let paths = NodePaths::new(&settings.node.root, &settings.node.state_dir);
    let control = Control::in_state_dir(paths.state_dir());
    let plan = paths.state_dir().join("state/plan.json");
    let plan = document::read::<ClusterPlan>(&plan, "the plan of an upgrade of the cluster")?;
    let Some(plan) = plan else {
        let what = anyhow!("no upgrade of the cluster was begun from here");
        return Err(Failure::new(Exit::Preflight, what)
            .hint("run it on the Core node, after `kato node upgrade --cluster`"));
    };
    let (word, done) = match &args.command {
        ClusterCommand::Pause(_) => (
            "pause",
            "is paused: no further node is begun until `kato cluster resume`",
        ),
        ClusterCommand::Resume => ("resume", "goes on"),
        ClusterCommand::Abort(_) => ("abort", "is given up: no further node is begun"),
    };
    let clock = Clock::system();
    let log = AuditLog::in_folder(&paths.audit(), &own_id(&settings), clock.clone());
    let deed = Deed::new(Subject::ClusterUpgrade, format!("{word} to {}", plan.target)).run(plan.id.clone());
    let wanting = async {
        match args.command {
            ClusterCommand::Pause(why) => control.want(&plan.id, Wish::Pause, why.reason, clock.now())?,
            ClusterCommand::Resume => control.clear()?,
            ClusterCommand::Abort(why) => control.want(&plan.id, Wish::Abort, why.reason, clock.now())?,
        }
        Ok(())
    };
    log.around(deed, wanting).await?;
    if context.json {
        terminal::json(&serde_json::json!({"schema": 1, "plan": plan.id, "wish": word}));
    } else {
        terminal::data(&format!(
            "the upgrade to {} (plan {}) {done}",
            plan.target, plan.id
        ));
    }
    Ok(Exit::Done)
}
