//! What can break, broken in each step of a worker's upgrade: its network, the orchestrator on Core, its power.

/// Needs root and namespaces.
mod as_root {
    use std::time::Duration;

    use anyhow::{Result, ensure};
    use integration_tests::{lab::Background, releases::TestRelease, wait};

    use crate::site::{CLUSTER, KATO, Site, text, verb, wait_event, with_gates};

    /// The verbs of the platform that an upgrade of the worker comes to, one in each step that changes something, in their order.
    const GATES: [&str; 5] = ["retire", "module", "restart", "check", "rejoin"];

    /// How long a run that is told to go on or to end may take to be seen doing so.
    const SOON: Duration = Duration::from_secs(60);

    fn two() -> TestRelease {
        with_gates(
            TestRelease::standard("2.0.0").with_payload(8 << 20),
            &["dea", "primary"],
        )
    }

    async fn site() -> Result<Site> {
        let site = Site::at_one(&[two()]).await?;
        site.append("w1", "/etc/kato/kato.toml", &verb("capacity"))?;
        site.has_capacity("w1", 0, 1)?;
        Ok(site)
    }

    /// Waits until the worker fetches for the run that `run` leads.
    fn wait_staging(run: &Background) -> Result<()> {
        loop {
            let started = wait_event(run, "node_started")?;
            ensure!(started["goal"] == "stage", "{started}");
            if started["node"] == "w1" {
                return Ok(());
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c21_the_network_of_a_node_may_be_cut_in_any_step() -> Result<()> {
        let site = site().await?;
        let w1 = site.node("w1")?;

        // While it is looked at: nothing is changed anywhere.
        site.hold_at("w1", "capacity")?;
        let mut run = site.begin()?;
        site.wait_at("w1", "capacity")?;
        w1.cut()?;
        let ended = run.ended(SOON)?;
        assert_eq!(ended.code(), Some(20), "{}", run.log());
        assert!(
            run.log().contains("not ready to be upgraded: w1"),
            "{}",
            run.log()
        );
        w1.heal()?;
        site.release("w1", "capacity")?;
        site.ends_with(&["1.0.0", "1.0.0", "1.0.0"])?;
        assert!(site.artifact_requests().is_empty());

        // From then on it is called again, and its work goes on.
        for gate in GATES {
            site.hold_at("w1", gate)?;
        }
        let run = site.begin()?;
        wait_staging(&run)?;
        w1.cut()?;
        wait_event(&run, "node_lost")?;
        w1.heal()?;
        wait_event(&run, "node_back")?;
        for gate in GATES {
            site.wait_at("w1", gate)?;
            w1.cut()?;
            assert_eq!(wait_event(&run, "node_lost")?["node"], "w1", "{gate}");
            w1.heal()?;
            assert_eq!(wait_event(&run, "node_back")?["node"], "w1", "{gate}");
            site.release("w1", gate)?;
        }
        let finished = wait_event(&run, "cluster_finished")?;
        assert_eq!(finished["exit"], "done", "{finished}");
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])?;
        assert_eq!(site.upgrades_of("w1")?.len(), 2, "one for 1.0.0, one for 2.0.0");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r56_the_orchestrator_may_be_killed_in_any_step() -> Result<()> {
        let site = site().await?;
        site.hold_at("w1", "capacity")?;
        for gate in GATES {
            site.hold_at("w1", gate)?;
        }
        site.hold_at("core", "module")?;
        // Dropping one kills it.
        let looking = site.begin()?;
        site.wait_at("w1", "capacity")?;
        drop(looking);
        site.release("w1", "capacity")?;
        let staging = site.begin()?;
        wait_staging(&staging)?;
        drop(staging);

        let mut run = site.begin()?;
        for gate in GATES {
            site.wait_at("w1", gate)?;
            let begun = site.status("w1")?["run"].clone();
            drop(run);
            run = site.begin()?;
            let attached = wait_event(&run, "node_attached")?;
            assert_eq!(attached["run"], begun, "{gate}");
            site.release("w1", gate)?;
        }
        // Core's own run is no part of the orchestrator either.
        site.wait_at("core", "module")?;
        drop(run);
        let run = site.begin()?;
        assert_eq!(wait_event(&run, "node_attached")?["node"], "core");
        site.release("core", "module")?;
        let finished = wait_event(&run, "cluster_finished")?;
        assert_eq!(finished["exit"], "done", "{finished}");
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])?;
        for name in ["core", "c1", "w1"] {
            assert_eq!(
                site.upgrades_of(name)?.len(),
                2,
                "{name}: one for 1.0.0, one for 2.0.0"
            );
        }
        let requests = site.artifact_requests();
        assert!(requests.values().all(|count| *count == 1), "{requests:?}");
        Ok(())
    }

    /// Takes the power from `node` while its upgrade stands still at `gate`, and gives it back; the next upgrade stands still at
    /// `next`.
    fn power_loss(site: &Site, node: &str, gate: &str, next: Option<&str>) -> Result<()> {
        site.wait_at(node, gate)?;
        site.node(node)?.crash()?;
        site.node(node)?.boot()?;
        if let Some(next) = next {
            site.hold_at(node, next)?;
        }
        site.release(node, gate)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r56_the_power_of_a_node_may_fail_in_any_step() -> Result<()> {
        let site = site().await?;
        site.hold_at("w1", "retire")?;
        let mut run = site.begin()?;
        // Once is an accident: it is resumed. Twice is none: a person should look, nothing else is touched, and it is said.
        power_loss(&site, "w1", "retire", Some("module"))?;
        assert_eq!(wait_event(&run, "node_interrupted")?["node"], "w1");
        power_loss(&site, "w1", "module", Some("restart"))?;
        let finished = wait_event(&run, "cluster_finished")?;
        assert_ne!(finished["exit"], "done", "{finished}");
        assert_ne!(run.ended(SOON)?.code(), Some(0));
        assert!(run.log().contains("killed again"), "{}", run.log());
        assert_eq!(site.versions()?, ["1.0.0", "1.0.0", "1.0.0"]);
        for name in ["core", "c1"] {
            assert_eq!(site.upgrades_of(name)?.len(), 1, "{name} was touched");
        }
        // It says itself that it is neither done nor in service.
        let left = site.status("w1")?;
        assert_eq!(
            (&left["state"], &left["out_of_service"]),
            (&"interrupted".into(), &true.into())
        );

        // The same command brings it home, through two more.
        let run = site.begin()?;
        power_loss(&site, "w1", "restart", Some("check"))?;
        assert_eq!(wait_event(&run, "node_interrupted")?["node"], "w1");
        site.wait_at("w1", "check")?;
        site.release("w1", "check")?;
        // Core's own power, in the middle of Core's own upgrade.
        site.hold_at("core", "module")?;
        power_loss(&site, "core", "module", None)?;
        drop(run);
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c24_a_node_that_stays_away_stops_the_rollout_and_is_brought_home_later() -> Result<()> {
        let site = site().await?;
        let (core, w1) = (site.node("core")?, site.node("w1")?);
        core.ok(&[
            "sed",
            "-i",
            "s/^\\[ssh\\]/[ssh]\\npatience = \"5s\"/",
            "/etc/kato/cluster.toml",
        ])?;
        site.hold_at("w1", "module")?;
        let mut run = site.begin()?;
        site.wait_at("w1", "module")?;
        w1.crash()?;
        let finished = wait_event(&run, "cluster_finished")?;
        assert_eq!(finished["exit"], "try_again", "{finished}");
        assert_eq!(run.ended(SOON)?.code(), Some(75), "{}", run.log());
        let outcomes: Vec<_> = finished["nodes"].as_array().into_iter().flatten().collect();
        let outcome = |id: &str| {
            outcomes
                .iter()
                .find(|node| node["node"] == id)
                .map(|node| &node["outcome"])
        };
        assert_eq!(outcome("w1"), Some(&"failed".into()), "{finished}");
        assert_eq!(outcome("core"), Some(&"not_reached".into()), "{finished}");
        // What cannot be asked is not left out of the status.
        let told = core.exec(&[KATO, "status"])?;
        assert!(text(&told).contains("w1"), "{}", text(&told));
        // And a second try does not hang on it.
        let refused = core.exec_within(SOON, &CLUSTER, &[])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));

        w1.boot()?;
        site.release("w1", "module")?;
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])
    }

    /// How the connection that all commands to a node share calls itself.
    const MASTER: &str = "^ssh .*ServerAliveCountMax";

    /// Sends SIGKILL to every process of `node` whose command line matches `pattern`; how many there were.
    fn kill_all(site: &Site, node: &str, pattern: &str) -> Result<usize> {
        // A node has process numbers of its own: nothing outside of it can match.
        let found = site.node(node)?.exec(&["pgrep", "-f", pattern])?;
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        let numbers: Vec<&str> = found.lines().collect();
        for number in &numbers {
            site.node(node)?.exec(&["kill", "-KILL", number])?;
        }
        Ok(numbers.len())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c21_ssh_may_die_on_either_side_in_the_middle_of_a_module() -> Result<()> {
        let site = site().await?;
        site.hold_at("w1", "module")?;
        let run = site.begin()?;
        site.wait_at("w1", "module")?;
        let begun = site.status("w1")?["run"].clone();
        // The session on the node; then the connection on Core, which is a new one by then.
        for (node, pattern) in [("w1", "^sshd: stackato"), ("core", MASTER)] {
            wait::until("a process to kill", SOON, || {
                kill_all(&site, node, pattern)
                    .is_ok_and(|count| count > 0)
                    .then_some(())
            })?;
            wait::until("a new connection", SOON, || {
                let masters = site.node("core").ok()?.exec(&["pgrep", "-f", MASTER]).ok()?;
                masters.status.success().then_some(())
            })?;
            let status = site.status("w1")?;
            assert_eq!(
                (&status["run"], &status["state"]),
                (&begun, &"running".into()),
                "{status}"
            );
        }
        site.release("w1", "module")?;
        let finished = wait_event(&run, "cluster_finished")?;
        assert_eq!(finished["exit"], "done", "{finished}");
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])?;
        assert_eq!(site.upgrades_of("w1")?.len(), 2, "one for 1.0.0, one for 2.0.0");
        Ok(())
    }
}
