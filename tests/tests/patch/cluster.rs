//! Patches of a cluster, from Core: two nodes of one machine, each with its own root.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use integration_tests::{binaries, command, node::TestNode};
use kato_shared::durable;
use serde_json::Value;

use crate::site::{LONG, Site, TestPatch, patch, states};

/// Core and a worker at 1.0.0.
struct Cluster {
    site: Site,
    core: TestNode,
    worker: TestNode,
}

impl Cluster {
    async fn new(patches: &[TestPatch]) -> Result<Self> {
        let site = Site::with(&[], patches).await?;
        let node = |name: &str, role: &str| -> Result<TestNode> {
            let (url, root) = (site.host.url(), site.repository.root());
            let node = TestNode::new(&site.folder.path().join(name), &[role], &url, &root)?;
            let settings =
                std::fs::read_to_string(node.config())?.replace("id = \"n1\"", &format!("id = \"{name}\""));
            durable::write(&node.config(), settings.as_bytes(), 0o644)?;
            node.upgrade_ends(0, &[])?;
            Ok(node)
        };
        let (core, worker) = (node("core", "primary")?, node("w1", "dea")?);
        let program = binaries::built("kato")?;
        let mut inventory = "[cluster]\nname = \"pair\"\n[ssh]\nsudo = false\n".to_owned();
        for (id, role, node) in [("core", "primary", &core), ("w1", "dea", &worker)] {
            write!(
                inventory,
                "[[node]]\nid = \"{id}\"\naddress = \"127.0.0.1\"\nroles = [\"{role}\"]\ntransport = \"local\"\nkato = \"{}\"\nconfig = \"{}\"\n",
                program.display(),
                node.config().display()
            )?;
        }
        for node in [&core, &worker] {
            durable::write(
                &node.config().with_file_name("cluster.toml"),
                inventory.as_bytes(),
                0o644,
            )?;
        }
        Ok(Self { site, core, worker })
    }

    fn on_core(&self, code: i32, arguments: &[&str]) -> Result<(String, String)> {
        let output = patch(&self.core, arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?}: {}\n{said}\n{printed}",
            output.status
        );
        Ok((said, printed))
    }

    fn states(&self) -> Result<Vec<String>> {
        let (_, printed) = self.on_core(0, &["status", "--json"])?;
        let status: Value = serde_json::from_str(&printed)?;
        let nodes = status["nodes"].as_array().context("nodes")?;
        nodes
            .iter()
            .map(|node| {
                Ok(format!(
                    "{}: {}",
                    node["node"].as_str().unwrap_or("?"),
                    states(&node["answer"])?
                ))
            })
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_from_core_every_node_is_patched_in_role_order_and_one_alone_by_its_name() -> Result<()> {
    let patches = [
        TestPatch::of_etc(1, "one", &[("app.conf", "one\n")]),
        TestPatch::of_etc(2, "two", &[("two.conf", "two\n")]),
    ];
    let cluster = Cluster::new(&patches).await?;
    let (said, printed) = cluster.on_core(0, &["install", "one"])?;
    assert_eq!(
        printed.split_whitespace().collect::<Vec<_>>(),
        ["w1", "done", "core", "done"],
        "{said}"
    );
    assert_eq!(
        cluster.states()?,
        [
            "w1: one=installed two=outstanding",
            "core: one=installed two=outstanding"
        ]
    );
    cluster.on_core(0, &["install", "--node", "w1"])?;
    assert_eq!(
        cluster.states()?,
        [
            "w1: one=installed two=installed",
            "core: one=installed two=outstanding"
        ]
    );
    cluster.on_core(0, &["revert", "one"])?;
    assert_eq!(
        cluster.states()?,
        [
            "w1: one=outstanding two=installed",
            "core: one=outstanding two=outstanding"
        ]
    );
    cluster.on_core(0, &["mark", "-i", "one", "-n", "core"])?;
    let (_, printed) = cluster.on_core(0, &["status"])?;
    assert!(
        printed.contains("w1:\n  1 update available") && printed.contains("marked as installed"),
        "{printed}"
    );
    // Elsewhere: not without saying that only this node is meant.
    let output = patch(&cluster.worker, &["install"])?;
    assert_eq!(output.status.code(), Some(20));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`core` at 127.0.0.1"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_after_the_first_failure_no_further_node_is_touched() -> Result<()> {
    let check = "[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n";
    let patch_of_etc = TestPatch::of_etc(1, "one", &[("app.conf", "one\n")]).with_tail(check);
    let cluster = Cluster::new(&[patch_of_etc]).await?;
    cluster.core.put("healthy", "")?;
    let (said, printed) = cluster.on_core(22, &["install"])?;
    assert!(
        said.contains("w1 failed at verify") && said.contains("no further node was touched"),
        "{said}"
    );
    assert!(printed.contains("not reached"), "{printed}");
    assert_eq!(
        cluster.states()?,
        ["w1: one=rolled-back", "core: one=outstanding"]
    );
    cluster.worker.put("healthy", "")?;
    cluster.on_core(0, &["install", "one"])?;
    assert_eq!(cluster.states()?, ["w1: one=installed", "core: one=installed"]);
    // The whole cluster, though one node was done before.
    let mut kato = cluster.core.kato(&["patch", "install", "--json"])?;
    kato.env("LANG", "C");
    let output = command::run(kato, LONG, &[])?;
    ensure!(output.status.success(), "{output:?}");
    drop(cluster.site);
    Ok(())
}
