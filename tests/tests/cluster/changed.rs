//! What an operator wanted of a rollout, and what a node was about, outlive a change of the rules, a damaged plan and a failed way back.

/// Needs root and namespaces.
mod as_root {
    use std::time::Duration;

    use anyhow::{Result, ensure};
    use integration_tests::releases::TestRelease;

    use crate::site::{KATO, Site, text, verb, wait_event, with_gates};

    const SOON: Duration = Duration::from_secs(60);
    const PLAN: &str = "/var/stackato/upgrade/state/plan.json";

    fn two() -> TestRelease {
        with_gates(TestRelease::standard("2.0.0").with_payload(1 << 20), &["dea"])
    }

    /// The worker is done, the rollout is paused, and its orchestrator is killed.
    fn paused_behind_the_worker(site: &Site) -> Result<()> {
        site.hold_at("w1", "module")?;
        let run = site.begin()?;
        site.wait_at("w1", "module")?;
        site.node("core")?
            .ok(&[KATO, "cluster", "pause", "--reason", "stop the line"])?;
        site.release("w1", "module")?;
        wait_event(&run, "cluster_paused")?;
        // SIGKILL.
        drop(run);
        site.ends_with(&["1.0.0", "1.0.0", "2.0.0"])
    }

    /// The upgrade ends with `code` and says all of `expected`.
    fn refused(site: &Site, code: i32, expected: &[&str]) -> Result<()> {
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(code), "{}", text(&refused));
        for expected in expected {
            assert!(text(&refused).contains(expected), "{}", text(&refused));
        }
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c24_a_pause_holds_when_the_rules_change_and_a_damaged_plan_is_not_taken_for_none() -> Result<()>
    {
        let site = Site::at_one(&[two()]).await?;
        paused_behind_the_worker(&site)?;
        let core = site.node("core")?;

        let plan = core.ok(&["cat", PLAN])?;
        for damaged in ["", &plan[..plan.len() / 2]] {
            core.put(PLAN, damaged.as_bytes(), 0o644)?;
            refused(&site, 27, &[PLAN, "--version"])?;
        }
        core.put(PLAN, plan.as_bytes(), 0o644)?;
        site.ends_with(&["1.0.0", "1.0.0", "2.0.0"])?;

        site.append(
            "core",
            "/etc/kato/cluster.toml",
            "[rollout.role.controller]\nmax_in_flight = 2\n",
        )?;
        refused(
            &site,
            20,
            &["(stop the line)", "`kato cluster resume`", "kato cluster abort"],
        )?;
        site.ends_with(&["1.0.0", "1.0.0", "2.0.0"])?;
        core.ok(&[KATO, "cluster", "resume"])?;
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        site.ends_with(&["2.0.0"; 3])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c01_c23_a_way_back_that_failed_is_finished_from_core() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        let health = format!("{}\n[upgrade]\nsettle = \"1s\"\n", verb("health"));
        site.append("w1", "/etc/kato/kato.toml", &health)?;
        site.hold_at("w1", "module")?;
        let mut run = site.begin()?;
        site.wait_at("w1", "module")?;
        let worker = site.node("w1")?;
        worker.put("/var/platform/sick", b"", 0o644)?;
        site.release("w1", "module")?;
        let failed = wait_event(&run, "node_failed")?;
        assert_eq!(failed["node"], "w1", "{failed}");
        assert_eq!(run.ended(SOON)?.code(), Some(23), "{}", run.log());
        ensure!(site.status("w1")?["state"] == "failed", "{}", site.status("w1")?);

        // What was wrong with it is put right, and nobody logs in there.
        worker.ok(&["rm", "/var/platform/sick"])?;
        let back = site.upgrade(&[])?;
        assert_eq!(back.status.code(), Some(22), "{}", text(&back));
        site.ends_with(&["1.0.0"; 3])?;
        for name in ["core", "c1"] {
            ensure!(site.upgrades_of(name)?.len() == 1, "{name} was touched");
        }
        let done = site.upgrade(&["--force"])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        site.ends_with(&["2.0.0"; 3])
    }
}
