//! Patches of one node, from Core over ssh: installed there and nowhere else, reported, and refused where nothing can be done.

/// Needs root and namespaces.
mod as_root {
    use std::process::Output;

    use anyhow::{Context as _, Result};
    use integration_tests::releases::{TestModule, TestRelease};
    use kato_shared::clock::Clock;
    use kato_upgrader::publish::{self, BuildOptions, Lifetimes};
    use serde_json::Value;

    use crate::site::{KATO, PATIENCE, Site, text};

    /// Publishes the required patch `one` of 1.0.0, which puts `app.conf` into `/s/etc`.
    async fn publish_one(site: &Site) -> Result<()> {
        let mut patch = TestRelease::standard("1.0.0");
        let files = [("app.conf", "mended\n")];
        patch.modules = vec![TestModule::new(
            "etc-fix",
            "policy = \"overlay\"\ndest = \"/s/etc\"",
            &files,
        )];
        patch.head = "kind = \"patch\"\n".into();
        patch.tail =
            "[patch]\nid = 1\nname = \"one\"\nsummary = \"mends it\"\nseverity = \"required\"\n".into();
        let (description, build) = (
            site.lab.folder().join("patch"),
            site.lab.folder().join("patch-build"),
        );
        patch.describe(&description)?;
        let options = BuildOptions {
            upgraders: Vec::new(),
            level: 1,
        };
        let (now, lifetimes) = (Clock::system().now(), Lifetimes::default());
        publish::build(&description, &build, &options, now)?;
        let (dir, keys) = (site.repository.dir(), site.repository.keys());
        publish::sign(&build, &dir, &keys, lifetimes, now).await?;
        publish::publish(&build, &dir, &keys, lifetimes, now).await?;
        Ok(())
    }

    /// `kato patch <words>` on Core.
    fn patch(site: &Site, words: &[&str]) -> Result<Output> {
        let argv: Vec<&str> = [KATO, "patch"].iter().chain(words).copied().collect();
        site.node("core")?.exec_within(PATIENCE, &argv, &[])
    }

    /// Every node by Core's word, with the state of the patch there.
    fn states(site: &Site) -> Result<Vec<String>> {
        let output = patch(site, &["status", "--json"])?;
        let status: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
        let nodes = status["nodes"].as_array().context("no nodes")?;
        let state = |node: &Value| {
            let patch = &node["answer"]["patches"][0];
            format!(
                "{} {}={}",
                node["node"].as_str().unwrap_or("?"),
                patch["name"].as_str().unwrap_or("?"),
                patch["state"].as_str().unwrap_or("?")
            )
        };
        Ok(nodes.iter().map(state).collect())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r70_one_node_is_patched_over_ssh_and_no_other() -> Result<()> {
        let site = Site::at_one(&[]).await?;
        publish_one(&site).await?;
        let outstanding = ["w1 one=outstanding", "c1 one=outstanding", "core one=outstanding"];
        assert_eq!(states(&site)?, outstanding);
        let unknown = patch(&site, &["install", "one", "--node", "w9"])?;
        assert_eq!(unknown.status.code(), Some(2), "{}", text(&unknown));
        assert!(text(&unknown).contains("the nodes are"), "{}", text(&unknown));

        let done = patch(&site, &["install", "one", "--node", "w1"])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        let printed = String::from_utf8_lossy(&done.stdout);
        assert_eq!(printed.split_whitespace().collect::<Vec<_>>(), ["w1", "done"]);
        assert_eq!(site.node("w1")?.read("/s/etc/app.conf")?, b"mended\n");
        for other in ["c1", "core"] {
            let there = site.node(other)?.read("/s/etc/app.conf").unwrap_or_default();
            assert_ne!(there, b"mended\n", "{other}");
        }
        assert_eq!(
            states(&site)?,
            ["w1 one=installed", "c1 one=outstanding", "core one=outstanding"]
        );
        let status = patch(&site, &["status", "--node", "w1", "--all"])?;
        let said = text(&status);
        assert_eq!(status.status.code(), Some(0), "{said}");
        assert!(
            said.contains("w1:") && said.contains("installed") && !said.contains("c1:"),
            "{said}"
        );
        // It was taken out of service for it, and put back.
        site.ends_with(&["1.0.0", "1.0.0", "1.0.0"])?;

        // Once more: there is nothing to do, and the node is left alone.
        let again = patch(&site, &["install", "--node", "w1"])?;
        assert_eq!(again.status.code(), Some(0), "{}", text(&again));
        assert_eq!(site.upgrades_of("w1")?.len(), 2);

        // A node that cannot be reached is named, and nothing is changed on it.
        site.node("c1")?
            .ok(&["rm", "/home/stackato/.ssh/authorized_keys"])?;
        let refused = patch(&site, &["install", "one", "--node", "c1"])?;
        assert_ne!(refused.status.code(), Some(0), "{}", text(&refused));
        assert!(text(&refused).contains("c1"), "{}", text(&refused));
        assert_ne!(
            site.node("c1")?.read("/s/etc/app.conf").unwrap_or_default(),
            b"mended\n"
        );
        Ok(())
    }
}
