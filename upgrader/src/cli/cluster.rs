//! `kato cluster …`: a word to the rollout that is under way.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use kato_shared::clock::Clock;

use super::{Context, node::load};
use crate::{
    audit::{AuditLog, Deed, Subject},
    cluster::{
        AGAIN,
        control::{Control, Wanted, Wish},
        own_id,
    },
    document,
    exit::{Exit, Failure},
    installed::Installed,
    lease,
    paths::NodePaths,
    plan::{cluster::ClusterPlan, order::Place},
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
    #[arg(long, value_name = "TEXT", value_parser = super::reason::words)]
    pub reason: Option<String>,
}

impl ClusterCommand {
    const fn wish(&self) -> Option<Wish> {
        match self {
            Self::Pause(_) => Some(Wish::Pause),
            Self::Resume => None,
            Self::Abort(_) => Some(Wish::Abort),
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Pause(_) => "pause",
            Self::Resume => "resume",
            Self::Abort(_) => "abort",
        }
    }

    fn reason(&self) -> Option<String> {
        match self {
            Self::Pause(why) | Self::Abort(why) => why.reason.clone(),
            Self::Resume => None,
        }
    }
}

/// How a plan stands, as far as Core knows by itself.
#[derive(Debug, Clone, Default)]
struct Standing {
    /// What was wanted before.
    wanted: Option<Wanted>,
    /// Whether Core, which is last, is at the target.
    is_complete: bool,
    /// Whether an orchestrator has the lock.
    is_at_work: bool,
}

impl Standing {
    fn is_given_up(&self) -> bool {
        self.wanted
            .as_ref()
            .is_some_and(|wanted| wanted.wish == Wish::Abort)
    }
}

/// What is said when `wish` (`None` to go on) is wanted of a plan that stands so. To give up is final: what has been given up is neither
/// paused nor taken up again.
///
/// # Errors
/// [`Failure`] with 20 where it means nothing any more.
fn decide(wish: Option<Wish>, standing: &Standing, plan: &ClusterPlan) -> Result<String, Failure> {
    let subject = format!("the upgrade to {} (plan {})", plan.target, plan.id);
    if let Some(wanted) = standing.wanted.as_ref().filter(|_| standing.is_given_up()) {
        let since = format!("{subject} was given up at {:.0}", wanted.since);
        if wish == Some(Wish::Abort) {
            return Ok(since);
        }
        return Err(
            Failure::new(Exit::Preflight, anyhow!("{since}, and that is final")).hint(format!(
                "`{AGAIN}` makes a new plan; nodes that are done are skipped"
            )),
        );
    }
    if standing.is_complete && !standing.is_at_work {
        let what = anyhow!(
            "{subject} is complete: Core, which is last, is at {}",
            plan.target
        );
        return Err(Failure::new(Exit::Preflight, what).hint("`kato status` shows every node"));
    }
    let done = match (wish, &standing.wanted) {
        (Some(Wish::Pause), _) => "is paused: no further node is begun until `kato cluster resume`",
        (Some(Wish::Abort), _) => "is given up: no further node is begun",
        (None, Some(_)) => "may go on",
        (None, None) => "was not paused",
    };
    let next = match (standing.is_at_work, wish) {
        (true, _) | (false, Some(Wish::Abort)) => String::new(),
        (false, _) => format!("; nobody is at work on it now: `{AGAIN}` goes on with it"),
    };
    Ok(format!("{subject} {done}{next}"))
}

/// Whether Core was upgraded by `plan`, which it is behind all others.
fn is_complete(plan: &ClusterPlan, paths: &NodePaths) -> bool {
    let installed = Installed::load(paths).ok().flatten();
    let is_last = plan
        .upgrades()
        .any(|node| node.place == Place::Core && node.from.as_ref() != Some(&plan.target));
    is_last && installed.is_some_and(|installed| installed.version == plan.target)
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
    let wish = args.command.wish();
    let standing = Standing {
        wanted: control.wanted(&plan.id),
        is_complete: is_complete(&plan, &paths),
        is_at_work: lease::look(&paths).is_some_and(|(_, standing)| standing != lease::Standing::Free),
    };
    let said = decide(wish, &standing, &plan)?;
    let word = args.command.word();
    let clock = Clock::system();
    let log = AuditLog::in_folder(&paths.audit(), &own_id(&settings), clock.clone());
    let deed = Deed::new(Subject::ClusterUpgrade, format!("{word} to {}", plan.target)).run(plan.id.clone());
    let wanting = async {
        match wish {
            None => control.clear()?,
            // Given up is given up, since then and for that reason.
            Some(_) if standing.is_given_up() => {}
            Some(wish) => control.want(&plan.id, wish, args.command.reason(), clock.now())?,
        }
        Ok(())
    };
    log.around(deed, wanting).await?;
    if context.json {
        terminal::json(&serde_json::json!({"schema": 1, "plan": plan.id, "wish": word}));
    } else {
        terminal::data(&said);
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> ClusterPlan {
        let document = serde_json::json!({
            "schema": 1, "id": "p1", "created": "2026-01-01T00:00:00Z", "cluster": "lab", "target": "2.0.0",
            "release_digest": kato_shared::Digest::of(b"release"), "force": false, "nodes": [], "warnings": [],
        });
        serde_json::from_value(document).unwrap()
    }

    fn wanted(wish: Wish) -> Option<Wanted> {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::in_state_dir(folder.path());
        control
            .want("p1", wish, None, jiff::Timestamp::UNIX_EPOCH)
            .unwrap();
        control.wanted("p1")
    }

    #[test]
    fn what_was_given_up_or_is_complete_is_neither_paused_nor_taken_up_again() {
        let free = Standing::default();
        let at_work = Standing {
            is_at_work: true,
            ..Standing::default()
        };
        let paused = Standing {
            wanted: wanted(Wish::Pause),
            ..at_work.clone()
        };
        let given_up = Standing {
            wanted: wanted(Wish::Abort),
            ..Standing::default()
        };
        let complete = Standing {
            is_complete: true,
            ..Standing::default()
        };
        let (pause, resume, abort) = (Some(Wish::Pause), None, Some(Wish::Abort));
        for (wish, standing, expected) in [
            (
                pause,
                &at_work,
                Ok("is paused: no further node is begun until `kato cluster resume`"),
            ),
            (
                pause,
                &free,
                Ok("nobody is at work on it now: `kato node upgrade --cluster` goes on with it"),
            ),
            (resume, &paused, Ok("may go on")),
            (resume, &free, Ok("was not paused; nobody is at work")),
            (abort, &paused, Ok("is given up: no further node is begun")),
            (abort, &given_up, Ok("was given up at 1970")),
            (pause, &given_up, Err("that is final")),
            (resume, &given_up, Err("that is final")),
            (pause, &complete, Err("is complete")),
            (resume, &complete, Err("is complete")),
            (abort, &complete, Err("is complete")),
        ] {
            let said = decide(wish, standing, &plan());
            let is_as_expected = match (&said, expected) {
                (Ok(said), Ok(words)) => said.contains(words),
                (Err(failure), Err(words)) => {
                    failure.exit == Exit::Preflight
                        && failure.to_string().contains(words)
                        && failure.hint.is_some()
                }
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
            };
            assert!(is_as_expected, "{wish:?} of {standing:?}: {said:?}");
        }
    }
}
