//! What is found out and decided before anything is changed, and that it stays decided.

/// Needs root and namespaces.
mod as_root {
    use anyhow::Result;
    use integration_tests::releases::TestRelease;
    use serde_json::Value;

    use crate::site::{KATO, PATIENCE, Site, text, verb, wait_event, with_gates};

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
    async fn r68_resume_goes_on_with_the_plan_that_was_begun_and_with_nothing_else() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        let resume = |more: &[&str]| {
            // Nobody is at a terminal, and nobody needs to be: what was begun was said yes to.
            let words = [KATO, "node", "upgrade", "--cluster", "--resume"];
            let words: Vec<&str> = words.iter().chain(more).copied().collect();
            site.node("core")?.exec_within(PATIENCE, &words, &[])
        };
        let nothing = resume(&[])?;
        assert_eq!(nothing.status.code(), Some(0), "{}", text(&nothing));
        assert!(
            text(&nothing).contains("there is no interrupted upgrade of the cluster to resume"),
            "{}",
            text(&nothing)
        );
        let contradiction = resume(&["--only", "w1"])?;
        assert_eq!(contradiction.status.code(), Some(2), "{}", text(&contradiction));

        site.hold_at("w1", "module")?;
        let first = site.node("core")?.spawn(&[
            KATO,
            "node",
            "upgrade",
            "--cluster",
            "--skip-confirmation",
            "--only",
            "controller,dea",
            "--role-order",
            "dea,controller",
        ])?;
        site.wait_at("w1", "module")?;
        // SIGKILL.
        drop(first);
        site.repository.publish(&TestRelease::standard("3.0.0")).await?;

        let plan = resume(&["--plan", "--json"])?;
        assert_eq!(plan.status.code(), Some(0), "{}", text(&plan));
        let plan: Value = serde_json::from_slice(&plan.stdout)?;
        assert_eq!(
            (&plan["target"], &plan["nodes"][2]["action"]),
            (&"2.0.0".into(), &"left_out".into()),
            "{plan}"
        );

        site.release("w1", "module")?;
        let done = resume(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        assert!(text(&done).contains("continuing plan"), "{}", text(&done));
        site.ends_with(&["1.0.0", "2.0.0", "2.0.0"])?;
        assert_eq!(site.upgrades_of("w1")?.len(), 2, "one for 1.0.0, one for 2.0.0");

        // It is done, and the newer release is nobody's plan.
        let again = resume(&[])?;
        assert_eq!(again.status.code(), Some(0), "{}", text(&again));
        assert!(text(&again).contains("nothing to do"), "{}", text(&again));
        site.ends_with(&["1.0.0", "2.0.0", "2.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c25_a_kato_that_hangs_is_named_as_such_and_ssh_is_not_to_blame() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        let w1 = site.node("w1")?;
        let program = w1.ok(&["readlink", "-f", KATO])?;
        w1.ok(&["rm", KATO])?;
        w1.put(KATO, b"#!/bin/sh\nexec tail -f /dev/null\n", 0o755)?;
        site.node("c1")?.cut()?;
        let refused = site.upgrade(&["--plan"])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        let said = text(&refused);
        assert!(
            said.contains("w1: the node is reached, and `sudo -n /home/stackato/bin/kato "),
            "{said}"
        );
        assert!(
            said.contains("gave no answer within 30s") && said.contains("the connection is fine"),
            "{said}"
        );
        assert!(said.contains("c1: no connection to c1"), "{said}");
        w1.ok(&["ln", "-sf", program.trim(), KATO])?;
        site.node("c1")?.heal()?;
        site.node("c1")?.wait_reachable()?;
        site.ends_with(&["1.0.0", "1.0.0", "1.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r22_a_plan_says_whose_room_for_work_could_not_be_judged() -> Result<()> {
        // The platform of these machines has no `capacity`.
        let site = Site::at_one(&[two()]).await?;
        let plan = site.upgrade(&["--plan"])?;
        assert_eq!(plan.status.code(), Some(0), "{}", text(&plan));
        assert!(
            text(&plan).contains("warning: w1: whether their work has room elsewhere could not be judged"),
            "{}",
            text(&plan)
        );
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
            "[preflight]\nmemory = \"64TiB\"\n",
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
