//! A cluster of three machines, upgraded from Core over ssh by the one command that an operator types.

mod access;
mod agents;
mod batches;
mod changed;
mod failures;
mod licence;
mod maintenance;
mod offline;
mod orchestrators;
mod patches;
mod planned;
mod service;
mod site;
mod status;
mod steps;
mod ten;
mod way;

/// Needs root and namespaces.
mod as_root {
    use anyhow::Result;
    use integration_tests::releases::{TestModule, TestRelease};
    use serde_json::Value;

    use crate::site::{self, Site, text, wait_event};

    fn two() -> TestRelease {
        TestRelease::standard("2.0.0").with_payload(2 << 20)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r24_r30_the_whole_cluster_in_order_with_every_file_fetched_once() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;

        // Off Core it is refused with Core's address, and nothing happens.
        let refused = site.node("w1")?.exec(&site::CLUSTER)?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        let core = site.node("core")?.address().to_string();
        assert!(text(&refused).contains(&core), "{}", text(&refused));

        // Without a terminal and without the flag nobody has said yes.
        let unasked = site.node("core")?.exec(&site::CLUSTER[..4])?;
        assert_eq!(unasked.status.code(), Some(2), "{}", text(&unasked));

        // A plan changes nothing.
        let plan = site.upgrade(&["--plan"])?;
        assert_eq!(plan.status.code(), Some(0), "{}", text(&plan));
        assert!(text(&plan).contains("Core, always last"), "{}", text(&plan));
        assert_eq!(site.versions()?, ["1.0.0", "1.0.0", "1.0.0"]);

        let done = site.upgrade(&["--json"])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        let lines: Vec<Value> = String::from_utf8(done.stdout)?
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        let finished: Vec<&str> = lines
            .iter()
            .filter(|line| line["event"] == "node_finished")
            .filter_map(|line| line["node"].as_str())
            .collect();
        assert_eq!(finished, ["w1", "c1", "core"]);
        assert_eq!(
            lines.last().map(|line| &line["event"]),
            Some(&"cluster_finished".into())
        );
        assert_eq!(site.versions()?, ["2.0.0", "2.0.0", "2.0.0"]);

        // Four modules; three nodes; one request each.
        let requests = site.artifact_requests();
        assert_eq!(requests.len(), 4, "{:?}", site.host.requests());
        assert!(requests.values().all(|count| *count == 1), "{requests:?}");

        // Again: nothing to do, and no node is started.
        let again = site.upgrade(&[])?;
        assert_eq!(again.status.code(), Some(0), "{}", text(&again));
        assert!(
            text(&again).contains("every node is at 2.0.0 already"),
            "{}",
            text(&again)
        );
        assert_eq!(site.upgrades_of("w1")?.len(), 2);
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c21_a_connection_that_is_lost_in_the_middle_is_taken_up_again() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        site.hold_worker()?;
        let run = site.begin()?;
        site.wait_held()?;

        site.node("w1")?.cut()?;
        assert_eq!(wait_event(&run, "node_lost")?["node"], "w1");
        // The node goes on alone, to its end.
        site.release_worker()?;
        site.wait_idle()?;
        site.node("w1")?.heal()?;

        assert_eq!(wait_event(&run, "node_back")?["node"], "w1");
        let finished = wait_event(&run, "cluster_finished")?;
        assert_eq!(finished["exit"], "done", "{finished}");
        assert_eq!(site.versions()?, ["2.0.0", "2.0.0", "2.0.0"]);
        assert_eq!(site.upgrades_of("w1")?.len(), 2, "one for 1.0.0, one for 2.0.0");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r56_a_killed_orchestrator_is_followed_by_the_same_command() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        site.hold_worker()?;
        let first = site.begin()?;
        site.wait_held()?;
        let begun = site.status("w1")?["run"].clone();
        // Beside it there is no second one.
        let beside = site.upgrade(&[])?;
        assert_eq!(beside.status.code(), Some(25), "{}", text(&beside));
        // SIGKILL.
        drop(first);

        let second = site.begin()?;
        assert_eq!(wait_event(&second, "node_attached")?["run"], begun);
        site.release_worker()?;
        let finished = wait_event(&second, "cluster_finished")?;
        assert_eq!(finished["exit"], "done", "{finished}");
        assert_eq!(site.versions()?, ["2.0.0", "2.0.0", "2.0.0"]);
        assert_eq!(site.upgrades_of("w1")?.len(), 2, "one for 1.0.0, one for 2.0.0");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r63_a_worker_is_retired_and_put_back_from_core() -> Result<()> {
        let site = Site::at_one(&[]).await?;
        let core = site.node("core")?;
        let retired = core.ok(&[site::KATO, "node", "retire", "--node", "w1", "--json"])?;
        let retired: Value = serde_json::from_str(&retired)?;
        assert_eq!(
            (&retired["node"], &retired["out_of_service"]),
            (&"w1".into(), &true.into())
        );
        assert_eq!(site.status("w1")?["retired_by"], "hand");
        let address = site.node("w1")?.address().to_string();
        core.ok(&[site::KATO, "node", "rejoin", "--node", &address])?;
        assert_eq!(site.status("w1")?["out_of_service"], false);
        let unknown = core.exec(&[site::KATO, "node", "rejoin", "--node", "w9"])?;
        assert_eq!(unknown.status.code(), Some(2), "{}", text(&unknown));
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r34_every_node_updates_its_kato_first_and_core_goes_on_watching() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let release = two().with_upgrader(&Site::other_kato(folder.path())?, env!("CARGO_PKG_VERSION"));
        let site = Site::at_one(&[release]).await?;
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        assert_eq!(site.versions()?, ["2.0.0", "2.0.0", "2.0.0"]);
        for name in ["core", "c1", "w1"] {
            let program = site.node(name)?.ok(&["readlink", "-f", site::KATO])?;
            assert!(
                program.starts_with("/var/stackato/upgrade/bin/"),
                "{name} has {program}"
            );
        }
        // Three nodes took it, one request brought it.
        let requests = site.host.requests();
        let of_kato: Vec<_> = requests
            .iter()
            .filter(|(path, _)| path.contains("upgrader-"))
            .collect();
        assert_eq!(of_kato.len(), 1, "{requests:?}");
        assert_eq!(*of_kato[0].1, 1, "{requests:?}");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r41_machines_that_restart_are_waited_for_and_core_is_resumed_by_the_same_command() -> Result<()>
    {
        let mut release = two();
        release.head = "restart = \"reboot\"\n".into();
        let site = Site::at_one(&[release]).await?;
        // Core restarts last, and this command with it.
        let run = site.begin()?;
        assert_eq!(wait_event(&run, "node_finished")?["node"], "w1");
        assert_eq!(wait_event(&run, "node_finished")?["node"], "c1");
        site.node("core")?.wait_boots(2)?;
        drop(run);
        assert_eq!((site.node("w1")?.boots(), site.node("c1")?.boots()), (2, 2));

        let resumed = site.upgrade(&[])?;
        assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed));
        assert_eq!(site.versions()?, ["2.0.0", "2.0.0", "2.0.0"]);
        assert_eq!(site.node("core")?.boots(), 2, "Core was restarted twice");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r54_a_failing_node_stops_the_run_and_the_same_command_resumes() -> Result<()> {
        let mut release = two();
        let late = TestModule::failing_until("late", "tmp/allowed");
        release.modules.push(late.for_roles(&["controller"]));
        let site = Site::at_one(&[release]).await?;
        let c1 = site.node("c1")?;

        let failed = site.upgrade(&[])?;
        assert_eq!(failed.status.code(), Some(24), "{}", text(&failed));
        assert!(
            text(&failed).contains("c1 failed at module:late"),
            "{}",
            text(&failed)
        );
        assert_eq!(site.versions()?, ["1.0.0", "1.0.0", "2.0.0"]);
        assert_eq!(site.upgrades_of("core")?.len(), 1, "Core was touched");

        c1.ok(&["touch", "/tmp/allowed"])?;
        let resumed = site.upgrade(&["--json"])?;
        assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed));
        assert!(text(&resumed).contains("\"node_skipped\""), "{}", text(&resumed));
        assert_eq!(site.versions()?, ["2.0.0", "2.0.0", "2.0.0"]);
        assert_eq!(site.upgrades_of("w1")?.len(), 2, "w1 was done twice");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c25_everything_that_is_in_the_way_is_said_at_once_and_nothing_is_changed() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        site.node("c1")?.ok(&["rm", "/etc/sudoers.d/kato"])?;
        site.node("w1")?.cut()?;
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        let said = text(&refused);
        assert!(
            said.contains("c1: asking `sudo -n /home/stackato/bin/kato`"),
            "{said}"
        );
        assert!(said.contains("w1: no connection to w1"), "{said}");
        assert!(said.contains("not ready to be upgraded: c1, w1"), "{said}");
        site.node("w1")?.heal()?;
        assert_eq!(site.versions()?, ["1.0.0", "1.0.0", "1.0.0"]);
        assert!(site.artifact_requests().is_empty());
        Ok(())
    }
}
