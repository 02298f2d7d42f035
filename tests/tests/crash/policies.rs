//! SIGKILL while the policies without a folder of their own are at work, forward and back.
//!
//! The packages are real ones in the node's own root, so these tests need root.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use integration_tests::{
    command,
    node::TestNode,
    releases::{Repository, TestModule, TestRelease},
    static_server::StaticServer,
};
use kato_shared::{Digest, durable};

use crate::{kato::killed, stage::LONG};

/// The places of these policies, forward and back.
pub(crate) const POLICIES: &[&str] = &[
    "package.configured",
    "package.installed",
    "image.pulled",
    "image.tagged",
    "exec.acted",
    "undo.acted",
];

const MIGRATE: &str = r#"#!/bin/sh
set -eu
case $1 in
    up) echo "$KATO_VERSION" > "$KATO_ROOT/s/schema" ;;
    down) echo "$KATO_FROM" > "$KATO_ROOT/s/schema" ;;
    is) test "$(cat "$KATO_ROOT/s/schema")" = "$KATO_VERSION" ;;
esac
"#;

struct Site {
    folder: tempfile::TempDir,
    node: TestNode,
    _host: StaticServer,
}

fn package(folder: &std::path::Path, version: &str) -> Result<TestModule> {
    let tree = folder.join(format!("tree-{version}"));
    durable::create_folder(&tree.join("DEBIAN"))?;
    durable::create_folder(&tree.join("usr/share"))?;
    let control = format!(
        "Package: lab-tool\nVersion: {version}\nArchitecture: all\nMaintainer: Lab <lab@lab.example>\nDescription: a package of the lab\n"
    );
    durable::write(&tree.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    durable::write(&tree.join("usr/share/lab-tool"), version.as_bytes(), 0o644)?;
    let name = format!("lab-tool_{version}_all.deb");
    let file = folder.join(&name);
    let (from, to) = (tree.display().to_string(), file.display().to_string());
    command::ok(&["dpkg-deb", "--root-owner-group", "--build", &from, &to])?;
    let install = format!("policy = \"package\"\npackages = [\"lab-tool={version}\"]");
    Ok(TestModule::new("tools", &install, &[]).with_file(&name, fs::read(file)?, 0o644))
}

fn release(folder: &std::path::Path, version: &str) -> Result<TestRelease> {
    let mut release = TestRelease::standard(version);
    release.head = "restart = \"services\"\n".into();
    release.modules.push(package(folder, version)?);
    let digest = Digest::of(version.as_bytes());
    let image = format!(
        "policy = \"image\"\n[[module.install.images]]\nname = \"hub.example/lab/app\"\ndigest = \"{digest}\"\nsize = 1000\ntag = \"live\""
    );
    release.modules.push(TestModule::new("images", &image, &[]));
    let exec = "policy = \"exec\"\ncmd = [\"./migrate\", \"up\"]\nprobe = [\"./migrate\", \"is\"]\nundo = [\"./migrate\", \"down\"]";
    release
        .modules
        .push(TestModule::new("database", exec, &[]).with_file("migrate", MIGRATE.into(), 0o755));
    Ok(release)
}

impl Site {
    async fn new(tail: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let repository = Repository::empty(folder.path()).await?;
        repository.publish(&release(folder.path(), "1.0.0")?).await?;
        let mut two = release(folder.path(), "2.0.0")?;
        two.tail.push_str(tail);
        repository.publish(&two).await?;
        let host = StaticServer::start(&repository.dir()).await?;
        let place = folder.path().join("node");
        let mut node = TestNode::new(&place, &["controller"], &host.url(), &repository.root())?;
        node.with_runtime("podman")?;
        for below in ["info", "updates", "triggers", "parts"] {
            durable::create_folder(&node.path("var/lib/dpkg").join(below))?;
        }
        node.put("var/lib/dpkg/status", "")?;
        node.put("s/schema", "none\n")?;
        node.upgrade_ends(0, &["--version", "1.0.0"])?;
        Ok(Self {
            folder,
            node,
            _host: host,
        })
    }

    fn copy(&self, name: &str) -> Result<TestNode> {
        self.node.copy_to(&self.folder.path().join(name))
    }
}

/// Everything of the three policies on the node: package, tag, schema.
fn state(node: &TestNode) -> Result<Vec<Option<String>>> {
    let admin = format!("--admindir={}", node.path("var/lib/dpkg").display());
    let format = "--showformat=${Package} ${Version} ${db:Status-Status}";
    Ok(vec![
        Some(command::ok(&["dpkg-query", &admin, "--show", format])?),
        node.text("usr/share/lab-tool"),
        node.image("hub.example/lab/app:live"),
        node.text("s/schema"),
    ])
}

fn expected(version: &str) -> Vec<Option<String>> {
    vec![
        Some(format!("lab-tool {version} installed")),
        Some(version.to_owned()),
        Some(Digest::of(version.as_bytes()).to_string()),
        Some(format!("{version}\n")),
    ]
}

/// The visits of our places in an undisturbed run that ends with `code`.
fn visits(site: &Site, code: i32, version: &str) -> Result<Vec<String>> {
    let node = site.copy("undisturbed")?;
    let trace = site.folder.path().join("trace");
    let mut kato = node.kato(&["node", "upgrade", "--skip-confirmation"])?;
    kato.env("KATO_KILL_TRACE", &trace);
    let output = command::run(kato, LONG, &[])?;
    ensure!(
        output.status.code() == Some(code),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(state(&node)? == expected(version), "{:?}", state(&node)?);
    let visits = fs::read_to_string(&trace).context("no trace was written")?;
    let is_ours = |visit: &&str| {
        visit
            .split(':')
            .next()
            .is_some_and(|place| POLICIES.contains(&place))
    };
    Ok(visits.lines().filter(is_ours).map(str::to_owned).collect())
}

fn kill_at_each(site: &Site, visits: &[String], code: i32, version: &str) -> Result<()> {
    for visit in visits {
        let node = site.copy("killed")?;
        killed(&node, visit)?;
        node.upgrade_ends(code, &[])
            .with_context(|| format!("killed at {visit}"))?;
        ensure!(state(&node)? == expected(version), "{visit}: {:?}", state(&node)?);
        let left = node.leftovers()?;
        ensure!(left.is_empty(), "{visit}: left over: {left:?}");
        fs::remove_dir_all(site.folder.path().join("killed"))?;
    }
    Ok(())
}

/// Needs root: dpkg does.
mod as_root {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn r57_killed_while_packages_images_and_commands_are_installed() -> Result<()> {
        let site = Site::new("").await?;
        let visits = visits(&site, 0, "2.0.0")?;
        for place in POLICIES.iter().filter(|place| **place != "undo.acted") {
            ensure!(
                visits.iter().any(|visit| visit.starts_with(place)),
                "no run comes by `{place}`"
            );
        }
        kill_at_each(&site, &visits, 0, "2.0.0")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c23_killed_while_packages_images_and_commands_are_taken_back() -> Result<()> {
        let check =
            "[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n";
        let site = Site::new(check).await?;
        let visits = visits(&site, 22, "1.0.0")?;
        let back: Vec<_> = visits
            .into_iter()
            .filter(|visit| visit.starts_with("undo.acted"))
            .collect();
        ensure!(back.len() == 3, "{back:?}");
        kill_at_each(&site, &back, 22, "1.0.0")
    }
}
