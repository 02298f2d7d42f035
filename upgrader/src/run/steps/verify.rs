//! `verify`: the node shows that it runs the release, before anybody says that it does.
//!
//! What is installed is compared with the release file by file; the platform says which version runs; the release's checks
//! must be good before their deadlines, and stay good together (`window`).

mod window;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use kato_shared::{release::Check, settings::HumanDuration};
use tokio::time::{Instant, sleep};

use self::window::{Seen, Window};
use crate::{
    backup,
    exit::{Exit, Failure},
    fetch::health,
    latch::Verdict,
    module,
    ownership::Ownership,
    plan::node::modules_for,
    platform::{self, PlatformError, Verb, Words, process},
    report::terminal,
    run::{
        Run,
        context::Node,
        patience::{self, Wait},
        step::{Acted, Step},
    },
};

/// How often the node is looked at.
const POLL: Duration = Duration::from_millis(500);
/// How long one try of a check may take.
const TRY: Duration = Duration::from_secs(30);
/// After how long a wait for the same is told again.
const TELL_AGAIN: Duration = Duration::from_secs(30);

pub(super) struct Verify;

#[async_trait]
impl Step for Verify {
    fn name(&self) -> String {
        "verify".into()
    }

    fn changes_node(&self) -> bool {
        true
    }

    /// It only looks, and what it starts is started again.
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

/// The node shows that it runs the version that the run leads to: by the platform's word, and by `checks`, all of them good at once
/// for as long as the most demanding of them asks.
///
/// # Errors
/// [`Exit::Failed`] with the check that was not good in time.
pub(super) async fn shows(run: &mut Run, checks: &[Check]) -> Result<(), Failure> {
    let node = Arc::clone(&run.node);
    if let Err(failure) = started(run).await {
        return Err(or_restored(run, failure));
    }
    let version = run.attempt.leads_to().to_string();
    let words = run.words();
    let looks = looks_at(&node, &version, checks);
    let began = Instant::now();
    let mut window = Window::new(
        began,
        looks
            .iter()
            .map(|look| (look.min_healthy.get(), look.deadline.get()))
            .collect(),
    );
    let mut told: Option<(String, Instant)> = None;
    let mut has_answered = false;
    loop {
        let red = first_red(&node, &words, &looks).await;
        has_answered |= red
            .as_ref()
            .is_none_or(|(nth, error)| is_word(&node, &looks[*nth].what, error));
        let verdict = window.judge(red.as_ref().map(|(nth, _)| *nth), Instant::now());
        match (verdict, red) {
            (Seen::Shown, _) => break,
            (Seen::Over, Some((nth, error))) => return Err(over(run, &looks[nth], error, has_answered)),
            (_, Some((nth, error))) => {
                let Look { name, deadline, .. } = &looks[nth];
                let reason = terminal::chain(&error);
                let text = format!("waiting for {name}: {reason}");
                let is_news = told
                    .as_ref()
                    .is_none_or(|(last, when)| *last != text || when.elapsed() >= TELL_AGAIN);
                if is_news {
                    let is_starting = node.patience.limit().is_some() && is_silence(&error);
                    let words = is_starting.then(|| patience::words(&reason, began.elapsed(), *deadline));
                    run.progress("verify", words.unwrap_or_else(|| text.clone()));
                    told = Some((text, Instant::now()));
                }
            }
            (_, None) => told = None,
        }
        sleep(POLL).await;
    }
    run.seen_version = Some(version);
    Ok(())
}

/// What the node was taken out of service with is started again where that stopped it: not every restart is of everything, some
/// releases restart nothing, and not everything comes back with the machine. What does not run cannot show that it is well.
async fn started(run: &mut Run) -> Result<(), Failure> {
    let node = Arc::clone(&run.node);
    if Ownership::load(&node.paths)?.is_none() {
        return Ok(());
    }
    let mut wait = Wait::begin();
    while let Err(error) = node.platform.start().await {
        wait.after(&node, error, &mut |text| run.progress("verify", text))
            .await?;
    }
    Ok(())
}

/// The failure of a look that was not good in time. A platform that has not answered since the machine was restarted is not up yet.
fn over(run: &Run, look: &Look<'_>, error: anyhow::Error, has_answered: bool) -> Failure {
    let patience = &run.node.patience;
    if is_silence(&error) {
        patience.use_up();
    }
    if let Some(limit) = patience.was().filter(|_| !has_answered) {
        let silent = error.downcast().map_or_else(
            |error| Failure::new(Exit::Failed, error),
            |error: PlatformError| error.into(),
        );
        return or_restored(run, patience::in_vain(silent, limit));
    }
    let Look { name, deadline, .. } = look;
    let error = error.context(format!("the check `{name}` was not good within {deadline}"));
    Failure::new(Exit::Failed, error).hint(
        "look at the service; when it is good, run the same command again: modules that are done are skipped",
    )
}

/// Whether what is not good is said by somebody: by the release's checks, or by the platform. Its own commands for health and version are
/// its word, however they end; what an adapter asks may not be up.
fn is_word(node: &Node, what: &What<'_>, error: &anyhow::Error) -> bool {
    let platform = &node.settings.platform;
    let is_own = match what {
        What::Health => platform.health.is_some(),
        What::Version(_) => platform.version.is_some(),
        What::Http(..) | What::Command(_) => true,
    };
    is_own || !is_silence(error)
}

/// The failure of a wait that was in vain, with the way back that an operator may choose: the release itself may be what silenced the
/// platform.
fn or_restored(run: &Run, mut failure: Failure) -> Failure {
    let old = run
        .attempt
        .from
        .as_ref()
        .filter(|_| run.attempt.rollback.is_none());
    if let Some(old) = old.filter(|_| patience::was_in_vain(&failure)) {
        let hint = failure.hint.take().unwrap_or_default();
        failure.hint = Some(format!(
            "{hint}; if it is the release that keeps the platform from answering, `kato node restore {} --skip-drain` gives it up and brings \
             {old} back",
            backup::leads_back(&run.node.paths, &run.attempt.id)
        ));
    }
    failure
}

/// Whether what is not good is that the platform gives no answer.
fn is_silence(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(patience::is_silence)
}

/// The platform says that it runs the version that the run leads to, whatever else is not good.
///
/// # Errors
/// [`Exit::Failed`] when it says something else, or nothing.
pub(super) async fn runs_the_version(run: &mut Run) -> Result<(), Failure> {
    let version = run.attempt.leads_to().to_string();
    if run.node.platform.knows(Verb::Version) {
        let found = reads_back(&run.node, &run.words(), &version).await;
        found.map_err(|error| Failure::new(Exit::Failed, error))?;
    }
    run.seen_version = Some(version);
    Ok(())
}

/// One thing that has to be good.
struct Look<'c> {
    /// What people call it.
    name: String,
    what: What<'c>,
    min_healthy: HumanDuration,
    deadline: HumanDuration,
}

enum What<'c> {
    Health,
    Version(&'c str),
    Http(&'c str, u16),
    Command(&'c [String]),
}

/// What there is to look at, in the order in which it becomes good.
fn looks_at<'c>(node: &Node, version: &'c str, checks: &'c [Check]) -> Vec<Look<'c>> {
    let of_platform = |verb, name: &str, what| {
        node.platform.knows(verb).then(|| Look {
            name: name.to_owned(),
            what,
            min_healthy: HumanDuration::from_secs(0),
            deadline: node.settings.upgrade.settle,
        })
    };
    let mut looks: Vec<Look<'c>> = of_platform(Verb::Health, "health", What::Health)
        .into_iter()
        .collect();
    // Read back whether the release asks for it or not.
    looks.extend(of_platform(
        Verb::Version,
        "version-readback",
        What::Version(version),
    ));
    looks.extend(checks.iter().filter_map(|check| match check {
        Check::VersionReadback => None,
        Check::Http {
            url,
            status,
            min_healthy,
            deadline,
        } => Some(Look {
            name: url.clone(),
            what: What::Http(url, *status),
            min_healthy: *min_healthy,
            deadline: *deadline,
        }),
        Check::Command {
            argv,
            min_healthy,
            deadline,
        } => Some(Look {
            name: argv.join(" "),
            what: What::Command(argv),
            min_healthy: *min_healthy,
            deadline: *deadline,
        }),
    }));
    looks
}

/// Looks at one after the other, until one is not good.
async fn first_red(node: &Node, words: &Words, looks: &[Look<'_>]) -> Option<(usize, anyhow::Error)> {
    for (nth, look) in looks.iter().enumerate() {
        let seen = match look.what {
            What::Health => healthy(node, words).await,
            What::Version(expected) => reads_back(node, words, expected).await,
            What::Http(url, status) => answers(url, status).await,
            What::Command(argv) => process::run(
                &node.children.on("a check of the release"),
                argv,
                Some(node.paths.root()),
                TRY,
            )
            .await
            .map(drop)
            .map_err(anyhow::Error::new),
        };
        if let Err(error) = seen {
            return Some((nth, error));
        }
    }
    None
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

async fn healthy(node: &Node, words: &Words) -> anyhow::Result<()> {
    node.platform.call(Verb::Health, words).await?;
    Ok(())
}

async fn reads_back(node: &Node, words: &Words, expected: &str) -> anyhow::Result<()> {
    match platform::version(node.platform.as_ref(), words).await? {
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
