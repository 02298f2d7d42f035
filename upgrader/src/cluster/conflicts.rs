//! What the modules of the target would refuse on each node, asked before anything is downloaded: a local change that a rule does not let pass, a
//! mount point where a folder is exchanged, a file that nobody may change.
//!
//! A node knows that itself: its own `--plan` looks at its files with the release's list. So each is asked for it, all at once, and only what
//! it refuses is taken from the answer. A node that cannot have the release's documents yet (its cache is not started) says so later,
//! while it stages.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, stream};

use super::remote::{RemoteNode, answer};
use crate::{
    exit::Exit,
    plan::{
        cluster::ClusterPlan,
        preflight::{NodeProblem, Problem},
    },
    ssh::Ended,
};

/// How many nodes are asked at a time.
const AT_ONCE: usize = 32;

/// How long a node may take: it reads every installed file.
const DEADLINE: Duration = Duration::from_secs(120);

/// How the nodes are asked, beside the target.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// Unhealthy nodes are taken as they are.
    pub tolerant: bool,
    /// Outstanding patches are installed first.
    pub apply_patches: bool,
    /// Releases of the channel `development` count.
    pub development: bool,
}

/// What stands in the way on the nodes that `plan` upgrades; and what cannot be known yet, as a warning.
///
/// # Cancel safety
/// Dropping it ends the calls that are under way; nothing is changed.
pub async fn conflicts(
    nodes: &BTreeMap<String, RemoteNode>,
    plan: &ClusterPlan,
    manner: Manner,
) -> (Vec<NodeProblem>, Option<String>) {
    let version = plan.target.to_string();
    // With a name it is asked for the whole cluster: Core does not complain that others are behind.
    let mut words = vec![
        "node",
        "upgrade",
        "--plan",
        "--run",
        &plan.id,
        "--version",
        &version,
    ];
    let flags = [
        ("--force", plan.force),
        ("--tolerant", manner.tolerant),
        ("--apply-patches", manner.apply_patches),
        ("--development", manner.development),
    ];
    words.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| *flag));
    let asked = plan.upgrades().filter_map(|planned| nodes.get(&planned.id));
    let mut answers = stream::iter(asked)
        .map(|node| async { (node.node.id.clone(), ask(node, &words).await) })
        .buffer_unordered(AT_ONCE);
    let (mut problems, mut later) = (Vec::new(), Vec::new());
    while let Some((id, answer)) = answers.next().await {
        match answer {
            Answer::Fine => {}
            Answer::Refused(problem) => problems.push(NodeProblem { node: id, problem }),
            Answer::Later => later.push(id),
        }
    }
    later.sort_unstable();
    let warning = (!later.is_empty()).then(|| {
        format!(
            "{}: what modules would refuse is found out only while it is staged: the release's documents are not within reach",
            later.join(", ")
        )
    });
    (problems, warning)
}

enum Answer {
    Fine,
    Refused(Problem),
    Later,
}

async fn ask(node: &RemoteNode, words: &[&str]) -> Answer {
    let Ok(output) = node.run(words, DEADLINE).await else {
        return Answer::Later;
    };
    match output.ended {
        Ended::Exit(code) if Exit::from_code(code) == Some(Exit::Preflight) => {
            Answer::Refused(Problem::Said {
                what: answer::last_words(&output.stderr).to_owned(),
                remedy: answer::hint(&output.stderr)
                    .unwrap_or("see `kato node upgrade --plan` there")
                    .to_owned(),
            })
        }
        ended if ended.is_success() => Answer::Fine,
        Ended::Exit(code) if Exit::from_code(code) == Some(Exit::UpgradeAvailable) => Answer::Fine,
        Ended::Exit(_) | Ended::Signal(_) => Answer::Later,
    }
}
