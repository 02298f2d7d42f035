//! What is found out and decided before anything is changed, and that it stays decided.

/// Needs root and namespaces.
mod as_root {
    use anyhow::Result;
    use integration_tests::releases::TestRelease;
    use serde_json::Value;

    use crate::site::{KATO, Site, text, verb, wait_event, with_gates};

    fn two() -> TestRelease {
        with_gates(TestRelease::standard("2.0.0").with_payload(2 << 20), &["dea"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r56_a_target_stays_what_it_was_though_a_newer_release_is_published() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        site.hold_at("w1", "module")?;
        let first = site.begin()?;
        site.wait_at("w1", "module")?;
        // SIGKILL.
        drop(first);
        site.repository.publish(&TestRelease::standard("3.0.0")).await?;

        // Whatever is asked for by name is another matter.
        let plan = site.upgrade(&["--plan", "--json", "--version", "3.0.0"])?;
        assert!(text(&plan).contains("\"target\":\"3.0.0\""), "{}", text(&plan));
        let second = site.begin()?;
        let started = wait_event(&second, "cluster_started")?;
        assert_eq!(
            (&started["plan"]["target"], &started["continued"]),
            (&"2.0.0".into(), &true.into())
        );
        site.release("w1", "module")?;
        let finished = wait_event(&second, "cluster_finished")?;
        assert_eq!(finished["exit"], "done", "{finished}");
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])?;

        // What is done binds nobody.
        let plan = site.upgrade(&["--plan", "--json"])?;
        assert_eq!(plan.status.code(), Some(0), "{}", text(&plan));
        assert!(text(&plan).contains("\"target\":\"3.0.0\""), "{}", text(&plan));
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c25_all_findings_of_all_kinds_come_in_one_list_with_remedies() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        let settings = format!("[maintenance]\nauto = \"verify\"\n{}", verb("get"));
        site.append("core", "/etc/kato/kato.toml", &settings)?;
        let script = site.node("core")?.read("/etc/kato/platform.sh")?;
        let script = String::from_utf8(script)?
            .replace("restart) ;;", "restart) ;;\n    get) echo '{\"on\": false}' ;;");
        site.node("core")?
            .put("/etc/kato/platform.sh", script.as_bytes(), 0o755)?;
        site.append(
            "core",
            "/etc/kato/cluster.toml",
            "[preflight]\nmemory = \"1000TiB\"\n",
        )?;
        site.node("c1")?.ok(&["rm", "/etc/sudoers.d/kato"])?;
        // Nobody is at this address: the nodes would have nowhere to download from.
        let refused = site.upgrade(&["--json", "--cache-ip", "10.99.0.240"])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        let said = text(&refused);
        assert!(said.contains("not ready to be upgraded: c1, core, w1"), "{said}");
        let last: Value = serde_json::from_str(
            String::from_utf8(refused.stdout)?
                .lines()
                .last()
                .unwrap_or_default(),
        )?;
        assert_eq!(last["event"], "cluster_refused", "{last}");
        let findings: Vec<&Value> = last["findings"].as_array().into_iter().flatten().collect();
        let has = |node: &str, words: &str| {
            findings.iter().any(|found| {
                found["node"] == node
                    && found["problem"]
                        .as_str()
                        .is_some_and(|problem| problem.contains(words))
            })
        };
        assert!(has("c1", "sudo"), "{last}");
        assert!(
            has("core", "of memory are available") && has("w1", "of memory are available"),
            "{last}"
        );
        assert!(has("core", "maintenance mode is off"), "{last}");
        assert!(
            has("w1", "the cache at 10.99.0.240:3180 cannot be reached from it"),
            "{last}"
        );
        assert!(findings.iter().all(|found| found["remedy"] != ""), "{last}");
        assert!(site.artifact_requests().is_empty());
        site.node("c1")?
            .ok(&["sh", "-c", &format!("{KATO} print-sudoers >/etc/sudoers.d/kato")])?;
        site.ends_with(&["1.0.0", "1.0.0", "1.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c25_what_one_node_would_refuse_in_its_turn_is_found_before_the_first_is_changed() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        // The controllers come behind the worker; both have a mount point where a folder is exchanged.
        for name in ["c1", "core"] {
            let node = site.node(name)?;
            node.ok(&["rm", "-rf", "/s/code/console"])?;
            node.ok(&["mkdir", "/s/code/console"])?;
            node.ok(&["mount", "-t", "tmpfs", "tmpfs", "/s/code/console"])?;
        }
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        let said = text(&refused);
        for name in ["c1", "core"] {
            assert!(said.contains(&format!("{name} failed at preflight: ")), "{said}");
        }
        assert!(
            said.contains("this call has changed nothing on any node"),
            "{said}"
        );
        for name in ["core", "c1", "w1"] {
            assert_eq!(site.upgrades_of(name)?.len(), 1, "{name} was touched");
        }
        site.ends_with(&["1.0.0", "1.0.0", "1.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c03_a_kato_that_does_not_know_tokens_is_refused_by_name() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        let w1 = site.node("w1")?;
        let program = w1.ok(&["readlink", "-f", KATO])?;
        w1.ok(&["rm", KATO])?;
        // As an older one answers.
        let script = format!(
            "#!/bin/sh\nfor word; do\n    test \"$word\" != --fence || {{ echo \"error: unexpected argument '--fence' found\" >&2; exit 2; }}\ndone\nexec {} \"$@\"\n",
            program.trim()
        );
        w1.put(KATO, script.as_bytes(), 0o755)?;
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        let said = text(&refused);
        assert!(
            said.contains("w1: its kato") && said.contains("is older than Core's"),
            "{said}"
        );
        assert!(said.contains("--update-kato"), "{said}");
        site.ends_with(&["1.0.0", "1.0.0", "1.0.0"])
    }
}
