//! A node at 1.0.0, a repository beside it, and patches to publish there.

use std::{fmt::Write as _, path::PathBuf, process::Output, time::Duration};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{
    command,
    node::TestNode,
    releases::{Repository, TestModule, TestRelease},
    static_server::StaticServer,
};
use kato_shared::{clock::Clock, durable};
use kato_upgrader::publish::{self, BuildOptions, Lifetimes, PublishError};
use serde_json::Value;

pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A patch to publish.
pub(crate) struct TestPatch {
    pub(crate) id: u32,
    pub(crate) name: &'static str,
    /// What it changes.
    pub(crate) release: TestRelease,
    /// More keys of `[patch]`.
    pub(crate) keys: String,
    /// Modules that take it back: name and content of `/s/etc/app.conf`.
    pub(crate) revert: Option<(&'static str, &'static str)>,
}

impl TestPatch {
    /// A patch of 1.0.0 with `modules`.
    pub(crate) fn new(id: u32, name: &'static str, modules: Vec<TestModule>) -> Self {
        let mut release = TestRelease::standard("1.0.0");
        release.modules = modules;
        release.head = "kind = \"patch\"\n".into();
        Self {
            id,
            name,
            release,
            keys: String::new(),
            revert: None,
        }
    }

    /// A patch that puts `files` into `/s/etc`, file by file.
    pub(crate) fn of_etc(id: u32, name: &'static str, files: &[(&str, &str)]) -> Self {
        let module = TestModule::new("etc-fix", "policy = \"overlay\"\ndest = \"/s/etc\"", files);
        Self::new(id, name, vec![module])
    }

    /// The same patch with more keys of `[patch]`.
    pub(crate) fn with(mut self, keys: &str) -> Self {
        self.keys.push_str(keys);
        self
    }

    /// The same patch with more tables of its description.
    pub(crate) fn with_tail(mut self, tail: &str) -> Self {
        self.release.tail.push_str(tail);
        self
    }
}

/// Everything that a test of patches needs.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) repository: Repository,
    pub(crate) host: StaticServer,
    pub(crate) node: TestNode,
}

impl Site {
    /// A node that has 1.0.0 with the roles `controller` and `dea`; `releases` and `patches` are published.
    pub(crate) async fn with(releases: &[TestRelease], patches: &[TestPatch]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let repository = Repository::empty(folder.path()).await?;
        repository.publish(&TestRelease::standard("1.0.0")).await?;
        let host = StaticServer::start(&repository.dir()).await?;
        let node = TestNode::new(
            &folder.path().join("node"),
            &["controller", "dea"],
            &host.url(),
            &repository.root(),
        )?;
        node.upgrade_ends(0, &[])?;
        let site = Self {
            folder,
            repository,
            host,
            node,
        };
        for release in releases {
            site.repository.publish(release).await?;
        }
        for patch in patches {
            site.publish(patch).await?;
        }
        site.host.reset();
        Ok(site)
    }

    /// Publishes a patch.
    pub(crate) async fn publish(&self, patch: &TestPatch) -> Result<(), PublishError> {
        let build = self.build(patch).expect("a description can be written")?;
        let (now, lifetimes) = (Clock::system().now(), Lifetimes::default());
        let (dir, keys) = (self.repository.dir(), self.repository.keys());
        publish::sign(&build, &dir, &keys, lifetimes, now).await?;
        publish::publish(&build, &dir, &keys, lifetimes, now).await?;
        Ok(())
    }

    /// Writes a patch's description and builds it.
    fn build(&self, patch: &TestPatch) -> Result<Result<PathBuf, PublishError>> {
        let label = format!("{}-{}", patch.id, patch.name);
        let description = self.folder.path().join(format!("patch-description-{label}"));
        let build = self.folder.path().join(format!("patch-build-{label}"));
        let mut release = patch.release.clone();
        write!(
            release.tail,
            "\n[patch]\nid = {}\nname = \"{}\"\nsummary = \"mends {}\"\nseverity = \"required\"\n{}",
            patch.id, patch.name, patch.name, patch.keys
        )?;
        if let Some((name, content)) = patch.revert {
            let folder = description.join(name);
            durable::create_folder(&folder)?;
            durable::write(&folder.join("app.conf"), content.as_bytes(), 0o644)?;
            write!(
                release.tail,
                "\n[[patch.revert]]\nname = \"{name}\"\n[patch.revert.install]\npolicy = \"overlay\"\ndest = \"/s/etc\"\n"
            )?;
        }
        release.describe(&description)?;
        let options = BuildOptions {
            upgraders: Vec::new(),
            level: 1,
        };
        Ok(publish::build(&description, &build, &options, Clock::system().now()).map(|_built| build))
    }

    /// `kato patch <arguments>` on the node.
    pub(crate) fn patch(&self, arguments: &[&str]) -> Result<Output> {
        patch(&self.node, arguments)
    }

    /// [`Site::patch`] with `--local` that must end with `code`; gives what it wrote to stderr.
    pub(crate) fn ends(&self, code: i32, arguments: &[&str]) -> Result<String> {
        ends(&self.node, code, arguments)
    }

    /// `kato patch status --local --json`.
    pub(crate) fn status(&self) -> Result<Value> {
        let output = self.patch(&["status", "--local", "--json"])?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
    }

    /// The states of all patches in the status, e.g. `one=installed two=outstanding`.
    pub(crate) fn states(&self) -> Result<String> {
        states(&self.status()?)
    }

    /// The content of `/s/etc/app.conf`.
    pub(crate) fn conf(&self) -> String {
        self.node.text("s/etc/app.conf").unwrap_or_default()
    }
}

/// The states of the patches in a status document.
pub(crate) fn states(status: &Value) -> Result<String> {
    let patches = status["patches"].as_array().context("patches")?;
    let words: Vec<_> = patches
        .iter()
        .map(|patch| {
            format!(
                "{}={}",
                patch["name"].as_str().unwrap_or("?"),
                patch["state"].as_str().unwrap_or("?")
            )
        })
        .collect();
    Ok(words.join(" "))
}

pub(crate) fn patch(node: &TestNode, arguments: &[&str]) -> Result<Output> {
    let mut kato = node.kato(&["patch"])?;
    kato.args(arguments);
    command::run(kato, LONG, &[])
}

pub(crate) fn ends(node: &TestNode, code: i32, arguments: &[&str]) -> Result<String> {
    let mut all = arguments.to_vec();
    all.push("--local");
    let output = patch(node, &all)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(code),
        "kato patch {all:?} ended with {}, expected {code}; it wrote:\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(said)
}
