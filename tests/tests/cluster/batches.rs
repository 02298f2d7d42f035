//! Canaries, soak, batches and `min_available` with four workers, through kills and pauses in between.

/// Needs root and namespaces.
mod as_root {
    use std::time::Duration;

    use anyhow::{Result, ensure};
    use integration_tests::{lab::Background, releases::TestRelease};
    use serde_json::{Value, json};

    use crate::site::{KATO, Machine, Site, text, verb, wait_event, with_gates};

    const SOON: Duration = Duration::from_secs(60);

    const FIVE: [Machine; 5] = [
        ("core", &["primary"], None),
        ("w1", &["dea"], None),
        ("w2", &["dea"], None),
        ("w3", &["dea"], None),
        ("w4", &["dea"], None),
    ];

    const RULES: &str =
        "[rollout.role.dea]\ncanaries = 1\nmax_in_flight = 3\nmin_available = 2\nsoak = \"4s\"\n";

    async fn site() -> Result<Site> {
        let two = with_gates(TestRelease::standard("2.0.0").with_payload(1 << 20), &["dea"]);
        let site = Site::of(&FIVE, &[two]).await?;
        site.append("core", "/etc/kato/cluster.toml", RULES)?;
        site.append("w1", "/etc/kato/kato.toml", &verb("health"))?;
        Ok(site)
    }

    /// The next batch.
    fn batch(run: &Background) -> Result<Value> {
        Ok(wait_event(run, "batch_started")?["nodes"].clone())
    }

    /// Whether the platform of a worker says that it is out of service.
    fn is_retired(site: &Site, name: &str) -> Result<bool> {
        site.node(name)?.exists("/var/platform/retired")
    }

    /// The canary goes alone, and what becomes of it in its soak counts.
    fn a_canary_that_falls_ill(site: &Site) -> Result<()> {
        let mut run = site.begin()?;
        assert_eq!(batch(&run)?, json!(["w1"]));
        assert_eq!(wait_event(&run, "soak_started")?["nodes"], json!(["w1"]));
        site.node("w1")?.put("/var/platform/sick", b"", 0o644)?;
        let failed = wait_event(&run, "node_failed")?;
        assert_eq!(
            (&failed["node"], &failed["error"]["step"]),
            (&"w1".into(), &"soak".into())
        );
        assert_ne!(wait_event(&run, "cluster_finished")?["exit"], "done");
        ensure!(!run.ended(SOON)?.success(), "{}", run.log());
        for name in ["w2", "w3", "w4", "core"] {
            ensure!(site.upgrades_of(name)?.len() == 1, "{name} was touched");
        }
        site.node("w1")?.ok(&["rm", "/var/platform/sick"])?;
        site.ends_with(&["1.0.0", "2.0.0", "1.0.0", "1.0.0", "1.0.0"])
    }

    /// Three may be out, two must stay: two go together, both out of service before the first is empty. The orchestrator is
    /// paused and then killed in their soak.
    fn two_at_once_then_killed_in_the_soak(site: &Site) -> Result<()> {
        for name in ["w2", "w3"] {
            site.hold_at(name, "module")?;
        }
        // The work of one of them takes its time to leave: the other is out of service all the same.
        site.node("w2")?.put("/var/platform/units", b"1\n", 0o644)?;
        let run = site.begin()?;
        assert_eq!(batch(&run)?, json!(["w2", "w3"]));
        site.wait_at("w3", "module")?;
        ensure!(
            site.status("w2")?["step"] == "retire",
            "w2 did not wait for its work"
        );
        for (name, is_out) in [("w1", false), ("w2", true), ("w3", true), ("w4", false)] {
            assert_eq!(is_retired(site, name)?, is_out, "{name}");
        }
        site.node("w2")?.put("/var/platform/units", b"0\n", 0o644)?;
        site.wait_at("w2", "module")?;
        site.node("core")?.ok(&[KATO, "cluster", "pause"])?;
        for name in ["w2", "w3"] {
            site.release(name, "module")?;
        }
        assert_eq!(wait_event(&run, "soak_started")?["nodes"], json!(["w2", "w3"]));
        // SIGKILL.
        drop(run);
        site.ends_with(&["1.0.0", "2.0.0", "2.0.0", "2.0.0", "1.0.0"])
    }

    /// The pause outlives the orchestrator, and so does an abort in the middle of the last worker's upgrade.
    fn paused_resumed_and_given_up(site: &Site) -> Result<()> {
        let mut run = site.begin()?;
        assert_eq!(wait_event(&run, "cluster_started")?["continued"], true);
        wait_event(&run, "cluster_paused")?;
        ensure!(
            site.upgrades_of("w4")?.len() == 1,
            "w4 was touched during the pause"
        );
        site.hold_at("w4", "module")?;
        site.node("core")?.ok(&[KATO, "cluster", "resume"])?;
        assert_eq!(batch(&run)?, json!(["w4"]));
        site.wait_at("w4", "module")?;
        let given_up = site
            .node("core")?
            .exec(&[KATO, "cluster", "abort", "--reason", "enough"])?;
        assert_eq!(given_up.status.code(), Some(0), "{}", text(&given_up));
        site.release("w4", "module")?;
        assert_eq!(wait_event(&run, "cluster_finished")?["exit"], "partial");
        assert_eq!(run.ended(SOON)?.code(), Some(24), "{}", run.log());
        ensure!(site.upgrades_of("core")?.len() == 1, "Core was touched");
        site.ends_with(&["1.0.0", "2.0.0", "2.0.0", "2.0.0", "2.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c24_canaries_soaks_and_batches_are_kept_through_illness_pause_kill_and_abort() -> Result<()> {
        let site = site().await?;
        a_canary_that_falls_ill(&site)?;
        two_at_once_then_killed_in_the_soak(&site)?;
        paused_resumed_and_given_up(&site)?;
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        for (name, ..) in FIVE {
            assert_eq!(site.upgrades_of(name)?.len(), 2, "{name} was done twice");
        }
        site.ends_with(&["2.0.0"; 5])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c07_r22_a_dead_worker_that_is_left_out_holds_nobody_back_where_there_is_room() -> Result<()> {
        let two = with_gates(TestRelease::standard("2.0.0").with_payload(1 << 20), &["dea"]);
        let site = Site::of(&FIVE[..4], &[two]).await?;
        for (name, used) in [("w1", 60), ("w2", 60), ("w3", 60)] {
            site.append(name, "/etc/kato/kato.toml", &verb("capacity"))?;
            site.has_capacity(name, used, 40)?;
        }
        site.node("w3")?.crash()?;
        // What leaves one of the two has only the other.
        let refused = site.upgrade(&["--exclude", "w3"])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        let expected = "what leaves w1 is 60, and the others have room for 40: 20 short";
        assert!(text(&refused).contains(expected), "{}", text(&refused));
        assert!(
            !text(&refused).contains("cannot go out of service"),
            "{}",
            text(&refused)
        );

        for name in ["w1", "w2"] {
            site.has_capacity(name, 40, 60)?;
        }
        let done = site.upgrade(&["--exclude", "w3"])?;
        let said = text(&done);
        assert_eq!(done.status.code(), Some(0), "{said}");
        assert!(
            said.contains("only room for their work is asked for: dea (w3 does not answer)"),
            "{said}"
        );
        site.node("w3")?.boot()?;
        site.ends_with(&["1.0.0", "2.0.0", "2.0.0", "1.0.0"])
    }
}
