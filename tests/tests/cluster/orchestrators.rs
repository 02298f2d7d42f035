//! Two orchestrators, and orchestrators that stop, die or lose their power: who may change the cluster.

/// Needs root and namespaces.
mod as_root {
    use std::time::Duration;

    use anyhow::{Context as _, Result, ensure};
    use integration_tests::{releases::TestRelease, wait};
    use serde_json::Value;

    use crate::site::{self, Site, text, wait_event};

    /// Longer than the lease of the lab's inventory.
    const SILENCE: Duration = Duration::from_secs(30);

    fn two() -> TestRelease {
        TestRelease::standard("2.0.0").with_payload(2 << 20)
    }

    /// The lock of the cluster, as `kato lock show` on Core tells it.
    fn lock(site: &Site) -> Result<Value> {
        let said = site.node("core")?.ok(&[site::KATO, "lock", "show", "--json"])?;
        let said: Value = serde_json::from_str(&said)?;
        let locks = said["locks"].as_array().context("no locks")?;
        let cluster = locks.iter().find(|lock| lock["name"] == "cluster");
        cluster.cloned().context("no lock of the cluster")
    }

    fn token(lock: &Value) -> Result<u64> {
        lock["lease"]["token"].as_u64().context("no token")
    }

    fn signal(site: &Site, signal: &str, pid: u64) -> Result<()> {
        site.node("core")?
            .ok(&["kill", signal, &pid.to_string()])
            .map(drop)
    }

    /// Whatever the orchestrator with `token` asks a node, it is refused there, on Core as well.
    fn refused_everywhere(site: &Site, token: u64) -> Result<()> {
        let stale = token.to_string();
        for name in ["core", "c1", "w1"] {
            let words = [site::KATO, "--fence", &stale, "node", "retire"];
            let refused = site.node(name)?.exec(&words)?;
            assert_eq!(refused.status.code(), Some(25), "{name}: {}", text(&refused));
            assert!(
                text(&refused).contains("another orchestrator has taken over"),
                "{name}: {}",
                text(&refused)
            );
        }
        Ok(())
    }

    const BREAK: [&str; 6] = [site::KATO, "lock", "break", "--cluster", "--reason", "it hangs"];

    #[tokio::test(flavor = "multi_thread")]
    async fn c03_an_orchestrator_that_wakes_up_after_another_took_over_is_refused_by_every_node() -> Result<()>
    {
        let site = Site::at_one(&[two()]).await?;
        site.hold_worker()?;
        let first = site.begin()?;
        site.wait_held()?;
        let old = lock(&site)?;
        let pid = old["holder"]["pid"].as_u64().context("no pid")?;
        assert_eq!(old["lease"]["standing"]["is"], "at-work", "{old}");

        // At work it is not robbed.
        let robbed = site.node("core")?.exec(&BREAK)?;
        assert_eq!(robbed.status.code(), Some(25), "{}", text(&robbed));

        signal(&site, "-STOP", pid)?;
        wait::until("the first orchestrator counts as silent", SILENCE, || {
            (lock(&site).ok()?["lease"]["standing"]["is"] == "silent").then_some(())
        })?;
        // Silence alone opens nothing, and says what does.
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(25), "{}", text(&refused));
        assert!(
            text(&refused).contains("kato lock break --cluster --reason"),
            "{}",
            text(&refused)
        );
        let broken = site.node("core")?.exec(&BREAK)?;
        assert_eq!(broken.status.code(), Some(0), "{}", text(&broken));

        let second = site.begin()?;
        assert_eq!(wait_event(&second, "node_attached")?["node"], "w1");
        let new = lock(&site)?;
        ensure!(token(&new)? > token(&old)?, "{new} after {old}");

        refused_everywhere(&site, token(&old)?)?;
        signal(&site, "-CONT", pid)?;
        // What started it was stopped with it and does not wait for it: it stays a zombie.
        let status = format!("/proc/{pid}/status");
        wait::until("the end of the first orchestrator", SILENCE, || {
            let there = site
                .node("core")
                .ok()?
                .exec(&["grep", "-q", "^State:[[:space:]]*[RSDTtI]", &status])
                .ok()?;
            (!there.status.success()).then_some(())
        })?;
        let said = first.log();
        assert!(
            said.contains("the lock of the cluster was broken")
                || said.contains("another orchestrator has taken over"),
            "{said}"
        );

        site.release_worker()?;
        let finished = wait_event(&second, "cluster_finished")?;
        assert_eq!(finished["exit"], "done", "{finished}");
        assert_eq!(site.versions()?, ["2.0.0", "2.0.0", "2.0.0"]);
        for name in ["core", "c1", "w1"] {
            assert_eq!(
                site.upgrades_of(name)?.len(),
                2,
                "{name}: one for 1.0.0, one for 2.0.0"
            );
            assert_eq!(site.status(name)?["out_of_service"], false, "{name}");
        }
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c03_a_lock_that_a_power_loss_left_holds_nobody_back() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        site.hold_worker()?;
        let first = site.begin()?;
        site.wait_held()?;
        let old = token(&lock(&site)?)?;
        site.node("core")?.crash()?;
        drop(first);
        site.node("core")?.boot()?;
        assert_eq!(lock(&site)?["held"], false);

        let second = site.begin()?;
        assert_eq!(wait_event(&second, "node_attached")?["node"], "w1");
        ensure!(token(&lock(&site)?)? > old);
        site.release_worker()?;
        let finished = wait_event(&second, "cluster_finished")?;
        assert_eq!(finished["exit"], "done", "{finished}");
        assert_eq!(site.versions()?, ["2.0.0", "2.0.0", "2.0.0"]);
        assert_eq!(site.status("w1")?["out_of_service"], false);
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c03_a_clock_that_is_an_hour_off_neither_opens_a_lock_nor_makes_a_token_smaller() -> Result<()> {
        let site = Site::at_one(&[]).await?;
        // What an orchestrator an hour in the future left behind.
        let ahead = kato_shared::clock::Clock::system().now().as_second() + 3600;
        for name in ["core", "w1"] {
            let words = [
                site::KATO,
                "--fence",
                &ahead.to_string(),
                "node",
                "upgrade",
                "--status",
            ];
            site.node(name)?.ok(&words)?;
        }
        // Core does not know of it: the nodes refuse, nothing is changed, and it is said why.
        let refused = site.upgrade(&["--force"])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        let said = text(&refused);
        assert!(said.contains("w1: another orchestrator has taken over"), "{said}");
        assert!(said.contains("Core's clock"), "{said}");
        assert_eq!(site.upgrades_of("w1")?.len(), 1, "only 1.0.0");
        Ok(())
    }
}
