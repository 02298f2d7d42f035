//! Machines and platforms that do not do what an upgrade needs: full, busy for ever, sick after a restart, late by an hour. Each test
//! ends with a look at every node.

/// Needs root and namespaces.
mod as_root {
    use std::time::Duration;

    use anyhow::{Result, ensure};
    use integration_tests::releases::TestRelease;

    use crate::site::{KATO, Machine, Site, text, verb, wait_event, with_gates};

    const SOON: Duration = Duration::from_secs(60);

    fn two() -> TestRelease {
        with_gates(TestRelease::standard("2.0.0").with_payload(2 << 20), &["dea"])
    }

    /// Nobody but the worker was touched, and nothing is left behind.
    fn untouched(site: &Site) -> Result<()> {
        for name in ["core", "c1"] {
            ensure!(site.upgrades_of(name)?.len() == 1, "{name} was touched");
        }
        site.ends_with(&["1.0.0", "1.0.0", "1.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r22_a_full_worker_is_refused_and_of_two_orchestrators_one_works() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        site.append("w1", "/etc/kato/kato.toml", &verb("capacity"))?;
        site.has_capacity("w1", 60, 40)?;
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        assert!(
            text(&refused).contains("what leaves w1 is 60, and the others have room for 0: 60 short"),
            "{}",
            text(&refused)
        );
        assert!(site.artifact_requests().is_empty());
        assert_eq!(site.upgrades_of("w1")?.len(), 1);
        untouched(&site)?;

        // With room, and two operators who noticed it in the same moment.
        site.has_capacity("w1", 0, 100)?;
        site.hold_at("w1", "module")?;
        let mut both = [site.begin()?, site.begin()?];
        site.wait_at("w1", "module")?;
        let refused = integration_tests::wait::until("the end of one of them", SOON, || {
            both.iter_mut()
                .position(|run| matches!(run.ended(Duration::ZERO), Ok(status) if status.code() == Some(25)))
        })?;
        let said = both[refused].log();
        assert!(said.contains("lock"), "{said}");
        site.release("w1", "module")?;
        let finished = wait_event(&both[1 - refused], "cluster_finished")?;
        assert_eq!(finished["exit"], "done", "{finished}");
        for name in ["core", "c1", "w1"] {
            assert_eq!(
                site.upgrades_of(name)?.len(),
                2,
                "{name}: one for 1.0.0, one for 2.0.0"
            );
        }
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c01_a_drain_that_never_ends_leaves_the_worker_in_service() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        site.append(
            "w1",
            "/etc/kato/kato.toml",
            "[upgrade]\nretire_timeout = \"3s\"\n",
        )?;
        site.hold_worker()?;
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        assert!(
            text(&refused).contains("w1 failed at retire"),
            "{}",
            text(&refused)
        );
        untouched(&site)?;
        // It was taken out of service, and put back at once.
        assert_eq!(site.status("w1")?["state"], "failed");

        site.release_worker()?;
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c23_a_node_that_restarts_into_failure_goes_back_and_is_not_tried_for_ever() -> Result<()> {
        let mut release = two();
        release.head = "restart = \"reboot\"\n".into();
        let site = Site::at_one(&[release]).await?;
        site.node("w1")?.put("/var/platform/sick", b"", 0o644)?;
        let failed = site.upgrade(&[])?;
        assert_eq!(failed.status.code(), Some(22), "{}", text(&failed));
        untouched(&site)?;
        let boots = site.node("w1")?.boots();
        assert!(boots > 1, "it was never restarted");

        // The same command does not try it again, and says what does.
        let refused = site.upgrade(&[])?;
        assert_ne!(refused.status.code(), Some(0), "{}", text(&refused));
        assert!(text(&refused).contains("--force"), "{}", text(&refused));
        assert_eq!(site.node("w1")?.boots(), boots, "it was tried again");
        untouched(&site)
    }

    /// Enough for two releases, and little enough to be filled in a moment.
    const SMALL: u64 = 96 << 20;
    /// What holds the space that the steps to come need.
    const HELD: &str = "/var/stackato/upgrade/state/.kato-r*";

    #[tokio::test(flavor = "multi_thread")]
    async fn c13_a_disk_that_fills_stops_one_node_and_room_brings_it_home() -> Result<()> {
        let machines: [Machine; 3] = [
            ("core", &["primary"], None),
            ("c1", &["controller"], None),
            ("w1", &["dea"], Some(SMALL)),
        ];
        let mut release = two();
        release.modules.rotate_right(1);
        let site = Site::of(&machines, &[release]).await?;
        let w1 = site.node("w1")?;
        let fill = || w1.exec(&["dd", "if=/dev/zero", "of=/var/full", "bs=1M", "status=none"]);

        // Full before: found before anything is changed.
        fill()?;
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        assert!(text(&refused).contains("w1"), "{}", text(&refused));
        w1.ok(&["rm", "/var/full"])?;
        untouched(&site)?;

        // Full in the middle of it, on a file system that could not hold the space for the steps to come.
        site.hold_at("w1", "module")?;
        let mut run = site.begin()?;
        site.wait_at("w1", "module")?;
        w1.ok(&["sh", "-c", &format!("rm -f {HELD}")])?;
        fill()?;
        site.release("w1", "module")?;
        let finished = wait_event(&run, "cluster_finished")?;
        let code = run.ended(SOON)?.code();
        // It fails, and is said; the worker is back in service, nobody else was touched, and with room the same command ends it.
        assert_eq!(finished["exit"], "failed", "{finished}");
        assert_eq!(code, Some(21), "{}", run.log());
        assert!(run.log().contains("w1"), "{}", run.log());
        w1.ok(&["rm", "/var/full"])?;
        untouched(&site)?;
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c25_a_clock_that_is_an_hour_off_is_refused_in_both_directions() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        let w1 = site.node("w1")?;
        let program = w1.ok(&["readlink", "-f", KATO])?;
        for (shift, word) in [("3600", "ahead of"), ("-3600", "behind")] {
            w1.ok(&["rm", KATO])?;
            let script = format!(
                "#!/bin/sh\nexec env KATO_CLOCK_SHIFT={shift} {} \"$@\"\n",
                program.trim()
            );
            w1.put(KATO, script.as_bytes(), 0o755)?;
            let refused = site.upgrade(&[])?;
            assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
            let said = text(&refused);
            assert!(
                said.contains("w1: its clock is 3") && said.contains(word),
                "{said}"
            );
            assert!(site.artifact_requests().is_empty());
            untouched(&site)?;
        }
        // Where that is what the operator wants, it does no harm.
        site.append(
            "core",
            "/etc/kato/cluster.toml",
            "[preflight]\nclock_skew = \"2h\"\n",
        )?;
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])
    }
}
