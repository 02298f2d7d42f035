//! `verify`: the node shows that it runs the release, before anybody says that it does.
//!
//! What is installed is compared with the release file by file; the platform says which version runs; the release's checks
//! must be good, and stay good, before their deadlines.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use kato_shared::{release::Check, settings::HumanDuration};
use tokio::time::{Instant, sleep};

use crate::{
    exit::{Exit, Failure},
    fetch::health,
    latch::Verdict,
    module,
    plan::node::modules_for,
    platform::{self, Verb, process},
    report::terminal,
    run::{
        Run,
        context::Node,
        event::EventKind,
        step::{Acted, Step},
    },
};

/// How often a check is made.
const POLL: Duration = Duration::from_millis(500);
/// How long one try of a check may take.
const TRY: Duration = Duration::from_secs(30);
/// How long the platform's health and version may take to become right after a restart.
const SETTLE: HumanDuration = HumanDuration::from_secs(600);

pub(super) struct Verify;

#[async_trait]
impl Step for Verify {
    fn name(&self) -> String {
        "verify".into()
    }

    fn changes_node(&self) -> bool {
        true
    }

    /// It only looks.
    fn is_interruptible(&self) -> bool {
        true
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        installed_files(run).await?;
        let mut checks = run.attempt.release.checks.clone();
        if let Some(installed) = run.installed.as_ref().filter(|_| run.attempt.patch.is_some()) {
            // With the patch the node still runs its release.
            checks.extend(installed.checks.clone());
        }
        shows(run, &checks).await?;
        Ok(Acted::Done)
    }
}

/// The node shows that it runs the version that the run leads to: by the platform's word, and by `checks`.
///
/// # Errors
/// [`Exit::Failed`] with the check that was not good in time.
pub(super) async fn shows(run: &mut Run, checks: &[Check]) -> Result<(), Failure> {
    let restarted = Instant::now();
    let zero = HumanDuration::from_secs(0);
    let node = Arc::clone(&run.node);
    if node.platform.knows(Verb::Health) {
        good(run, "health", restarted, zero, SETTLE, || healthy(&node)).await?;
    }
    let version = run.attempt.leads_to().to_string();
    if node.platform.knows(Verb::Version) {
        good(run, "version-readback", restarted, zero, SETTLE, || {
            reads_back(&node, &version)
        })
        .await?;
    }
    for check in checks {
        match check {
            // Read back above, whether the release asks for it or not.
            Check::VersionReadback => {}
            Check::Http {
                url,
                status,
                min_healthy,
                deadline,
            } => {
                good(run, url, restarted, *min_healthy, *deadline, || {
                    answers(url, *status)
                })
                .await?;
            }
            Check::Command {
                argv,
                min_healthy,
                deadline,
            } => {
                let name = argv.join(" ");
                let ends_well = || async {
                    process::run(argv, Some(node.paths.root()), TRY)
                        .await
                        .map(drop)
                        .map_err(anyhow::Error::new)
                };
                good(run, &name, restarted, *min_healthy, *deadline, ends_well).await?;
            }
        }
    }
    run.seen_version = Some(version);
    Ok(())
}

/// Every module of the node is what the release installs; those latched by hand are the operator's word.
async fn installed_files(run: &Run) -> Result<(), Failure> {
    for module in modules_for(&run.attempt.release, run.node.roles()) {
        let job = run.job(module)?;
        let target = &run.attempt.release.version;
        let verdict = run
            .latches()
            .verdict(&module.name, target, &job.artifact.sha256)?;
        if verdict != Verdict::ByHand {
            module::check(&job).await?;
        }
    }
    Ok(())
}

async fn healthy(node: &Node) -> anyhow::Result<()> {
    node.platform
        .call(Verb::Health, &platform::Words::default())
        .await?;
    Ok(())
}

async fn reads_back(node: &Node, expected: &str) -> anyhow::Result<()> {
    let words = platform::Words {
        version: expected.to_owned(),
        ..platform::Words::default()
    };
    match platform::version(node.platform.as_ref(), &words).await? {
        Some(found) if found == expected => Ok(()),
        found => anyhow::bail!(
            "the node runs version {}, expected {expected}",
            found.unwrap_or_else(|| "unknown".into())
        ),
    }
}

async fn answers(url: &str, expected: u16) -> anyhow::Result<()> {
    let found = health::status(url, TRY).await?;
    anyhow::ensure!(
        found == expected,
        "{url} answers with status {found}, expected {expected}"
    );
    Ok(())
}

/// Tries until `check` has been good for `min_healthy`, at most until `deadline` after the restart.
async fn good<F, T>(
    run: &mut Run,
    name: &str,
    restarted: Instant,
    min_healthy: HumanDuration,
    deadline: HumanDuration,
    check: F,
) -> Result<(), Failure>
where
    F: Fn() -> T,
    T: Future<Output = anyhow::Result<()>>,
{
    let deadline_at = restarted + deadline.get();
    let mut good_since: Option<Instant> = None;
    let mut told = false;
    loop {
        match check().await {
            Ok(()) => {
                let since = *good_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= min_healthy.get() {
                    return Ok(());
                }
            }
            Err(error) => {
                good_since = None;
                if Instant::now() >= deadline_at {
                    let error = error.context(format!("the check `{name}` was not good within {deadline}"));
                    return Err(Failure::new(Exit::Failed, error).hint(
                        "look at the service; when it is good, run the same command again: modules that are done are skipped",
                    ));
                }
                if !told {
                    wait_for(run, name, &error);
                    told = true;
                }
            }
        }
        sleep(POLL).await;
    }
}

fn wait_for(run: &mut Run, name: &str, error: &anyhow::Error) {
    let text = terminal::chain(error);
    run.stream.tell(EventKind::Progress {
        step: "verify".into(),
        subject: format!("waiting for {name}: {text}"),
        done: 0,
        total: 0,
    });
}
