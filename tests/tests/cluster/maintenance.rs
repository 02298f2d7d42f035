//! The platform's maintenance mode around an upgrade of the cluster.

/// Needs root and namespaces.
mod as_root {
    use anyhow::Result;
    use integration_tests::releases::{TestModule, TestRelease};
    use serde_json::Value;

    use crate::site::{CLUSTER, KATO, PATIENCE, Site, text, wait_event};

    /// A platform whose mode is a file on Core.
    const MODE: &str = "/var/platform/maintenance";
    const SCRIPT: &str = r#"#!/bin/sh
set -eu
mkdir -p /var/platform
case $1 in
    get) if test -e /var/platform/maintenance; then echo '{"on": true}'; else echo '{"on": false}'; fi ;;
    on) touch /var/platform/maintenance ;;
    off) rm -f /var/platform/maintenance ;;
esac
"#;

    async fn site(auto: &str) -> Result<Site> {
        site_with(auto, TestRelease::standard("2.0.0").with_payload(2 << 20)).await
    }

    async fn site_with(auto: &str, release: TestRelease) -> Result<Site> {
        let site = Site::at_one(&[release]).await?;
        let core = site.node("core")?;
        core.put("/etc/kato/maintenance.sh", SCRIPT.as_bytes(), 0o755)?;
        let mut settings = core.read("/etc/kato/kato.toml")?;
        settings.extend_from_slice(format!("[maintenance]\nauto = \"{auto}\"\n").as_bytes());
        for verb in ["get", "on", "off"] {
            let line = format!("{verb} = {{ argv = [\"/etc/kato/maintenance.sh\", \"{verb}\"] }}\n");
            settings.extend_from_slice(line.as_bytes());
        }
        core.put("/etc/kato/kato.toml", &settings, 0o644)?;
        Ok(site)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r06_it_is_turned_on_kept_over_a_kill_and_put_back_at_the_end() -> Result<()> {
        let site = site("on").await?;
        let core = site.node("core")?;
        site.hold_worker()?;
        let first = site.begin()?;
        site.wait_held()?;
        assert!(core.exists(MODE)?);
        // SIGKILL.
        drop(first);
        let shown: Value = serde_json::from_str(&core.ok(&[KATO, "maintenance", "show", "--json"])?)?;
        assert_eq!(shown["on"], true, "{shown}");
        assert!(shown["because_of"]["run"].is_string(), "{shown}");

        let second = site.begin()?;
        wait_event(&second, "node_attached")?;
        site.release_worker()?;
        assert_eq!(wait_event(&second, "cluster_finished")?["exit"], "done");
        let mut second = second;
        assert_eq!(
            second.ended(std::time::Duration::from_secs(30))?.code(),
            Some(0),
            "{}",
            second.log()
        );
        assert!(!core.exists(MODE)?, "maintenance mode was left on");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r06_killed_at_any_place_the_same_command_puts_it_back_in_the_end() -> Result<()> {
        let site = site("on").await?;
        let core = site.node("core")?;
        // Each call begins where the one before was killed; the last place is behind the last node.
        for (place, is_on) in [
            ("lease.taken", false),
            ("maintenance.owned", false),
            ("maintenance.on", true),
            ("maintenance.off", false),
        ] {
            let kill = format!("KATO_KILL_AT={place}");
            let argv: Vec<&str> = ["env", kill.as_str()].into_iter().chain(CLUSTER).collect();
            let killed = core.exec_within(PATIENCE, &argv, &[])?;
            assert!(!killed.status.success(), "{place}: {}", text(&killed));
            assert_eq!(core.exists(MODE)?, is_on, "{place}");
        }
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        assert_eq!(site.versions()?, ["2.0.0", "2.0.0", "2.0.0"]);
        assert!(!core.exists(MODE)?);
        assert!(!core.exists("/var/stackato/upgrade/state/maintenance.json")?);
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r05_after_a_failure_it_stays_on_and_the_way_off_is_open() -> Result<()> {
        let mut release = TestRelease::standard("2.0.0");
        let late = TestModule::failing_until("late", "tmp/never");
        release.modules.push(late.for_roles(&["controller"]));
        let site = site_with("on", release).await?;
        let core = site.node("core")?;
        let failed = site.upgrade(&[])?;
        assert_eq!(failed.status.code(), Some(24), "{}", text(&failed));
        assert!(
            text(&failed).contains("maintenance mode is on since")
                && text(&failed).contains("kato maintenance off"),
            "{}",
            text(&failed)
        );
        assert!(core.exists(MODE)?);
        // Neither the inventory nor the nodes are needed.
        core.ok(&["mv", "/etc/kato/cluster.toml", "/etc/kato/cluster.away"])?;
        core.ok(&[KATO, "maintenance", "off"])?;
        assert!(!core.exists(MODE)?);
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r03_where_it_must_be_on_and_is_not_nothing_is_changed() -> Result<()> {
        let site = site("verify").await?;
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        assert!(
            text(&refused).contains("kato maintenance on"),
            "{}",
            text(&refused)
        );
        assert_eq!(site.versions()?, ["1.0.0", "1.0.0", "1.0.0"]);

        site.node("core")?.ok(&[KATO, "maintenance", "on"])?;
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        // What the operator turned on, the operator turns off, and is reminded.
        assert!(text(&done).contains("as it was before"), "{}", text(&done));
        assert!(site.node("core")?.exists(MODE)?);
        Ok(())
    }
}
