//! What an upgrade opens for itself: the platform's licence limits, and the way in by sudo.

/// Needs root and namespaces.
mod as_root {
    use std::time::Duration;

    use anyhow::Result;
    use integration_tests::releases::{TestModule, TestRelease};

    use crate::site::{KATO, Site, text, wait_event};

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
