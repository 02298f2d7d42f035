//! The network breaks at every request of a run, in every way: the same command ends right, and little is fetched twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt as _,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{
    command,
    cutter::{Cut, Cutter},
    node::TestNode,
    wait,
};

use crate::{
    kill::COMMON,
    report::Report,
    scenario::{self, Scenario},
    site::Site,
    stage::{LONG, State, Visit, said},
};

/// A run that was asked to stop ends within this time, however long a server keeps it waiting.
const SOON: Duration = Duration::from_secs(20);
/// Requests are waited for, and not worked on: several nodes at a time.
const WORKERS: usize = 4;

/// The scenarios whose requests are cut off: all of [`COMMON`], and of the others those of a sort that those before have not.
const CUT: &[&str] = &[COMMON, "self-update", "patch"];

/// A run through relays, undisturbed.
struct Run {
    site: Site,
    scenario: &'static Scenario,
    expected: State,
    /// What was asked for, in order.
    requests: Vec<String>,
    /// Bytes of bodies by path.
    bytes: BTreeMap<String, u64>,
    relays: Vec<Cutter>,
}

impl Run {
    async fn new(scenario: &str) -> Result<Self> {
        let scenario = scenario::named(scenario)?;
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
            requests: relays[0].paths(),
            bytes: relays[0].bytes(),
            site,
            scenario,
            relays,
        })
    }

    /// The sorts of its requests.
    fn sorts(&self) -> BTreeSet<String> {
        self.requests.iter().map(|path| sort(path)).collect()
    }

    /// Cuts every request whose sort is not in `known` in the ways `cuts`.
    fn cut(&self, cuts: &[Cut], known: &BTreeSet<String>) -> Result<()> {
        let name = self.scenario.name;
        let numbered = (1..).zip(&self.requests);
        let jobs: Vec<(u64, Cut)> = numbered
            .filter(|(_, path)| !known.contains(&sort(path)))
            .flat_map(|(at, _)| cuts.iter().map(move |cut| (at, *cut)))
            .collect();
        ensure!(
            !jobs.is_empty(),
            "{name}: no request is cut, so nothing is tested"
        );
        let mut report = Report::new(&format!("{name}-{:?}", cuts[0]), "cut", 0, &[]);
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

/// What sort of request it is: `path` without what is in it of versions, digests and names of artifacts.
fn sort(path: &str) -> String {
    let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let plain = |part: &str| match part.split_once('.') {
        Some((digest, rest)) if is_digest(digest) => rest.to_owned(),
        _ => part.replace(|letter: char| letter.is_ascii_digit(), ""),
    };
    let parts: Vec<String> = path.split('/').map(plain).collect();
    let path = parts.join("/");
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let ends: Vec<&str> = name.rsplit('.').take(2).collect();
    match ends[..] {
        ["json", document] => format!("{folder}/{document}.json"),
        ["zst", _] => format!("{folder}/archive"),
        _ => format!("{folder}/file"),
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
    let run = Run::new(COMMON).await?;
    tokio::task::block_in_place(|| {
        run.cut(
            &[Cut::BeforeHead, Cut::MidHead, Cut::MidBody, Cut::Reset],
            &BTreeSet::new(),
        )
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn r42_the_network_is_gone_from_every_request_on() -> Result<()> {
    let run = Run::new(COMMON).await?;
    tokio::task::block_in_place(|| run.cut(&[Cut::ForGood], &BTreeSet::new()))
}

#[tokio::test(flavor = "multi_thread")]
async fn r42_every_request_hangs_until_the_run_is_asked_to_stop() -> Result<()> {
    let run = Run::new(COMMON).await?;
    tokio::task::block_in_place(|| run.cut(&[Cut::Hang], &BTreeSet::new()))
}

#[tokio::test(flavor = "multi_thread")]
async fn r42_every_request_that_an_upgrade_has_not_is_cut_off_where_it_is() -> Result<()> {
    let mut known = Run::new(COMMON).await?.sorts();
    for name in CUT.iter().filter(|name| **name != COMMON) {
        let run = Run::new(name).await?;
        tokio::task::block_in_place(|| run.cut(&[Cut::BeforeHead, Cut::MidBody, Cut::ForGood], &known))?;
        known.extend(run.sorts());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r42_no_scenario_asks_for_anything_that_is_cut_off_in_none() -> Result<()> {
    let (mut asked, mut cut) = (BTreeMap::new(), BTreeSet::new());
    for scenario in scenario::ALL {
        let site = Site::new(scenario.site).await?;
        let relay = Cutter::start(site.host.address())?;
        let node = node(&site, &relay, "undisturbed")?;
        for call in scenario.calls {
            let output = command::run(node.kato(call.arguments)?, LONG, &[])?;
            let code = output.status.code();
            ensure!(code == call.ends.first().copied(), "{call:?}: {}", said(&output));
        }
        let sorts: BTreeSet<String> = relay.paths().iter().map(|path| sort(path)).collect();
        if CUT.contains(&scenario.name) {
            cut.extend(sorts.iter().cloned());
        }
        asked.insert(scenario.name, sorts);
    }
    for (name, sorts) in asked {
        let forgotten: Vec<_> = sorts.difference(&cut).collect();
        ensure!(
            forgotten.is_empty(),
            "{name}: these requests are cut off in no scenario: {forgotten:?}"
        );
    }
    Ok(())
}

#[test]
fn sorts_have_no_versions_digests_or_names_in_them() {
    let digest = "0a1b".repeat(16);
    assert_eq!(sort("/metadata/12.targets.json"), "/metadata/targets.json");
    let release = format!("/targets/{digest}.releases/2.0.0/release.json");
    assert_eq!(sort(&release), "/targets/releases/../release.json");
    let archive = format!("/targets/{digest}.artifacts/app-2.0.0.tar.zst");
    assert_eq!(sort(&archive), "/targets/artifacts/archive");
    let program = format!("/targets/{digest}.self/upgrader-1.0-x86_64");
    assert_eq!(sort(&program), "/targets/self/file");
}
