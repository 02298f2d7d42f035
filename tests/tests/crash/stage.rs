//! A scenario on its site: the node before each call, how the node is when nobody disturbs it, and what was passed on the way.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{
    command,
    node::{TestNode, names},
};
use kato_shared::Digest;
use kato_upgrader::module::tree::{self, Entry, Kind};

use crate::{
    scenario::{Call, Scenario},
    site::Site,
};

pub(crate) const LONG: Duration = Duration::from_secs(120);

/// The link of `kato`, below a node's root.
const KATO: &str = "home/stackato/bin/kato";

/// A visit of a place: in the call `call`, the line `<place>:<n>` of its trace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Visit {
    pub(crate) call: usize,
    pub(crate) name: String,
}

impl Visit {
    /// The place, without the number of the visit.
    pub(crate) fn place(&self) -> &str {
        self.name.rsplit_once(':').map_or(&self.name, |(place, _)| place)
    }
}

/// Everything of a node that must be the same whatever happened on the way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    product: Vec<Entry>,
    /// The permission bits of the product's folders, which its entries do not have.
    folders: BTreeMap<PathBuf, u32>,
    /// What was saved of local changes, without the name of the backup, which has the time in it.
    saved: Vec<String>,
    installed: Option<String>,
    /// What the platform says that it runs.
    running: Option<String>,
    is_out_of_service: bool,
    /// The documents of the node's state.
    documents: Vec<String>,
    /// The program that the link of `kato` leads to.
    kato: Option<Digest>,
    /// What was changed outside of the product's files: packages, images, patches.
    elsewhere: BTreeMap<String, String>,
    leftovers: Vec<PathBuf>,
}

impl State {
    pub(crate) fn of(node: &TestNode) -> Result<Self> {
        let mut product = node.product()?;
        // Which of the two slots the link leads to depends on which one was free; what counts is the program.
        product.retain(|entry| entry.path != Path::new(KATO) || !leads_to_a_slot(entry));
        let folders = modes(node, &product)?;
        for entry in &mut product {
            entry.path = without_id(&entry.path);
        }
        Ok(Self {
            product,
            folders,
            saved: saved(node)?,
            installed: node.installed(),
            running: node.text("platform/running"),
            is_out_of_service: node.path("platform/retired").exists(),
            documents: names(&node.state("state")),
            kato: tree::digest(&node.path(KATO)).ok(),
            elsewhere: elsewhere(node)?,
            leftovers: left_over(node)?,
        })
    }

    /// Where `self` differs from what is expected, a line each.
    pub(crate) fn differences(&self, expected: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let extra = self
            .product
            .iter()
            .filter(|entry| !expected.product.contains(entry));
        found.extend(extra.map(|entry| format!("has {entry:?}")));
        let missing = expected
            .product
            .iter()
            .filter(|entry| !self.product.contains(entry));
        found.extend(missing.map(|entry| format!("lacks {entry:?}")));
        let mut differs = |what: &str, one: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| {
            let (one, other) = (format!("{one:?}"), format!("{other:?}"));
            if one != other {
                found.push(format!("{what}: {one}, expected {other}"));
            }
        };
        differs("modes of folders", &self.folders, &expected.folders);
        differs("saved", &self.saved, &expected.saved);
        differs("installed", &self.installed, &expected.installed);
        differs("running", &self.running, &expected.running);
        differs(
            "out of service",
            &self.is_out_of_service,
            &expected.is_out_of_service,
        );
        differs("documents", &self.documents, &expected.documents);
        differs("kato", &self.kato, &expected.kato);
        differs("elsewhere", &self.elsewhere, &expected.elsewhere);
        differs("left over", &self.leftovers, &expected.leftovers);
        found
    }
}

/// A scenario on its site.
pub(crate) struct Stage {
    pub(crate) scenario: &'static Scenario,
    pub(crate) site: Site,
    /// The node before each call.
    before: Vec<TestNode>,
    pub(crate) expected: State,
    /// All visits of the undisturbed calls, in their order.
    pub(crate) visits: Vec<Visit>,
}

impl Stage {
    /// Goes through `scenario` once, undisturbed.
    pub(crate) async fn set(scenario: &'static Scenario) -> Result<Self> {
        let site = Site::new(scenario.site).await?;
        let node = site.node.copy_to(&site.place("undisturbed"))?;
        let (mut before, mut visits) = (Vec::new(), Vec::new());
        for (number, call) in scenario.calls.iter().enumerate() {
            before.push(node.copy_to(&site.place(&format!("before-{number}")))?);
            let trace = site.place(&format!("trace-{number}"));
            let mut kato = node.kato(call.arguments)?;
            kato.env("KATO_KILL_TRACE", &trace);
            let output = command::run(kato, LONG, &[])?;
            ensure!(
                output.status.code() == call.ends.first().copied(),
                "{call:?} ended with {}: {}",
                output.status,
                said(&output)
            );
            let trace = fs::read_to_string(&trace).context(
                "no trace was written: `kato` must be built with its feature `test-util` (cargo build --workspace --all-features)",
            )?;
            let visit = |name: &str| Visit {
                call: number,
                name: name.to_owned(),
            };
            if number >= scenario.from {
                visits.extend(trace.lines().map(visit));
            }
        }
        let expected = State::of(&node)?;
        ensure!(
            expected.installed.as_deref() == Some(scenario.version)
                && !expected.is_out_of_service
                && expected.leftovers.iter().all(|left| is_download(left)),
            "{}: {expected:?}",
            scenario.name
        );
        Ok(Self {
            scenario,
            site,
            before,
            expected,
            visits,
        })
    }

    /// A fresh node as it is before the call `number`.
    pub(crate) fn node_before(&self, number: usize, folder: &str) -> Result<TestNode> {
        let copied = if self.scenario.from > 0 { 0 } else { number };
        let before = self.before.get(copied).context("a call of the scenario")?;
        let node = before.copy_to(&self.site.place(folder))?;
        // Notes of what was changed are about the place where a node is: what comes before is done there.
        for call in &self.scenario.calls[copied..number] {
            let output = command::run(node.kato(call.arguments)?, LONG, &[])?;
            ensure!(
                may_end(call, &output),
                "{call:?} ended with {}: {}",
                output.status,
                said(&output)
            );
        }
        Ok(node)
    }

    /// The call `number` on `node`, not started yet.
    pub(crate) fn call(&self, node: &TestNode, number: usize) -> Result<Command> {
        node.kato(self.scenario.calls[number].arguments)
    }

    /// The call `number` again, and those after it, to the end; then where the node differs.
    pub(crate) fn again(&self, node: &TestNode, number: usize) -> Result<Vec<String>> {
        for call in &self.scenario.calls[number..] {
            let output = command::run(node.kato(call.arguments)?, LONG, &[])?;
            if !may_end(call, &output) {
                return Ok(vec![format!(
                    "{call:?} again ended with {}: {}",
                    output.status,
                    said(&output)
                )]);
            }
        }
        Ok(State::of(node)?.differences(&self.expected))
    }

    /// Removes a node that was made for one test.
    pub(crate) fn done_with(&self, folder: &str) -> Result<()> {
        Ok(fs::remove_dir_all(self.site.place(folder))?)
    }
}

fn may_end(call: &Call, output: &Output) -> bool {
    output.status.code().is_some_and(|code| call.ends.contains(&code))
}

/// What a run wrote to stderr.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn modes(node: &TestNode, product: &[Entry]) -> Result<BTreeMap<PathBuf, u32>> {
    let folders = product.iter().filter(|entry| entry.kind.is_folder());
    let mode = |entry: &Entry| {
        let metadata = fs::metadata(node.root().join(&entry.path))?;
        Ok((without_id(&entry.path), metadata.permissions().mode() & 0o7777))
    };
    folders.map(mode).collect()
}

fn saved(node: &TestNode) -> Result<Vec<String>> {
    let below = |path: &PathBuf| {
        let below: PathBuf = path.components().skip(1).collect();
        let content = fs::read_to_string(node.state("backup").join(path)).unwrap_or_default();
        format!("{}: {content}", Path::new(&below).display())
    };
    Ok(node.saved()?.iter().map(below).collect())
}

/// Packages, images and patches of the node, by name.
fn elsewhere(node: &TestNode) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let images = node.path("platform/images");
    for name in names(&images) {
        found.insert(format!("image {name}"), fs::read_to_string(images.join(&name))?);
    }
    for package in node.text("var/lib/dpkg/status").unwrap_or_default().split("\n\n") {
        let field = |name: &str| {
            package
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default()
        };
        if !package.trim().is_empty() {
            let state = format!("{} {}", field("Version: "), field("Status: "));
            found.insert(format!("package {}", field("Package: ")), state);
        }
    }
    let output = command::run(node.kato(&["patch", "status", "--local", "--json"])?, LONG, &[])?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    for patch in status["patches"].as_array().into_iter().flatten() {
        found.insert(format!("patch {}", patch["name"]), patch["state"].to_string());
    }
    Ok(found)
}

/// `….saved-<id>`, which a person has to look at, without the id: it has the time in it.
fn without_id(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    match text.split_once(".saved-") {
        Some((name, _id)) => PathBuf::from(format!("{name}.saved")),
        None => path.to_owned(),
    }
}

fn leads_to_a_slot(entry: &Entry) -> bool {
    matches!(&entry.kind, Kind::Link { to } if to.ends_with("upgrade/bin/a/kato") || to.ends_with("upgrade/bin/b/kato"))
}

/// What is left over, below the node's root.
fn left_over(node: &TestNode) -> Result<Vec<PathBuf>> {
    let root = node.root();
    let below = |path: PathBuf| path.strip_prefix(&root).map_or(path.clone(), Path::to_owned);
    // What a killed run left of a note of the audit log is removed by the next record, and not every run has one.
    let is_of_audit = |path: &Path| {
        path.parent()
            .is_some_and(|folder| folder.ends_with("upgrade/audit"))
    };
    let left = node.leftovers()?.into_iter().map(below);
    Ok(left.filter(|path| !is_of_audit(path)).collect())
}

/// Downloads stay where no upgrade followed that would have used them.
fn is_download(path: &Path) -> bool {
    path.parent()
        .is_some_and(|folder| folder.ends_with("upgrade/staging"))
}
