//! What an upgrade opens for itself: the platform's licence limits, and the way in by sudo.

/// Needs root and namespaces.
mod as_root {
    use std::time::Duration;

    use anyhow::Result;
    use integration_tests::releases::{TestModule, TestRelease};

    use serde_json::Value;

    use crate::site::{KATO, Machine, Site, text, wait_event, with_gates};

    /// There while the limits are waived.
    const WAIVED: &str = "/var/platform/waived";
    const SCRIPT: &str = "#!/bin/sh\nset -eu\nmkdir -p /var/platform\ncase $1 in\n    waive) touch /var/platform/waived ;;\n    restore) rm -f /var/platform/waived ;;\nesac\n";

    async fn site() -> Result<Site> {
        let mut release = TestRelease::standard("2.0.0").with_payload(1 << 20);
        let late = TestModule::failing_until("late", "tmp/allowed");
        release.modules.push(late.for_roles(&["controller"]));
        let site = Site::at_one(&[release]).await?;
        site.node("core")?
            .put("/etc/kato/licence.sh", SCRIPT.as_bytes(), 0o755)?;
        Ok(site)
    }

    const FOUR: [Machine; 4] = [
        ("core", &["primary"], None),
        ("c1", &["controller"], None),
        ("w1", &["dea"], None),
        ("w2", &["dea"], None),
    ];

    /// A platform whose maintenance mode is a file on Core.
    const MODE: &str = "/var/platform/mode";
    const SWITCH: &str = "#!/bin/sh\nset -eu\nmkdir -p /var/platform\ncase $1 in\n    get) if test -e /var/platform/mode; then echo '{\"on\": true}'; else echo '{\"on\": false}'; fi ;;\n    on) touch /var/platform/mode ;;\n    off) rm -f /var/platform/mode ;;\nesac\n";

    /// Four machines, whose platform has a maintenance mode and licence limits.
    async fn site_of_four() -> Result<Site> {
        let two = with_gates(TestRelease::standard("2.0.0").with_payload(1 << 20), &["dea"]);
        let site = Site::of(&FOUR, &[two]).await?;
        let core = site.node("core")?;
        core.put("/etc/kato/licence.sh", SCRIPT.as_bytes(), 0o755)?;
        core.put("/etc/kato/mode.sh", SWITCH.as_bytes(), 0o755)?;
        let verb = |script: &str, verb: &str| {
            format!("{verb} = {{ argv = [\"/etc/kato/{script}.sh\", \"{verb}\"] }}\n")
        };
        let mut text = "[licence]\n".to_owned();
        text.extend(["waive", "restore"].map(|name| verb("licence", name)));
        text.push_str("[maintenance]\nauto = \"on\"\n");
        text.extend(["get", "on", "off"].map(|name| verb("mode", name)));
        site.append("core", "/etc/kato/kato.toml", &text)?;
        Ok(site)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r25_r06_r23_a_call_for_a_part_counts_the_run_that_is_at_work_and_ends_nothing_of_the_whole()
    -> Result<()> {
        let site = site_of_four().await?;
        let core = site.node("core")?;
        site.hold_at("w1", "module")?;
        let first = site.begin()?;
        site.wait_at("w1", "module")?;
        // Killed; the run of w1 goes on.
        drop(first);

        let refused = site.upgrade(&["--only", "w2"])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        for expected in [
            "no more than 1 may be (w1 is being upgraded)",
            "a run is at work on w1, and the platform's licence limits are waived since",
        ] {
            assert!(text(&refused).contains(expected), "{}", text(&refused));
        }
        let part = site.upgrade(&["--only", "c1"])?;
        assert_eq!(part.status.code(), Some(0), "{}", text(&part));
        assert!(
            text(&part).contains("maintenance mode stays on: the upgrade"),
            "{}",
            text(&part)
        );
        assert!(core.exists(MODE)? && core.exists(WAIVED)?, "{}", text(&part));
        assert_eq!(site.versions()?, ["1.0.0", "2.0.0", "1.0.0", "1.0.0"]);
        // Another version would replace the plan, and that is said.
        let other = core.exec(&[
            KATO,
            "node",
            "upgrade",
            "--cluster",
            "--plan",
            "--force",
            "--version",
            "2.0.0",
        ])?;
        assert!(
            text(&other).contains("this replaces the plan"),
            "{}",
            text(&other)
        );

        let told = core.exec(&[KATO, "status"])?;
        assert!(text(&told).contains("kato licence restore"), "{}", text(&told));
        let told: Value = serde_json::from_str(&core.ok(&[KATO, "status", "--json"])?)?;
        assert_eq!(told["licence"]["run"], told["plan"]["id"], "{told}");
        core.ok(&[KATO, "licence", "restore"])?;
        assert!(!core.exists(WAIVED)?);
        let shown: Value = serde_json::from_str(&core.ok(&[KATO, "licence", "show", "--json"])?)?;
        assert_eq!(shown["waived"], Value::Null, "{shown}");

        site.release("w1", "module")?;
        site.wait_idle()?;
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        assert!(!core.exists(MODE)? && !core.exists(WAIVED)?, "{}", text(&done));
        site.ends_with(&["2.0.0"; 4])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r19_r23_limits_are_restored_on_every_way_out_and_the_open_way_in_is_named() -> Result<()> {
        let site = site().await?;
        let core = site.node("core")?;
        let verb = |verb: &str| format!("{verb} = {{ argv = [\"/etc/kato/licence.sh\", \"{verb}\"] }}\n");
        // Waived for good is refused before anything is done.
        site.append(
            "core",
            "/etc/kato/kato.toml",
            &format!("[licence]\n{}", verb("waive")),
        )?;
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        assert!(
            text(&refused).contains("`[licence].restore` is not"),
            "{}",
            text(&refused)
        );
        assert!(!core.exists(WAIVED)?);
        site.append("core", "/etc/kato/kato.toml", &verb("restore"))?;

        // Killed: they stay waived, and the next call, which fails, restores them.
        site.hold_worker()?;
        let first = site.begin()?;
        site.wait_held()?;
        assert!(core.exists(WAIVED)?);
        drop(first);
        assert!(core.exists(WAIVED)?);
        let mut second = site.begin()?;
        wait_event(&second, "node_attached")?;
        site.release_worker()?;
        assert_eq!(wait_event(&second, "cluster_finished")?["exit"], "partial");
        assert_eq!(
            second.ended(Duration::from_secs(30))?.code(),
            Some(24),
            "{}",
            second.log()
        );
        assert!(!core.exists(WAIVED)?, "{}", second.log());
        assert!(
            !second.log().contains("without a password"),
            "said before success: {}",
            second.log()
        );

        site.node("c1")?.ok(&["touch", "/tmp/allowed"])?;
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        assert!(!core.exists(WAIVED)?);
        assert!(
            text(&done).contains("sudo still lets Core in without a password on c1, w1"),
            "{}",
            text(&done)
        );
        let audit = core.ok(&[KATO, "audit", "show"])?;
        for deed in ["licence limits waived", "licence limits restored"] {
            assert!(audit.contains(deed), "{deed}: {audit}");
        }
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])
    }
}
