//! How Core gets at nodes: sudo by a narrow rule, passwords where there is none, and nothing at all asked where nobody is.

/// Needs root and namespaces.
mod as_root {
    use anyhow::Result;

    use crate::site::{KATO, Site, text};

    /// Any command, with a password.
    const WITH_PASSWORD: &str = "stackato ALL = (root) ALL\n";

    /// The node's own settings file, and one that a hostile user wrote.
    const OWN: &str = "/etc/kato/kato.toml";
    const OTHER: &str = "/tmp/other.toml";

    const SUDOERS: &str = "/etc/sudoers.d/kato";

    /// `kato node list` on Core at a terminal where somebody types `typed`.
    fn list_at_terminal(site: &Site, typed: &str) -> Result<std::process::Output> {
        let line = format!("printf '{typed}' | script -qec '{KATO} node list' /dev/null");
        site.node("core")?.exec(&["sh", "-c", &line])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r17_the_narrow_rule_lets_core_do_its_work_and_nothing_else() -> Result<()> {
        let site = Site::at_one(&[]).await?;
        let w1 = site.node("w1")?;
        w1.ok(&["visudo", "-cf", SUDOERS])?;
        let by_sudo = |words: &[&str]| {
            let mut argv = vec!["runuser", "-u", "stackato", "--", "sudo", "-n"];
            argv.extend(words);
            w1.exec(&argv)
        };
        for allowed in [
            &["node", "upgrade", "--status", "--json"][..],
            &["--fence", "7", "node", "upgrade", "--status"],
            &["node", "events", "--after", "0"],
            &["patch", "status", "--local", "--json"],
        ] {
            let words: Vec<&str> = [KATO, "--config", OWN].iter().chain(allowed).copied().collect();
            let output = by_sudo(&words)?;
            assert_eq!(output.status.code(), Some(0), "{words:?}: {}", text(&output));
        }
        for refused in [
            &["id"][..],
            &[KATO, "node", "upgrade", "--status"],
            &[KATO, "--config", OTHER, "node", "upgrade", "--status"],
            &[
                KATO, "--config", OWN, "node", "upgrade", "--status", "--config", OTHER,
            ],
            &[
                KATO,
                "--config",
                OWN,
                "node",
                "upgrade",
                "--status",
                "--config=/tmp/other.toml",
            ],
            &[
                KATO,
                "--config",
                OWN,
                "node",
                "upgrade",
                "--status --config /tmp/other.toml",
            ],
            &[KATO, "--config", OWN, "node", "restore"],
            &[KATO, "--config", OWN, "lock", "break", "--reason", "x"],
        ] {
            let output = by_sudo(refused)?;
            assert_eq!(output.status.code(), Some(1), "{refused:?}: {}", text(&output));
            assert!(text(&output).contains("sudo:"), "{refused:?}: {}", text(&output));
        }
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r17_passwords_are_asked_for_once_and_where_nobody_is_nobody_is_asked() -> Result<()> {
        let site = Site::at_one(&[]).await?;
        for name in ["c1", "w1"] {
            let node = site.node(name)?;
            node.put(SUDOERS, WITH_PASSWORD.as_bytes(), 0o440)?;
            node.ok(&["sh", "-c", "echo stackato:sesame | chpasswd"])?;
        }
        // No key either: ssh asks as well.
        site.node("w1")?
            .ok(&["rm", "/home/stackato/.ssh/authorized_keys"])?;

        // Without a terminal: findings, and nothing waits for an answer.
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        let said = text(&refused);
        assert!(said.contains("not ready to be upgraded: c1, w1"), "{said}");
        assert!(
            said.contains("NOPASSWD") && said.contains("Permission denied"),
            "{said}"
        );

        // With one: sudo on c1, ssh to w1, sudo on w1; each once.
        let listed = list_at_terminal(&site, "sesame\\nsesame\\nsesame\\n")?;
        let said = text(&listed);
        assert_eq!(listed.status.code(), Some(0), "{said}");
        assert_eq!(said.matches("password for sudo on ").count(), 2, "{said}");
        assert_eq!(said.matches("'s password: ").count(), 1, "{said}");
        assert_eq!(said.matches("1.0.0").count(), 3, "{said}");

        // A wrong one is found out at once, and asked for again.
        site.node("w1")?
            .ok(&["sh", "-c", "echo stackato:sesame | chpasswd"])?;
        let listed = list_at_terminal(&site, "sesame\\nguess\\nsesame\\nsesame\\nsesame\\n")?;
        let said = text(&listed);
        assert_eq!(said.matches("1.0.0").count(), 3, "{said}");
        assert!(
            said.contains("does not take this password") || said.matches("'s password: ").count() == 2,
            "{said}"
        );
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r17_one_password_does_for_all_nodes_on_request() -> Result<()> {
        let site = Site::at_one(&[]).await?;
        for name in ["c1", "w1"] {
            let node = site.node(name)?;
            node.put(SUDOERS, WITH_PASSWORD.as_bytes(), 0o440)?;
            node.ok(&["sh", "-c", "echo stackato:sesame | chpasswd"])?;
        }
        site.node("core")?.ok(&[
            "sed",
            "-i",
            "s/^\\[ssh\\]/[ssh]\\none_password = true/",
            "/etc/kato/cluster.toml",
        ])?;
        let listed = list_at_terminal(&site, "sesame\\n")?;
        let said = text(&listed);
        assert_eq!(said.matches("password for sudo on ").count(), 1, "{said}");
        assert_eq!(said.matches("1.0.0").count(), 3, "{said}");
        Ok(())
    }
}
