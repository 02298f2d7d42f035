//! The network breaks at every request of a run, in every way: the same command ends right, and little is fetched twice.

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt as _, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{
    command,
    cutter::{Cut, Cutter},
    node::TestNode,
    wait,
};

use crate::{
    report::Report,
    scenario::{self, Scenario},
    site::Site,
    stage::{LONG, State, Visit, said},
};

/// A run that was asked to stop ends within this time, however long a server keeps it waiting.
const SOON: Duration = Duration::from_secs(20);
/// Requests are waited for, and not worked on: several nodes at a time.
const WORKERS: usize = 4;

/// A run through relays, undisturbed.
struct Run {
    site: Site,
    scenario: &'static Scenario,
    expected: State,
    requests: u64,
    /// Bytes of bodies by path.
    bytes: BTreeMap<String, u64>,
    relays: Vec<Cutter>,
}

impl Run {
    async fn new() -> Result<Self> {
        let scenario = scenario::named("upgrade")?;
        let site = Site::new(scenario.site).await?;
        let mut relays = Vec::new();
        for _worker in 0..WORKERS {
            relays.push(Cutter::start(site.host.address())?);
        }
        let node = node(&site, &relays[0], "undisturbed")?;
        let output = command::run(node.kato(scenario.calls[0].arguments)?, LONG, &[])?;
        ensure!(output.status.success(), "{}", said(&output));
        Ok(Self {
            expected: State::of(&node)?,
            requests: relays[0].requests(),
            bytes: relays[0].bytes(),
            site,
            scenario,
            relays,
        })
    }

    /// Cuts every request in the ways `cuts`.
    fn cut(&self, cuts: &[Cut]) -> Result<()> {
        ensure!(
            self.requests > 5,
            "only {} requests, so nothing is tested",
            self.requests
        );
        let jobs: Vec<(u64, Cut)> = (1..=self.requests)
            .flat_map(|at| cuts.iter().map(move |cut| (at, *cut)))
            .collect();
        let mut report = Report::new(&format!("upgrade-{:?}", cuts[0]), "cut", 0, &[]);
        let results = std::thread::scope(|scope| {
            let work = |worker: usize| {
                let jobs = jobs.iter().skip(worker).step_by(WORKERS);
                jobs.map(|job| (*job, self.one(worker, *job))).collect::<Vec<_>>()
            };
            let workers: Vec<_> = (0..WORKERS)
                .map(|worker| scope.spawn(move || work(worker)))
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap_or_default())
                .collect::<Vec<_>>()
        });
        ensure!(results.len() == jobs.len(), "a worker panicked");
        for ((at, cut), found) in results {
            let found = found.with_context(|| format!("{cut:?} at request {at}"))?;
            let name = format!("{cut:?} request:{at}");
            report.took(&Visit { call: 0, name }, found);
        }
        report.close()
    }

    /// What is wrong after the `at`-th request was cut and the same command was given again.
    fn one(&self, worker: usize, (at, cut): (u64, Cut)) -> Result<Vec<String>> {
        let relay = &self.relays[worker];
        let folder = format!("cut-{worker}");
        let node = node(&self.site, relay, &folder)?;
        relay.arm(at, cut);
        let mut found = Vec::new();
        if cut == Cut::Hang {
            found.extend(self.stopped(&node, relay)?);
        } else {
            let output = command::run(self.call(&node)?, LONG, &[])?;
            match (output.status.code(), cut) {
                // What is cut once is asked for again by the same run.
                (Some(0), cut) if cut != Cut::ForGood => {}
                (Some(75), _) if said(&output).contains("hint: ") => {}
                _ => found.push(format!("ended with {}: {}", output.status, said(&output))),
            }
        }
        relay.heal();
        let output = command::run(self.call(&node)?, LONG, &[])?;
        if !output.status.success() {
            found.push(format!("again: ended with {}: {}", output.status, said(&output)));
        }
        found.extend(State::of(&node)?.differences(&self.expected));
        found.extend(self.fetched_twice(relay, cut));
        std::fs::remove_dir_all(self.site.place(&folder))?;
        Ok(found)
    }

    fn call(&self, node: &TestNode) -> Result<std::process::Command> {
        node.kato(self.scenario.calls[0].arguments)
    }

    /// A run that is asked to stop while a server keeps it waiting.
    fn stopped(&self, node: &TestNode, relay: &Cutter) -> Result<Option<String>> {
        let mut child = self
            .call(node)?
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let hangs = wait::until("a request that hangs", LONG, || {
            let has_ended = child.try_wait().ok().flatten().is_some();
            (relay.is_hanging() || has_ended).then_some(())
        });
        command::ok(&["kill", "-TERM", &child.id().to_string()])?;
        let status = command::end(&mut child, "a run that was asked to stop", SOON)?;
        hangs?;
        let is_right = status.code() == Some(75) && status.signal().is_none();
        Ok((!is_right).then(|| format!("asked to stop, it ended with {status}")))
    }

    /// No artifact is fetched for more than half of it a second time: that is what a cut one had passed on.
    fn fetched_twice(&self, relay: &Cutter, cut: Cut) -> Vec<String> {
        let passed = relay.bytes();
        let artifacts = self.bytes.iter().filter(|(path, _)| path.contains("/artifacts/"));
        artifacts
            .filter_map(|(path, once)| {
                let fetched = passed.get(path).copied().unwrap_or(0);
                (fetched > once + once / 2 + 1)
                    .then(|| format!("{cut:?}: {path} of {once} bytes was fetched with {fetched} bytes"))
            })
            .collect()
    }
}

/// A fresh node that takes releases by way of `relay`.
fn node(site: &Site, relay: &Cutter, folder: &str) -> Result<TestNode> {
    let mut node = site.node.copy_to(&site.place(folder))?;
    node.take_from(&relay.url())?;
    Ok(node)
}

#[tokio::test(flavor = "multi_thread")]
async fn r42_every_request_cut_off_once() -> Result<()> {
    let run = Run::new().await?;
    tokio::task::block_in_place(|| run.cut(&[Cut::BeforeHead, Cut::MidHead, Cut::MidBody, Cut::Reset]))
}

#[tokio::test(flavor = "multi_thread")]
async fn r42_the_network_is_gone_from_every_request_on() -> Result<()> {
    let run = Run::new().await?;
    tokio::task::block_in_place(|| run.cut(&[Cut::ForGood]))
}

#[tokio::test(flavor = "multi_thread")]
async fn r42_every_request_hangs_until_the_run_is_asked_to_stop() -> Result<()> {
    let run = Run::new().await?;
    tokio::task::block_in_place(|| run.cut(&[Cut::Hang]))
}
